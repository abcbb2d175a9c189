// Internal: the memory that fastcam_explain keeps between calls.

#pragma once

#include <atomic>
#include <cstdint>

#include "axis.h"
#include "components.h"
#include "fastcam/cam.h"
#include "memory.h"

struct fastcam_workspace {
    fastcam::Axis x{}, y{};
    fastcam::Buffer<double> x_memory, y_memory;
    fastcam::Buffer<float> maps;         // where the caller does not want them
    fastcam::Buffer<float> small;        // one normalised map
    fastcam::Buffer<float> rows;         // rows of the enlarged map, or scratch memory of the crossings
    fastcam::Buffer<std::uint8_t> mask;  // one row of the mask
    fastcam::Components components;
    fastcam::Buffer<std::int32_t> found;  // rows x0, y0, x1, y1, pixels of all maps
    std::int64_t used = 0;                // how many
    std::atomic<bool> busy{false};
};
