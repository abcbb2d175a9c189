// Internal: connected components of a mask that arrives row by row as runs; no label image is built.
//
// Only two rows of runs are kept, and one record per component found so far: its box and its number of pixels, and its
// parent in the union-find forest. A run that touches nothing above opens a component, so components are numbered in
// raster order of the pixels that open them; uniting keeps the smaller number, so the roots come in raster order of the
// components' first pixels.

#pragma once

#include <cstdint>

#include "memory.h"
#include "runs.h"

namespace fastcam {

struct Component {
    std::int32_t parent;  // itself: a root
    std::int32_t box[4];  // x0, y0, x1, y1
    std::int32_t pixels;
};

class Components {
  public:
    // Begins a mask `width` columns wide, of which begin..end count; false where there is no memory.
    bool start(std::int64_t width, std::int32_t begin, std::int32_t end, int connectivity) noexcept;

    // The empty row to be filled, then closed as row y; rows come in order. close returns false where memory ran out.
    Row& open() noexcept;
    bool close(std::int32_t y) noexcept;

    // Appends one row x0, y0, x1, y1, pixels per component to `rows`, which holds `used` of them, and copies the row
    // with most pixels to `largest` (zeros where there is none). Returns their number, -1 where memory ran out.
    std::int64_t finish(Buffer<std::int32_t>& rows, std::int64_t used, std::int32_t* largest) noexcept;

  private:
    std::int32_t root_of(std::int32_t i) noexcept;
    std::int32_t unite(std::int32_t a, std::int32_t b) noexcept;

    Buffer<Run> memory_;
    Buffer<Component> found_;
    Row above_{};
    Row row_{};
    std::int32_t above_y_ = -2;
    std::int32_t count_ = 0;
    std::int32_t reach_ = 1;
};

}  // namespace fastcam
