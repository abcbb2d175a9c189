// kernels.cu as a shared library for a processor, for tests where no GPU is: c++ -shared -fPIC -ffp-contract=off host.cpp
//
// fastcam_host_launch is cuLaunchKernel with a name in place of a handle. Calls must not overlap.

#undef _FORTIFY_SOURCE  // its longjmp refuses to go to another stack
#include <utility>

#include "host_shim.h"
#include "kernels.cu"

namespace {

template <auto kKernel, typename... Arguments, std::size_t... kIndex>
void call(void (*)(Arguments...), void** arguments, std::index_sequence<kIndex...>) {
    kKernel(*static_cast<Arguments*>(arguments[kIndex])...);
}

template <typename... Arguments>
constexpr std::size_t count_of(void (*)(Arguments...)) {
    return sizeof...(Arguments);
}

template <auto kKernel>
void unpack(void** arguments) {
    call<kKernel>(kKernel, arguments, std::make_index_sequence<count_of(kKernel)>());
}

struct Kernel {
    const char* name;
    void (*run)(void**);
    std::size_t arguments;
    bool barriers;
};

#define KERNEL(name, barriers) {#name, unpack<name>, count_of(name), barriers}

// clang-format off
const Kernel kKernels[] = {
    KERNEL(fastcam_weigh, true),
    KERNEL(fastcam_weigh_half, true),
    KERNEL(fastcam_start_ranges, false),
    KERNEL(fastcam_ranges, true),
    KERNEL(fastcam_status, false),
    KERNEL(fastcam_relu, false),
    KERNEL(fastcam_normalize, false),
    KERNEL(fastcam_threshold, false),
    KERNEL(fastcam_rectify, true),
    KERNEL(fastcam_taps, false),
    KERNEL(fastcam_upsample, false),
    KERNEL(fastcam_peaks, true),
    KERNEL(fastcam_runs, false),
    KERNEL(fastcam_connect, true),
    KERNEL(fastcam_components, true),
    KERNEL(fastcam_mark_mask, false),
    KERNEL(fastcam_merge, false),
    KERNEL(fastcam_compress, true),
    KERNEL(fastcam_scan, true),
    KERNEL(fastcam_number, true),
    KERNEL(fastcam_relabel, false),
    KERNEL(fastcam_start_rows, false),
    KERNEL(fastcam_finish_rows, false),
    KERNEL(fastcam_measure_labels, true),
    KERNEL(fastcam_overlay, false),
};
// clang-format on

}  // namespace

// 0, or 1: no such kernel with so many arguments; 2: a barrier that not all threads of a block reach.
extern "C" int fastcam_host_launch(const char* name, const unsigned* grid, const unsigned* block, void** arguments,
                                   std::size_t count, unsigned order) {
    for (const Kernel& kernel : kKernels) {
        if (std::strcmp(kernel.name, name) != 0 || kernel.arguments != count) continue;
        const dim3 blocks = {grid[0], 1, 1}, threads = {block[0], block[1], 1};
        return shim::machine.run(blocks, threads, kernel.barriers, order, kernel.run, arguments) ? 0 : 2;
    }
    return 1;
}
