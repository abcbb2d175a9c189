// Internal: the memory that fastcam_explain and fastcam_sweep keep between calls.

#pragma once

#include <atomic>
#include <cstdint>

#include "axis.h"
#include "components.h"
#include "fastcam/cam.h"
#include "memory.h"

namespace fastcam {

// Pixels first..last of row y, which all reach a cut as their first.
struct SweepRun {
    std::int32_t cut, y, first, last;
};

struct SweepComponent {
    std::int32_t parent;  // itself: a root
    std::int32_t first;   // of its pixels, in raster order
    std::int32_t box[4];  // x0, y0, x1, y1
    std::int32_t pixels;
};

struct SweepMemory {
    Buffer<float> cuts;
    Buffer<std::int32_t> starts;  // of each cut in `order`
    Buffer<std::int32_t> labels;  // each pixel's component, -1 where it has not come yet
    Buffer<SweepRun> runs;   // in raster order
    Buffer<SweepRun> order;  // by cut
    Buffer<SweepComponent> found;
    Buffer<std::int32_t> live;  // components that were roots when last looked at
};

}  // namespace fastcam

struct fastcam_workspace {
    fastcam::Axis x{}, y{};
    fastcam::Buffer<double> x_memory, y_memory;
    fastcam::Buffer<float> maps;         // where the caller does not want them
    fastcam::Buffer<float> small;        // one normalised map
    fastcam::Buffer<float> rows;         // rows of the enlarged map, or scratch memory of the crossings
    fastcam::Buffer<std::uint8_t> mask;  // one row of the mask
    fastcam::Components components;
    fastcam::SweepMemory sweep;
    fastcam::Buffer<std::int32_t> found;  // rows x0, y0, x1, y1, pixels of all maps
    std::int64_t used = 0;                // how many
    std::atomic<bool> busy{false};
};
