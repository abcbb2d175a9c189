// label: connected components of a mask, as an image of labels.
//
// It works on runs, not on pixels: a run is a maximal stretch of foreground columns in a strip of two rows (of one row for
// 4-connectivity; strip.h says why). Each strip's runs are united (union-find, He, Chao & Suzuki 2008) with those of the
// strip above that they touch; which do follows for 64 columns at once from the bits of the rows. Runs are numbered in
// raster order of their first pixels and the smaller number always becomes the root, so one pass over the numbers turns
// parents into consecutive labels, and one over the mask writes the label image. What equals what lies above it is copied.

#include <algorithm>
#include <cstring>

#include "clones.h"
#include "fastcam/cam.h"
#include "memory.h"
#include "strip.h"

#ifdef FASTCAM_MULTIVERSION
#include <immintrin.h>
#endif

namespace fastcam {
namespace {

constexpr std::int64_t kAfter = 8;  // labels that may be read behind the last run's

std::int64_t most_runs(std::int64_t height, std::int64_t width) noexcept { return height * ((width + 1) / 2); }

// All memory of one mask.
struct Forest {
    Strip strips[2];        // the one above and the one below; but for cover and spare they are parts of what follows
    std::uint64_t* bits;    // all rows and an empty one behind, stride() words each
    std::uint64_t* starts;  // those of all strips
    std::int32_t* runs_at;
    std::int32_t* ids;     // numbers in the order of strips and columns, and at the end the labels
    std::int32_t* parent;  // by number; parent[i] <= i is the forest, and at the end the labels
    std::int64_t words;
    std::int64_t rows;  // of a strip

