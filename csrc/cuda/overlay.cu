// overlay: the coloured heatmap over the picture; a thread a pixel, in the integers of csrc/src/overlay.cpp.

#include "common.cuh"

// `front` is the opacity in 1 / 65536.
__device__ inline void paint(const unsigned char* image, float heat, const unsigned char* lut, unsigned front,
                             unsigned char* out) {
    const float clipped = heat > 0.0f ? fminf(heat, 1.0f) : 0.0f;  // NaN > 0 is false
    const int row = static_cast<int>(__fadd_rn(__fmul_rn(clipped, 255.0f), 0.5f));
    for (int c = 0; c < 3; ++c) {
        out[c] = static_cast<unsigned char>((image[c] * (65536u - front) + lut[3 * row + c] * front + 32768u) >> 16);
    }
}

extern "C" __global__ void fastcam_overlay(const unsigned char* image, const float* heatmap, const unsigned char* lut,
                                           int front, int area, unsigned char* out) {
    const long long i = number_here();
    if (i < area) paint(image + 3 * i, heatmap[i], lut, front, out + 3 * i);
}
