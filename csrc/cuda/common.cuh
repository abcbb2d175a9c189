// What all CUDA kernels share: sizes of blocks, where a thread's pixel lies, floats in the order of integers, taps.
//
// Everything whose bits must equal fastcam/kernels/reference.py's is written with the intrinsics that round once per
// operation (__fmul_rn and its like): no compiler option can fuse or approximate them. No standard header is needed, so
// that NVRTC compiles this alone.

#pragma once

constexpr int kThreads = 256;  // of a block, all kernels but weigh; fastcam/kernels/cuda.py launches them so
constexpr int kSpan = 32;      // weigh: kSpan x kSpan threads

constexpr int kIntMax = 0x7fffffff;
constexpr float kLowestFloat = -3.402823466e+38f;

// A launch has `chunks` blocks of kThreads for each of its maps. `i` is the element of the map that a thread works on; of
// the last block's threads some may lie behind the end.
// This thread's number in a grid of one number a thread. Not an int: the last block may reach behind the largest one.
__device__ inline long long number_here() { return static_cast<long long>(blockIdx.x) * kThreads + threadIdx.x; }

// How many parts of a size an extent has, for extents up to the largest int.
__device__ inline int parts(int extent, int size) { return (extent - 1) / size + 1; }

struct Place {
    int map;
    long long i;
};

__device__ inline Place place_of(int chunks) {
    const int map = static_cast<int>(blockIdx.x) / chunks, chunk = static_cast<int>(blockIdx.x) % chunks;
    return {map, static_cast<long long>(chunk) * kThreads + threadIdx.x};
}

// Integers in the order of floats; NaN lies beyond the infinities, at either end.
__device__ inline int ordered(float value) {
    const int bits = __float_as_int(value);
    return bits ^ ((bits >> 31) & kIntMax);
}

__device__ inline float unordered(int key) { return __int_as_float(key ^ ((key >> 31) & kIntMax)); }

// The smallest and the largest value of a map, as ordered() integers.
struct Range {
    int low, high;

    __device__ bool finite() const {
        const int infinity = 0x7f800000;
        return high < infinity && low > ~infinity;
    }
    // The largest value if all are finite and it is positive, else 0.
    __device__ float peak() const {
        const float largest = unordered(high);
        return finite() && largest > 0.0f ? largest : 0.0f;
    }
    // enum fastcam_status_code of csrc/include/fastcam/cam.h
    __device__ unsigned char status() const {
        if (!finite()) return 3;
        if (unordered(high) > 0.0f) return 0;
        return unordered(low) < 0.0f ? 1 : 2;
    }
};

// a * (1 - weight) + b * weight, every operation rounded
__device__ inline float mix(float a, float b, float weight) {
    return __fadd_rn(__fmul_rn(a, __fsub_rn(1.0f, weight)), __fmul_rn(b, weight));
}

// A small map, and how it is enlarged: for every output column, then for every output row, the first of the two input
// positions that it blends, and the second one's weight.
struct Enlarged {
    const float* map;
    const int* first;     // [out_width + out_height]
    const float* weight;  // [out_width + out_height]
    int height, width, out_width;

    // Along x first, then along y: csrc/src/axis.h has the same arithmetic.
    __device__ float at(int y, int x) const {
        const int left = first[x], right = min(left + 1, width - 1);
        const int top = first[out_width + y], bottom = min(top + 1, height - 1);
        const float* upper = map + static_cast<long long>(top) * width;
        const float* lower = map + static_cast<long long>(bottom) * width;
        const float across = weight[x];
        return mix(mix(upper[left], upper[right], across), mix(lower[left], lower[right], across), weight[out_width + y]);
    }
};
