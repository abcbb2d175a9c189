// The native kernels of FastCAM: what turns activations and weights into heatmaps, masks, boxes and overlays.
//
// This header is the whole API. It is plain C++17 and knows no Python: arrays are pointers to contiguous memory in
// row-major order, extents are std::int64_t, outputs (and scratch memory, where a kernel needs some) belong to the
// caller. No function allocates, throws, locks or keeps state, so all of them are safe from any number of threads as
// long as their outputs differ. Inputs and outputs of one call must not overlap.
//
// Callers vouch for the arguments: extents are >= 0 (height and width >= 1), pointers are valid for their extents.
// fastcam/kernels/_check.py does that for Python. fastcam/kernels/reference.py defines the results: all kernels give
// the same bits as it does, except weigh, whose sum over the channels runs in another order.
//
// Vocabulary: a "map" is one height x width plane of float32, a "peak" the largest value of a map if all of its values
// are finite and this one is positive, and 0 otherwise: a map without a peak explains nothing.

#pragma once

#include <cstddef>
#include <cstdint>

namespace fastcam {

// The verdict on one map of sum_k w_k A_k, before ReLU.
enum Status : std::uint8_t {
    kOk = 0,            // some value is positive
    kAllNegative = 1,   // none is, some are negative: ReLU leaves nothing
    kZeroGradient = 2,  // all values are exactly zero: the score does not depend on this layer
    kNonFinite = 3,     // some value is NaN or infinite
};

// out[n,t,:] = sum_k weights[n,t,k] * activations[n,k,:]; signed, no ReLU. `area` is height * width.
//   activations [images, channels, area], weights [images, targets, channels], out [images, targets, area]
void weigh(const float* activations, const float* weights, std::int64_t images, std::int64_t targets,
           std::int64_t channels, std::int64_t area, float* out) noexcept;

// out[m] = the Status of map m.   values [maps, area], out [maps]
void status(const float* values, std::int64_t maps, std::int64_t area, std::uint8_t* out) noexcept;

// out = max(values, 0); NaN stays NaN, -0 becomes +0.   values, out [count]
void relu(const float* values, std::int64_t count, float* out) noexcept;

// Each map divided by its peak; all zeros where it has none. The result is finite: a negative value whose quotient is
// too large for a float becomes the lowest float.   values, out [maps, area]
void normalize(const float* values, std::int64_t maps, std::int64_t area, float* out) noexcept;

// Bytes of scratch memory (aligned as malloc does) that `upsample` to rows of `out_width` wants.
std::size_t upsample_scratch(std::int64_t out_width) noexcept;

// Bilinear interpolation with half-pixel centres, enlarging or reducing (without antialiasing), as torch's
// interpolate(mode="bilinear", align_corners=False): output pixel i looks at (i + 0.5) * in / out - 0.5, clamped.
//   values [maps, height, width], out [maps, out_height, out_width]
void upsample(const float* values, std::int64_t maps, std::int64_t height, std::int64_t width,
              std::int64_t out_height, std::int64_t out_width, void* scratch, float* out) noexcept;

// out = 1 where a value is positive and >= fraction * peak, else 0; all zeros where the map has no peak.
//   values, out [maps, area]
void threshold(const float* values, std::int64_t maps, std::int64_t area, float fraction, std::uint8_t* out) noexcept;

// Bytes of scratch memory (aligned as malloc does) that `label` wants for masks of this size.
std::size_t label_scratch(std::int64_t height, std::int64_t width) noexcept;

// Connected components of the non-zero pixels. Labels are 1, 2, ... in raster order of the components' first pixels;
// 0 is background. `connectivity` is 4 or 8; height * width must fit in an int32.
//   mask, labels [maps, height, width], counts [maps]
void label(const std::uint8_t* mask, std::int64_t maps, std::int64_t height, std::int64_t width, int connectivity,
           void* scratch, std::int32_t* labels, std::int32_t* counts) noexcept;

// One row x0, y0, x1, y1 (half-open), pixels per label 1..count; a label without pixels gets zeros. Returns false, and
// leaves `out` in an unspecified state, if a label lies outside 0..count.   labels [height, width], out [count, 5]
bool boxes(const std::int32_t* labels, std::int64_t height, std::int64_t width, std::int64_t count,
           std::int32_t* out) noexcept;

// The picture with the coloured heatmap over it. Heat is clipped to 0..1 (NaN: 0) and picks row floor(255 heat + 0.5)
// of the colour table; a = floor(65536 alpha + 0.5) blends in integers, halves rounded up:
// out = (image * (65536 - a) + colour * a + 32768) >> 16.
//   image, out [area, 3], heatmap [area], lut [256, 3], alpha in 0..1
void overlay(const std::uint8_t* image, const float* heatmap, const std::uint8_t* lut, double alpha, std::int64_t area,
             std::uint8_t* out) noexcept;

}  // namespace fastcam