    std::int64_t stride() const noexcept { return words + 1; }  // the zero behind a row is the one in front of the next
};

FASTCAM_INLINE std::int32_t root_of(std::int32_t* parent, std::int32_t i) noexcept {
    while (parent[i] != i) {
        parent[i] = parent[parent[i]];
        i = parent[i];
    }
    return i;
}

// A run that touches none above is a root. So one that is a root has not been linked yet, and becomes what the other is.
FASTCAM_INLINE void link(std::int32_t run, std::int32_t other, const Forest& forest) noexcept {
    std::int32_t* parent = forest.parent;
    const std::int32_t id = forest.ids[run], own = parent[id], above = parent[forest.ids[other]];
    if (own == id) {
        parent[id] = above;
    } else if (own != above) {
        const std::int32_t a = root_of(parent, own), b = root_of(parent, above);
        parent[std::max(a, b)] = std::min(a, b);
    }
}

// Links the runs of word `i` of a strip with those above that they touch, each pair at least once. The columns that two
// runs share are a run of `shared`; whether they touch in there is carried to the place behind it (add in strip.h).
// Outside, only corners are left: a pixel in the top row with nothing but the neighbour to its right, or left, above it.
// Which run a pixel belongs to is how many begin up to it; of a set of bits, m ^ (m - 1) is the lowest and all below it.
FASTCAM_INLINE void link_word(const Strip& row, const Strip& above, std::int64_t i, std::uint64_t& carry,
                              const Forest& forest) noexcept {
    const std::uint64_t starts = row.starts[i], starts_above = above.starts[i];
    const std::int32_t run = row.runs_at[i] - 1, other = above.runs_at[i] - 1;
    const auto shared_at = [&](std::int64_t word) { return row.cover[word] & above.cover[word]; };
    const std::uint64_t shared = shared_at(i), carried = add(shared, row.spare[i], carry);
    std::uint64_t ends = ~shared & (shared << 1 | shared_at(i - 1) >> 63) & carried;
    for (; ends != 0; ends &= ends - 1) {
        const std::uint64_t before = (ends - 1) & ~ends;
        link(run + ones(starts & before), other + ones(starts_above & before), forest);
    }
    if (forest.rows == 1) return;
    const std::uint64_t alone = row.top[i] & ~above.cover[i];
    for (std::uint64_t m = alone & right_of(above.bottom, i) & ~right_of(row.spare, i); m != 0; m &= m - 1) {
        const std::uint64_t up_to = m ^ (m - 1);  // the run above begins at the next pixel
        link(run + ones(starts & up_to), other + ones(starts_above & up_to) + 1, forest);
    }
    for (std::uint64_t m = alone & left_of(above.bottom, i) & ~left_of(row.spare, i); m != 0; m &= m - 1) {
        const std::uint64_t up_to = m ^ (m - 1);  // none above begins at this pixel
        link(run + ones(starts & up_to), other + ones(starts_above & up_to), forest);
    }
}

// spare = the pixels of the top row, in columns of runs above, that have a neighbour in the bottom row above.
FASTCAM_INLINE void find_contacts(const Strip& row, const Strip& above, const Forest& forest) noexcept {
    for (std::int64_t i = 0; i < forest.words; ++i) {
        std::uint64_t near = above.bottom[i];
        if (forest.rows == 2) near |= left_of(above.bottom, i) | right_of(above.bottom, i);
        row.spare[i] = row.top[i] & near & above.cover[i];
    }
}

// Whether all four rows of two strips are equal in a word.
FASTCAM_INLINE bool continues(const Strip& row, const Strip& above, std::int64_t i) noexcept {
    const std::uint64_t bits = row.cover[i];
    return ((bits ^ row.top[i]) | (bits ^ above.cover[i]) | (bits ^ above.bottom[i])) == 0;
}

// Runs from..to of a strip continue those above that begin `shift` places earlier.
FASTCAM_INLINE void continue_runs(std::int32_t from, std::int32_t to, std::int32_t shift, const Forest& forest) noexcept {
    for (std::int32_t k = from; k < to; ++k) forest.parent[forest.ids[k]] = forest.parent[forest.ids[k - shift]];
}

// Connects a strip with the one above. On its left and right, as far as words are equal, run continues run.
FASTCAM_INLINE void connect(const Strip& row, const Strip& above, const Forest& forest) noexcept {
    const std::int64_t words = forest.words;
    const std::int32_t end = row.base + row.count;
    std::int64_t left = 0, right = words;
    while (left < words && continues(row, above, left)) ++left;
    if (left == words) {
        continue_runs(row.base, end, row.base - above.base, forest);
        return;
    }
    while (right > left + 1 && continues(row, above, right - 1)) --right;
    find_contacts(row, above, forest);
    std::uint64_t carry = left > 0 ? row.cover[left - 1] >> 63 : 0;  // equal words touch in all columns
    const std::int32_t whole = row.runs_at[left] - static_cast<std::int32_t>(carry);
    continue_runs(row.base, whole, row.base - above.base, forest);
    for (std::int64_t i = left; i < right; ++i) link_word(row, above, i, carry, forest);
    if (carry != 0) link(run_at(row, 64 * right - 1), run_at(above, 64 * right - 1), forest);
    if (right == words) return;
    std::int32_t first = row.runs_at[right];
    if ((row.cover[right] & 1) != 0) {
        link(run_at(row, 64 * right), run_at(above, 64 * right), forest);
        first = run_at(row, 64 * right) + 1;
    }
    continue_runs(first, end, end - (above.base + above.count), forest);
}

// Reads all rows; those of 4-connectivity are their own strips' cover.
void read_rows(const std::uint8_t* mask, std::int64_t height, std::int64_t width, const Forest& forest) noexcept {
    for (std::int64_t y = 0; y < height; ++y) read_row(mask + y * width, width, forest.bits + y * forest.stride());
}

// Strip `number` of the mask, behind `base` runs: its rows' cover, its runs, their numbers, and each a root.
FASTCAM_INLINE void begin_strip(std::int64_t number, std::int32_t base, const Forest& forest, Strip& strip) noexcept {
    const std::int64_t words = forest.words;
    strip.base = base;
    strip.starts = forest.starts + number * words;
    strip.runs_at = forest.runs_at + number * words;
    strip.top = forest.bits + number * forest.rows * forest.stride();
    strip.bottom = strip.top + (forest.rows - 1) * forest.stride();
    for (std::int64_t i = 0; i < words; ++i) strip.cover[i] = strip.top[i] | strip.bottom[i];
    find_runs(strip, words);
    if (strip.count == 0) return;
    number_runs(strip, words, forest.ids);
    for (std::int32_t id = base; id < base + strip.count; ++id) forest.parent[id] = id;
}

// Connects all strips; returns the number of runs.
FASTCAM_CLONES
std::int32_t grow(std::int64_t height, Forest& forest) noexcept {
    std::int32_t base = 0;
    for (std::int64_t number = 0; number * forest.rows < height; ++number) {
        Strip &row = forest.strips[number % 2], &above = forest.strips[1 - number % 2];
        begin_strip(number, base, forest, row);
        if (number > 0 && row.count > 0 && above.count > 0) connect(row, above, forest);
        base += row.count;
    }
    return base;
}

// Parents become labels: a parent comes before its child, so its label is already there. Returns the number of components.
std::int32_t number_components(std::int32_t runs, const Forest& forest) noexcept {
    std::int32_t count = 0;
    std::int32_t* parent = forest.parent;
    for (std::int32_t r = 0; r < runs; ++r) parent[r] = parent[r] == r ? ++count : parent[parent[r]];
    for (std::int32_t r = 0; r < runs; ++r) forest.ids[r] = parent[forest.ids[r]];
    return count;
}

// out = label where the mask is set, else 0, for at least `size` pixels: eight at a time, so up to seven more, which the
// next call overwrites.
inline void paint_ahead(const std::uint8_t* mask, std::int64_t size, std::int32_t label, std::int32_t* out) noexcept {
#ifdef FASTCAM_SSE2
    const __m128i zero = _mm_setzero_si128(), four = _mm_set1_epi32(label);
    for (std::int64_t i = 0; i < size; i += 8) {
        const __m128i bytes = _mm_loadl_epi64(reinterpret_cast<const __m128i*>(mask + i));
        const __m128i empty = _mm_cmpeq_epi8(bytes, zero), twice = _mm_unpacklo_epi8(empty, empty);
        const __m128i low = _mm_andnot_si128(_mm_unpacklo_epi16(twice, twice), four);
        const __m128i high = _mm_andnot_si128(_mm_unpackhi_epi16(twice, twice), four);
        _mm_storeu_si128(reinterpret_cast<__m128i*>(out + i), low);
        _mm_storeu_si128(reinterpret_cast<__m128i*>(out + i + 4), high);
    }
#else
    for (std::int64_t i = 0; i < size; ++i) out[i] = mask[i] != 0 ? label : 0;
#endif
}

inline void paint(const std::uint8_t* mask, std::int64_t size, std::int32_t label, std::int32_t* out) noexcept {
    for (std::int64_t i = 0; i < size; ++i) out[i] = mask[i] != 0 ? label : 0;
}

// The labels of up to 64 pixels of one row. `label` points to those of the runs that begin here; label[-1] is that of the
// run in front. With `ahead`, pixels behind the word may be read and written.
#ifdef FASTCAM_MULTIVERSION
__attribute__((target("default")))
#endif
void write_word(const std::uint8_t* mask, std::int64_t size, std::uint64_t starts, const std::int32_t* label, bool ahead,
                std::int32_t* out) noexcept {
    std::int64_t x = 0;
    for (std::int64_t next = 0; x < size; x = next, ++label) {
        next = starts != 0 ? lowest_bit(starts) : size;
        starts &= starts - 1;
        if (ahead) {
            paint_ahead(mask + x, next - x, label[-1], out + x);
        } else {
            paint(mask + x, next - x, label[-1], out + x);
        }
    }
}

#ifdef FASTCAM_MULTIVERSION
// of[b][i]: how many of the bits 0..i of b are set.
struct Ranks {
    std::uint8_t of[256][8] = {};

