// Internal: runs, the maximal horizontal stretches of foreground pixels in one row.

#pragma once

#include <algorithm>
#include <cstdint>
#include <cstring>

#if defined(__SSE2__) || defined(_M_X64)
#include <emmintrin.h>
#define FASTCAM_SSE2
#endif
#ifdef _MSC_VER
#include <intrin.h>
#endif

namespace fastcam {

// Number of the lowest bit that is set.
inline int lowest_bit(std::uint64_t word) noexcept {
#ifdef _MSC_VER
    unsigned long index = 0;
    _BitScanForward64(&index, word);
    return static_cast<int>(index);
#else
    return __builtin_ctzll(word);
#endif
}

// Bit i is set where byte i of 64 is not zero.
inline std::uint64_t bits_of(const std::uint8_t* bytes) noexcept {
    std::uint64_t bits = 0;
#ifdef FASTCAM_SSE2
    const __m128i zero = _mm_setzero_si128();
    for (int i = 0; i < 64; i += 16) {
        const __m128i chunk = _mm_loadu_si128(reinterpret_cast<const __m128i*>(bytes + i));
        const auto empty = static_cast<std::uint32_t>(_mm_movemask_epi8(_mm_cmpeq_epi8(chunk, zero)));
        bits |= static_cast<std::uint64_t>(~empty & 0xffffu) << i;
    }
#else
    for (int i = 0; i < 64; i += 8) {
        std::uint64_t ones = 0;  // one byte a factor of two: the product gathers bit 0 of each byte, first byte lowest
        for (int j = 0; j < 8; ++j) ones |= static_cast<std::uint64_t>(bytes[i + j] != 0) << (8 * j);
        bits |= ((ones * 0x0102040810204080u) >> 56) << i;
    }
#endif
    return bits;
}

// Calls edge(x) for every column where a row's bytes change between zero and not zero, from left to right: first, last
// (exclusive), first, last, ... of the runs.
template <typename Edge>
inline void each_edge(const std::uint8_t* row, std::int64_t width, Edge&& edge) noexcept {
    std::uint64_t before = 0;  // the pixel left of the word
    for (std::int64_t x = 0; x < width; x += 64) {
        std::uint64_t bits;
        if (width - x >= 64) {
            bits = bits_of(row + x);
        } else {
            std::uint8_t tail[64] = {};
            std::memcpy(tail, row + x, static_cast<std::size_t>(width - x));
            bits = bits_of(tail);
        }
        for (std::uint64_t edges = bits ^ (bits << 1 | before); edges != 0; edges &= edges - 1) {
            edge(static_cast<std::int32_t>(x + lowest_bit(edges)));
        }
        before = bits >> 63;
    }
    if (before != 0) edge(static_cast<std::int32_t>(width));  // in a shorter last word the tail's zeros ended the run
}

struct Run {
    std::int32_t first;
    std::int32_t last;  // exclusive
    std::int32_t component;
};

// The runs of one row, cut to begin..end, in memory for (width + 1) / 2 of them.
struct Row {
    Run* runs;
    std::int32_t count;
    std::int32_t begin;
    std::int32_t end;

    // Foreground first..last, right of or touching what was added before.
    void add(std::int32_t first, std::int32_t last) noexcept {
        first = std::max(first, begin);
        last = std::min(last, end);
        if (first >= last) return;
        if (count > 0 && runs[count - 1].last == first) {
            runs[count - 1].last = last;
        } else {
            runs[count++] = {first, last, 0};
        }
    }

    void add_mask(const std::uint8_t* mask, std::int32_t offset, std::int64_t size) noexcept {
        std::int32_t open = -1;
        each_edge(mask, size, [&](std::int32_t x) {
            if (open < 0) {
                open = x;
            } else {
                add(offset + open, offset + x);
                open = -1;
            }
        });
    }
};

}  // namespace fastcam
