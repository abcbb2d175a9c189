// weigh: the weighted sum of the feature maps, the heart of every CAM.
//
// A block of channels over a tile of pixels stays in the first-level cache while all targets use it; four channels are
// added at a time, so that the output is loaded and stored a quarter as often.

#include <algorithm>

#include "cam.h"

namespace fastcam {
namespace {

constexpr std::int64_t kTile = 512;     // pixels: 2 KiB of output
constexpr std::int64_t kChannels = 16;  // 32 KiB of activations at most

// out[i] += sum over `channels` of weights[k] * values[k * stride + i]
void accumulate(const float* __restrict values, const float* __restrict weights, std::int64_t channels,
                std::int64_t stride, std::int64_t size, float* __restrict out) noexcept {
    std::int64_t k = 0;
    for (; k + 4 <= channels; k += 4) {
        const float* a = values + k * stride;
        const float* b = a + stride;
        const float* c = b + stride;
        const float* d = c + stride;
        const float wa = weights[k], wb = weights[k + 1], wc = weights[k + 2], wd = weights[k + 3];
        for (std::int64_t i = 0; i < size; ++i) {
            out[i] += (wa * a[i] + wb * b[i]) + (wc * c[i] + wd * d[i]);
        }
    }
    for (; k < channels; ++k) {
        const float* a = values + k * stride;
        for (std::int64_t i = 0; i < size; ++i) out[i] += weights[k] * a[i];
    }
}

}  // namespace

void weigh(const float* activations, const float* weights, std::int64_t images, std::int64_t targets,
           std::int64_t channels, std::int64_t area, float* out) noexcept {
    std::fill(out, out + images * targets * area, 0.0f);
    for (std::int64_t n = 0; n < images; ++n) {
        const float* image = activations + n * channels * area;
        const float* rows = weights + n * targets * channels;
        float* maps = out + n * targets * area;
        for (std::int64_t i = 0; i < area; i += kTile) {
            const std::int64_t size = std::min(kTile, area - i);
            for (std::int64_t k = 0; k < channels; k += kChannels) {
                const std::int64_t block = std::min(kChannels, channels - k);
                for (std::int64_t t = 0; t < targets; ++t) {
                    accumulate(image + k * area + i, rows + t * channels + k, block, area, size, maps + t * area + i);
                }
            }
        }
    }
}

}  // namespace fastcam
