// fastcam_explain: weigh, status, ReLU, normalize, upsample, threshold, label and boxes of a batch, map by map, so that a
// map stays in the cache.

#include <algorithm>
#include <cstddef>
#include <cstring>
#include <limits>

#include "detail/arguments.h"
#include "detail/clones.h"
#include "detail/crossings.h"
#include "detail/extremes.h"
#include "detail/workspace.h"

namespace fastcam {
namespace {

struct Job {
    const fastcam_task& task;
    fastcam_workspace& workspace;
    float* maps;

    std::int64_t area() const noexcept { return task.height * task.width; }
    std::int64_t count() const noexcept { return task.images * task.targets; }
};

// The size of the task in the first version of the header that has struct_size.
constexpr std::size_t kOldestTask = offsetof(fastcam_task, largest) + sizeof(fastcam_task::largest);
static_assert(kOldestTask % alignof(fastcam_task) == 0, "a field to come must not lie in the padding of an older struct");

// No header of this interface will have more: a larger number is none that sizeof gave.
constexpr std::size_t kLargestTask = 4096;

// Copies the caller's task; fields that its header lacks are zero. False where no header has this size, or where a field
// is set that this library lacks.
bool read_task(const fastcam_task* caller, fastcam_task& task) noexcept {
    if (!Arguments().reads(caller, {1}).valid()) return false;
    const std::size_t size = caller->struct_size;
    if (size < kOldestTask || size > kLargestTask || size % alignof(fastcam_task) != 0) return false;
    const auto* bytes = reinterpret_cast<const unsigned char*>(caller);
    const std::size_t known = std::min(size, sizeof task);
    std::memcpy(&task, bytes, known);
    return std::all_of(bytes + known, bytes + size, [](unsigned char byte) { return byte == 0; });
}

// The arrays that are read.
void inputs_of(const fastcam_task& t, Arguments& given) noexcept {
    const fastcam_activations& a = t.activations;
    if (t.weights == nullptr) {
        given.that(a.dtype == FASTCAM_FLOAT32);
        given.reads(static_cast<const float*>(a.data), {t.images, t.targets, t.height, t.width});
        return;
    }
    given.reads(t.weights, {t.images, t.targets, t.channels});
    if (a.dtype == FASTCAM_FLOAT32) {
        given.reads(static_cast<const float*>(a.data), {t.images, t.channels, t.height, t.width});
    } else {
        given.that(a.dtype == FASTCAM_FLOAT16);
        given.reads(static_cast<const std::uint16_t*>(a.data), {t.images, t.channels, t.height, t.width});
    }
}

bool is_valid(const fastcam_task& t) noexcept {
    Arguments given;
    given.least(0, {t.images, t.targets, t.channels}).plane(t.height, t.width).plane(t.out_height, t.out_width);
    given.that(t.fraction > 0.0f && t.fraction <= 1.0f && (t.connectivity == 4 || t.connectivity == 8));
    if (!given.valid()) return false;
    inputs_of(t, given);
    if (t.windows != nullptr) given.reads(t.windows, {t.images, 4});
    // the largest arrays that there may be, for what the workspace holds where they are not asked for
    given.that(Arguments::times(Arguments::times(t.images, t.targets), sizeof(float) * t.height * t.width) >= 0);
    if (t.maps != nullptr && t.weights == nullptr) {
        given.writes_in_place(t.maps, {t.images, t.targets, t.height, t.width});
    } else if (t.maps != nullptr) {
        given.writes(t.maps, {t.images, t.targets, t.height, t.width});
    }
    if (t.status != nullptr) given.writes(t.status, {t.images, t.targets});
    if (t.heatmaps != nullptr) given.writes(t.heatmaps, {t.images, t.targets, t.out_height, t.out_width});
    if (t.counts != nullptr) given.writes(t.counts, {t.images, t.targets});
    if (t.largest != nullptr) given.writes(t.largest, {t.images, t.targets, 5});
    return given.valid();
}

bool build(Axis& axis, Buffer<double>& memory, std::int64_t in, std::int64_t out) noexcept {
    if (axis.in == in && axis.out == out) return true;
    axis.in = 0;  // in case that there is no memory
    if (!memory.reserve(Axis::bytes(in, out) / sizeof(double) + 1)) return false;
    axis.build(in, out, memory.data());
    return true;
}

// All memory but the components', which grows with what is found.
bool prepare(Job& job) noexcept {
    const fastcam_task& t = job.task;
    fastcam_workspace& w = job.workspace;
    if (!build(w.x, w.x_memory, t.width, t.out_width) || !build(w.y, w.y_memory, t.height, t.out_height)) return false;
    if (job.maps == nullptr) {
        if (!w.maps.reserve(static_cast<std::size_t>(job.count() * job.area()))) return false;
        job.maps = w.maps.data();
    }
    const std::int64_t rows = std::max(3 * t.out_width, crossing_scratch(w.x));
    w.used = 0;
    return w.small.reserve(static_cast<std::size_t>(job.area())) && w.rows.reserve(static_cast<std::size_t>(rows)) &&
           w.mask.reserve(static_cast<std::size_t>(t.out_width));
}

// The pixels that count of output rows and columns: begin..end.
struct Window {
    std::int32_t x0, y0, x1, y1;
};

Window window_of(const fastcam_task& t, std::int64_t image) noexcept {
    const std::int32_t width = static_cast<std::int32_t>(t.out_width), height = static_cast<std::int32_t>(t.out_height);
    if (t.windows == nullptr) return {0, 0, width, height};
    const std::int32_t* w = t.windows + 4 * image;
    return {std::max(w[0], 0), std::max(w[1], 0), std::min(w[2], width), std::min(w[3], height)};
}

FASTCAM_CLONES
void mark_row(const float* __restrict row, std::int64_t size, float cut, std::uint8_t* __restrict mask) noexcept {
    for (std::int64_t i = 0; i < size; ++i) mask[i] = static_cast<std::uint8_t>((row[i] >= cut) & (row[i] > 0.0f));
}

// The enlarged map's rows one after the other, computed, or read where they were asked for.
class Pixels {
  public:
    Pixels(const Enlarged& e, const float* heatmap, float* buffers) noexcept
        : e_(e), heatmap_(heatmap), row_(buffers + 2 * e.x->out),
          stretched_(e.map, e.x->in, e.x->first, e.x->weight, e.x->out, buffers) {}

