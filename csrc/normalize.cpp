// relu, normalize and status: from the signed weighted sum to values in 0..1, and the verdict on it.

#include <algorithm>
#include <limits>

#include "cam.h"
#include "extremes.h"

namespace fastcam {

void status(const float* values, std::int64_t maps, std::int64_t area, std::uint8_t* out) noexcept {
    for (std::int64_t m = 0; m < maps; ++m) {
        const Extremes range = extremes(values + m * area, area);
        if (!range.finite) {
            out[m] = kNonFinite;
        } else if (range.largest > 0.0f) {
            out[m] = kOk;
        } else {
            out[m] = range.smallest < 0.0f ? kAllNegative : kZeroGradient;
        }
    }
}

void relu(const float* values, std::int64_t count, float* out) noexcept {
    // written this way round because NaN <= 0 is false: NaN stays
    for (std::int64_t i = 0; i < count; ++i) out[i] = values[i] <= 0.0f ? 0.0f : values[i];
}

void normalize(const float* values, std::int64_t maps, std::int64_t area, float* out) noexcept {
    constexpr float kLowest = std::numeric_limits<float>::lowest();
    for (std::int64_t m = 0; m < maps; ++m) {
        const float* map = values + m * area;
        float* result = out + m * area;
        const float peak = extremes(map, area).peak();
        if (peak == 0.0f) {
            std::fill(result, result + area, 0.0f);
            continue;
        }
        for (std::int64_t i = 0; i < area; ++i) {
            const float quotient = map[i] / peak;
            result[i] = quotient < kLowest ? kLowest : quotient;
        }
    }
}

}  // namespace fastcam
