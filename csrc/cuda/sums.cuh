// Sums over the threads of a block.

#pragma once

#include "common.cuh"

// The sum of the values of this thread and those before it. All threads of the block call it.
__device__ inline int sum_to_here(int value, int* sums) {
    const int t = static_cast<int>(threadIdx.x);
    sums[t] = value;
    for (int step = 1; step < kThreads; step *= 2) {
        __syncthreads();
        const int before = t >= step ? sums[t - step] : 0;
        __syncthreads();
        sums[t] += before;
    }
    __syncthreads();
    return sums[t];
}
