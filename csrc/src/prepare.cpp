// prepare: a picture shrunk by area weighting and normalised, straight into the network's input.
//
// The arithmetic is that of OpenCV's INTER_AREA on 8-bit pictures, in the same order, so that both give the same bits: each
// row of the picture is summed into the output's columns, a float32 product and a float32 sum a pixel; such rows are summed
// into the output's rows; the result is rounded to a byte, halves to even. Where both sizes are whole multiples, the sums
// are whole numbers and their mean is rounded; that of 2 x 2 pixels is rounded up at a half. Four rows of the picture go
// through at once, with four bytes a pixel, which are sixteen numbers that share their weight.

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstring>
#include <limits>

#include "detail/arguments.h"
#include "detail/clones.h"
#include "detail/memory.h"
#include "fastcam/cam.h"

#ifdef FASTCAM_MULTIVERSION
#include <immintrin.h>
#endif

namespace fastcam {
namespace {

constexpr int kRows = 4, kLanes = 4 * kRows;  // the fourth byte of a pixel is the next one's first, and is not used

// What a column, or row, of the output takes: pixels first, first + 1, ..., the first and last of them in part.
struct Span {
    std::int64_t first;
    std::int64_t count;
    float edges[2];  // weights of the first and the last
    float inside;    // of those between

    float weight(std::int64_t k) const noexcept { return k == 0 ? edges[0] : k == count - 1 ? edges[1] : inside; }
};

// One axis of the resize.
struct Shrink {
    std::int64_t in;
    std::int64_t out;
    double scale;
    bool whole;  // weights are 1: the scale is a whole number, and so is that of the other axis

    Span at(std::int64_t i) const noexcept {
        if (whole) {
            const std::int64_t step = in / out;
            return {i * step, step, {1.0f, 1.0f}, 1.0f};
        }
        const double begin = static_cast<double>(i) * scale, end = begin + scale;
        const double size = std::min(scale, static_cast<double>(in) - begin);
        const std::int64_t last = std::min(static_cast<std::int64_t>(std::floor(end)), in - 1);
        const std::int64_t first = std::min(static_cast<std::int64_t>(std::ceil(begin)), last);
        const double before = static_cast<double>(first) - begin, after = end - static_cast<double>(last);
        const bool has_before = before > 1e-3, has_after = after > 1e-3;
        const float inside = static_cast<float>(1.0 / size);
        Span span{first - has_before, last - first + has_before + has_after, {inside, inside}, inside};
        if (has_after) span.edges[span.count > 1] = static_cast<float>(std::min(std::min(after, 1.0), size) / size);
        if (has_before) span.edges[0] = static_cast<float>(before / size);
        return span;
    }
};

Shrink shrink_of(std::int64_t in, std::int64_t out) noexcept {
    return {in, out, 1.0 / (static_cast<double>(out) / static_cast<double>(in)), false};
}

bool is_whole(const Shrink& axis) noexcept {
    return std::abs(axis.scale - std::nearbyint(axis.scale)) < std::numeric_limits<double>::epsilon();
}

// Four rows of the picture summed into columns: out[4 (row * columns + x) + channel].
#ifdef FASTCAM_MULTIVERSION
__attribute__((target("default")))
#endif
void sum_columns(const std::uint8_t* const* rows, const Span* spans, std::int64_t columns, float* out) noexcept {
    for (std::int64_t x = 0; x < columns; ++x) {
        for (int r = 0; r < kRows; ++r) {
            float* const sums = out + 4 * (r * columns + x);
            std::fill(sums, sums + 4, 0.0f);
            const std::uint8_t* pixel = rows[r] + 3 * spans[x].first;
            for (std::int64_t k = 0; k < spans[x].count; ++k, pixel += 3) {
                const float weight = spans[x].weight(k);
                for (int c = 0; c < 3; ++c) sums[c] += static_cast<float>(pixel[c]) * weight;
            }
        }
    }
}

#ifdef FASTCAM_MULTIVERSION
#define FASTCAM_AVX2 __attribute__((target("avx2"), always_inline)) inline

// The first four bytes of two rows as eight numbers, times a weight.
FASTCAM_AVX2 __m256 weighed(const std::uint8_t* a, const std::uint8_t* b, __m256 weight) noexcept {
    std::int32_t first, second;
    std::memcpy(&first, a, sizeof first);
    std::memcpy(&second, b, sizeof second);
    const __m128i bytes = _mm_insert_epi32(_mm_cvtsi32_si128(first), second, 1);
    return _mm256_mul_ps(_mm256_cvtepi32_ps(_mm256_cvtepu8_epi32(bytes)), weight);
}

__attribute__((target("avx2"))) void sum_columns(const std::uint8_t* const* rows, const Span* spans, std::int64_t columns,
                                                 float* out) noexcept {
    const std::uint8_t *const a = rows[0], *const b = rows[1], *const c = rows[2], *const d = rows[3];
    for (std::int64_t x = 0; x < columns; ++x) {
        const Span& span = spans[x];
        __m256 low = _mm256_setzero_ps(), high = low;
        std::int64_t at = 3 * span.first;
        const std::int64_t last = at + 3 * (span.count - 1);
        __m256 weight = _mm256_set1_ps(span.edges[0]);
        const __m256 inside = _mm256_set1_ps(span.inside);
        for (; at < last; at += 3, weight = inside) {
            low = _mm256_add_ps(low, weighed(a + at, b + at, weight));
            high = _mm256_add_ps(high, weighed(c + at, d + at, weight));
        }
        weight = _mm256_set1_ps(span.edges[span.count > 1]);
        low = _mm256_add_ps(low, weighed(a + at, b + at, weight));
        high = _mm256_add_ps(high, weighed(c + at, d + at, weight));
        _mm_storeu_ps(out + 4 * x, _mm256_castps256_ps128(low));
        _mm_storeu_ps(out + 4 * (columns + x), _mm256_extractf128_ps(low, 1));
        _mm_storeu_ps(out + 4 * (2 * columns + x), _mm256_castps256_ps128(high));
        _mm_storeu_ps(out + 4 * (3 * columns + x), _mm256_extractf128_ps(high, 1));
    }
}
#endif

FASTCAM_CLONES
void add_row(float* __restrict sums, const float* __restrict row, float weight, std::int64_t size) noexcept {
    for (std::int64_t i = 0; i < size; ++i) sums[i] += weight * row[i];
}

// Rounds to whole numbers, halves to even: the sum has no room for a fraction.
inline float round_even(float value) noexcept { return (value + 12582912.0f) - 12582912.0f; }

// How sums become values: divided, rounded, normalised.
struct Finish {
    float divisor;  // times it, a sum is a mean
    float nudge;    // 1 / 8, where multiples of 1 / 4 are rounded up at a half
    float factor[3];
    float shift[3];

