// Pictures from and to files, by OpenCV or stb where the build found one of them; PPM always.

#pragma once

#include <algorithm>
#include <cstdint>
#include <cstdio>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <limits>
#include <stdexcept>
#include <string>
#include <vector>

#include "exif.h"

#if defined(FASTCAM_OPENCV)
#include <opencv2/imgcodecs.hpp>
#include <opencv2/imgproc.hpp>
#elif defined(FASTCAM_STB)
#define STB_IMAGE_IMPLEMENTATION
#define STB_IMAGE_WRITE_IMPLEMENTATION
#if defined(__GNUC__)
#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Wmissing-field-initializers"
#endif
#include <stb_image.h>
#include <stb_image_write.h>
#if defined(__GNUC__)
#pragma GCC diagnostic pop
#endif
#endif

namespace fastcam::example {

struct Picture {  // 8-bit RGB
    std::int32_t height = 0, width = 0;
    std::vector<std::uint8_t> pixels;
};

inline bool ends_with(const std::string& text, const std::string& end) {
    return text.size() >= end.size() && text.compare(text.size() - end.size(), end.size(), end) == 0;
}

inline Picture read_ppm(const std::string& path) {
    std::ifstream file(path, std::ios::binary);
    std::string magic;
    Picture out;
    int most = 0;
    file >> magic >> out.width >> out.height >> most;
    file.get();
    const bool sound = file && magic == "P6" && most == 255 && out.width > 0 && out.height > 0 && out.width < 32768 &&
                       out.height < 32768;
    if (sound) {
        out.pixels.resize(static_cast<std::size_t>(3) * out.width * out.height);
        file.read(reinterpret_cast<char*>(out.pixels.data()), static_cast<std::streamsize>(out.pixels.size()));
    }
    if (!sound || !file) throw std::runtime_error(path + ": no PPM picture (P6, 255) that can be read");
    return out;
}

inline Picture read_picture(const std::string& path) {
    if (ends_with(path, ".ppm")) return read_ppm(path);
#if defined(FASTCAM_OPENCV)
    cv::Mat image = cv::imread(path, cv::IMREAD_COLOR);
    if (image.empty()) throw std::runtime_error(path + ": no picture that OpenCV can decode");
    cv::cvtColor(image, image, cv::COLOR_BGR2RGB);
    return {image.rows, image.cols, {image.datastart, image.dataend}};
#elif defined(FASTCAM_STB)
    if (std::filesystem::is_directory(path)) throw std::runtime_error(path + ": a folder");
    std::ifstream file(path, std::ios::binary);
    const std::vector<std::uint8_t> data((std::istreambuf_iterator<char>(file)), std::istreambuf_iterator<char>());
    if (data.empty()) throw std::runtime_error(path + ": no such file, or nothing in it");
    if (data.size() > static_cast<std::size_t>(std::numeric_limits<int>::max())) throw std::runtime_error(path + ": too large a file");
    int width = 0, height = 0, channels = 0;
    stbi_uc* pixels = stbi_load_from_memory(data.data(), static_cast<int>(data.size()), &width, &height, &channels, 3);
    if (pixels == nullptr) throw std::runtime_error(path + ": " + stbi_failure_reason());
    Picture out{height, width, {}};
    out.pixels = turned(pixels, out.height, out.width, orientation({data.data(), data.size()}));  // as OpenCV does it
    stbi_image_free(pixels);
    return out;
#else
    throw std::runtime_error(path + ": this build reads .ppm alone; build it where CMake finds OpenCV or stb");
#endif
}

inline void write_picture(const std::string& path, const Picture& picture) {
    if (ends_with(path, ".ppm")) {
        std::ofstream file(path, std::ios::binary);
        file << "P6\n" << picture.width << ' ' << picture.height << "\n255\n";
        file.write(reinterpret_cast<const char*>(picture.pixels.data()), static_cast<std::streamsize>(picture.pixels.size()));
        if (!file.flush()) throw std::runtime_error(path + ": cannot be written");
        return;
    }
    bool written = false;
#if defined(FASTCAM_OPENCV)
    cv::Mat image(picture.height, picture.width, CV_8UC3, const_cast<std::uint8_t*>(picture.pixels.data())), bgr;
    cv::cvtColor(image, bgr, cv::COLOR_RGB2BGR);
    written = cv::imwrite(path, bgr);
#elif defined(FASTCAM_STB)
    if (ends_with(path, ".jpg")) {
        written = stbi_write_jpg(path.c_str(), picture.width, picture.height, 3, picture.pixels.data(), 90) != 0;
    } else if (ends_with(path, ".png")) {
        written = stbi_write_png(path.c_str(), picture.width, picture.height, 3, picture.pixels.data(), 3 * picture.width) != 0;
    }
#endif
    if (!written) throw std::runtime_error(path + ": cannot be written; this build writes .ppm, and .png and .jpg with OpenCV or stb");
}

// The outline of a box, black around white.
inline void draw_box(Picture& picture, const float* box) {
    const int line = std::max(2, std::min(picture.width, picture.height) / 150);
    const int x0 = static_cast<int>(box[0]), y0 = static_cast<int>(box[1]);
    const int x1 = static_cast<int>(box[2] + 0.5f), y1 = static_cast<int>(box[3] + 0.5f);
    for (int y = std::max(0, y0 - line); y < std::min(picture.height, y1 + line); ++y) {
        for (int x = std::max(0, x0 - line); x < std::min(picture.width, x1 + line); ++x) {
            const int from_edge = std::min(std::min(x - x0, x1 - 1 - x), std::min(y - y0, y1 - 1 - y));  // inside: >= 0
            if (from_edge >= line) continue;
            std::uint8_t* pixel = &picture.pixels[3 * (static_cast<std::size_t>(y) * picture.width + x)];
            pixel[0] = pixel[1] = pixel[2] = from_edge >= -line / 2 && from_edge < line / 2 + 1 ? 255 : 0;
        }
    }
}

}  // namespace fastcam::example
