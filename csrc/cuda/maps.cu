// Maps: weigh, status, ReLU, normalise, upsample, threshold, and rectify (status, ReLU and normalise at once).

#include "common.cuh"

// ---- weigh ---------------------------------------------------------------------------------------------------------

__device__ inline float widen(float value) { return value; }

// IEEE binary16, exactly: exponent and fraction moved to their places are the value times 2^-112.
__device__ inline float widen(unsigned short half) {
    const int magnitude = (half & 0x7fff) << 13;
    const int sign = static_cast<int>(static_cast<unsigned>(half & 0x8000) << 16);
    const int special = magnitude >= 0x0f800000 ? 0x7f800000 : 0;  // infinity and NaN
    const float value = __fmul_rn(__int_as_float(magnitude), 5192296858534827628530496329220096.0f);
    return __int_as_float(__float_as_int(value) | special | sign);
}

// Every kSpan-th product from `start` on. Four sums, so that four loads are under way at a time.
template <typename T>
__device__ float partial_dot(const T* values, int area, const float* weights, int start, int channels) {
    float sums[4] = {0.0f, 0.0f, 0.0f, 0.0f};
    const long long stride = area;
    int k = start;
    for (; k + 3 * kSpan < channels; k += 4 * kSpan) {
        for (int j = 0; j < 4; ++j) sums[j] += weights[k + j * kSpan] * widen(values[(k + j * kSpan) * stride]);
    }
    for (; k < channels; k += kSpan) sums[0] += weights[k] * widen(values[k * stride]);
    return (sums[0] + sums[1]) + (sums[2] + sums[3]);
}

// A block sums kSpan pixels of one (image, target), each with kSpan threads: threadIdx.x counts pixels, which are
// neighbours in memory, and threadIdx.y channels. Grid: images * targets * ceil(area / kSpan).
template <typename T>
__device__ void weigh(const T* activations, const float* weights, int targets, int channels, int area, float* out) {
    __shared__ float partial[kSpan][kSpan];
    const int tiles = parts(area, kSpan);
    const int map = static_cast<int>(blockIdx.x) / tiles, begin = static_cast<int>(blockIdx.x) % tiles * kSpan;
    const int pixel = begin + static_cast<int>(threadIdx.x);
    const T* image = activations + static_cast<long long>(map / targets) * area * channels;
    const float* row = weights + static_cast<long long>(map) * channels;
    partial[threadIdx.y][threadIdx.x] =
        pixel < area ? partial_dot(image + pixel, area, row, static_cast<int>(threadIdx.y), channels) : 0.0f;
    __syncthreads();
    if (threadIdx.y != 0 || pixel >= area) return;
    float total = 0.0f;
    for (int i = 0; i < kSpan; ++i) total += partial[i][threadIdx.x];
    out[static_cast<long long>(map) * area + pixel] = total;
}

extern "C" __global__ void __launch_bounds__(kSpan* kSpan)
    fastcam_weigh(const float* activations, const float* weights, int targets, int channels, int area, float* out) {
    weigh(activations, weights, targets, channels, area, out);
}

extern "C" __global__ void __launch_bounds__(kSpan* kSpan)
    fastcam_weigh_half(const unsigned short* activations, const float* weights, int targets, int channels, int area,
                       float* out) {
    weigh(activations, weights, targets, channels, area, out);
}

// ---- ranges, and what follows from them ------------------------------------------------------------------------------

extern "C" __global__ void fastcam_start_ranges(Range* ranges, int maps) {
    const long long m = number_here();
    if (m < maps) ranges[m] = {kIntMax, ~kIntMax};
}

// The ranges of maps of any size.   Grid: maps * chunks
extern "C" __global__ void fastcam_ranges(const float* maps, int area, int chunks, Range* ranges) {
    __shared__ Range block;
    const Place at = place_of(chunks);
    if (threadIdx.x == 0) block = {kIntMax, ~kIntMax};
    __syncthreads();
    if (at.i < area) {
        const int key = ordered(maps[at.map * static_cast<long long>(area) + at.i]);
        atomicMin(&block.low, key);
        atomicMax(&block.high, key);
    }
    __syncthreads();
    if (threadIdx.x != 0) return;
    atomicMin(&ranges[at.map].low, block.low);
    atomicMax(&ranges[at.map].high, block.high);
}

extern "C" __global__ void fastcam_status(const Range* ranges, int maps, unsigned char* out) {
    const long long m = number_here();
    if (m < maps) out[m] = ranges[m].status();
}

// NaN <= 0 is false: NaN stays.
__device__ inline float relu(float value) { return value <= 0.0f ? 0.0f : value; }

