// label: connected components of a mask, as an image of labels, in two passes over runs (He, Chao & Suzuki 2008).
//
// The first pass finds each row's runs and unites them (union-find) with those of the row above that they touch. Runs are
// numbered in raster order and the smaller number always becomes the root, so walking the runs in order turns parents into
// labels, which are numbered by the components' first pixels. The second pass paints the runs.

#include <algorithm>
#include <cstdint>

#include "detail/arguments.h"
#include "detail/memory.h"
#include "detail/runs.h"
#include "fastcam/cam.h"

namespace fastcam {
namespace {

// The runs of one mask; `component` is a run's parent, at the end its label.
struct Forest {
    Run* runs;
    std::int32_t* ends;  // of each row: how many runs there are up to its end

    std::int32_t root_of(std::int32_t i) const noexcept {
        while (runs[i].component != i) {
            runs[i].component = runs[runs[i].component].component;
            i = runs[i].component;
        }
        return i;
    }

    void unite(std::int32_t a, std::int32_t b) const noexcept {
        a = root_of(a);
        b = root_of(b);
        runs[std::max(a, b)].component = std::min(a, b);
    }
};

Forest take_forest(Arena& arena, std::int64_t height, std::int64_t width) noexcept {
    return {arena.take<Run>(height * ((width + 1) / 2)), arena.take<std::int32_t>(height)};
}

// Unites runs begin..end of one row with runs above..begin of the row above that they touch, within `reach` columns.
void connect(const Forest& forest, std::int32_t above, std::int32_t begin, std::int32_t end, std::int32_t reach) noexcept {
    const Run* runs = forest.runs;
    for (std::int32_t r = begin; r < end; ++r) {
        while (above < begin && runs[above].last + reach <= runs[r].first) ++above;
        for (std::int32_t p = above; p < begin && runs[p].first < runs[r].last + reach; ++p) forest.unite(r, p);
    }
}

void find_runs(const std::uint8_t* mask, std::int64_t height, std::int64_t width, std::int32_t reach,
               const Forest& forest) noexcept {
    std::int32_t above = 0, begin = 0;
    for (std::int64_t y = 0; y < height; ++y) {
        Row row{forest.runs + begin, 0, 0, static_cast<std::int32_t>(width)};
        row.add_mask(mask + y * width, 0, width);
        const std::int32_t end = begin + row.count;
        for (std::int32_t r = begin; r < end; ++r) forest.runs[r].component = r;
        connect(forest, above, begin, end, reach);
        forest.ends[y] = end;
        above = begin;
        begin = end;
    }
}

// Parents become labels: a parent comes before its child, so its label is already there. Returns the number of components.
std::int32_t number_components(const Forest& forest, std::int32_t runs) noexcept {
    std::int32_t count = 0;
    for (std::int32_t r = 0; r < runs; ++r) {
        std::int32_t& component = forest.runs[r].component;
        component = component == r ? ++count : forest.runs[component].component;
    }
    return count;
}

void paint(const Forest& forest, std::int64_t height, std::int64_t width, std::int32_t* labels) noexcept {
    std::fill(labels, labels + height * width, 0);
    std::int32_t r = 0;
    for (std::int64_t y = 0; y < height; ++y, labels += width) {
        for (; r < forest.ends[y]; ++r) {
            const Run& run = forest.runs[r];
            std::fill(labels + run.first, labels + run.last, run.component);
        }
    }
}

}  // namespace
}  // namespace fastcam

size_t fastcam_label_scratch(int64_t height, int64_t width) noexcept {
    if (!fastcam::Arguments().plane(height, width).valid()) return 0;
    fastcam::Arena arena{nullptr};
    fastcam::take_forest(arena, height, width);
    return arena.used;
}

int fastcam_label(const uint8_t* mask, int64_t maps, int64_t height, int64_t width, int connectivity, void* scratch,
                  int32_t* labels, int32_t* counts) noexcept {
    fastcam::Arguments given;
    given.plane(height, width).that(connectivity == 4 || connectivity == 8);
    given.reads(mask, {maps, height, width}).writes(labels, {maps, height, width}).writes(counts, {maps});
    if (maps != 0) given.scratch(scratch, fastcam_label_scratch(height, width));
    if (!given.valid()) return FASTCAM_INVALID;
    fastcam::Arena arena{static_cast<unsigned char*>(scratch)};
    const fastcam::Forest forest = fastcam::take_forest(arena, height, width);
    for (std::int64_t m = 0; m < maps; ++m) {
        const std::int64_t offset = m * height * width;
        fastcam::find_runs(mask + offset, height, width, connectivity == 8 ? 1 : 0, forest);
        counts[m] = fastcam::number_components(forest, forest.ends[height - 1]);
        fastcam::paint(forest, height, width, labels + offset);
    }
    return FASTCAM_SUCCESS;
}
