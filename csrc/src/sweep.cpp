// sweep: the components of a map at many thresholds, in one pass over its pixels from the highest value down.
//
// What reaches a threshold also reaches all lower ones, so components only grow and unite. The map is cut into runs: pixels
// side by side that come at the same threshold. Threshold by threshold the runs are added to a union-find forest of
// components, and what stands then is written out.

#include <algorithm>
#include <cmath>

#include "detail/arguments.h"
#include "detail/workspace.h"

namespace fastcam {
namespace {

struct Job {
    const float* values;
    std::int64_t height, width;
    std::int64_t count;
    std::int32_t reach;  // of a pixel into the next rows: 1 where corners touch, else 0
    std::int32_t x0, y0, x1, y1;
    fastcam_workspace& w;
};

bool reserve(Job& job) noexcept {
    const auto area = static_cast<std::size_t>(job.height * job.width);
    SweepMemory& m = job.w.sweep;
    job.w.used = 0;
    return m.cuts.reserve(static_cast<std::size_t>(job.count)) && m.starts.reserve(static_cast<std::size_t>(job.count) + 1) &&
           m.labels.reserve(area) && m.runs.reserve(area) && m.order.reserve(area);
}

// Each cut becomes the lowest so far, so that they do not rise; one that is not a number is as high as none reaches.
void take_cuts(const float* cuts, Job& job) noexcept {
    float lowest = std::numeric_limits<float>::infinity();
    bool any = false;
    for (std::int64_t i = 0; i < job.count; ++i) {
        if (!std::isnan(cuts[i]) && (!any || cuts[i] < lowest)) {
            lowest = cuts[i];
            any = true;
        }
        job.w.sweep.cuts[static_cast<std::size_t>(i)] = any ? lowest : std::numeric_limits<float>::quiet_NaN();
    }
}

// The number of the first cut that a value reaches, sought from that of its neighbour on; `count` where it reaches none.
inline std::int32_t first_reached(const float* cuts, std::int32_t count, float value, std::int32_t at) noexcept {
    while (at > 0 && value >= cuts[at - 1]) --at;
    while (at < count && !(value >= cuts[at])) ++at;
    return at;
}

// The runs in raster order, and how many come at each cut; returns their number.
std::int32_t find_runs(Job& job) noexcept {
    SweepMemory& m = job.w.sweep;
    const auto count = static_cast<std::int32_t>(job.count);
    const float* cuts = m.cuts.data();
    std::int32_t* starts = m.starts.data();
    SweepRun* runs = m.runs.data();
    std::fill(starts, starts + count + 1, 0);
    std::int32_t found = 0, at = count;
    for (std::int32_t y = job.y0; y < job.y1; ++y) {
        const float* row = job.values + y * job.width;
        std::int32_t open = count;  // the cut of the run that is open
        for (std::int32_t x = job.x0; x < job.x1; ++x) {
            at = first_reached(cuts, count, row[x], at);
            if (at == open) {
                if (at != count) runs[found - 1].last = x + 1;
                continue;
            }
            open = at;
            if (at == count) continue;
            runs[found++] = {at, y, x, x + 1};
            ++starts[at + 1];
        }
    }
    return found;
}

void sort_runs(Job& job, std::int32_t found) noexcept {
    SweepMemory& m = job.w.sweep;
    std::int32_t* starts = m.starts.data();
    SweepRun* order = m.order.data();
    for (std::int64_t i = 0; i < job.count; ++i) starts[i + 1] += starts[i];
    for (std::int32_t r = 0; r < found; ++r) {
        const SweepRun& run = m.runs.data()[r];
        order[starts[run.cut]++] = run;
    }
    for (std::int64_t i = job.count; i > 0; --i) starts[i] = starts[i - 1];  // each had moved to the next one's place
    starts[0] = 0;
}

class Growing {
  public:
    explicit Growing(Job& job) noexcept : job_(job), m_(job.w.sweep), labels_(job.w.sweep.labels.data()) {
        std::fill(labels_, labels_ + job.height * job.width, -1);
    }

    bool add(const SweepRun& run) noexcept {
        std::int32_t component = -1;
        const std::int64_t row = run.y * job_.width;
        if (run.first > 0) touch(labels_[row + run.first - 1], component);
        if (run.last < job_.width) touch(labels_[row + run.last], component);
        const std::int32_t first = std::max(run.first - job_.reach, 0);
        const std::int32_t last = std::min(run.last + job_.reach, static_cast<std::int32_t>(job_.width));
        if (run.y > 0) touch_row(labels_ + row - job_.width, first, last, component);
        if (run.y + 1 < job_.height) touch_row(labels_ + row + job_.width, first, last, component);
        const std::int32_t size = run.last - run.first, begin = static_cast<std::int32_t>(row) + run.first;
        if (component < 0) {
            component = made_++;
            const auto room = static_cast<std::size_t>(made_);
            if (!m_.found.reserve(room) || !m_.live.reserve(room)) return false;
            m_.found[room - 1] = {component, begin, {run.first, run.y, run.last, run.y + 1}, 0};
            m_.live[static_cast<std::size_t>(live_++)] = component;
        }
        SweepComponent& found = m_.found[static_cast<std::size_t>(component)];
        found.first = std::min(found.first, begin);
        found.box[0] = std::min(found.box[0], run.first);
        found.box[1] = std::min(found.box[1], run.y);
        found.box[2] = std::max(found.box[2], run.last);
        found.box[3] = std::max(found.box[3], run.y + 1);
        found.pixels += size;
        std::fill(labels_ + row + run.first, labels_ + row + run.last, component);
        return true;
    }

