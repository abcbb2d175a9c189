// threshold, label and boxes: from a heatmap to where the object is.
//
// label works on runs, not on pixels: a run is a maximal horizontal stretch of foreground. Each row's runs are found in
// one scan, 64 pixels a word, and united (union-find, He, Chao & Suzuki 2008) with the runs of the row above that they
// touch. The smaller index always becomes the root, so the root of a component is its first run in raster order, and one
// pass over the runs in order turns roots into consecutive labels and writes the label image.

#include <algorithm>

#include "cam.h"
#include "clones.h"
#include "extremes.h"
#include "runs.h"

namespace fastcam {
namespace {

// Runs as offsets into the mask, edges[2 i] (first) and edges[2 i + 1] (exclusive last); parent[i] <= i is the forest,
// and at the end the labels.
struct Runs {
    std::int32_t* edges;
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

// Appends the runs of one row.
void scan_row(const std::uint8_t* mask, std::int64_t row, std::int64_t width, Runs& runs) noexcept {
    const std::int32_t offset = static_cast<std::int32_t>(row * width);
    std::int32_t* edge = runs.edges + 2 * static_cast<std::int64_t>(runs.count);
    each_edge(mask + row * width, width, [&](std::int32_t x) { *edge++ = offset + x; });
    runs.count = static_cast<std::int32_t>((edge - runs.edges) / 2);
}

// Gives every run from `below` on a parent among the runs above..below of the row before. Two runs touch if their columns
// overlap, or (reach 1: 8-connectivity) if they meet at a corner.
void connect_rows(const Runs& runs, std::int32_t above, std::int32_t below, std::int64_t width,
                  std::int64_t reach) noexcept {
    const std::int32_t* edges = runs.edges;
    std::int32_t* parent = runs.parent;
    std::int32_t p = above;
    for (std::int32_t r = below; r < runs.count; ++r) {
        const std::int64_t first = edges[2 * std::int64_t{r}] - width - reach;
        const std::int64_t last = edges[2 * std::int64_t{r} + 1] - width + reach;
        while (p < below && edges[2 * std::int64_t{p} + 1] <= first) ++p;
        std::int32_t root = r;
        for (std::int32_t q = p; q < below && edges[2 * std::int64_t{q}] < last; ++q) {
            if (parent[q] == root) continue;
            const std::int32_t other = root_of(parent, q);
            if (root != r) parent[std::max(root, other)] = std::min(root, other);
            root = std::min(root, other);
        }
        parent[r] = root;
    }
}

// Parents become labels: a parent comes before its child, so its label is already there.
std::int32_t number_components(const Runs& runs) noexcept {
    std::int32_t count = 0;
    for (std::int32_t r = 0; r < runs.count; ++r) {
        runs.parent[r] = runs.parent[r] == r ? ++count : runs.parent[runs.parent[r]];
    }
    return count;
}

// out[first..last) = value, eight at a time: writes up to seven elements more, which the next call overwrites.
inline void fill_ahead(std::int32_t* out, std::int64_t first, std::int64_t last, std::int32_t value) noexcept {
#ifdef FASTCAM_SSE2
    const __m128i four = _mm_set1_epi32(value);
    for (std::int64_t i = first; i < last; i += 8) {
        _mm_storeu_si128(reinterpret_cast<__m128i*>(out + i), four);
        _mm_storeu_si128(reinterpret_cast<__m128i*>(out + i + 4), four);
    }
#else
    std::fill(out + first, out + last, value);
#endif
}

void write_labels(const Runs& runs, std::int64_t area, std::int32_t* labels) noexcept {
    std::int64_t done = 0, r = 0;
    for (; r < runs.count && runs.edges[2 * r + 1] + 8 <= area; ++r) {
        fill_ahead(labels, done, runs.edges[2 * r], 0);
        fill_ahead(labels, runs.edges[2 * r], runs.edges[2 * r + 1], runs.parent[r]);
        done = runs.edges[2 * r + 1];
    }
    std::fill(labels + done, labels + area, 0);
    for (; r < runs.count; ++r) {
        std::fill(labels + runs.edges[2 * r], labels + runs.edges[2 * r + 1], runs.parent[r]);
    }
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
    write_labels(runs, height * width, labels);
    return count;
}

FASTCAM_CLONES
void mark_from(const float* __restrict map, std::int64_t area, float cut, std::uint8_t* __restrict mask) noexcept {
    for (std::int64_t i = 0; i < area; ++i) mask[i] = static_cast<std::uint8_t>((map[i] >= cut) & (map[i] > 0.0f));
}

}  // namespace
}  // namespace fastcam

void fastcam_threshold(const float* values, int64_t maps, int64_t area, float fraction, uint8_t* out) noexcept {
    using namespace fastcam;
    for (std::int64_t m = 0; m < maps; ++m) {
        const float* map = values + m * area;
        std::uint8_t* mask = out + m * area;
        const float peak = extremes(map, area).peak();
        if (peak == 0.0f) {
            std::fill(mask, mask + area, std::uint8_t{0});
        } else {
            mark_from(map, area, fraction * peak, mask);  // the product may underflow to 0: a value must be positive
        }
    }
}

size_t fastcam_label_scratch(int64_t height, int64_t width) noexcept {
    return static_cast<std::size_t>(fastcam::most_runs(height, width)) * 3 * sizeof(std::int32_t);
}

void fastcam_label(const uint8_t* mask, int64_t maps, int64_t height, int64_t width, int connectivity, void* scratch,
                   int32_t* labels, int32_t* counts) noexcept {
    std::int32_t* edges = static_cast<std::int32_t*>(scratch);
    const fastcam::Runs none{edges, edges + 2 * fastcam::most_runs(height, width), 0};
    const std::int64_t reach = connectivity == 8 ? 1 : 0;
    for (std::int64_t m = 0; m < maps; ++m) {
        const std::int64_t offset = m * height * width;
        counts[m] = fastcam::label_one(mask + offset, height, width, reach, none, labels + offset);
    }
}

bool fastcam_boxes(const int32_t* labels, int64_t height, int64_t width, int64_t count, int32_t* out) noexcept {
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
