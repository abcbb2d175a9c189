/* The native kernels of FastCAM: what turns activations and weights into heatmaps, masks, boxes and overlays.
 *
 * This header is the whole API, for C99 and C++. It knows no Python: arrays are pointers to contiguous memory in row-major
 * order, extents are int64_t, outputs (and scratch memory, where a kernel needs some) belong to the caller. No function
 * throws or keeps global state, and only those of a fastcam_workspace allocate, so all of them are safe from any number of
 * threads as long as their outputs (and workspaces) differ.
 *
 * Every function looks at its arguments before it reads or writes an array. It returns FASTCAM_INVALID, with nothing read
 * and nothing written, where one of these does not hold; a comment at a function names what else it asks.
 *   - Numbers of images, targets, channels, maps, values and labels are >= 0. Heights, widths and areas are >= 1; heights
 *     and widths are below 2^31.
 *   - The bytes of each array can be counted in a ptrdiff_t: no product of extents overflows.
 *   - An array with elements has a pointer that is not NULL and is aligned as its type asks; scratch memory to 8 bytes.
 *     An array without elements may be NULL.
 *   - An output (and scratch memory) overlaps no other array of the call. Where a comment says "in place" the output may
 *     be exactly the input.
 * What is left for the caller to vouch for: that pointers have the memory that the extents say. The values in it may be
 * anything, NaN and infinity among them. After a fork a workspace works in the child as a copy of its own; one that another
 * thread was using at the time stays FASTCAM_BUSY there: make another.
 *
 * fastcam/kernels/reference.py defines the results: all kernels give the same bits as it does, on every processor; only
 * fastcam_weigh, whose sum over the channels runs in another order, differs from it in the last bits.
 *
 * Versions: the soname and the CMake package follow one rule. Until 1.0 each minor version has a binary interface of its
 * own (soname 0.1 for 0.1.x); from 1.0 on each major version has. A library runs programs built with an older header of
 * the same interface. fastcam_task says its size, so fields can be added at its end; the other structs stay as they are.
 * Before the first release, 0.1 lost fastcam_overlay_map, the layout of fastcam_activations, and the threads of
 * fastcam_workspace_new: programs built with an earlier state of this header must be built again. Its functions of one
 * step returned nothing then.
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

/* What functions return that are of type int. */
enum fastcam_error {
    FASTCAM_SUCCESS = 0,
    FASTCAM_INVALID = 1,   /* an argument is out of range; nothing was read or written */
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
 *   weights [images, targets, channels], out [images, targets, area]
 * Asks for a dtype of enum fastcam_dtype. */
FASTCAM_API int fastcam_weigh(fastcam_activations activations, const float* weights, int64_t images, int64_t targets,
                              int64_t channels, int64_t area, float* out) FASTCAM_NOEXCEPT;

/* out[m] = the status code of map m.   values [maps, area], out [maps] */
FASTCAM_API int fastcam_status(const float* values, int64_t maps, int64_t area, uint8_t* out) FASTCAM_NOEXCEPT;

/* out = max(values, 0); NaN stays NaN, -0 becomes +0. In place if wanted.   values, out [count] */
FASTCAM_API int fastcam_relu(const float* values, int64_t count, float* out) FASTCAM_NOEXCEPT;

/* Each map divided by its peak; all zeros where it has none. The result is finite: a negative value whose quotient is too
 * large for a float becomes the lowest float. In place if wanted.   values, out [maps, area] */
FASTCAM_API int fastcam_normalize(const float* values, int64_t maps, int64_t area, float* out) FASTCAM_NOEXCEPT;

/* Bytes of scratch memory (aligned as malloc does) that fastcam_upsample to rows of `out_width` wants; 0 where that is
 * not in 1..2^31 - 1. */
FASTCAM_API size_t fastcam_upsample_scratch(int64_t out_width) FASTCAM_NOEXCEPT;

/* Bilinear interpolation with half-pixel centres, enlarging or reducing (without antialiasing), as torch's
 * interpolate(mode="bilinear", align_corners=False): output pixel i looks at (i + 0.5) * in / out - 0.5, clamped.
 *   values [maps, height, width], out [maps, out_height, out_width] */
FASTCAM_API int fastcam_upsample(const float* values, int64_t maps, int64_t height, int64_t width, int64_t out_height,
                                 int64_t out_width, void* scratch, float* out) FASTCAM_NOEXCEPT;

/* out = 1 where a value is positive and >= fraction * peak, else 0; all zeros where the map has no peak.
 *   values, out [maps, area]
 * Asks for a fraction in (0, 1], which NaN is not. */
FASTCAM_API int fastcam_threshold(const float* values, int64_t maps, int64_t area, float fraction,
                                  uint8_t* out) FASTCAM_NOEXCEPT;

/* Bytes of scratch memory (aligned as malloc does) that fastcam_label wants for masks of this size; 0 where it refuses
 * them. */
FASTCAM_API size_t fastcam_label_scratch(int64_t height, int64_t width) FASTCAM_NOEXCEPT;

/* Connected components of the non-zero pixels. Labels are 1, 2, ... in raster order of the components' first pixels;
 * 0 is background.
 *   mask, labels [maps, height, width], counts [maps]
 * Asks for a connectivity of 4 or 8, and that height * width fits in an int32. */
FASTCAM_API int fastcam_label(const uint8_t* mask, int64_t maps, int64_t height, int64_t width, int connectivity,
                              void* scratch, int32_t* labels, int32_t* counts) FASTCAM_NOEXCEPT;

/* One row x0, y0, x1, y1 (half-open), pixels per label 1..count; a label without pixels gets zeros. Returns false, and
 * leaves `out` in an unspecified state, if a label lies outside 0..count. Where other functions return FASTCAM_INVALID it
 * returns false, with nothing read or written.   labels [height, width], out [count, 5]
 * Asks that height * width fits in an int32. */
FASTCAM_API bool fastcam_boxes(const int32_t* labels, int64_t height, int64_t width, int64_t count,
                               int32_t* out) FASTCAM_NOEXCEPT;

/* The picture with the coloured heatmap over it. Heat is clipped to 0..1 (NaN: 0) and picks row floor(255 heat + 0.5) of
 * the colour table; a = floor(65536 alpha + 0.5) blends in integers, halves rounded up:
 * out = (image * (65536 - a) + colour * a + 32768) >> 16.
 *   image, out [area, 3], heatmap [area], lut [256, 3]
 * Asks for an alpha in 0..1, which NaN is not; the area may be 0. */
FASTCAM_API int fastcam_overlay(const uint8_t* image, const float* heatmap, const uint8_t* lut, double alpha, int64_t area,
                                uint8_t* out) FASTCAM_NOEXCEPT;

/* ---- before the model ------------------------------------------------------------------------------------------- */

/* Bytes of scratch memory (aligned as malloc does) that fastcam_prepare wants; 0 where a width is not in 1..2^31 - 1. */
FASTCAM_API size_t fastcam_prepare_scratch(int64_t width, int64_t out_width) FASTCAM_NOEXCEPT;

/* A picture of three channels, shrunk by area weighting as OpenCV's INTER_AREA does it, to the last bit, and normalised:
 * out[y,x,c] = byte * factor[c] - shift[c], which lies at out + y * strides[0] + x * strides[1] + c * strides[2].
 *   pixels [height, width, 3], `stride` bytes from row to row; factor, shift [3]; strides [3]
 * Asks that out_height <= height, out_width <= width; where both sizes are whole multiples, that at most 65536 pixels
 * become one; stride >= 3 * width where there is more than one row; of strides, which may be negative, that each axis
 * longer than 1 steps over the axes of smaller strides, so that no two values share a place. */
FASTCAM_API int fastcam_prepare(const uint8_t* pixels, int64_t height, int64_t width, int64_t stride, int64_t out_height,
                                int64_t out_width, const float* factor, const float* shift, void* scratch, float* out,
                                const int64_t* strides) FASTCAM_NOEXCEPT;

/* ---- all steps in one call --------------------------------------------------------------------------------------- */

/* Memory that calls of fastcam_explain and fastcam_sweep reuse: after the first calls of a size nothing is allocated. One call at a time may
 * use it (another one gets FASTCAM_BUSY), so give each thread its own. Returns NULL where there is no memory. Free takes
 * NULL too. */
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
    int64_t out_height, out_width;
    float fraction;         /* of the enlarged map's peak, in (0, 1] */
    int32_t connectivity;   /* 4 or 8 */
    const int32_t* windows; /* NULL, or [images, 4]: x0, y0, x1, y1 (half-open) outside of which no pixel counts;
                               any numbers */

