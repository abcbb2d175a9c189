// relu, normalize and status: from the signed weighted sum to values in 0..1, and the verdict on it.
//
// Compilers do not vectorise a float maximum (its result depends on the order where NaN or -0 occur), but they do an
// integer's, and integers can have the order of floats, infinities and then NaN at both ends.

#include <algorithm>
#include <limits>

#include "detail/arguments.h"
#include "detail/clones.h"
#include "detail/extremes.h"
#include "detail/ordered.h"
#include "fastcam/cam.h"

namespace fastcam {

FASTCAM_CLONES
Extremes extremes(const float* values, std::int64_t area) noexcept {
    std::int32_t low = std::numeric_limits<std::int32_t>::max(), high = std::numeric_limits<std::int32_t>::min();
    for (std::int64_t i = 0; i < area; ++i) {
        const std::int32_t x = ordered(values[i]);
        low = x < low ? x : low;
        high = x > high ? x : high;
    }
    const std::int32_t infinity = ordered(std::numeric_limits<float>::infinity());
    return {unordered(low), unordered(high), high < infinity && low > ~infinity};
}

std::uint8_t Extremes::status() const noexcept {
    if (!finite) return FASTCAM_NON_FINITE;
    if (largest > 0.0f) return FASTCAM_OK;
    return smallest < 0.0f ? FASTCAM_ALL_NEGATIVE : FASTCAM_ZERO_GRADIENT;
}

FASTCAM_CLONES
void rectify(const float* values, std::int64_t count, float* out) noexcept {
    // written this way round because NaN <= 0 is false: NaN stays
    for (std::int64_t i = 0; i < count; ++i) out[i] = values[i] <= 0.0f ? 0.0f : values[i];
}

FASTCAM_CLONES
void divide(const float* map, std::int64_t area, float peak, float* out) noexcept {
    constexpr float kLowest = std::numeric_limits<float>::lowest();
    if (peak == 0.0f) {
        std::fill(out, out + area, 0.0f);
        return;
    }
    for (std::int64_t i = 0; i < area; ++i) {
        const float quotient = map[i] / peak;
        out[i] = quotient < kLowest ? kLowest : quotient;
    }
}

}  // namespace fastcam

int fastcam_status(const float* values, int64_t maps, int64_t area, uint8_t* out) noexcept {
    fastcam::Arguments given;
    given.least(1, {area}).reads(values, {maps, area}).writes(out, {maps});
    if (!given.valid()) return FASTCAM_INVALID;
    for (int64_t m = 0; m < maps; ++m) out[m] = fastcam::extremes(values + m * area, area).status();
    return FASTCAM_SUCCESS;
}

int fastcam_relu(const float* values, int64_t count, float* out) noexcept {
    fastcam::Arguments given;
    given.reads(values, {count}).writes_in_place(out, {count});
    if (!given.valid()) return FASTCAM_INVALID;
    fastcam::rectify(values, count, out);
    return FASTCAM_SUCCESS;
}

int fastcam_normalize(const float* values, int64_t maps, int64_t area, float* out) noexcept {
    fastcam::Arguments given;
    given.least(1, {area}).reads(values, {maps, area}).writes_in_place(out, {maps, area});
    if (!given.valid()) return FASTCAM_INVALID;
    for (int64_t m = 0; m < maps; ++m) {
        const float* map = values + m * area;
        fastcam::divide(map, area, fastcam::extremes(map, area).peak(), out + m * area);
    }
    return FASTCAM_SUCCESS;
}
