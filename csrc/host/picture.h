// What a host without Python does with a picture: into the network's input, as an exported file's metadata says it, and
// back to the picture's own pixels. fastcam/image/preprocess.py defines the results; the input has the same bits.
//
// Header only, on top of fastcam/cam.h. Pictures are 8-bit RGB, [height, width, 3], without gaps between the rows.

#pragma once

#include <algorithm>
#include <array>
#include <cmath>
#include <cstdint>
#include <vector>

#include "fastcam/cam.h"

namespace fastcam::host {

struct Size {
    std::int32_t height, width;
};

struct Rect {  // half-open
    std::int32_t x0, y0, x1, y1;
    Size size() const { return {y1 - y0, x1 - x0}; }
};

enum class Resize : int { stretch, crop, letterbox };
enum class Color : int { rgb, bgr, gray };

// x = (pixel * scale - mean) / std, see "Preprocessing" in docs/reference/file.md.
struct Preprocessing {
    Resize resize = Resize::stretch;
    double crop_fraction = 0.875;
    Color color = Color::rgb;
    double scale = 1;
    std::array<double, 3> mean{}, std{1, 1, 1};  // of a channel of the model; of grey the first
    bool channels_last = false;
    double pad_value = 114;

    int channels() const { return color == Color::gray ? 1 : 3; }
};

// Which rectangle of the picture became which rectangle of the network's input.
struct Geometry {
    Size original, network;
    Rect source, target;
};

// The rectangle of the inner size, rounded to even halves and at least one pixel, in the middle.
inline Rect centred(Size outer, double inner_height, double inner_width) {
    const auto w = std::min(outer.width, std::max(1, static_cast<std::int32_t>(std::nearbyint(inner_width))));
    const auto h = std::min(outer.height, std::max(1, static_cast<std::int32_t>(std::nearbyint(inner_height))));
    const std::int32_t x = (outer.width - w) / 2, y = (outer.height - h) / 2;
    return {x, y, x + w, y + h};
}

inline Geometry fit(Size original, Size network, const Preprocessing& how) {
    const double oh = original.height, ow = original.width, nh = network.height, nw = network.width;
    Geometry found{original, network, {0, 0, original.width, original.height}, {0, 0, network.width, network.height}};
    if (how.resize == Resize::crop) {
        const double scale = std::min(ow / nw, oh / nh) * how.crop_fraction;
        found.source = centred(original, nh * scale, nw * scale);
    } else if (how.resize == Resize::letterbox) {
        const double scale = std::min(nw / ow, nh / oh);
        found.target = centred(network, oh * scale, ow * scale);
    }
    return found;
}

// A box in pixels of the network's input -> one in pixels of the picture, clipped to it.
inline std::array<float, 4> to_original(const Geometry& g, const std::int32_t* box) {
    const double sx = static_cast<double>(g.source.x1 - g.source.x0) / (g.target.x1 - g.target.x0);
    const double sy = static_cast<double>(g.source.y1 - g.source.y0) / (g.target.y1 - g.target.y0);
    std::array<float, 4> out{};
    for (int i = 0; i < 4; ++i) {
        const bool x = i % 2 == 0;
        const double moved = (box[i] - (x ? g.target.x0 : g.target.y0)) * (x ? sx : sy) + (x ? g.source.x0 : g.source.y0);
        out[i] = static_cast<float>(std::min(std::max(moved, 0.0), double(x ? g.original.width : g.original.height)));
    }
    return out;
}

namespace detail {

// Where an enlarged axis reads: two neighbours and their weights in 2048ths, as OpenCV's INTER_LINEAR of bytes.
struct Taps {
    std::vector<std::int32_t> first, second, near, far;

