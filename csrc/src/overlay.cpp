// overlay: the coloured heatmap over the picture.
//
// The blend runs in integers with 16 fractional bits, so every backend on every machine gives the same pixels. With
// front + back = 65536,
//     (image * back + colour * front + 32768) >> 16  =  image + (((image - colour) * -front + 32768) >> 16)
// and the same with the roles exchanged; the smaller of front and back, negated, fits in 16 bits. Pixels go through in
// chunks that stay in the first-level cache: heat to rows of the colour table, rows to colours, colours to the blend.

#include <algorithm>
#include <cstdint>
#include <cstring>

#include "detail/arguments.h"
#include "detail/clones.h"
#include "fastcam/cam.h"

namespace fastcam {
namespace {

constexpr std::int64_t kChunk = 512;

FASTCAM_CLONES
void rows_of(const float* __restrict heat, std::int64_t size, std::uint8_t* __restrict rows) noexcept {
    for (std::int64_t i = 0; i < size; ++i) {
        const float clipped = heat[i] > 0.0f ? (heat[i] < 1.0f ? heat[i] : 1.0f) : 0.0f;  // NaN > 0 is false
        rows[i] = static_cast<std::uint8_t>(static_cast<std::int32_t>(clipped * 255.0f + 0.5f));
    }
}

// out = base + (((base - other) * factor + 32768) >> 16), from the halves of the product: 16-bit lanes are enough for it.
// >> of a negative number rounds down on every compiler we know.
FASTCAM_CLONES
void mix(const std::uint8_t* __restrict base, const std::uint8_t* __restrict other, std::int16_t factor, std::int64_t size,
         std::uint8_t* __restrict out) noexcept {
    for (std::int64_t i = 0; i < size; ++i) {
        const std::int16_t difference = static_cast<std::int16_t>(base[i] - other[i]);
        const std::int16_t high = static_cast<std::int16_t>((std::int32_t{difference} * factor) >> 16);
        const std::uint16_t low = static_cast<std::uint16_t>(std::uint32_t{static_cast<std::uint16_t>(difference)} *
                                                             static_cast<std::uint16_t>(factor));
        out[i] = static_cast<std::uint8_t>(base[i] + high + (low >> 15));
    }
}

// The colour table with four bytes a row, so that a colour moves in one load, and two of them in one store.
struct Painter {
    std::uint32_t colors[256];
    std::int16_t factor;
    bool front_is_larger;

    Painter(const std::uint8_t* lut, double alpha) noexcept {
        for (int i = 0; i < 256; ++i) {
            colors[i] = 0;
            std::memcpy(colors + i, lut + 3 * i, 3);
        }
        const std::int32_t front = static_cast<std::int32_t>(alpha * 65536.0 + 0.5);
        front_is_larger = front > 32768;
        factor = static_cast<std::int16_t>(-(front_is_larger ? 65536 - front : front));
    }

    // Colours of the table's rows. Up to five bytes more are written, and one row more is read.
    void colour(const std::uint8_t* rows, std::int64_t size, std::uint8_t* painted) const noexcept {
#if defined(__BYTE_ORDER__) && __BYTE_ORDER__ == __ORDER_BIG_ENDIAN__
        for (std::int64_t i = 0; i < size; ++i) std::memcpy(painted + 3 * i, colors + rows[i], 4);
#else
        for (std::int64_t i = 0; i < size; i += 2) {
            const std::uint64_t two = colors[rows[i]] | std::uint64_t{colors[rows[i + 1]]} << 24;
            std::memcpy(painted + 3 * i, &two, sizeof two);
        }
#endif
    }

    // At most kChunk pixels.
    void paint(const std::uint8_t* image, const float* heat, std::int64_t size, std::uint8_t* out) const noexcept {
        std::uint8_t rows[kChunk + 1], painted[3 * kChunk + 8];
        rows_of(heat, size, rows);
        rows[size] = 0;
        colour(rows, size, painted);
        if (front_is_larger) {
            mix(painted, image, factor, 3 * size, out);
        } else {
            mix(image, painted, factor, 3 * size, out);
        }
    }
};

}  // namespace
}  // namespace fastcam

int fastcam_overlay(const uint8_t* image, const float* heatmap, const uint8_t* lut, double alpha, int64_t area,
                    uint8_t* out) noexcept {
    using namespace fastcam;
    Arguments given;
    given.that(alpha >= 0.0 && alpha <= 1.0).reads(image, {area, 3}).reads(heatmap, {area}).reads(lut, {256, 3});
    if (!given.writes(out, {area, 3}).valid()) return FASTCAM_INVALID;
    const Painter painter(lut, alpha);
    for (std::int64_t i = 0; i < area; i += kChunk) {
        painter.paint(image + 3 * i, heatmap + i, std::min(kChunk, area - i), out + 3 * i);
    }
    return FASTCAM_SUCCESS;
}