    const float* at(std::int64_t y) noexcept {
        if (heatmap_ != nullptr) return heatmap_ + y * e_.x->out;
        write(y, row_);
        return row_;
    }

    void write(std::int64_t y, float* out) noexcept {
        const Tap tap = e_.y->tap(y);
        stretched_.move_to(tap);
        blend(stretched_.upper(), stretched_.lower(), tap.weight, e_.x->out, out);
    }

  private:
    const Enlarged& e_;
    const float* heatmap_;
    float* row_;
    Stretched stretched_;
};

// Hands the mask's rows to the components: by crossings where that is faster, else pixel by pixel.
bool find_components(const Enlarged& e, float fraction, int connectivity, const Window& window, const float* heatmap,
                     fastcam_workspace& w) noexcept {
    if (!w.components.start(e.x->out, window.x0, window.x1, connectivity)) return false;
    const bool crossings = wants_crossings(*e.x, *e.y);
    float peak = 0.0f;
    if (crossings) {
        peak = peak_of(e);
    } else {
        Pixels pixels(e, heatmap, w.rows.data());
        for (std::int64_t y = 0; y < e.y->out; ++y) peak = std::max(peak, extremes(pixels.at(y), e.x->out).largest);
    }
    if (!(peak > 0.0f)) return true;
    const float cut = fraction * peak;
    Pixels pixels(e, heatmap, w.rows.data());
    for (std::int32_t y = window.y0; y < window.y1; ++y) {
        Row& row = w.components.open();
        if (crossings) {
            add_row(e, y, cut, w.rows.data(), row);
        } else {
            mark_row(pixels.at(y), e.x->out, cut, w.mask.data());
            row.add_mask(w.mask.data(), 0, e.x->out);
        }
        if (!w.components.close(y)) return false;
    }
    return true;
}

// ReLU of one signed map, and its status; returns its peak, 0 also for a map that only ReLU makes finite (-infinity).
float rectify_map(const Job& job, std::int64_t m) noexcept {
    float* map = job.maps + m * job.area();
    const float* source =
        job.task.weights != nullptr ? map : static_cast<const float*>(job.task.activations.data) + m * job.area();
    const Extremes range = extremes(source, job.area());
    rectify(source, job.area(), map);
    if (job.task.status != nullptr) job.task.status[m] = range.status();
    return range.peak();
}

bool explain_map(const Job& job, std::int64_t m) noexcept {
    const fastcam_task& t = job.task;
    fastcam_workspace& w = job.workspace;
    const std::int64_t enlarged = t.out_height * t.out_width;
    float* heatmap = t.heatmaps == nullptr ? nullptr : t.heatmaps + m * enlarged;
    const float peak = rectify_map(job, m);
    std::int32_t largest[5] = {};
    std::int64_t count = 0;
    if (peak == 0.0f) {
        if (heatmap != nullptr) std::fill(heatmap, heatmap + enlarged, 0.0f);
    } else {
        divide(job.maps + m * job.area(), job.area(), peak, w.small.data());
        const Enlarged e{w.small.data(), &w.x, &w.y};
        if (heatmap != nullptr) {
            Pixels pixels(e, nullptr, w.rows.data());
            for (std::int64_t y = 0; y < t.out_height; ++y) pixels.write(y, heatmap + y * t.out_width);
        }
        if (!find_components(e, t.fraction, t.connectivity, window_of(t, m / t.targets), heatmap, w)) return false;
        count = w.components.finish(w.found, w.used, largest);
        if (count < 0) return false;
    }
    w.used += count;
    if (t.counts != nullptr) t.counts[m] = static_cast<std::int32_t>(count);
    if (t.largest != nullptr) std::copy(largest, largest + 5, t.largest + 5 * m);
    return true;
}

int explain(Job& job) noexcept {
    const fastcam_task& t = job.task;
    if (job.count() == 0) {  // nothing to do, however large its maps would be
        job.workspace.used = 0;
        return FASTCAM_SUCCESS;
    }
    if (!prepare(job)) return FASTCAM_NO_MEMORY;
    if (t.weights != nullptr) {
        fastcam_weigh(t.activations, t.weights, t.images, t.targets, t.channels, job.area(), job.maps);
    }
    for (std::int64_t m = 0; m < job.count(); ++m) {
        if (!explain_map(job, m)) return FASTCAM_NO_MEMORY;
    }
    return FASTCAM_SUCCESS;
}

}  // namespace
}  // namespace fastcam

int fastcam_explain(fastcam_workspace* workspace, const fastcam_task* task) noexcept {
    if (!fastcam::Arguments().reads(workspace, {1}).valid()) return FASTCAM_INVALID;
    fastcam_task known{};
    if (!fastcam::read_task(task, known) || !fastcam::is_valid(known)) return FASTCAM_INVALID;
    if (workspace->busy.exchange(true, std::memory_order_acquire)) return FASTCAM_BUSY;
    fastcam::Job job{known, *workspace, known.maps};
    const int error = fastcam::explain(job);
    if (error != FASTCAM_SUCCESS) workspace->used = 0;
    workspace->busy.store(false, std::memory_order_release);
    return error;
}

const int32_t* fastcam_components(const fastcam_workspace* workspace, int64_t* rows) noexcept {
    using fastcam::Arguments;
    const bool known = Arguments().reads(workspace, {1}).valid();
    if (Arguments().reads(rows, {1}).valid()) *rows = known ? workspace->used : 0;
    return known ? workspace->found.data() : nullptr;
}
