/* The native kernels of FastCAM: what turns activations and weights into heatmaps, masks, boxes and overlays.
 *
 * This header is the whole API, for C99 and C++. It knows no Python: arrays are pointers to contiguous memory in row-major
 * order, extents are int64_t, outputs (and scratch memory, where a kernel needs some) belong to the caller. No function
 * throws or keeps global state, and only those of a fastcam_workspace allocate, so all of them are safe from any number of
 * threads as long as their outputs (and workspaces) differ. Inputs and outputs of one call must not overlap.
 *
 * Callers vouch for the arguments: extents are >= 0 (heights and widths >= 1), pointers are valid for their extents.
 * fastcam/kernels/_validate.py does that for Python. fastcam/kernels/reference.py defines the results: all kernels give the
 * same bits as it does, on every processor; only fastcam_weigh, whose sum over the channels runs in another order, differs
 * from it in the last bits.
 *
 * Versions: the soname and the CMake package follow one rule. Until 1.0 each minor version has a binary interface of its
 * own (soname 0.1 for 0.1.x); from 1.0 on each major version has. A library runs programs built with an older header of
 * the same interface. fastcam_task says its size, so fields can be added at its end; the other structs stay as they are.
 * Before the first release, 0.1 lost fastcam_overlay_map, the layout of fastcam_activations, and the threads of
 * fastcam_workspace_new: programs built with an earlier state of this header must be built again.
 *
 * Vocabulary: a "map" is one height x width plane of float32, a "peak" the largest value of a map if all of its values are
 * finite and this one is positive, and 0 otherwise: a map without a peak explains nothing.
 */
#ifndef FASTCAM_CAM_H
#define FASTCAM_CAM_H

#include <stddef.h>
#include <stdint.h>
#ifndef __cplusplus
#include <stdbool.h>
#endif

#if defined(_WIN32) && defined(FASTCAM_BUILDING)
#define FASTCAM_API __declspec(dllexport)
#elif defined(_WIN32) && defined(FASTCAM_SHARED)
#define FASTCAM_API __declspec(dllimport)
#elif defined(__GNUC__)
#define FASTCAM_API __attribute__((visibility("default")))
#else
#define FASTCAM_API
#endif