    float operator()(float sum, int channel) const noexcept {
        return round_even(sum * divisor + nudge) * factor[channel] - shift[channel];
    }
};

FASTCAM_CLONES
void finish_planes(const float* __restrict sums, std::int64_t columns, const Finish& finish, float* __restrict a,
                   float* __restrict b, float* __restrict c) noexcept {
    const Finish f = finish;
    for (std::int64_t x = 0; x < columns; ++x) {
        a[x] = f(sums[4 * x], 0);
        b[x] = f(sums[4 * x + 1], 1);
        c[x] = f(sums[4 * x + 2], 2);
    }
}

void finish_row(const float* sums, std::int64_t columns, const Finish& finish, float* out,
                const std::int64_t* strides) noexcept {
    if (strides[1] == 1) {
        finish_planes(sums, columns, finish, out, out + strides[2], out + 2 * strides[2]);
        return;
    }
    for (std::int64_t x = 0; x < columns; ++x) {
        for (int c = 0; c < 3; ++c) out[x * strides[1] + c * strides[2]] = finish(sums[4 * x + c], c);
    }
}

// The memory of a call.
struct Memory {
    Span* spans;         // of the output's columns
    float* rows;         // kRows rows of the picture, summed into columns
    float* sums;         // a row of the output
    std::uint8_t* last;  // the picture's last row, behind which a byte may be read

    Memory(Arena& arena, std::int64_t width, std::int64_t columns) noexcept
        : spans(arena.take<Span>(columns)), rows(arena.take<float>(kLanes * columns)), sums(arena.take<float>(4 * columns)),
          last(arena.take<std::uint8_t>(3 * width + 1)) {}
};

// The picture's rows, summed into columns four at a time as they are asked for, in order.
class Rows {
  public:
    Rows(const std::uint8_t* pixels, std::int64_t stride, std::int64_t height, std::int64_t columns,
         const Memory& memory) noexcept
        : pixels_(pixels), stride_(stride), height_(height), columns_(columns), memory_(memory) {}

    const float* at(std::int64_t y) noexcept {
        if (y >= begin_ + kRows) {
            const std::uint8_t* rows[kRows];
            for (int r = 0; r < kRows; ++r) rows[r] = y + r < height_ - 1 ? pixels_ + (y + r) * stride_ : memory_.last;
            sum_columns(rows, memory_.spans, columns_, memory_.rows);
            begin_ = y;
        }
        return memory_.rows + 4 * (y - begin_) * columns_;
    }