// By the peak: finite whatever the peak is; zero without one.
__device__ inline float divide(float value, float peak) {
    if (peak == 0.0f) return 0.0f;
    const float quotient = __fdiv_rn(value, peak);
    return quotient < kLowestFloat ? kLowestFloat : quotient;
}

extern "C" __global__ void fastcam_relu(const float* maps, long long count, float* out) {
    const long long i = number_here();
    if (i < count) out[i] = relu(maps[i]);
}

extern "C" __global__ void fastcam_normalize(const float* maps, int area, int chunks, const Range* ranges, float* out) {
    const Place at = place_of(chunks);
    const long long i = at.map * static_cast<long long>(area) + at.i;
    if (at.i < area) out[i] = divide(maps[i], ranges[at.map].peak());
}

extern "C" __global__ void fastcam_threshold(const float* maps, int area, int chunks, const Range* ranges, float fraction,
                                             unsigned char* out) {
    const Place at = place_of(chunks);
    if (at.i >= area) return;
    const long long i = at.map * static_cast<long long>(area) + at.i;
    const float peak = ranges[at.map].peak();
    out[i] = peak > 0.0f && maps[i] > 0.0f && maps[i] >= __fmul_rn(fraction, peak);
}

// A block per map, as these maps are small: status, the map after ReLU, and that divided by its peak. Clears what a later
// kernel gathers: the enlarged map's peak.   Grid: maps
extern "C" __global__ void fastcam_rectify(const float* signed_maps, int area, float* maps, float* small,
                                           unsigned char* status, int* peaks) {
    __shared__ Range range;
    const long long begin = static_cast<long long>(blockIdx.x) * area;
    if (threadIdx.x == 0) range = {kIntMax, ~kIntMax};
    __syncthreads();
    Range own = {kIntMax, ~kIntMax};
    for (long long i = threadIdx.x; i < area; i += kThreads) {
        const int key = ordered(signed_maps[begin + i]);
        own = {min(own.low, key), max(own.high, key)};
    }
    atomicMin(&range.low, own.low);
    atomicMax(&range.high, own.high);
    __syncthreads();
    const float peak = range.peak();
    for (long long i = threadIdx.x; i < area; i += kThreads) {
        const float value = relu(signed_maps[begin + i]);
        maps[begin + i] = value;
        small[begin + i] = divide(value, peak);
    }
    if (threadIdx.x != 0) return;
    status[blockIdx.x] = range.status();
    peaks[blockIdx.x] = 0;
}

// ---- upsample ------------------------------------------------------------------------------------------------------

// Output pixel i looks at (i + 0.5) * in / out - 0.5, clamped. Columns first, then rows, as struct Enlarged wants them.
extern "C" __global__ void fastcam_taps(int width, int out_width, double x_scale, int height, int out_height,
                                        double y_scale, int* first, float* weight) {
    const long long i = number_here();
    if (i >= static_cast<long long>(out_width) + out_height) return;
    const bool column = i < out_width;
    const int size = column ? width : height;
    const double centre = static_cast<double>(column ? i : i - out_width) + 0.5;
    const double source = fmax(__dadd_rn(__dmul_rn(centre, column ? x_scale : y_scale), -0.5), 0.0);
    const int tap = static_cast<int>(fmin(source, size - 1.0));
    first[i] = tap;
    weight[i] = tap + 1 < size ? static_cast<float>(__dadd_rn(source, -static_cast<double>(tap))) : 0.0f;
}

// Each thread computes four pixels of a row and stores them at once where rows are whole vectors.
// Grid: maps * chunks of the output's quadruples
extern "C" __global__ void fastcam_upsample(const float* maps, int height, int width, const int* first, const float* weight,
                                            int out_height, int out_width, int chunks, float* out) {
    const Place at = place_of(chunks);
    const int row_quads = parts(out_width, 4);
    if (at.i >= static_cast<long long>(row_quads) * out_height) return;
    const Enlarged map = {maps + static_cast<long long>(at.map) * height * width, first, weight, height, width, out_width};
    const int y = static_cast<int>(at.i) / row_quads, x = static_cast<int>(at.i) % row_quads * 4;
    const int pixels = min(4, out_width - x);
    float values[4] = {0.0f, 0.0f, 0.0f, 0.0f};
    for (int j = 0; j < pixels; ++j) values[j] = map.at(y, x + j);
    float* place = out + (static_cast<long long>(at.map) * out_height + y) * out_width + x;
    if (out_width % 4 == 0) {
        *reinterpret_cast<float4*>(place) = make_float4(values[0], values[1], values[2], values[3]);
    } else {
        for (int j = 0; j < pixels; ++j) place[j] = values[j];
    }
}
