// Connected components by runs, with boxes and sizes on the way (He, Chao & Suzuki 2008, without the label image).

#include "detail/components.h"

#include <algorithm>
#include <utility>

namespace fastcam {

bool Components::start(std::int64_t width, std::int32_t begin, std::int32_t end, int connectivity) noexcept {
    const std::size_t most = static_cast<std::size_t>(width) / 2 + 1;
    if (!memory_.reserve(2 * most)) return false;
    above_ = {memory_.data(), 0, begin, end};
    row_ = {memory_.data() + most, 0, begin, end};
    above_y_ = -2;
    count_ = 0;
    reach_ = connectivity == 8 ? 1 : 0;
    return true;
}

Row& Components::open() noexcept {
    row_.count = 0;
    return row_;
}

std::int32_t Components::root_of(std::int32_t i) noexcept {
    while (found_[i].parent != i) {
        found_[i].parent = found_[found_[i].parent].parent;
        i = found_[i].parent;
    }
    return i;
}

// Two roots become one, the smaller.
std::int32_t Components::unite(std::int32_t a, std::int32_t b) noexcept {
    if (a == b) return a;
    if (b < a) std::swap(a, b);
    Component &kept = found_[a], &gone = found_[b];
    gone.parent = a;
    for (int i = 0; i < 2; ++i) kept.box[i] = std::min(kept.box[i], gone.box[i]);
    for (int i = 2; i < 4; ++i) kept.box[i] = std::max(kept.box[i], gone.box[i]);
    kept.pixels += gone.pixels;
    return a;
}

bool Components::close(std::int32_t y) noexcept {
    if (row_.count == 0) return true;
    if (!found_.reserve(static_cast<std::size_t>(count_) + row_.count)) return false;
    const std::int32_t above = above_y_ == y - 1 ? above_.count : 0;
    std::int32_t p = 0;
    for (std::int32_t r = 0; r < row_.count; ++r) {
        Run& run = row_.runs[r];
        const std::int32_t first = run.first - reach_, last = run.last + reach_;
        while (p < above && above_.runs[p].last <= first) ++p;
        std::int32_t component = -1;
        for (std::int32_t q = p; q < above && above_.runs[q].first < last; ++q) {
            const std::int32_t root = root_of(above_.runs[q].component);
            component = component < 0 ? root : unite(component, root);
        }
        if (component < 0) {
            component = count_++;
            found_[component] = {component, {run.first, y, run.last, y + 1}, 0};
        }
        Component& found = found_[component];
        found.box[0] = std::min(found.box[0], run.first);
        found.box[2] = std::max(found.box[2], run.last);
        found.box[3] = y + 1;
        found.pixels += run.last - run.first;
        run.component = component;
    }
    std::swap(above_, row_);
    above_y_ = y;
    return true;
}

std::int64_t Components::finish(Buffer<std::int32_t>& rows, std::int64_t used, std::int32_t* largest) noexcept {
    if (!rows.reserve(static_cast<std::size_t>(used + count_) * 5)) return -1;
    std::fill(largest, largest + 5, 0);
    std::int32_t* out = rows.data() + used * 5;
    std::int64_t count = 0;
    for (std::int32_t i = 0; i < count_; ++i) {
        const Component& found = found_[i];
        if (found.parent != i) continue;
        std::int32_t* row = out + 5 * count++;
        std::copy(found.box, found.box + 4, row);
        row[4] = found.pixels;
        if (found.pixels > largest[4]) std::copy(row, row + 5, largest);
    }
    return count;
}

}  // namespace fastcam
