// upsample: separable bilinear interpolation with half-pixel centres.
//
// Columns first: each input row is stretched once into one of two buffers, with indices and weights from a table, and
// every output row blends two stretched rows, which is a flat loop.

#include <utility>

#include "detail/arguments.h"
#include "detail/axis.h"
#include "detail/clones.h"
#include "fastcam/cam.h"

namespace fastcam {

FASTCAM_CLONES
void stretch(const float* __restrict row, std::int64_t in, const std::int32_t* __restrict first,
             const float* __restrict weight, std::int64_t size, float* __restrict out) noexcept {
    const std::int32_t last = static_cast<std::int32_t>(in) - 1;
    for (std::int64_t x = 0; x < size; ++x) {
        const std::int32_t second = first[x] < last ? first[x] + 1 : last;
        out[x] = row[first[x]] * (1.0f - weight[x]) + row[second] * weight[x];
    }
}

FASTCAM_CLONES
void blend(const float* __restrict upper, const float* __restrict lower, float weight, std::int64_t size,
           float* __restrict out) noexcept {
    const float rest = 1.0f - weight;
    for (std::int64_t x = 0; x < size; ++x) out[x] = upper[x] * rest + lower[x] * weight;
}

void Stretched::move_to(const Tap& row) noexcept {
    if (lower_row_ == row.first) {
        std::swap(upper_, lower_);
        std::swap(upper_row_, lower_row_);
    }
    if (upper_row_ != row.first) {
        stretch(map_ + row.first * in_, in_, first_, weight_, size_, upper_);
        upper_row_ = row.first;
    }
    flat_ = row.second == row.first;
    if (!flat_ && lower_row_ != row.second) {
        stretch(map_ + row.second * in_, in_, first_, weight_, size_, lower_);
        lower_row_ = row.second;
    }
}

void Axis::build(std::int64_t in_size, std::int64_t out_size, void* memory) noexcept {
    in = in_size;
    out = out_size;
    spans = static_cast<Span*>(memory);
    first = reinterpret_cast<std::int32_t*>(spans + std::min(in + 2, out));
    weight = reinterpret_cast<float*>(first + out);
    count = 0;
    const double scale = scale_of(in, out);
    bool clamped = false;
    for (std::int64_t i = 0; i < out; ++i) {
        const Tap tap = tap_at(i, in, scale);
        first[i] = tap.first;
        weight[i] = tap.weight;
        const bool edge = tap.second == tap.first || (tap.first == 0 && tap.weight == 0.0f);
        if (count == 0 || spans[count - 1].first != tap.first || edge != clamped) {
            const std::int32_t begin = static_cast<std::int32_t>(i);
            spans[count++] = {begin, begin, tap.first, edge ? tap.first : tap.second};
            clamped = edge;
        }
        ++spans[count - 1].end;
    }
}

}  // namespace fastcam

size_t fastcam_upsample_scratch(int64_t out_width) noexcept {
    if (out_width < 1 || out_width > fastcam::kInt32) return 0;
    return static_cast<std::size_t>(out_width) * (sizeof(std::int32_t) + 3 * sizeof(float));
}

int fastcam_upsample(const float* values, int64_t maps, int64_t height, int64_t width, int64_t out_height,
                     int64_t out_width, void* scratch, float* out) noexcept {
    using namespace fastcam;
    Arguments given;
    given.sides({height, width, out_height, out_width});
    given.reads(values, {maps, height, width}).writes(out, {maps, out_height, out_width});
    if (maps != 0) given.scratch(scratch, fastcam_upsample_scratch(out_width));
    if (!given.valid()) return FASTCAM_INVALID;
    if (maps == 0) return FASTCAM_SUCCESS;
    std::int32_t* first = static_cast<std::int32_t*>(scratch);
    float* weight = reinterpret_cast<float*>(first + out_width);
    taps(width, out_width, first, weight);
    for (std::int64_t m = 0; m < maps; ++m) {
        Stretched rows(values + m * height * width, width, first, weight, out_width, weight + out_width);
        for (std::int64_t y = 0; y < out_height; ++y) {
            const Tap tap = tap_at(y, height, scale_of(height, out_height));
            rows.move_to(tap);
            blend(rows.upper(), rows.lower(), tap.weight, out_width, out + (m * out_height + y) * out_width);
        }
    }
    return FASTCAM_SUCCESS;
}
