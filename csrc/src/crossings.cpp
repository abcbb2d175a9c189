// Runs and peak of an enlarged map from the small one.
//
// Between two neighbouring input columns (a span of output pixels) every output row is a straight line, so where it
// crosses the threshold follows from its two ends. But a pixel is float32 arithmetic, whose roundings decide ties, and the
// result must be what the pixels say. For a map with values in 0..1 all roundings of one pixel together stay below
// 10 * 2^-24 (two stages; in each the weight and its complement are rounded once, two products and a sum once), so
// with kDoubt = 32 * 2^-24 a line decides every pixel that it puts farther than kDoubt from the threshold, and the few
// others are computed as upsample computes them. The same bound narrows the search for the peak: a bilinear patch has its
// maximum in a corner, so only pixels within kDoubt of the best corner are computed.

#include "detail/crossings.h"

#include <cmath>

#include "detail/clones.h"
#include "detail/ordered.h"

namespace fastcam {
namespace {

constexpr double kDoubt = 32.0 / 16777216.0;
constexpr std::int64_t kChunk = 128;

// The four input pixels around a patch of output pixels.
struct Corners {
    float upper_first, upper_second, lower_first, lower_second;

    float highest() const noexcept {
        return std::max(std::max(upper_first, upper_second), std::max(lower_first, lower_second));
    }
};

Corners corners_of(const Enlarged& e, std::int64_t upper, std::int64_t lower, const Span& span) noexcept {
    const float *a = e.map + upper * e.x->in, *b = e.map + lower * e.x->in;
    return {a[span.first], a[span.second], b[span.first], b[span.second]};
}

// The arithmetic of stretch and blend for one pixel.
inline float pixel(const Corners& c, float x, float y) noexcept {
    const float upper = c.upper_first * (1.0f - x) + c.upper_second * x;
    const float lower = c.lower_first * (1.0f - x) + c.lower_second * x;
    return upper * (1.0f - y) + lower * y;
}

FASTCAM_CLONES
float highest_pixel(const Corners& corners, const float* weights, std::int64_t size, float y, float best) noexcept {
    const Corners c = corners;
    std::int32_t high = ordered(best);  // integers, because compilers vectorise their maximum
    for (std::int64_t i = 0; i < size; ++i) {
        const std::int32_t value = ordered(pixel(c, weights[i], y));
        high = value > high ? value : high;
    }
    return unordered(high);
}

FASTCAM_CLONES
void mark(const Corners& corners, const float* __restrict weights, std::int64_t size, float y, float cut,
          std::uint8_t* __restrict mask) noexcept {
    const Corners c = corners;
    for (std::int64_t i = 0; i < size; ++i) {
        const float value = pixel(c, weights[i], y);
        mask[i] = static_cast<std::uint8_t>((value >= cut) & (value > 0.0f));
    }
}

// Pixels first..last of a span, computed one by one.
void add_pixels(const Enlarged& e, const Tap& tap, const Span& span, std::int32_t first, std::int32_t last, float cut,
                Row& row) noexcept {
    const Corners c = corners_of(e, tap.first, tap.second, span);
    for (std::int32_t x = first; x < last; x += kChunk) {
        const std::int64_t size = std::min<std::int64_t>(kChunk, last - x);
        std::uint8_t mask[kChunk];
        mark(c, e.x->weight + x, size, tap.weight, cut, mask);
        row.add_mask(mask, x, size);
    }
}

// A span whose line may cross the threshold: `left` and `right` are its values at the two input columns.
void add_crossing(const Enlarged& e, const Tap& tap, const Span& span, double left, double right, float cut,
                  Row& row) noexcept {
    const double slope = right - left;
    if (std::fabs(slope) <= 4.0 * kDoubt) return add_pixels(e, tap, span, span.begin, span.end, cut, row);
    const double pixels = static_cast<double>(e.x->out) / static_cast<double>(e.x->in);  // per input column
    const double crossing = (span.first + (cut - left) / slope + 0.5) * pixels - 0.5;
    const double doubt = kDoubt / std::fabs(slope) * pixels + 1e-6 + 1e-12 * static_cast<double>(e.x->out);
    const double begin = span.begin, end = span.end;
    const auto first = static_cast<std::int32_t>(std::min(std::max(std::ceil(crossing - doubt), begin), end));
    const auto last = static_cast<std::int32_t>(std::min(std::max(std::floor(crossing + doubt) + 1.0, begin), end));
    if (slope < 0.0) row.add(span.begin, first);
    if (first < last) add_pixels(e, tap, span, first, last, cut, row);
    if (slope > 0.0) row.add(std::max(first, last), span.end);
}

// The row's values at the input columns, and the class of each: 0 below the threshold for certain, 2 above it, 1 near it.
FASTCAM_CLONES
void classify(const float* __restrict upper, const float* __restrict lower, float weight, std::int64_t size, double low,
              double high, double* __restrict values, std::int32_t* __restrict classes) noexcept {
    const double y = weight;
    for (std::int64_t i = 0; i < size; ++i) {
        values[i] = upper[i] * (1.0 - y) + lower[i] * y;
        classes[i] = (values[i] >= low) + (values[i] > high);
    }
}

// One band's and one span's patch: pixels higher than `best`.
float search(const Enlarged& e, const Span& band, const Span& span, const Corners& c, float best) noexcept {
    const float *wx = e.x->weight, *wy = e.y->weight;
    // behind the outer input pixels' centres all pixels of a column (or row) are one
    const std::int32_t last_row = band.first == band.second ? band.begin + 1 : band.end;
    const std::int32_t last_column = span.first == span.second ? span.begin + 1 : span.end;
    for (std::int32_t y = band.begin; y < last_row; ++y) {
        const double left = c.upper_first * (1.0 - wy[y]) + c.lower_first * double{wy[y]};
        const double right = c.upper_second * (1.0 - wy[y]) + c.lower_second * double{wy[y]};
        const double slope = right - left;
        const double wanted = best - kDoubt;
        std::int32_t first = span.begin, last = last_column;
        // the line is monotonic: pixels that reach `wanted` stand together at its higher end
        if (slope > 0.0) {
            while (last - first >= 8 && left + slope * wx[(first + last) / 2] < wanted) first = (first + last) / 2;
        } else {
            while (last - first >= 8 && left + slope * wx[(first + last) / 2] < wanted) last = (first + last) / 2;
        }
        const double top = std::max(left + slope * wx[first], left + slope * wx[last - 1]);
        if (top < wanted) continue;
        best = highest_pixel(c, wx + first, last - first, wy[y], best);
    }
    return best;
}

float best_corner(const Enlarged& e, const Span& band, const Span& span, const Corners& c, float best) noexcept {
    for (const std::int32_t y : {band.begin, band.end - 1}) {
        for (const std::int32_t x : {span.begin, span.end - 1}) {
            best = std::max(best, pixel(c, e.x->weight[x], e.y->weight[y]));
        }
    }
    return best;
}

// Calls visit(band, span, corners) for every patch whose corners reach `floor` (which visit may raise).
template <typename Visit>
void each_patch(const Enlarged& e, const float& floor, Visit&& visit) noexcept {
    for (std::int32_t b = 0; b < e.y->count; ++b) {
        const Span& band = e.y->spans[b];
        for (std::int32_t s = 0; s < e.x->count; ++s) {
            const Corners c = corners_of(e, band.first, band.second, e.x->spans[s]);
            if (c.highest() >= floor) visit(band, e.x->spans[s], c);
        }
    }
}

}  // namespace

bool wants_crossings(const Axis& x, const Axis& y) noexcept {
    return x.out >= 6 * static_cast<std::int64_t>(x.count) && y.out >= 2 * static_cast<std::int64_t>(y.count);
}

std::int64_t crossing_scratch(const Axis& x) noexcept { return 3 * x.in; }

float peak_of(const Enlarged& e) noexcept {
    constexpr float kSlack = static_cast<float>(2.0 * kDoubt);
    float best = 0.0f, floor = 1.0f;  // first the patches around the map's own peak, then all that could still matter
    each_patch(e, floor,
               [&](const Span& band, const Span& span, const Corners& c) { best = best_corner(e, band, span, c, best); });
    floor = best - kSlack;
    each_patch(e, floor, [&](const Span& band, const Span& span, const Corners& c) {
        best = best_corner(e, band, span, c, best);
        floor = best - kSlack;
    });
    each_patch(e, floor, [&](const Span& band, const Span& span, const Corners& c) {
        best = search(e, band, span, c, best);
        floor = best - kSlack;
    });
    return best;
}

void add_row(const Enlarged& e, std::int64_t y, float cut, float* scratch, Row& row) noexcept {
    const std::int64_t width = e.x->in;
    double* values = reinterpret_cast<double*>(scratch);
    std::int32_t* classes = reinterpret_cast<std::int32_t*>(values + width);
    const Tap tap = e.y->tap(y);
    classify(e.map + tap.first * width, e.map + tap.second * width, tap.weight, width, cut - kDoubt, cut + kDoubt, values,
             classes);
    for (std::int32_t s = 0; s < e.x->count; ++s) {
        const Span& span = e.x->spans[s];
        const std::int32_t both = classes[span.first] + classes[span.second];
        if (both == 0) continue;
        if (both == 4) {
            row.add(span.begin, span.end);
        } else {
            add_crossing(e, tap, span, values[span.first], values[span.second], cut, row);
        }
    }
}

}  // namespace fastcam
