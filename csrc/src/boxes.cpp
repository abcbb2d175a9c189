// threshold and boxes: from a heatmap to a mask, and from a label image to where its components are.

#include <algorithm>

#include "detail/arguments.h"
#include "detail/clones.h"
#include "detail/extremes.h"
#include "fastcam/cam.h"

namespace fastcam {
namespace {

FASTCAM_CLONES
void mark_from(const float* __restrict map, std::int64_t area, float cut, std::uint8_t* __restrict mask) noexcept {
    for (std::int64_t i = 0; i < area; ++i) mask[i] = static_cast<std::uint8_t>((map[i] >= cut) & (map[i] > 0.0f));
}

}  // namespace
}  // namespace fastcam

int fastcam_threshold(const float* values, int64_t maps, int64_t area, float fraction, uint8_t* out) noexcept {
    using namespace fastcam;
    Arguments given;
    given.least(1, {area}).that(fraction > 0.0f && fraction <= 1.0f);
    given.reads(values, {maps, area}).writes(out, {maps, area});
    if (!given.valid()) return FASTCAM_INVALID;
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
    return FASTCAM_SUCCESS;
}

bool fastcam_boxes(const int32_t* labels, int64_t height, int64_t width, int64_t count, int32_t* out) noexcept {
    fastcam::Arguments given;
    given.plane(height, width).reads(labels, {height, width}).writes(out, {count, 5});
    if (!given.valid()) return false;
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
