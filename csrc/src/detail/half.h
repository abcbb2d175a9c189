// Internal: IEEE binary16 to binary32, exactly, without branches, so that compilers vectorise it.

#pragma once

#include <cstdint>
#include <cstring>

namespace fastcam {

inline float widen(std::uint16_t half) noexcept {
    // exponent and fraction moved to their places give the value times 2^-112, subnormal ones included
    const std::uint32_t magnitude = static_cast<std::uint32_t>(half & 0x7fffu) << 13;
    const std::uint32_t sign = static_cast<std::uint32_t>(half & 0x8000u) << 16;
    const std::uint32_t special = magnitude >= 0x0f800000u ? 0x7f800000u : 0u;  // infinity and NaN
    float value;
    std::memcpy(&value, &magnitude, sizeof value);
    value *= 5192296858534827628530496329220096.0f;  // 2^112
    std::uint32_t bits;
    std::memcpy(&bits, &value, sizeof bits);
    bits |= special | sign;
    std::memcpy(&value, &bits, sizeof value);
    return value;
}

}  // namespace fastcam