    // Appends what stands, in raster order of first pixels; returns how many, -1 where memory ran out.
    std::int64_t write() noexcept {
        std::int32_t* live = m_.live.data();
        const SweepComponent* found = m_.found.data();
        live_ = static_cast<std::int32_t>(std::remove_if(live, live + live_, [&](std::int32_t i) {
                                              return found[i].parent != i;
                                          }) - live);
        std::sort(live, live + live_, [&](std::int32_t a, std::int32_t b) { return found[a].first < found[b].first; });
        if (!job_.w.found.reserve(static_cast<std::size_t>(job_.w.used + live_) * 5)) return -1;
        std::int32_t* out = job_.w.found.data() + job_.w.used * 5;
        for (std::int32_t i = 0; i < live_; ++i, out += 5) {
            std::copy(found[live[i]].box, found[live[i]].box + 4, out);
            out[4] = found[live[i]].pixels;
        }
        job_.w.used += live_;
        return live_;
    }

  private:
    void touch_row(const std::int32_t* labels, std::int32_t first, std::int32_t last, std::int32_t& component) noexcept {
        std::int32_t before = -1;
        for (std::int32_t x = first; x < last; ++x) {
            if (labels[x] != before) touch(before = labels[x], component);
        }
    }

    void touch(std::int32_t label, std::int32_t& component) noexcept {
        if (label < 0 || label == component) return;
        const std::int32_t root = root_of(label);
        component = component < 0 ? root : unite(component, root);
    }

    std::int32_t root_of(std::int32_t i) noexcept {
        SweepComponent* found = m_.found.data();
        while (found[i].parent != i) {
            found[i].parent = found[found[i].parent].parent;
            i = found[i].parent;
        }
        return i;
    }

    std::int32_t unite(std::int32_t a, std::int32_t b) noexcept {
        if (a == b) return a;
        SweepComponent* found = m_.found.data();
        if (found[a].pixels < found[b].pixels) std::swap(a, b);
        SweepComponent &kept = found[a], &gone = found[b];
        gone.parent = a;
        kept.first = std::min(kept.first, gone.first);
        for (int i = 0; i < 2; ++i) kept.box[i] = std::min(kept.box[i], gone.box[i]);
        for (int i = 2; i < 4; ++i) kept.box[i] = std::max(kept.box[i], gone.box[i]);
        kept.pixels += gone.pixels;
        return a;
    }

    Job& job_;
    SweepMemory& m_;
    std::int32_t* labels_;
    std::int32_t made_ = 0;
    std::int32_t live_ = 0;
};

int sweep(Job& job, const float* cuts, std::int32_t* counts) noexcept {
    if (!reserve(job)) return FASTCAM_NO_MEMORY;
    take_cuts(cuts, job);
    sort_runs(job, find_runs(job));
    Growing growing(job);
    const SweepMemory& m = job.w.sweep;
    for (std::int64_t i = 0; i < job.count; ++i) {
        for (std::int32_t r = m.starts.data()[i]; r < m.starts.data()[i + 1]; ++r) {
            if (!growing.add(m.order.data()[r])) return FASTCAM_NO_MEMORY;
        }
        const std::int64_t standing = growing.write();
        if (standing < 0) return FASTCAM_NO_MEMORY;
        counts[i] = static_cast<std::int32_t>(standing);
    }
    return FASTCAM_SUCCESS;
}

}  // namespace
}  // namespace fastcam

int fastcam_sweep(fastcam_workspace* workspace, const float* values, int64_t height, int64_t width, const float* cuts,
                  int64_t count, int connectivity, const int32_t* window, int32_t* counts) noexcept {
    using namespace fastcam;
    Arguments given;
    given.that(Arguments().reads(workspace, {1}).valid()).plane(height, width).that(connectivity == 4 || connectivity == 8);
    given.that(count <= kInt32 - 1).reads(values, {height, width}).reads(cuts, {count}).writes(counts, {count});
    if (window != nullptr) given.reads(window, {4});
    if (!given.valid()) return FASTCAM_INVALID;
    if (workspace->busy.exchange(true, std::memory_order_acquire)) return FASTCAM_BUSY;
    const std::int32_t right = static_cast<std::int32_t>(width), bottom = static_cast<std::int32_t>(height);
    Job job{values, height, width, count, connectivity == 8 ? 1 : 0, 0, 0, right, bottom, *workspace};
    if (window != nullptr) {
        job.x0 = std::max(window[0], 0);
        job.y0 = std::max(window[1], 0);
        job.x1 = std::min(window[2], right);
        job.y1 = std::min(window[3], bottom);
    }
    const int error = sweep(job, cuts, counts);
    if (error != FASTCAM_SUCCESS) workspace->used = 0;
    workspace->busy.store(false, std::memory_order_release);
    return error;
}
