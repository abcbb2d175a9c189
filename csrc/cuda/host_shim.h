// A machine on which CUDA kernels run without a GPU, for tests: as much of the language as kernels.cu uses.
//
// The threads of a block are fibers (a stack each, one of them running at a time), which change places at barriers. Blocks
// follow one another. So results are reproducible, and any order can be tried: `Order` runs threads and blocks forwards,
// backwards, or in an order drawn from a seed. In the last, fibers also change places at every atomic operation and every
// volatile load, and blocks without barriers run beside each other: what may happen on a GPU between any two accesses of
// shared or global memory that others write to.

#pragma once

#include <setjmp.h>
#include <ucontext.h>

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <deque>
#include <vector>

#define __global__
#define __device__
#define __shared__ static  // of the one block that runs
#define __launch_bounds__(threads)
#define SHIM_NOINLINE __attribute__((noinline))  // setjmp may spoil the variables of the function that calls it

struct dim3 {
    unsigned x, y, z;
};

namespace shim {

struct Fiber {
    dim3 block, thread;
    ucontext_t entry;
    jmp_buf here;
    bool alive = false, waiting = false;
    std::vector<unsigned char> stack = std::vector<unsigned char>(32 * 1024);
};

// 0: forwards, 1: backwards, others: seeds.
using Order = unsigned;

class Machine {
  public:
    dim3 grid, block;
    const Fiber* running = nullptr;

    // Runs the kernel on all blocks; false if a barrier was not reached by all threads of a block.
    bool run(dim3 grid_size, dim3 block_size, bool barriers, Order order, void (*kernel)(void**), void** arguments);
    void barrier();
    void yield() {
        if (seed_ != 0) leave();
    }

  private:
    static void body();
    void leave();
    void resume(Fiber& fiber);
    void add_fiber();
    void begin(unsigned first, unsigned blocks);
    bool run_fibers();
    void run_in_turn();
    std::uint64_t draw(std::uint64_t below);

