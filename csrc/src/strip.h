// Internal: two rows of a mask (for 4-connectivity one) as bits and as runs, which is what label works on.
//
// Where neighbours may share a corner, all pixels of two adjacent columns in two adjacent rows touch. So the connected
// pieces of a strip of two rows are the runs of the rows' union ("cover"), half as many as the rows have in dense masks.
// All questions about them are asked of 64 columns at once.

#pragma once

#include <algorithm>
#include <cstdint>
#include <cstring>

#include "clones.h"
#include "runs.h"

namespace fastcam {

// Rows of bits, 64 pixels a word; a word of zeros lies in front of the first, another one behind the last.
struct Strip {
    std::uint64_t* top;     // the first row
    std::uint64_t* bottom;  // the last row; of a strip that the mask's end has cut, nothing
    std::uint64_t* cover;   // both
    std::uint64_t* spare;
    std::uint64_t* starts;  // of each word, the first pixels of runs (no zeros around)
    std::int32_t* runs_at;  // how many runs of the whole mask, in the order of strips and columns, begin before each word
    std::int32_t base;      // ... and before the strip
    std::int32_t count;     // runs of the strip
};

inline std::int64_t words_of(std::int64_t width) noexcept { return (width + 63) / 64; }

FASTCAM_INLINE std::int32_t ones(std::uint64_t word) noexcept {
#ifdef __GNUC__
    return __builtin_popcountll(word);
#else
    word -= word >> 1 & 0x5555555555555555u;
    word = (word & 0x3333333333333333u) + (word >> 2 & 0x3333333333333333u);
    return static_cast<std::int32_t>(((word + (word >> 4)) & 0x0f0f0f0f0f0f0f0fu) * 0x0101010101010101u >> 56);
#endif
}

// Word i of the row moved by one pixel: each bit is that of its left, or right, neighbour.
FASTCAM_INLINE std::uint64_t left_of(const std::uint64_t* bits, std::int64_t i) noexcept {
    return bits[i] << 1 | bits[i - 1] >> 63;
}
FASTCAM_INLINE std::uint64_t right_of(const std::uint64_t* bits, std::int64_t i) noexcept {
    return bits[i] >> 1 | bits[i + 1] << 63;
}

// Word i of a + b as numbers of any length: within a run of a, a bit of b carries one to the place behind the run's last.
FASTCAM_INLINE std::uint64_t add(std::uint64_t a, std::uint64_t b, std::uint64_t& carry) noexcept {
    const std::uint64_t sum = a + b, result = sum + carry;
    carry = (sum < a) | (result < sum);
    return result;
}

// The run that column x belongs to, in the order of strips and columns.
FASTCAM_INLINE std::int32_t run_at(const Strip& strip, std::int64_t x) noexcept {
    const std::uint64_t up_to = ~std::uint64_t{0} >> (63 - (x & 63));
    return strip.runs_at[x >> 6] + ones(strip.starts[x >> 6] & up_to) - 1;
}

FASTCAM_INLINE void read_row(const std::uint8_t* row, std::int64_t width, std::uint64_t* bits) noexcept {
    std::int64_t x = 0;
    for (; width - x >= 64; x += 64) *bits++ = bits_of(row + x);
    if (x < width) {
        std::uint8_t tail[64] = {};
        std::memcpy(tail, row + x, static_cast<std::size_t>(width - x));
        *bits = bits_of(tail);
    }
}

FASTCAM_INLINE void find_runs(Strip& strip, std::int64_t words) noexcept {
    std::int32_t before = strip.base;
    for (std::int64_t i = 0; i < words; ++i) {
        strip.starts[i] = strip.cover[i] & ~left_of(strip.cover, i);
        strip.runs_at[i] = before;
        before += ones(strip.starts[i]);
    }
    strip.count = before - strip.base;
}

// Numbers of the strip's runs, such that the one whose first pixel comes first in raster order has the smallest number:
// from `base` on those with a pixel in the top row, then the others. ids[k] is that of run k.
FASTCAM_INLINE void number_runs(const Strip& strip, std::int64_t words, std::int32_t* ids) noexcept {
    std::uint64_t carry = 0, without = 0;
    for (std::int64_t i = 0; i <= words; ++i) {
        strip.spare[i] = add(strip.cover[i], strip.top[i], carry);
        without |= ~strip.cover[i] & left_of(strip.cover, i) & ~strip.spare[i];
    }
    std::int32_t* id = ids + strip.base;
    if (without == 0) {
        for (std::int32_t k = 0; k < strip.count; ++k) id[k] = strip.base + k;
        strip.spare[words] = 0;
        return;
    }
    std::int32_t upper = strip.base, lower = 0;
    for (std::int64_t i = 0; i <= words; ++i) {
        for (std::uint64_t ends = ~strip.cover[i] & left_of(strip.cover, i); ends != 0; ends &= ends - 1) {
            const std::int32_t in_top = strip.spare[i] >> lowest_bit(ends) & 1;
            *id++ = in_top ? upper : ~lower;
            upper += in_top;
            lower += 1 - in_top;
        }
    }
    strip.spare[words] = 0;
    for (id = ids + strip.base; id < ids + strip.base + strip.count; ++id) *id = *id < 0 ? upper + ~*id : *id;
}

}  // namespace fastcam
