// Internal: the mask threshold(upsample(map)) row by row as runs, and the enlarged map's peak, without the enlarged map.

#pragma once

#include <cstdint>

#include "axis.h"
#include "runs.h"

namespace fastcam {

// A small map with values in 0..1 (normalised: the largest is 1), and the axes that enlarge it.
struct Enlarged {
    const float* map;
    const Axis* x;
    const Axis* y;
};

// Whether the way over crossings is the faster one: where a span holds several pixels.
bool wants_crossings(const Axis& x, const Axis& y) noexcept;

// Floats of scratch memory for the functions below.
std::int64_t crossing_scratch(const Axis& x) noexcept;

// The largest pixel, exactly.
float peak_of(const Enlarged& e) noexcept;

// Adds the runs of output row y where pixels are positive and >= cut.
void add_row(const Enlarged& e, std::int64_t y, float cut, float* scratch, Row& row) noexcept;

}  // namespace fastcam
