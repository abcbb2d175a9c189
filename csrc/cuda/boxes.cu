// From small maps to the boxes of their enlarged forms, without the pixels: a thread walks along a row and finds its runs.
//
//   peaks     fastcam_peaks: the largest value of each enlarged map
//   runs      fastcam_runs: each row's maximal stretches of foreground
//   connect   fastcam_connect: runs that touch are united, each adds itself to its root, and the largest root is found
//   list      fastcam_components: all roots in raster order, once the host knows how many there are
//
// A row has room for `capacity` runs, half its pixels rounded up; a run's number, row * capacity + its place in the row,
// grows in raster order, and the root of a component is its first run (union_find.cuh).

#include "common.cuh"
#include "sums.cuh"
#include "union_find.cuh"

// A box and its pixels: of a run, and, at a root after fastcam_connect, of its component.
struct Box {
    int x0, y0, x1, y1, pixels;
};

// Calls visit(x, value) for the pixels begin..end of a row from left to right. The values are Enlarged::at's, to the bit;
// what neighbouring pixels read is read once.
template <typename Visit>
__device__ inline void each_pixel(const Enlarged& map, int y, int begin, int end, Visit&& visit) {
    const int top = map.first[map.out_width + y], bottom = min(top + 1, map.height - 1);
    const float* upper = map.map + static_cast<long long>(top) * map.width;
    const float* lower = map.map + static_cast<long long>(bottom) * map.width;
    const float down = map.weight[map.out_width + y];
    float corners[4] = {0.0f, 0.0f, 0.0f, 0.0f};
    int held = -1;
    for (int x = begin; x < end; ++x) {
        const int left = map.first[x];
        if (left != held) {
            const int right = min(left + 1, map.width - 1);
            corners[0] = upper[left];
            corners[1] = upper[right];
            corners[2] = lower[left];
            corners[3] = lower[right];
            held = left;
        }
        const float across = map.weight[x];
        visit(x, mix(mix(corners[0], corners[1], across), mix(corners[2], corners[3], across), down));
    }
}

// The map and the row of a thread: `chunks` blocks of kThreads rows a map.
__device__ inline Enlarged enlarged(const float* maps, int map, int height, int width, const int* first,
                                    const float* weight, int out_width) {
    return {maps + static_cast<long long>(map) * height * width, first, weight, height, width, out_width};
}

// `peaks` holds zeros before: bits of floats >= 0, whose order is that of integers.   Grid: maps * chunks of rows
extern "C" __global__ void fastcam_peaks(const float* maps, int height, int width, const int* first, const float* weight,
                                         int out_height, int out_width, int chunks, int* peaks) {
    __shared__ int highest;
    const Place at = place_of(chunks);
    if (threadIdx.x == 0) highest = 0;
    __syncthreads();
    if (at.i < out_height) {
        const Enlarged map = enlarged(maps, at.map, height, width, first, weight, out_width);
        float own = 0.0f;
        each_pixel(map, static_cast<int>(at.i), 0, out_width, [&](int, float value) { own = fmaxf(own, value); });
        atomicMax(&highest, __float_as_int(own));
    }
    __syncthreads();
    if (threadIdx.x == 0) atomicMax(peaks + at.map, highest);
}

// Foreground is heat >= fraction * peak, where there is a peak and the pixel is positive and in its image's window.
// Every run is its own root for now.   Grid: maps * chunks of rows
extern "C" __global__ void fastcam_runs(const float* maps, int height, int width, const int* first, const float* weight,
                                        int out_height, int out_width, int chunks, const int* peaks, float fraction,
                                        const int* windows, int targets, Box* boxes, int* parents, int* lengths) {
    const Place at = place_of(chunks);
    if (at.i >= out_height) return;
    const int y = static_cast<int>(at.i), capacity = parts(out_width, 2);
    const float peak = __int_as_float(peaks[at.map]), cut = __fmul_rn(fraction, peak);
    int begin = 0, end = peak > 0.0f ? out_width : 0;
    if (windows != nullptr) {
        const int* w = windows + at.map / targets * 4LL;
        begin = max(begin, w[0]);
        end = y >= w[1] && y < w[3] ? min(end, w[2]) : 0;
    }
    const long long row = static_cast<long long>(at.map) * out_height + y;
    Box* box = boxes + row * capacity;
    int* parent = parents + row * capacity;
    int count = 0, open = -1;
    const auto close = [&](int x) {
        box[count] = {open, y, x, y + 1, x - open};
        parent[count] = y * capacity + count;
        ++count;
        open = -1;
    };
    const Enlarged map = enlarged(maps, at.map, height, width, first, weight, out_width);
    each_pixel(map, y, begin, end, [&](int x, float heat) {
        const bool on = heat > 0.0f && heat >= cut;
        if (on && open < 0) open = x;
        if (!on && open >= 0) close(x);
    });
    if (open >= 0) close(end);
    lengths[row] = count;
}