    // `inside`: a place beyond the edge takes the edge's pixel alone; else twice, in two roundings.
    Taps(std::int32_t in, std::int32_t out, bool inside) : first(out), second(out), near(out), far(out) {
        const double step = static_cast<double>(in) / out;
        for (std::int32_t i = 0; i < out; ++i) {
            float place = static_cast<float>((i + 0.5) * step - 0.5);
            auto left = static_cast<std::int32_t>(std::floor(place));
            place -= static_cast<float>(left);
            if (inside && (left < 0 || left >= in - 1)) place = 0;
            first[i] = std::min(std::max(left, 0), in - 1);
            second[i] = std::min(std::max(left + 1, 0), in - 1);
            near[i] = static_cast<std::int32_t>(std::nearbyint((1.0f - place) * 2048.0f));
            far[i] = static_cast<std::int32_t>(std::nearbyint(place * 2048.0f));
        }
    }
};

using Bytes = std::vector<std::uint8_t>;

// Bytes [from, 3] -> [to, 3], bilinear.
inline Bytes enlarge(const Bytes& pixels, Size from, Size to) {
    const Taps x(from.width, to.width, true), y(from.height, to.height, false);
    const std::size_t row = static_cast<std::size_t>(to.width) * 3;
    std::vector<std::int32_t> upper(row), lower(row);
    Bytes out(row * static_cast<std::size_t>(to.height));
    const auto stretch = [&](std::int32_t line, std::vector<std::int32_t>& into) {
        const std::uint8_t* source = pixels.data() + static_cast<std::size_t>(line) * from.width * 3;
        for (std::int32_t i = 0; i < to.width; ++i) {
            for (int c = 0; c < 3; ++c) {
                into[3 * i + c] = source[3 * x.first[i] + c] * x.near[i] + source[3 * x.second[i] + c] * x.far[i];
            }
        }
    };
    std::int32_t upper_is = -1, lower_is = -1;
    for (std::int32_t j = 0; j < to.height; ++j) {
        if (upper_is != y.first[j]) {
            if (lower_is == y.first[j]) {
                upper.swap(lower);
                std::swap(upper_is, lower_is);
            } else {
                stretch(upper_is = y.first[j], upper);
            }
        }
        if (lower_is != y.second[j]) stretch(lower_is = y.second[j], lower);
        for (std::size_t i = 0; i < row; ++i) {
            const std::int32_t a = (y.near[j] * (upper[i] >> 4)) >> 16, b = (y.far[j] * (lower[i] >> 4)) >> 16;
            out[static_cast<std::size_t>(j) * row + i] = static_cast<std::uint8_t>((a + b + 2) >> 2);
        }
    }
    return out;
}

// The same, by the kernel that shrinks; false where the kernel refuses the sizes.
inline bool shrink(const std::uint8_t* pixels, Size from, std::int64_t stride, Size to, const float* factor,
                   const float* shift, float* out, const std::int64_t* strides) {
    std::vector<std::uint64_t> scratch(fastcam_prepare_scratch(from.width, to.width) / 8 + 1);
    return fastcam_prepare(pixels, from.height, from.width, stride, to.height, to.width, factor, shift, scratch.data(),
                           out, strides) == FASTCAM_SUCCESS;
}

// Bytes of a rectangle at another size, each axis shrunk by area or enlarged; grey has three equal channels.
inline bool resized(const std::uint8_t* pixels, Size from, std::int64_t stride, Size to, Bytes& out) {
    const Size small{std::min(from.height, to.height), std::min(from.width, to.width)};
    const float one[3] = {1, 1, 1}, zero[3] = {0, 0, 0};
    const std::int64_t strides[3] = {3 * small.width, 3, 1};
    std::vector<float> values(static_cast<std::size_t>(3) * small.height * small.width);
    if (!shrink(pixels, from, stride, small, one, zero, values.data(), strides)) return false;
    out.resize(values.size());
    std::transform(values.begin(), values.end(), out.begin(), [](float v) { return static_cast<std::uint8_t>(v); });
    if (small.height != to.height || small.width != to.width) out = enlarge(out, small, to);
    return true;
}

inline Bytes grey(const std::uint8_t* pixels, std::size_t area) {
    Bytes out(3 * area);
    for (std::size_t i = 0; i < area; ++i) {
        const std::uint8_t* p = pixels + 3 * i;
        const auto value = static_cast<std::uint8_t>((p[0] * 9798 + p[1] * 19235 + p[2] * 3735 + (1 << 14)) >> 15);
        out[3 * i] = out[3 * i + 1] = out[3 * i + 2] = value;
    }
    return out;
}

}  // namespace detail

// The network's input [channels, height, width], or channels last, of a picture. False where more than 65536 pixels
// would become one.
inline bool prepare(const std::uint8_t* picture, const Geometry& g, const Preprocessing& how, float* out) {
    using namespace detail;
    const int channels = how.channels();
    const Size seen = g.source.size(), placed = g.target.size();
    if (static_cast<double>(seen.height) * seen.width > 65536.0 * placed.height * placed.width) return false;
    const std::int64_t stride = 3 * static_cast<std::int64_t>(g.original.width), W = g.network.width;
    std::int64_t steps[3] = {W, 1, W * g.network.height};  // of rows, columns, channels
    if (how.channels_last) steps[0] = W * channels, steps[1] = channels, steps[2] = 1;
    float factor[3], shift[3];  // of the model's channels
    for (int c = 0; c < 3; ++c) {
        factor[c] = static_cast<float>(how.scale / how.std[c]);
        shift[c] = static_cast<float>(how.mean[c] / how.std[c]);
    }
    if (placed.height != g.network.height || placed.width != W) {  // bars
        for (int c = 0; c < channels; ++c) {
            const float bar = static_cast<float>(how.pad_value) * factor[c] - shift[c];
            for (std::int64_t y = 0; y < g.network.height; ++y) {
                for (std::int64_t x = 0; x < W; ++x) out[y * steps[0] + x * steps[1] + c * steps[2]] = bar;
            }
        }
    }
    float* first = out + g.target.y0 * steps[0] + g.target.x0 * steps[1];
    const bool grows = placed.height > seen.height || placed.width > seen.width, gray = channels == 1;
    Bytes grey_picture;
    if (gray) picture = (grey_picture = grey(picture, static_cast<std::size_t>(g.original.height) * g.original.width)).data();
    const std::uint8_t* corner = picture + g.source.y0 * stride + 3 * g.source.x0;
    const bool bgr = how.color == Color::bgr;
    if (!grows && !gray) {  // in one pass, written where it belongs
        if (bgr) {
            first += 2 * steps[2];
            steps[2] = -steps[2];
            std::swap(factor[0], factor[2]);
            std::swap(shift[0], shift[2]);
        }
        return shrink(corner, seen, stride, placed, factor, shift, first, steps);
    }
    Bytes bytes;
    if (!resized(corner, seen, stride, placed, bytes)) return false;
    for (std::int32_t y = 0; y < placed.height; ++y) {
        const std::uint8_t* row = bytes.data() + static_cast<std::size_t>(y) * placed.width * 3;
        for (std::int32_t x = 0; x < placed.width; ++x) {
            for (int c = 0; c < channels; ++c) {
                const float value = row[3 * x + (bgr ? 2 - c : c)];
                first[y * steps[0] + x * steps[1] + c * steps[2]] = value * factor[c] - shift[c];
            }
        }
    }
    return true;
}

// A heatmap of the network's input at the picture's size: 0 where a crop saw nothing. `out` is [original height, width].
inline bool place(const float* heatmap, const Geometry& g, float* out) {
    const Size from = g.target.size(), to = g.source.size();
    const std::int64_t W = g.network.width;
    std::vector<float> cut(static_cast<std::size_t>(from.height) * from.width);
    for (std::int32_t y = 0; y < from.height; ++y) {
        std::copy_n(heatmap + (g.target.y0 + y) * W + g.target.x0, from.width, cut.data() + y * from.width);
    }
    // an axis that shrinks takes the mean of what each pixel covers
    const auto mean = [](const float* values, std::int64_t in, std::int64_t out_size, std::int64_t step, float* into,
                         std::int64_t into_step) {
        const double width = static_cast<double>(in) / out_size;
        for (std::int64_t i = 0; i < out_size; ++i) {
            const double low = i * width, high = std::min<double>((i + 1) * width, in);
            double sum = 0;
            for (auto k = static_cast<std::int64_t>(low); k < in && k < high; ++k) {
                sum += values[k * step] * (std::min<double>(high, k + 1) - std::max<double>(low, k));
            }
            into[i * into_step] = static_cast<float>(sum / (high - low));
        }
    };
    const Size small{std::min(from.height, to.height), std::min(from.width, to.width)};
    if (small.width < from.width) {
        std::vector<float> narrow(static_cast<std::size_t>(from.height) * small.width);
        for (std::int32_t y = 0; y < from.height; ++y) {
            mean(cut.data() + y * from.width, from.width, small.width, 1, narrow.data() + y * small.width, 1);
        }
        cut.swap(narrow);
    }
    if (small.height < from.height) {
        std::vector<float> low(static_cast<std::size_t>(small.height) * small.width);
        for (std::int32_t x = 0; x < small.width; ++x) {
            mean(cut.data() + x, from.height, small.height, small.width, low.data() + x, small.width);
        }
        cut.swap(low);
    }
    std::vector<float> full(static_cast<std::size_t>(to.height) * to.width);
    std::vector<std::uint64_t> scratch(fastcam_upsample_scratch(to.width) / 8 + 1);
    if (fastcam_upsample(cut.data(), 1, small.height, small.width, to.height, to.width, scratch.data(), full.data())) {
        return false;
    }
    std::fill_n(out, static_cast<std::size_t>(g.original.height) * g.original.width, 0.0f);
    for (std::int32_t y = 0; y < to.height; ++y) {
        float* row = out + static_cast<std::int64_t>(g.source.y0 + y) * g.original.width + g.source.x0;
        std::copy_n(full.data() + static_cast<std::size_t>(y) * to.width, to.width, row);
    }
    return true;
}

// The colours of heat, "jet": three clipped ramps, row by row R, G, B; what FastCAM's pictures show where none is chosen.
inline std::array<std::uint8_t, 768> jet() {
    std::array<std::uint8_t, 768> table{};
    for (int i = 0; i < 768; ++i) {
        const double ramp = 1.5 - std::abs(4 * (i / 3 / 255.0) - (3 - i % 3));
        table[i] = static_cast<std::uint8_t>(std::nearbyint(std::min(std::max(ramp, 0.0), 1.0) * 255));
    }
    return table;
}

}  // namespace fastcam::host