#ifdef __cplusplus
#define FASTCAM_NOEXCEPT noexcept
extern "C" {
#else
#define FASTCAM_NOEXCEPT
#endif

/* The verdict on one map of sum_k w_k A_k, before ReLU. */
enum fastcam_status_code {
    FASTCAM_OK = 0,            /* some value is positive */
    FASTCAM_ALL_NEGATIVE = 1,  /* none is, some are negative: ReLU leaves nothing */
    FASTCAM_ZERO_GRADIENT = 2, /* all values are exactly zero: the score does not depend on this layer */
    FASTCAM_NON_FINITE = 3     /* some value is NaN or infinite */
};

/* What a call returns that can fail. */
enum fastcam_error {
    FASTCAM_SUCCESS = 0,
    FASTCAM_INVALID = 1,   /* an argument is out of range; nothing was written */
    FASTCAM_NO_MEMORY = 2, /* outputs are in an unspecified state */
    FASTCAM_BUSY = 3       /* the workspace is in use by another call; nothing was written */
};

/* How activations are stored. */
enum fastcam_dtype { FASTCAM_FLOAT32 = 0, FASTCAM_FLOAT16 = 1 /* IEEE binary16 bit patterns, uint16_t */ };

/* [images, channels, area], as exported files give them whatever the layout of the model. */
typedef struct fastcam_activations {
    const void* data;
    int32_t dtype; /* enum fastcam_dtype */
} fastcam_activations;

/* The version of this library, such as "0.1.0". */
FASTCAM_API const char* fastcam_version(void) FASTCAM_NOEXCEPT;

/* ---- one step at a time ------------------------------------------------------------------------------------------ */

/* out[n,t,:] = sum_k weights[n,t,k] * activations[n,k,:]; signed, no ReLU. `area` is height * width.
 *   weights [images, targets, channels], out [images, targets, area] */
FASTCAM_API void fastcam_weigh(fastcam_activations activations, const float* weights, int64_t images, int64_t targets,
                               int64_t channels, int64_t area, float* out) FASTCAM_NOEXCEPT;

/* out[m] = the status code of map m.   values [maps, area], out [maps] */
FASTCAM_API void fastcam_status(const float* values, int64_t maps, int64_t area, uint8_t* out) FASTCAM_NOEXCEPT;

/* out = max(values, 0); NaN stays NaN, -0 becomes +0.   values, out [count] */
FASTCAM_API void fastcam_relu(const float* values, int64_t count, float* out) FASTCAM_NOEXCEPT;

/* Each map divided by its peak; all zeros where it has none. The result is finite: a negative value whose quotient is too
 * large for a float becomes the lowest float.   values, out [maps, area] */
FASTCAM_API void fastcam_normalize(const float* values, int64_t maps, int64_t area, float* out) FASTCAM_NOEXCEPT;

/* Bytes of scratch memory (aligned as malloc does) that fastcam_upsample to rows of `out_width` wants. */
FASTCAM_API size_t fastcam_upsample_scratch(int64_t out_width) FASTCAM_NOEXCEPT;

/* Bilinear interpolation with half-pixel centres, enlarging or reducing (without antialiasing), as torch's
 * interpolate(mode="bilinear", align_corners=False): output pixel i looks at (i + 0.5) * in / out - 0.5, clamped.
 *   values [maps, height, width], out [maps, out_height, out_width] */
FASTCAM_API void fastcam_upsample(const float* values, int64_t maps, int64_t height, int64_t width, int64_t out_height,
                                  int64_t out_width, void* scratch, float* out) FASTCAM_NOEXCEPT;

/* out = 1 where a value is positive and >= fraction * peak, else 0; all zeros where the map has no peak.
 *   values, out [maps, area] */
FASTCAM_API void fastcam_threshold(const float* values, int64_t maps, int64_t area, float fraction,
                                   uint8_t* out) FASTCAM_NOEXCEPT;

/* Bytes of scratch memory (aligned as malloc does) that fastcam_label wants for masks of this size. */
FASTCAM_API size_t fastcam_label_scratch(int64_t height, int64_t width) FASTCAM_NOEXCEPT;

/* Connected components of the non-zero pixels. Labels are 1, 2, ... in raster order of the components' first pixels;
 * 0 is background. `connectivity` is 4 or 8; height * width must fit in an int32.
 *   mask, labels [maps, height, width], counts [maps] */
FASTCAM_API void fastcam_label(const uint8_t* mask, int64_t maps, int64_t height, int64_t width, int connectivity,
                               void* scratch, int32_t* labels, int32_t* counts) FASTCAM_NOEXCEPT;

/* One row x0, y0, x1, y1 (half-open), pixels per label 1..count; a label without pixels gets zeros. Returns false, and
 * leaves `out` in an unspecified state, if a label lies outside 0..count.   labels [height, width], out [count, 5] */
FASTCAM_API bool fastcam_boxes(const int32_t* labels, int64_t height, int64_t width, int64_t count,
                               int32_t* out) FASTCAM_NOEXCEPT;

/* The picture with the coloured heatmap over it. Heat is clipped to 0..1 (NaN: 0) and picks row floor(255 heat + 0.5) of
 * the colour table; a = floor(65536 alpha + 0.5) blends in integers, halves rounded up:
 * out = (image * (65536 - a) + colour * a + 32768) >> 16.
 *   image, out [area, 3], heatmap [area], lut [256, 3], alpha in 0..1 */
FASTCAM_API void fastcam_overlay(const uint8_t* image, const float* heatmap, const uint8_t* lut, double alpha, int64_t area,
                                 uint8_t* out) FASTCAM_NOEXCEPT;

/* ---- before the model ------------------------------------------------------------------------------------------- */

/* Bytes of scratch memory (aligned as malloc does) that fastcam_prepare wants. */
FASTCAM_API size_t fastcam_prepare_scratch(int64_t width, int64_t out_width) FASTCAM_NOEXCEPT;

/* A picture of three channels, shrunk by area weighting as OpenCV's INTER_AREA does it, to the last bit, and normalised:
 * out[y,x,c] = byte * factor[c] - shift[c], which lies at out + y * strides[0] + x * strides[1] + c * strides[2].
 *   pixels [height, width, 3], `stride` bytes from row to row; 1 <= out_height <= height, 1 <= out_width <= width, and
 *   where both sizes are whole multiples, at most 65536 pixels become one; factor, shift [3]; strides [3] */
FASTCAM_API void fastcam_prepare(const uint8_t* pixels, int64_t height, int64_t width, int64_t stride, int64_t out_height,
                                 int64_t out_width, const float* factor, const float* shift, void* scratch, float* out,
                                 const int64_t* strides) FASTCAM_NOEXCEPT;

/* ---- all steps in one call --------------------------------------------------------------------------------------- */

/* Memory that calls of fastcam_explain reuse: after the first calls of a size nothing is allocated. One call at a time may
 * use it (another one gets FASTCAM_BUSY), so give each thread its own. Returns NULL where there is no memory. */
typedef struct fastcam_workspace fastcam_workspace;
FASTCAM_API fastcam_workspace* fastcam_workspace_new(void) FASTCAM_NOEXCEPT;
FASTCAM_API void fastcam_workspace_free(fastcam_workspace* workspace) FASTCAM_NOEXCEPT;

/* weigh, status, ReLU, normalize, upsample, threshold, label and boxes of a batch. Zero the struct, then set struct_size
 * to sizeof(fastcam_task): later versions may add fields at the end, for which zero means what this version does. Outputs
 * that are NULL are not computed where that saves work; without `heatmaps` no enlarged map is built: the boxes follow
 * exactly from the small one. */
typedef struct fastcam_task {
    size_t struct_size; /* sizeof(fastcam_task) */
    fastcam_activations activations;
    const float* weights; /* [images, targets, channels]; NULL: activations are signed float32 maps
                             [images, targets, height, width] already */
    int64_t images, targets, channels, height, width;
    int64_t out_height, out_width; /* out_height * out_width must fit in an int32 */
    float fraction;                /* of the enlarged map's peak, in (0, 1] */
    int32_t connectivity;          /* 4 or 8 */
    const int32_t* windows;        /* NULL, or [images, 4]: x0, y0, x1, y1 (half-open) outside of which no pixel counts */

    float* maps;      /* [images, targets, height, width], after ReLU */
    uint8_t* status;  /* [images, targets] */
    float* heatmaps;  /* [images, targets, out_height, out_width], in 0..1 */
    int32_t* counts;  /* [images, targets]: number of components */
    int32_t* largest; /* [images, targets, 5]: x0, y0, x1, y1, pixels of the component with most pixels, the first of
                         them in raster order on a tie; zeros where there is none */
} fastcam_task;

/* Returns an enum fastcam_error. FASTCAM_INVALID also where struct_size is smaller than this struct ever was, or where a
 * field is set that a newer header has and this library does not know. */
FASTCAM_API int fastcam_explain(fastcam_workspace* workspace, const fastcam_task* task) FASTCAM_NOEXCEPT;

/* All components of the last call's maps, map by map (counts[m] rows each), in raster order of their first pixels: rows
 * x0, y0, x1, y1, pixels. Belongs to the workspace; valid until its next call. `rows` (may be NULL) gets their number. */
FASTCAM_API const int32_t* fastcam_components(const fastcam_workspace* workspace, int64_t* rows) FASTCAM_NOEXCEPT;

#ifdef __cplusplus
}
#endif

#endif /* FASTCAM_CAM_H */