// Unites the runs of row y with those of the row above that they touch; reach is 1 where corners count, else 0.
__device__ inline void connect_row(const Box* boxes, int* parent, const int* lengths, int y, int capacity, int reach) {
    const int here = y * capacity, above = here - capacity;
    int p = 0;
    for (int r = 0; r < lengths[y]; ++r) {
        const Box run = boxes[here + r];
        while (p < lengths[y - 1] && boxes[above + p].x1 + reach <= run.x0) ++p;
        for (int q = p; q < lengths[y - 1] && boxes[above + q].x0 < run.x1 + reach; ++q) {
            unite(parent, here + r, above + q);
        }
    }
}

// A block a map. Of each row, `lengths` become its roots; counts and the largest component's box of each map: the most
// pixels and, of those, the first.   Grid: maps
extern "C" __global__ void fastcam_connect(int out_height, int out_width, int connectivity, Box* boxes, int* parents,
                                           const int* lengths, int* roots, int* counts, Box* largest) {
    __shared__ unsigned long long best;
    __shared__ int total;
    const int capacity = parts(out_width, 2), reach = connectivity == 8 ? 1 : 0;
    const long long rows = static_cast<long long>(blockIdx.x) * out_height;
    Box* box = boxes + rows * capacity;
    int* parent = parents + rows * capacity;
    const int* length = lengths + rows;
    if (threadIdx.x == 0) {
        best = 0;
        total = 0;
    }
    for (int y = static_cast<int>(threadIdx.x); y < out_height; y += kThreads) {
        if (y > 0) connect_row(box, parent, length, y, capacity, reach);
    }
    __syncthreads();
    for (int y = static_cast<int>(threadIdx.x); y < out_height; y += kThreads) {
        for (int i = y * capacity; i < y * capacity + length[y]; ++i) {
            const int root = root_of(parent, i);
            if (root == i) continue;
            parent[i] = root;
            atomicMin(&box[root].x0, box[i].x0);
            atomicMax(&box[root].x1, box[i].x1);
            atomicMax(&box[root].y1, y + 1);
            atomicAdd(&box[root].pixels, box[i].pixels);
        }
    }
    __syncthreads();
    for (int y = static_cast<int>(threadIdx.x); y < out_height; y += kThreads) {
        int own = 0;
        for (int i = y * capacity; i < y * capacity + length[y]; ++i) {
            if (parent[i] != i) continue;
            ++own;
            atomicMax(&best, (static_cast<unsigned long long>(box[i].pixels) << 32) | ~static_cast<unsigned>(i));
        }
        roots[rows + y] = own;
        if (own > 0) atomicAdd(&total, own);
    }
    __syncthreads();
    if (threadIdx.x != 0) return;
    counts[blockIdx.x] = total;
    largest[blockIdx.x] = best != 0 ? box[~static_cast<unsigned>(best)] : Box{0, 0, 0, 0, 0};
}

// The boxes of all roots, map by map from offsets[map] on, in raster order.   Grid: maps
extern "C" __global__ void fastcam_components(int out_height, int out_width, const Box* boxes, const int* parents,
                                              const int* lengths, const int* roots, const int* offsets, Box* out) {
    __shared__ int sums[kThreads];
    const int capacity = parts(out_width, 2);
    const long long rows = static_cast<long long>(blockIdx.x) * out_height;
    int before = offsets[blockIdx.x];
    for (int begin = 0; begin < out_height; begin += kThreads) {
        const int y = begin + static_cast<int>(threadIdx.x);
        const int own = y < out_height ? roots[rows + y] : 0;
        int place = before + sum_to_here(own, sums) - own;
        for (int i = y * capacity; own > 0 && i < y * capacity + lengths[rows + y]; ++i) {
            if (parents[rows * capacity + i] == i) out[place++] = boxes[rows * capacity + i];
        }
        before += sums[kThreads - 1];
        __syncthreads();
    }
}
