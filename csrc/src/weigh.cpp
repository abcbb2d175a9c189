// weigh: the weighted sum of the feature maps, the heart of every CAM.
//
// A block of channels over a tile of pixels stays in the first-level cache while all targets use it; four channels are
// added at a time, so that the output is loaded and stored a quarter as often. float16 is widened block by block on the
// stack, so it gives the bits that float32 activations of the same values give.

#include <algorithm>

#include "detail/arguments.h"
#include "detail/clones.h"
#include "detail/half.h"
#include "fastcam/cam.h"

namespace fastcam {
namespace {

constexpr std::int64_t kTile = 512;     // pixels: 2 KiB of output
constexpr std::int64_t kChannels = 16;  // 32 KiB of activations at most

FASTCAM_CLONES
void widen_all(const std::uint16_t* __restrict halves, std::int64_t size, float* __restrict out) noexcept {
    for (std::int64_t i = 0; i < size; ++i) out[i] = widen(halves[i]);
}

// out[i] += sum over `channels` of weights[k] * values[k * stride + i]
FASTCAM_CLONES
void accumulate(const float* __restrict values, const float* __restrict weights, std::int64_t channels, std::int64_t stride,
                std::int64_t size, float* __restrict out) noexcept {
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

// A block of channels over a tile of pixels: where it lies, or a widened copy, and the distance of its channels.
struct Block {
    const float* values;
    std::int64_t stride;
};

Block block_of(const fastcam_activations& a, std::int64_t offset, std::int64_t channels, std::int64_t area,
               std::int64_t size, float* copy) noexcept {
    if (a.dtype == FASTCAM_FLOAT32) return {static_cast<const float*>(a.data) + offset, area};
    const std::uint16_t* halves = static_cast<const std::uint16_t*>(a.data) + offset;
    if (size == area) {
        widen_all(halves, channels * area, copy);
    } else {
        for (std::int64_t k = 0; k < channels; ++k) widen_all(halves + k * area, size, copy + k * size);
    }
    return {copy, size};
}

}  // namespace
}  // namespace fastcam

int fastcam_weigh(fastcam_activations activations, const float* weights, int64_t images, int64_t targets, int64_t channels,
                  int64_t area, float* out) noexcept {
    using namespace fastcam;
    Arguments given;
    given.least(1, {area}).writes(out, {images, targets, area}).reads(weights, {images, targets, channels});
    if (activations.dtype == FASTCAM_FLOAT32) {
        given.reads(static_cast<const float*>(activations.data), {images, channels, area});
    } else {
        given.that(activations.dtype == FASTCAM_FLOAT16);
        given.reads(static_cast<const std::uint16_t*>(activations.data), {images, channels, area});
    }
    if (!given.valid()) return FASTCAM_INVALID;
    if (targets == 0) return FASTCAM_SUCCESS;  // however many images there are of nothing
    float copy[kTile * kChannels];
    std::fill(out, out + images * targets * area, 0.0f);
    for (std::int64_t n = 0; n < images; ++n) {
        const float* rows = weights + n * targets * channels;
        float* maps = out + n * targets * area;
        for (std::int64_t i = 0; i < area; i += kTile) {
            const std::int64_t size = std::min(kTile, area - i);
            for (std::int64_t k = 0; k < channels; k += kChannels) {
                const std::int64_t count = std::min(kChannels, channels - k);
                const Block block = block_of(activations, (n * channels + k) * area + i, count, area, size, copy);
                for (std::int64_t t = 0; t < targets; ++t) {
                    accumulate(block.values, rows + t * channels + k, count, block.stride, size, maps + t * area + i);
                }
            }
        }
    }
    return FASTCAM_SUCCESS;
}
