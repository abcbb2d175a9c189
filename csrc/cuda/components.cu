// Connected components of masks by union-find on pixels (union_find.cuh), and the boxes of labels.
//
// parent[i] is -1 for background. The root of a component is its first pixel: numbering the roots in raster order numbers
// the components as scipy.ndimage.label does.
//
//   initialise  fastcam_mark_mask
//   merge       fastcam_merge
//   compress    fastcam_compress: parents become roots; counts roots of each block
//   count       fastcam_scan: roots before each block, and components of each map; fastcam_number: ranks of roots
//   boxes       fastcam_start_rows, fastcam_measure_labels, fastcam_finish_rows: rows x0, y0, x1, y1, pixels

#include "common.cuh"
#include "sums.cuh"
#include "union_find.cuh"

// ---- initialise ----------------------------------------------------------------------------------------------------

extern "C" __global__ void fastcam_mark_mask(const unsigned char* mask, int area, int chunks, int* parent) {
    const Place at = place_of(chunks);
    const long long i = at.map * static_cast<long long>(area) + at.i;
    if (at.i < area) parent[i] = mask[i] != 0 ? static_cast<int>(at.i) : -1;
}

// ---- merge ---------------------------------------------------------------------------------------------------------

// Each foreground pixel is linked to its neighbours before it, but for those that are linked through another neighbour.
extern "C" __global__ void fastcam_merge(int* parents, int height, int width, int chunks, int connectivity) {
    const Place at = place_of(chunks);
    if (at.i >= static_cast<long long>(height) * width) return;
    int* parent = parents + static_cast<long long>(at.map) * height * width;
    const int i = static_cast<int>(at.i), x = i % width;
    if (__ldcv(parent + i) < 0) return;
    const bool left = x > 0 && __ldcv(parent + i - 1) >= 0;
    const bool up = i >= width && __ldcv(parent + i - width) >= 0;
    const bool up_left = i >= width && x > 0 && __ldcv(parent + i - width - 1) >= 0;
    const bool up_right = i >= width && x + 1 < width && __ldcv(parent + i - width + 1) >= 0;
    if (left) unite(parent, i, i - 1);
    if (up && !(left && up_left)) unite(parent, i, i - width);
    if (connectivity == 4 || up) return;
    if (up_left && !left) unite(parent, i, i - width - 1);
    if (up_right) unite(parent, i, i - width + 1);
}

// ---- compress and count ----------------------------------------------------------------------------------------------

extern "C" __global__ void fastcam_compress(int* parents, int height, int width, int chunks, int* roots) {
    __shared__ int count;
    const Place at = place_of(chunks);
    const long long area = static_cast<long long>(height) * width, begin = at.map * area;
    if (threadIdx.x == 0) count = 0;
    __syncthreads();
    if (at.i < area && __ldcv(parents + begin + at.i) >= 0) {
        const int root = root_of(parents + begin, static_cast<int>(at.i));
        parents[begin + at.i] = root;
        if (root == at.i) atomicAdd(&count, 1);
    }
    __syncthreads();
    if (threadIdx.x == 0) roots[blockIdx.x] = count;
}

// The roots of each block become the number of roots in the map's blocks before it.   Grid: maps
extern "C" __global__ void fastcam_scan(int* roots, int chunks, int* counts) {
    __shared__ int sums[kThreads];
    int* own = roots + static_cast<long long>(blockIdx.x) * chunks;
    int total = 0;
    for (int begin = 0; begin < chunks; begin += kThreads) {
        const int i = begin + static_cast<int>(threadIdx.x);
        const int value = i < chunks ? own[i] : 0;
        const int sum = sum_to_here(value, sums);
        if (i < chunks) own[i] = total + sum - value;
        total += sums[kThreads - 1];
        __syncthreads();
    }
    if (threadIdx.x == 0) counts[blockIdx.x] = total;
}

// ranks[root] = offsets[map] + roots before it; `offsets` may be null. Other elements of `ranks` stay as they are.
extern "C" __global__ void fastcam_number(const int* parents, int area, int chunks, const int* roots, const int* offsets,
                                          int* ranks) {
    __shared__ int sums[kThreads];
    const Place at = place_of(chunks);
    const long long i = at.map * static_cast<long long>(area) + at.i;
    const bool is_root = at.i < area && parents[i] == at.i;
    const int sum = sum_to_here(is_root ? 1 : 0, sums);
    if (is_root) ranks[i] = (offsets == nullptr ? 0 : offsets[at.map]) + roots[blockIdx.x] + sum - 1;
}

// Parents (compressed) become labels, in place.
extern "C" __global__ void fastcam_relabel(int* parents, int area, int chunks, const int* ranks) {
    const Place at = place_of(chunks);
    if (at.i >= area) return;
    const long long begin = at.map * static_cast<long long>(area);
    const int root = parents[begin + at.i];
    parents[begin + at.i] = root < 0 ? 0 : ranks[begin + root] + 1;
}

// ---- boxes -----------------------------------------------------------------------------------------------------------

extern "C" __global__ void fastcam_start_rows(int* rows, int count) {
    const long long r = number_here();
    if (r >= count) return;
    int* row = rows + 5LL * r;
    row[0] = row[1] = kIntMax;
    row[2] = row[3] = row[4] = 0;
}

extern "C" __global__ void fastcam_finish_rows(int* rows, int count) {
    const long long r = number_here();
    if (r >= count) return;
    int* row = rows + 5LL * r;
    if (row[4] == 0) row[0] = row[1] = 0;
}

// Of the threads of a block with neighbouring pixels of one row and the same `value` >= 0, the first gets their number, all
// others get 0. So a run of pixels costs one atomic operation, not one a pixel.
__device__ inline int run_length(int value, int x, int width) {
    __shared__ int values[kThreads];
    const int t = static_cast<int>(threadIdx.x);
    values[t] = value;
    __syncthreads();
    if (value < 0 || (t > 0 && x > 0 && values[t - 1] == value)) return 0;
    const int most = min(kThreads - t, width - x);
    int length = 1;
    while (length < most && values[t + length] == value) ++length;
    return length;
}

// Adds pixels x.. of image row y to row `value`. All threads of the block call it, those without a pixel with -1.
__device__ inline void measure(int value, long long i, int width, int* rows) {
    const int x = static_cast<int>(i % width), y = static_cast<int>(i / width);
    const int length = run_length(value, x, width);
    if (length == 0) return;
    int* row = rows + 5LL * value;
    atomicMin(row, x);
    atomicMin(row + 1, y);
    atomicMax(row + 2, x + length);
    atomicMax(row + 3, y + 1);
    atomicAdd(row + 4, length);
}

// The row of each label 1..count of one image. A label outside of 0..count sets `wrong`.   Grid: chunks
extern "C" __global__ void fastcam_measure_labels(const int* labels, int height, int width, int chunks, int count,
                                                  int* rows, int* wrong) {
    const Place at = place_of(chunks);
    int label = at.i < static_cast<long long>(height) * width ? labels[at.i] : 0;
    if (label < 0 || label > count) {
        atomicMax(wrong, 1);
        label = 0;
    }
    measure(label - 1, at.i, width, rows);
}
