// Internal: the smallest and largest value of one map, and whether all of its values are finite.

#pragma once

#include <cstdint>

namespace fastcam {

struct Extremes {
    float smallest;
    float largest;
    bool finite;  // the other two mean nothing if this is false

    // The map's largest value if it is positive and all values are finite, else 0.
    float peak() const noexcept { return finite && largest > 0.0f ? largest : 0.0f; }

    // A fastcam_status_code.
    std::uint8_t status() const noexcept;
};

Extremes extremes(const float* values, std::int64_t area) noexcept;  // area >= 1

// fastcam_relu; `out` may be `values`.
void rectify(const float* values, std::int64_t count, float* out) noexcept;

// fastcam_normalize of one map whose peak is known.
void divide(const float* map, std::int64_t area, float peak, float* out) noexcept;

}  // namespace fastcam
