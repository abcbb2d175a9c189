// Internal: the smallest and largest value of one map, and whether all of its values are finite.
//
// Compilers do not vectorise a plain float maximum (its result depends on the order where NaN or -0 occur), so it is
// kept in eight independent lanes. x - x is 0 for finite x and NaN otherwise, which is how the lanes notice.

#pragma once

#include <cstdint>

namespace fastcam {

struct Extremes {
    float smallest;
    float largest;
    bool finite;  // the other two mean nothing if this is false

    // The map's largest value if it is positive and all values are finite, else 0.
    float peak() const noexcept { return finite && largest > 0.0f ? largest : 0.0f; }
};

inline Extremes extremes(const float* values, std::int64_t area) noexcept {
    constexpr int kLanes = 8;
    float low[kLanes], high[kLanes], doubt[kLanes];
    for (int j = 0; j < kLanes; ++j) {
        low[j] = high[j] = values[0];
        doubt[j] = values[0] - values[0];
    }
    std::int64_t i = 0;
    for (; i + kLanes <= area; i += kLanes) {
        for (int j = 0; j < kLanes; ++j) {
            const float x = values[i + j];
            low[j] = x < low[j] ? x : low[j];
            high[j] = x > high[j] ? x : high[j];
            doubt[j] += x - x;
        }
    }
    for (; i < area; ++i) {
        const float x = values[i];
        low[0] = x < low[0] ? x : low[0];
        high[0] = x > high[0] ? x : high[0];
        doubt[0] += x - x;
    }
    Extremes result{low[0], high[0], doubt[0] == 0.0f};
    for (int j = 1; j < kLanes; ++j) {
        result.smallest = low[j] < result.smallest ? low[j] : result.smallest;
        result.largest = high[j] > result.largest ? high[j] : result.largest;
        result.finite = result.finite && doubt[j] == 0.0f;
    }
    return result;
}

}  // namespace fastcam