    void (*kernel_)(void**) = nullptr;
    void** arguments_ = nullptr;
    std::uint64_t seed_ = 0;
    bool backwards_ = false;
    jmp_buf scheduler_;
    ucontext_t home_;
    std::deque<Fiber> fibers_;  // which never move
    std::size_t used_ = 0;
    Fiber* current_ = nullptr;
};

inline Machine machine;

inline std::uint64_t Machine::draw(std::uint64_t below) {  // xorshift
    seed_ ^= seed_ << 13;
    seed_ ^= seed_ >> 7;
    seed_ ^= seed_ << 17;
    return seed_ % below;
}

// Where a fiber begins. It never ends: it runs one thread after the other.
inline void Machine::body() {
    if (_setjmp(machine.current_->here) == 0) swapcontext(&machine.current_->entry, &machine.home_);
    while (true) {
        machine.kernel_(machine.arguments_);
        machine.current_->alive = false;
        machine.leave();
    }
}

inline void Machine::add_fiber() {
    current_ = &fibers_.emplace_back();
    getcontext(&current_->entry);
    current_->entry.uc_stack.ss_sp = current_->stack.data();
    current_->entry.uc_stack.ss_size = current_->stack.size();
    current_->entry.uc_link = nullptr;
    makecontext(&current_->entry, body, 0);
    swapcontext(&home_, &current_->entry);
}

// setjmp and longjmp only, once a fiber has begun: swapcontext would call the system twice each time.
SHIM_NOINLINE void Machine::leave() {
    if (_setjmp(current_->here) == 0) _longjmp(scheduler_, 1);
    running = current_;
}

SHIM_NOINLINE void Machine::resume(Fiber& fiber) {
    running = current_ = &fiber;
    if (_setjmp(scheduler_) == 0) _longjmp(fiber.here, 1);
}

inline void Machine::barrier() {
    if (current_ == nullptr) std::abort();  // host.cpp lists this kernel as one without barriers
    current_->waiting = true;
    leave();
}

// Until all threads have ended.
inline bool Machine::run_fibers() {
    std::vector<Fiber*> ready;
    while (true) {
        ready.clear();
        std::size_t alive = 0;
        for (std::size_t i = 0; i < used_; ++i) {
            Fiber& fiber = fibers_[backwards_ ? used_ - 1 - i : i];
            alive += fiber.alive;
            if (fiber.alive && !fiber.waiting) ready.push_back(&fiber);
        }
        if (alive == 0) return true;
        if (ready.empty()) {  // a barrier, to which no thread may be missing
            if (alive != used_) return false;
            for (std::size_t i = 0; i < used_; ++i) fibers_[i].waiting = false;
            continue;
        }
        if (seed_ == 0) {
            for (Fiber* fiber : ready) resume(*fiber);
            continue;
        }
        while (!ready.empty()) {
            const std::size_t chosen = draw(ready.size());
            resume(*ready[chosen]);
            if (!ready[chosen]->alive || ready[chosen]->waiting) {
                ready[chosen] = ready.back();
                ready.pop_back();
            }
        }
    }
}

// Without barriers, each thread may run to its end.
inline void Machine::run_in_turn() {
    current_ = nullptr;
    for (std::size_t i = 0; i < used_; ++i) {
        running = &fibers_[backwards_ ? used_ - 1 - i : i];
        kernel_(arguments_);
    }
}

// One fiber for each thread of these blocks.
inline void Machine::begin(unsigned first, unsigned blocks) {
    used_ = 0;
    for (unsigned b = first; b < first + blocks; ++b) {
        for (unsigned t = 0; t < block.x * block.y; ++t) {
            if (used_ == fibers_.size()) add_fiber();
            Fiber& fiber = fibers_[used_++];
            fiber.block = {backwards_ ? grid.x - 1 - b : b, 0, 0};
            fiber.thread = {t % block.x, t / block.x, 0};
            fiber.alive = true;
            fiber.waiting = false;
        }
    }
}

inline bool Machine::run(dim3 grid_size, dim3 block_size, bool barriers, Order order, void (*kernel)(void**),
                         void** arguments) {
    grid = grid_size;
    block = block_size;
    kernel_ = kernel;
    arguments_ = arguments;
    backwards_ = order == 1;
    seed_ = order > 1 ? 0x9e3779b97f4a7c15u * order : 0;
    const unsigned together = seed_ != 0 && !barriers ? 4 : 1;
    for (unsigned first = 0; first < grid.x; first += together) {
        begin(first, std::min(together, grid.x - first));
        if (!barriers && seed_ == 0) {
            run_in_turn();
        } else if (!run_fibers()) {
            fibers_.clear();  // some are in the middle of the kernel
            return false;
        }
    }
    return true;
}

}  // namespace shim

#define threadIdx (shim::machine.running->thread)
#define blockIdx (shim::machine.running->block)
#define gridDim (shim::machine.grid)
#define blockDim (shim::machine.block)

inline void __syncthreads() { shim::machine.barrier(); }

template <typename T>
T exchange(T* place, T value) {
    const T old = *place;
    *place = value;
    shim::machine.yield();
    return old;
}

template <typename T>
T atomicMin(T* place, T value) {
    return exchange(place, std::min(*place, value));
}
template <typename T>
T atomicMax(T* place, T value) {
    return exchange(place, std::max(*place, value));
}
template <typename T>
T atomicAdd(T* place, T value) {
    return exchange(place, static_cast<T>(*place + value));
}
inline int __ldcv(const int* place) {
    const int value = *place;
    shim::machine.yield();
    return value;
}

struct alignas(16) float4 {
    float x, y, z, w;
};
inline float4 make_float4(float x, float y, float z, float w) { return {x, y, z, w}; }

inline int __float_as_int(float value) {
    int bits;
    std::memcpy(&bits, &value, sizeof bits);
    return bits;
}
inline float __int_as_float(int bits) {
    float value;
    std::memcpy(&value, &bits, sizeof value);
    return value;
}

// Every operation is rounded by itself as long as the compiler fuses none (-ffp-contract=off).
inline float __fadd_rn(float a, float b) { return a + b; }
inline float __fsub_rn(float a, float b) { return a - b; }
inline float __fmul_rn(float a, float b) { return a * b; }
inline float __fdiv_rn(float a, float b) { return a / b; }
inline double __dadd_rn(double a, double b) { return a + b; }
inline double __dmul_rn(double a, double b) { return a * b; }

using std::max;
using std::min;