    constexpr Ranks() {
        for (int b = 0; b < 256; ++b) {
            for (int i = 0, rank = 0; i < 8; ++i) of[b][i] = static_cast<std::uint8_t>(rank += b >> i & 1);
        }
    }
};
constexpr Ranks kRanks;

// The same without branches: of eight pixels each picks its label among the next eight (kAfter of them may lie behind the
// last). At most four runs begin there.
__attribute__((target("avx2"))) void write_word(const std::uint8_t* mask, std::int64_t size, std::uint64_t starts,
                                                const std::int32_t* label, bool ahead, std::int32_t* out) noexcept {
    std::uint8_t tail[64] = {};
    std::int32_t end[64], *const to = ahead ? out : end;
    if (!ahead) std::memcpy(tail, mask, static_cast<std::size_t>(size));
    const std::uint8_t* const from = ahead ? mask : tail;
    for (std::int64_t x = 0; x < size; x += 8, starts >>= 8) {
        const std::uint8_t* const ranks = kRanks.of[starts & 255];
        const __m256i at = _mm256_cvtepu8_epi32(_mm_loadl_epi64(reinterpret_cast<const __m128i*>(ranks)));
        const __m256i known = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(label - 1));
        const __m128i bytes = _mm_loadl_epi64(reinterpret_cast<const __m128i*>(from + x));
        const __m256i empty = _mm256_cvtepi8_epi32(_mm_cmpeq_epi8(bytes, _mm_setzero_si128()));
        const __m256i labels = _mm256_andnot_si256(empty, _mm256_permutevar8x32_epi32(known, at));
        _mm256_storeu_si256(reinterpret_cast<__m256i*>(to + x), labels);
        label += ranks[7];
    }
    if (!ahead) std::copy(end, end + size, out);
}
#endif

// One row's labels. Words without foreground are zeros, and in words that equal those above each pixel belongs to the one
// above; neighbours of either kind are written together.
void write_row(const std::uint8_t* mask, std::int64_t y, std::int64_t height, std::int64_t width, const Forest& forest,
               std::int32_t* labels) noexcept {
    const std::uint64_t *bits = forest.bits + y * forest.stride(), *above = bits - forest.stride();
    const std::int64_t strip = y / forest.rows * forest.words, row = y * width;
    std::int32_t* const out = labels + row;
    for (std::int64_t i = 0, end; i < forest.words; i = end) {
        end = i + 1;
        const std::int64_t x = 64 * i;
        if (bits[i] == 0) {
            while (end < forest.words && bits[end] == 0) ++end;
            std::fill(out + x, out + std::min(64 * end, width), 0);
        } else if (y > 0 && bits[i] == above[i]) {
            while (end < forest.words && bits[end] == above[end]) ++end;
            std::copy(out + x - width, out + std::min(64 * end, width) - width, out + x);
        } else {
            write_word(mask + row + x, std::min<std::int64_t>(64, width - x), forest.starts[strip + i],
                       forest.ids + forest.runs_at[strip + i], row + x + 64 + 8 <= height * width, out + x);
        }
    }
}

std::int32_t label_one(const std::uint8_t* mask, std::int64_t height, std::int64_t width, Forest& forest,
                       std::int32_t* labels) noexcept {
    read_rows(mask, height, width, forest);
    const std::int32_t count = number_components(grow(height, forest), forest);
    for (std::int64_t y = 0; y < height; ++y) write_row(mask, y, height, width, forest, labels);
    return count;
}

// Rows of `words` words with a word of zeros in front of each and behind the last, which is all zeros.
std::uint64_t* take_bits(Arena& arena, std::int64_t rows, std::int64_t words) noexcept {
    std::uint64_t* const bits = arena.take<std::uint64_t>(rows * (words + 1) + 1);
    if (bits == nullptr) return nullptr;
    for (std::int64_t y = 0; y <= rows; ++y) bits[y * (words + 1)] = 0;
    std::fill(bits + (rows - 1) * (words + 1), bits + rows * (words + 1), 0);
    return bits + 1;
}

// The memory of a mask, for either connectivity.
Forest take_forest(Arena& arena, std::int64_t height, std::int64_t width, std::int64_t rows) noexcept {
    Forest forest{};
    forest.words = words_of(width);
    forest.rows = rows;
    for (Strip& strip : forest.strips) {
        strip.cover = take_bits(arena, 1, forest.words);
        strip.spare = take_bits(arena, 1, forest.words);
    }
    forest.bits = take_bits(arena, height + 1, forest.words);
    const std::int64_t strips = (height + rows - 1) / rows, runs = most_runs(strips, width);
    forest.starts = arena.take<std::uint64_t>(strips * forest.words);
    forest.runs_at = arena.take<std::int32_t>(strips * forest.words);
    forest.parent = arena.take<std::int32_t>(runs);
    forest.ids = arena.take<std::int32_t>(1 + runs + kAfter);
    if (forest.ids != nullptr) *forest.ids++ = 0;  // the run in front of the first
    return forest;
}

}  // namespace
}  // namespace fastcam

size_t fastcam_label_scratch(int64_t height, int64_t width) noexcept {
    fastcam::Arena arena{nullptr};
    fastcam::take_forest(arena, height, width, 1);
    return arena.used;
}

void fastcam_label(const uint8_t* mask, int64_t maps, int64_t height, int64_t width, int connectivity, void* scratch,
                   int32_t* labels, int32_t* counts) noexcept {
    fastcam::Arena arena{static_cast<unsigned char*>(scratch)};
    fastcam::Forest forest = fastcam::take_forest(arena, height, width, connectivity == 8 ? 2 : 1);
    for (std::int64_t m = 0; m < maps; ++m) {
        const std::int64_t offset = m * height * width;
        counts[m] = fastcam::label_one(mask + offset, height, width, forest, labels + offset);
    }
}
