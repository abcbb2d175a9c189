// upsample: separable bilinear interpolation with half-pixel centres.
//
// Columns first: each input row is stretched once into one of two buffers, with indices and weights from a table, and
// every output row blends two stretched rows, which is a flat loop. Output rows ask for input rows in increasing
// order, so two buffers are enough.

#include <algorithm>
#include <utility>

#include "cam.h"

namespace fastcam {
namespace {

// An output pixel is (1 - weight) * in[first] + weight * in[second].
struct Tap {
    std::int32_t first;
    std::int32_t second;
    float weight;
};

Tap tap_at(std::int64_t i, std::int64_t in, std::int64_t out) noexcept {
    const double scale = static_cast<double>(in) / static_cast<double>(out);
    const double source = std::max((static_cast<double>(i) + 0.5) * scale - 0.5, 0.0);
    const std::int64_t first = std::min(static_cast<std::int64_t>(source), in - 1);
    const std::int64_t second = std::min(first + 1, in - 1);
    const double weight = second == first ? 0.0 : source - static_cast<double>(first);
    return {static_cast<std::int32_t>(first), static_cast<std::int32_t>(second), static_cast<float>(weight)};
}

void stretch(const float* __restrict row, const Tap* __restrict taps, std::int64_t size,
             float* __restrict out) noexcept {
    for (std::int64_t x = 0; x < size; ++x) {
        const Tap tap = taps[x];
        out[x] = row[tap.first] * (1.0f - tap.weight) + row[tap.second] * tap.weight;
    }
}

void blend(const float* __restrict upper, const float* __restrict lower, float weight, std::int64_t size,
           float* __restrict out) noexcept {
    const float rest = 1.0f - weight;
    for (std::int64_t x = 0; x < size; ++x) out[x] = upper[x] * rest + lower[x] * weight;
}

// A stretched row, and which input row it holds.
struct Stretched {
    float* values;
    std::int64_t row;
};

}  // namespace

std::size_t upsample_scratch(std::int64_t out_width) noexcept {
    return static_cast<std::size_t>(out_width) * (sizeof(Tap) + 2 * sizeof(float));
}

void upsample(const float* values, std::int64_t maps, std::int64_t height, std::int64_t width,
              std::int64_t out_height, std::int64_t out_width, void* scratch, float* out) noexcept {
    Tap* taps = static_cast<Tap*>(scratch);
    float* buffers = reinterpret_cast<float*>(taps + out_width);
    for (std::int64_t x = 0; x < out_width; ++x) taps[x] = tap_at(x, width, out_width);
    for (std::int64_t m = 0; m < maps; ++m) {
        const float* map = values + m * height * width;
        float* result = out + m * out_height * out_width;
        Stretched upper{buffers, -1}, lower{buffers + out_width, -1};
        for (std::int64_t y = 0; y < out_height; ++y) {
            const Tap tap = tap_at(y, height, out_height);
            if (lower.row == tap.first) std::swap(upper, lower);
            if (upper.row != tap.first) {
                stretch(map + tap.first * width, taps, out_width, upper.values);
                upper.row = tap.first;
            }
            if (lower.row != tap.second && tap.second != tap.first) {
                stretch(map + tap.second * width, taps, out_width, lower.values);
                lower.row = tap.second;
            }
            const float* below = tap.second == tap.first ? upper.values : lower.values;
            blend(upper.values, below, tap.weight, out_width, result + y * out_width);
        }
    }
}

}  // namespace fastcam