  private:
    const std::uint8_t* pixels_;
    std::int64_t stride_, height_, columns_;
    const Memory& memory_;
    std::int64_t begin_ = -kRows;
};

// The bytes of an axis of the output: from its first to behind its last value, which may lie before the first.
std::int64_t reach(std::int64_t extent, std::int64_t stride) noexcept {
    constexpr std::int64_t kMost = std::numeric_limits<std::int64_t>::max() / static_cast<std::int64_t>(sizeof(float));
    if (stride < -kMost || stride > kMost) return -1;
    return Arguments::times(extent - 1, static_cast<std::int64_t>(sizeof(float)) * std::abs(stride));
}

// Whether no two values of the output share a place: sorted by stride, each axis steps over all of those before it.
bool lie_apart(const std::int64_t* extents, const std::int64_t* strides) noexcept {
    int order[3] = {0, 1, 2};
    std::sort(order, order + 3, [&](int a, int b) { return std::abs(strides[a]) < std::abs(strides[b]); });
    std::int64_t behind = sizeof(float);
    for (const int axis : order) {
        if (extents[axis] > 1 && static_cast<std::int64_t>(sizeof(float)) * std::abs(strides[axis]) < behind) return false;
        behind += reach(extents[axis], strides[axis]);
    }
    return true;
}

// The bytes that the output spans, and where they begin; false where they cannot be counted or a value hides another.
bool spans(const std::int64_t* extents, const std::int64_t* strides, const float* out, std::uintptr_t& begin,
           std::int64_t& bytes) noexcept {
    bytes = sizeof(float);
    begin = reinterpret_cast<std::uintptr_t>(out);
    for (int axis = 0; axis < 3; ++axis) {
        const std::int64_t step = reach(extents[axis], strides[axis]);
        bytes = Arguments::plus(bytes, step);
        if (bytes < 0) return false;
        if (strides[axis] >= 0) continue;
        if (begin <= static_cast<std::uintptr_t>(step)) return false;
        begin -= static_cast<std::uintptr_t>(step);
    }
    return lie_apart(extents, strides);
}

bool is_valid(const std::uint8_t* pixels, std::int64_t height, std::int64_t width, std::int64_t stride,
              std::int64_t out_height, std::int64_t out_width, const float* factor, const float* shift, void* scratch,
              float* out, const std::int64_t* strides) noexcept {
    Arguments given;
    given.sides({height, width, out_height, out_width}).that(out_height <= height && out_width <= width);
    given.reads(factor, {3}).reads(shift, {3}).reads(strides, {3});
    // rows are read four bytes at a time, so that each must be followed by another, or be the last
    if (!given.valid() || (height > 1 && stride < 3 * width)) return false;
    const std::int64_t above = height == 1 ? 0 : Arguments::times(height - 1, stride);
    given.reads_bytes(pixels, Arguments::plus(above, 3 * width));
    const std::int64_t extents[3] = {out_height, out_width, 3};
    const std::int64_t steps[3] = {out_height > 1 ? strides[0] : 0, out_width > 1 ? strides[1] : 0, strides[2]};
    std::uintptr_t begin = 0;
    std::int64_t bytes = 0;
    given.that(out != nullptr && spans(extents, steps, out, begin, bytes));
    if (!given.valid()) return false;
    given.writes_bytes(reinterpret_cast<void*>(begin), bytes, alignof(float));
    return given.scratch(scratch, fastcam_prepare_scratch(width, out_width)).valid();
}

}  // namespace
}  // namespace fastcam

size_t fastcam_prepare_scratch(int64_t width, int64_t out_width) noexcept {
    if (!fastcam::Arguments().sides({width, out_width}).valid()) return 0;
    fastcam::Arena arena{nullptr};
    fastcam::Memory(arena, width, out_width);
    return arena.used;
}

int fastcam_prepare(const uint8_t* pixels, int64_t height, int64_t width, int64_t stride, int64_t out_height,
                    int64_t out_width, const float* factor, const float* shift, void* scratch, float* out,
                    const int64_t* strides) noexcept {
    using namespace fastcam;
    if (!is_valid(pixels, height, width, stride, out_height, out_width, factor, shift, scratch, out, strides)) {
        return FASTCAM_INVALID;
    }
    Arena arena{static_cast<unsigned char*>(scratch)};
    const Memory memory(arena, width, out_width);
    Shrink vertical = shrink_of(height, out_height), horizontal = shrink_of(width, out_width);
    vertical.whole = horizontal.whole = is_whole(vertical) && is_whole(horizontal);
    Finish finish{1.0f, 0.0f, {factor[0], factor[1], factor[2]}, {shift[0], shift[1], shift[2]}};
    if (vertical.whole) {
        const std::int64_t area = height / out_height * (width / out_width);
        finish.divisor = static_cast<float>(1.0 / static_cast<double>(area));
        if (area > 65536) return FASTCAM_INVALID;
        finish.nudge = height == 2 * out_height && width == 2 * out_width ? 0.125f : 0.0f;
    }
    for (std::int64_t x = 0; x < out_width; ++x) memory.spans[x] = horizontal.at(x);
    std::memcpy(memory.last, pixels + (height - 1) * stride, static_cast<std::size_t>(3 * width));
    memory.last[3 * width] = 0;
    Rows rows(pixels, stride, height, out_width, memory);
    for (std::int64_t y = 0; y < out_height; ++y) {
        const Span span = vertical.at(y);
        std::fill(memory.sums, memory.sums + 4 * out_width, 0.0f);
        for (std::int64_t k = 0; k < span.count; ++k) {
            add_row(memory.sums, rows.at(span.first + k), span.weight(k), 4 * out_width);
        }
        finish_row(memory.sums, out_width, finish, out + y * strides[0], strides);
    }
    return FASTCAM_SUCCESS;
}
