// Internal: floats as integers of the same order: NaN < -infinity < negative < -0 < +0 < positive < infinity < NaN.

#pragma once

#include <cstdint>
#include <cstring>

namespace fastcam {

inline std::int32_t ordered(float value) noexcept {
    std::int32_t bits;
    std::memcpy(&bits, &value, sizeof bits);
    return bits ^ (bits < 0 ? 0x7fffffff : 0);
}

inline float unordered(std::int32_t order) noexcept {
    const std::int32_t bits = order ^ (order < 0 ? 0x7fffffff : 0);
    float value;
    std::memcpy(&value, &bits, sizeof value);
    return value;
}

}  // namespace fastcam
