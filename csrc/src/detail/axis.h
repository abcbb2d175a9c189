// Internal: one axis of a bilinear interpolation with half-pixel centres.
//
// Output pixel i is (1 - weight[i]) * in[first[i]] + weight[i] * in[second_of(first[i])]. The rows of a map are
// stretched along x first, and two stretched rows are blended along y; `pixel` below is the same arithmetic for one value,
// and must stay so: float32, every product and sum rounded, in this order.

#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>

namespace fastcam {

struct Tap {
    std::int32_t first;
    std::int32_t second;
    float weight;  // of the second
};

inline Tap tap_at(std::int64_t i, std::int64_t in, double scale) noexcept {
    const double source = std::max((static_cast<double>(i) + 0.5) * scale - 0.5, 0.0);
    const std::int64_t first = std::min(static_cast<std::int64_t>(source), in - 1);
    const std::int64_t second = std::min(first + 1, in - 1);
    const double weight = second == first ? 0.0 : source - static_cast<double>(first);
    return {static_cast<std::int32_t>(first), static_cast<std::int32_t>(second), static_cast<float>(weight)};
}

inline double scale_of(std::int64_t in, std::int64_t out) noexcept {
    return static_cast<double>(in) / static_cast<double>(out);
}

// The taps of all output pixels.   first, weight [out]
inline void taps(std::int64_t in, std::int64_t out, std::int32_t* first, float* weight) noexcept {
    for (std::int64_t i = 0; i < out; ++i) {
        const Tap tap = tap_at(i, in, scale_of(in, out));
        first[i] = tap.first;
        weight[i] = tap.weight;
    }
}

// The output pixels begin..end (half-open) between the same two input pixels. Where the position is clamped to the
// map's edge, before the first input pixel's centre and behind the last one's, second equals first.
struct Span {
    std::int32_t begin;
    std::int32_t end;
    std::int32_t first;
    std::int32_t second;
};

struct Axis {
    std::int64_t in;
    std::int64_t out;
    std::int32_t* first;  // [out]
    float* weight;        // [out]
    Span* spans;          // [count]
    std::int32_t count;

    Tap tap(std::int64_t i) const noexcept {
        return {first[i], std::min(first[i] + 1, static_cast<std::int32_t>(in) - 1), weight[i]};
    }

    // Bytes for the arrays, and where they lie in memory of that size.
    static std::size_t bytes(std::int64_t in, std::int64_t out) noexcept {
        return static_cast<std::size_t>(out) * 8 + static_cast<std::size_t>(std::min(in + 2, out)) * sizeof(Span);
    }
    void build(std::int64_t in_size, std::int64_t out_size, void* memory) noexcept;
};

// One row of a map at all output columns: out[x] = row[first[x]] * (1 - weight[x]) + row[second] * weight[x].
void stretch(const float* row, std::int64_t in, const std::int32_t* first, const float* weight, std::int64_t size,
             float* out) noexcept;

// out = upper * (1 - weight) + lower * weight
void blend(const float* upper, const float* lower, float weight, std::int64_t size, float* out) noexcept;

// Two stretched rows that follow the output rows from top to bottom. Output rows ask for input rows in increasing
// order, so two buffers are enough.
class Stretched {
  public:
    Stretched(const float* map, std::int64_t in, const std::int32_t* first, const float* weight, std::int64_t size,
              float* buffers) noexcept
        : map_(map), in_(in), first_(first), weight_(weight), size_(size), upper_(buffers), lower_(buffers + size) {}

    void move_to(const Tap& row) noexcept;
    const float* upper() const noexcept { return upper_; }
    const float* lower() const noexcept { return flat_ ? upper_ : lower_; }

  private:
    const float* map_;
    std::int64_t in_;
    const std::int32_t* first_;
    const float* weight_;
    std::int64_t size_;
    float* upper_;
    float* lower_;
    std::int64_t upper_row_ = -1;
    std::int64_t lower_row_ = -1;
    bool flat_ = false;
};

}  // namespace fastcam
