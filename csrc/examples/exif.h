// How the camera was held, as a JPEG or PNG file says it in its EXIF data: a decoder that leaves it alone shows pictures
// lying on their side.

#pragma once

#include <cstddef>
#include <cstdint>
#include <cstring>
#include <vector>

namespace fastcam::example {

struct Bytes {
    const std::uint8_t* data;
    std::size_t size;

    // The number of `count` bytes at `at`; 0 beyond the end.
    std::uint32_t number(std::size_t at, std::size_t count, bool little) const {
        std::uint32_t out = 0;
        if (at > size || count > size - at) return 0;
        for (std::size_t i = 0; i < count; ++i) out = out << 8 | data[at + (little ? count - 1 - i : i)];
        return out;
    }

    bool starts(std::size_t at, const char* text, std::size_t count) const {
        return at <= size && count <= size - at && std::memcmp(data + at, text, count) == 0;
    }
};

// The TIFF structure of EXIF data; empty where a file has none.
inline Bytes exif_of(const Bytes& file) {
    if (file.starts(0, "\xff\xd8", 2)) {  // JPEG: segments of a marker and a length, up to the scan
        for (std::size_t at = 2; file.number(at, 1, false) == 0xff && at + 4 <= file.size;) {
            const std::uint32_t marker = file.number(at + 1, 1, false), length = file.number(at + 2, 2, false);
            if (marker == 0xda || length < 2 || length > file.size - at - 2) break;
            if (marker == 0xe1 && length >= 8 && file.starts(at + 4, "Exif\0\0", 6))
                return {file.data + at + 10, length - 8};
            at += 2 + static_cast<std::size_t>(length);
        }
    }
    if (file.starts(0, "\x89PNG\r\n\x1a\n", 8)) {  // PNG: chunks of a length, a name, so many bytes and four more
        for (std::size_t at = 8; at + 12 <= file.size;) {
            const std::uint32_t length = file.number(at, 4, false);
            if (length > file.size - at - 12) break;
            if (file.starts(at + 4, "eXIf", 4)) return {file.data + at + 8, length};
            at += 12 + static_cast<std::size_t>(length);
        }
    }
    return {nullptr, 0};
}

// 1 (as it is shown) to 8, as EXIF numbers them.
inline int orientation(const Bytes& file) {
    const Bytes exif = exif_of(file);
    const bool little = exif.starts(0, "II*\0", 4);
    if (!little && !exif.starts(0, "MM\0*", 4)) return 1;
    const std::size_t first = exif.number(4, 4, little), count = exif.number(first, 2, little);
    for (std::size_t i = 0; i < count; ++i) {
        const std::size_t entry = first + 2 + 12 * i;
        if (exif.number(entry, 2, little) != 0x112) continue;
        const std::uint32_t value = exif.number(entry + 8, 2, little);
        return value >= 1 && value <= 8 ? static_cast<int>(value) : 1;
    }
    return 1;
}

// Pixels of 3 bytes as they are shown; height and width become those.
inline std::vector<std::uint8_t> turned(const std::uint8_t* pixels, std::int32_t& height, std::int32_t& width,
                                        int orientation) {
    const std::int32_t rows = height, columns = width;
    if (orientation >= 5) {
        height = columns;
        width = rows;
    }
    std::vector<std::uint8_t> out(static_cast<std::size_t>(3) * rows * columns);
    const bool down = orientation == 3 || orientation == 4 || orientation == 6 || orientation == 7;  // from the last row
    const bool left = orientation == 2 || orientation == 3 || orientation == 7 || orientation == 8;  // from the last column
    for (std::int32_t y = 0; y < height; ++y) {
        for (std::int32_t x = 0; x < width; ++x) {
            const std::int32_t row = orientation >= 5 ? x : y, column = orientation >= 5 ? y : x;
            const std::size_t from =
                static_cast<std::size_t>(down ? rows - 1 - row : row) * columns + (left ? columns - 1 - column : column);
            std::memcpy(&out[3 * (static_cast<std::size_t>(y) * width + x)], pixels + 3 * from, 3);
        }
    }
    return out;
}

}  // namespace fastcam::example
