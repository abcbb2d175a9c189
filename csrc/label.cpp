// threshold, label and boxes: from a heatmap to where the object is.
//
// label works on runs, not on pixels: a run is a maximal horizontal stretch of foreground. Each row's runs are found in
// one scan and united (union-find, He, Chao & Suzuki 2008) with the runs of the row above that they touch. The smaller
// index always becomes the root, so the root of a component is its first run in raster order, and one pass over the
// runs in order turns roots into consecutive labels.

#include <algorithm>
#include <cstring>

#include "cam.h"
#include "extremes.h"

namespace fastcam {
namespace {

// Runs as offsets first..last (half-open) into the mask; parent[i] <= i is the forest, and at the end the labels.
struct Runs {
    std::int32_t* first;
    std::int32_t* last;
    std::int32_t* parent;
    std::int32_t count;
};

std::int64_t most_runs(std::int64_t height, std::int64_t width) noexcept { return height * ((width + 1) / 2); }

std::int32_t root_of(std::int32_t* parent, std::int32_t i) noexcept {
    while (parent[i] != i) {
        parent[i] = parent[parent[i]];
        i = parent[i];
    }
    return i;
}

void unite(std::int32_t* parent, std::int32_t a, std::int32_t b) noexcept {
    a = root_of(parent, a);
    b = root_of(parent, b);
    parent[std::max(a, b)] = std::min(a, b);
}

// The first non-zero byte of begin..end, eight at a time where they are all zero.
const std::uint8_t* skip_background(const std::uint8_t* begin, const std::uint8_t* end) noexcept {
    for (std::uint64_t word = 0; end - begin >= 8; begin += 8) {
        std::memcpy(&word, begin, sizeof word);
        if (word != 0) break;
    }
    while (begin != end && *begin == 0) ++begin;
    return begin;
}

// Appends the runs of one row.
void scan_row(const std::uint8_t* mask, std::int64_t row, std::int64_t width, Runs& runs) noexcept {
    const std::uint8_t* end = mask + (row + 1) * width;
    for (const std::uint8_t* p = skip_background(mask + row * width, end); p != end; p = skip_background(p, end)) {
        const void* zero = std::memchr(p, 0, static_cast<std::size_t>(end - p));
        const std::uint8_t* stop = zero ? static_cast<const std::uint8_t*>(zero) : end;
        runs.first[runs.count] = static_cast<std::int32_t>(p - mask);
        runs.last[runs.count] = static_cast<std::int32_t>(stop - mask);
        runs.parent[runs.count] = runs.count;
        ++runs.count;
        p = stop;
    }
}

// Unites the runs below..end of a row with those above..below of the row before. Two runs touch if their columns
// overlap, or (reach 1: 8-connectivity) if they meet at a corner.
void connect_rows(Runs& runs, std::int32_t above, std::int32_t below, std::int64_t width, std::int64_t reach) noexcept {
    std::int32_t p = above;
    for (std::int32_t r = below; r < runs.count; ++r) {
        const std::int64_t first = runs.first[r] - width - reach;
        const std::int64_t last = runs.last[r] - width + reach;
        while (p < below && runs.last[p] <= first) ++p;
        for (std::int32_t q = p; q < below && runs.first[q] < last; ++q) unite(runs.parent, q, r);
    }
}

// Parents become labels: a parent comes before its child, so its label is already there.
std::int32_t number_components(Runs& runs) noexcept {
    std::int32_t count = 0;
    for (std::int32_t r = 0; r < runs.count; ++r) {
        runs.parent[r] = runs.parent[r] == r ? ++count : runs.parent[runs.parent[r]];
    }
    return count;
}

std::int32_t label_one(const std::uint8_t* mask, std::int64_t height, std::int64_t width, std::int64_t reach, Runs runs,
                       std::int32_t* labels) noexcept {
    std::int32_t above = 0;
    for (std::int64_t y = 0; y < height; ++y) {
        const std::int32_t below = runs.count;
        scan_row(mask, y, width, runs);
        connect_rows(runs, above, below, width, reach);
        above = below;
    }
    const std::int32_t count = number_components(runs);
    std::fill(labels, labels + height * width, 0);
    for (std::int32_t r = 0; r < runs.count; ++r) {
        std::fill(labels + runs.first[r], labels + runs.last[r], runs.parent[r]);
    }
    return count;
}

}  // namespace

void threshold(const float* values, std::int64_t maps, std::int64_t area, float fraction,
               std::uint8_t* out) noexcept {
    for (std::int64_t m = 0; m < maps; ++m) {
        const float* map = values + m * area;
        std::uint8_t* mask = out + m * area;
        const float peak = extremes(map, area).peak();
        if (peak == 0.0f) {
            std::fill(mask, mask + area, std::uint8_t{0});
            continue;
        }
        const float cut = fraction * peak;  // may underflow to 0: a value must be positive besides
        for (std::int64_t i = 0; i < area; ++i) mask[i] = (map[i] >= cut) & (map[i] > 0.0f);
    }
}

std::size_t label_scratch(std::int64_t height, std::int64_t width) noexcept {
    return static_cast<std::size_t>(most_runs(height, width)) * 3 * sizeof(std::int32_t);
}

void label(const std::uint8_t* mask, std::int64_t maps, std::int64_t height, std::int64_t width, int connectivity,
           void* scratch, std::int32_t* labels, std::int32_t* counts) noexcept {
    const std::int64_t most = most_runs(height, width);
    std::int32_t* first = static_cast<std::int32_t*>(scratch);
    const Runs none{first, first + most, first + 2 * most, 0};
    const std::int64_t reach = connectivity == 8 ? 1 : 0;
    for (std::int64_t m = 0; m < maps; ++m) {
        const std::int64_t offset = m * height * width;
        counts[m] = label_one(mask + offset, height, width, reach, none, labels + offset);
    }
}

bool boxes(const std::int32_t* labels, std::int64_t height, std::int64_t width, std::int64_t count,
           std::int32_t* out) noexcept {
    std::fill(out, out + count * 5, 0);
    for (std::int64_t y = 0; y < height; ++y) {
        const std::int32_t* row = labels + y * width;
        for (std::int64_t x = 0; x < width;) {
            const std::int32_t value = row[x];
            const std::int64_t begin = x;
            while (x < width && row[x] == value) ++x;
            if (value == 0) continue;
            if (value < 0 || value > count) return false;
            std::int32_t* box = out + (value - std::int64_t{1}) * 5;
            const std::int32_t x0 = static_cast<std::int32_t>(begin), x1 = static_cast<std::int32_t>(x);
            const bool fresh = box[4] == 0;
            box[0] = fresh ? x0 : std::min(box[0], x0);
            box[1] = fresh ? static_cast<std::int32_t>(y) : box[1];
            box[2] = std::max(box[2], x1);
            box[3] = static_cast<std::int32_t>(y + 1);
            box[4] += x1 - x0;
        }
    }
    return true;
}

}  // namespace fastcam