    float* maps;      /* [images, targets, height, width], after ReLU; without weights in place if wanted */
    uint8_t* status;  /* [images, targets] */
    float* heatmaps;  /* [images, targets, out_height, out_width], in 0..1 */
    int32_t* counts;  /* [images, targets]: number of components */
    int32_t* largest; /* [images, targets, 5]: x0, y0, x1, y1, pixels of the component with most pixels, the first of
                         them in raster order on a tie; zeros where there is none */
} fastcam_task;

/* Returns an enum fastcam_error. Asks for a workspace and a task that are not NULL, a fraction in (0, 1], a connectivity of
 * 4 or 8, a known dtype (float32 without weights), height * width and out_height * out_width that fit in an int32, and a
 * struct_size that some header has: not smaller than this struct ever was, at most 4096, a multiple of its alignment.
 * A field that is set, and that a newer header has and this library does not know, is FASTCAM_INVALID. */
FASTCAM_API int fastcam_explain(fastcam_workspace* workspace, const fastcam_task* task) FASTCAM_NOEXCEPT;

/* The components of one map at many thresholds, in one pass over its pixels: those of all pixels >= cuts[0], then of all
 * >= cuts[1], and so on. Cuts go from the highest to the lowest; one that is higher than a cut before it, or NaN, counts as
 * the lowest of these. A pixel that is NaN reaches no cut. fastcam_components gives the rows, cut by cut.
 *   values [height, width], cuts [count], window NULL or [4]: x0, y0, x1, y1 (half-open) outside of which no pixel counts,
 *   counts [count]: number of components at each cut
 * Returns an enum fastcam_error. Asks for a workspace that is not NULL, a connectivity of 4 or 8, that height * width fits
 * in an int32, and a count below 2^31 - 1. */
FASTCAM_API int fastcam_sweep(fastcam_workspace* workspace, const float* values, int64_t height, int64_t width,
                              const float* cuts, int64_t count, int connectivity, const int32_t* window,
                              int32_t* counts) FASTCAM_NOEXCEPT;

/* All components of the last call's maps, map by map (counts[m] rows each), in raster order of their first pixels: rows
 * x0, y0, x1, y1, pixels. Belongs to the workspace; valid until its next call. `rows` (may be NULL) gets their number: 0
 * of a workspace that is NULL, or whose last call found no memory. A call that was refused changes nothing. */
FASTCAM_API const int32_t* fastcam_components(const fastcam_workspace* workspace, int64_t* rows) FASTCAM_NOEXCEPT;

#ifdef __cplusplus
}
#endif

#endif /* FASTCAM_CAM_H */
