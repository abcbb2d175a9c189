// overlay: the coloured heatmap over the picture.
//
// The blend runs in integers with 16 fractional bits, so every backend on every machine gives the same pixels.

#include "cam.h"

namespace fastcam {

void overlay(const std::uint8_t* image, const float* heatmap, const std::uint8_t* lut, double alpha, std::int64_t area,
             std::uint8_t* out) noexcept {
    const std::uint32_t front = static_cast<std::uint32_t>(alpha * 65536.0 + 0.5);
    const std::uint32_t back = 65536u - front;
    for (std::int64_t i = 0; i < area; ++i) {
        const float heat = heatmap[i] > 0.0f ? (heatmap[i] < 1.0f ? heatmap[i] : 1.0f) : 0.0f;  // NaN > 0 is false
        const std::uint8_t* color = lut + 3 * static_cast<std::int32_t>(heat * 255.0f + 0.5f);
        for (std::int64_t c = 3 * i; c < 3 * i + 3; ++c) {
            out[c] = static_cast<std::uint8_t>((image[c] * back + color[c - 3 * i] * front + 32768u) >> 16);
        }
    }
}

}  // namespace fastcam
