// Internal: what fastcam_explain keeps between calls: memory, and threads that wait for work.

#pragma once

#include <atomic>
#include <condition_variable>
#include <cstdint>
#include <memory>
#include <mutex>
#include <thread>

#include "axis.h"
#include "components.h"
#include "fastcam/cam.h"
#include "memory.h"

namespace fastcam {

// A fixed number of threads that all run one function at a time. Only its constructor throws.
class Pool {
  public:
    using Work = void (*)(void* context, int lane);

    explicit Pool(int threads);
    ~Pool();
    Pool(const Pool&) = delete;
    Pool& operator=(const Pool&) = delete;

    int threads() const noexcept { return threads_; }

    // Calls work(context, lane) for lane 0 (here) and 1..lanes - 1 (on threads of their own), and waits for all.
    void run(Work work, void* context, int lanes) noexcept;

  private:
    void serve(int lane) noexcept;
    void stop() noexcept;

    int threads_;
    std::unique_ptr<std::thread[]> workers_;
    std::mutex mutex_;
    std::condition_variable begin_;
    std::condition_variable end_;
    Work work_ = nullptr;
    void* context_ = nullptr;
    int lanes_ = 0;
    int busy_ = 0;
    std::uint64_t round_ = 0;
    bool stopping_ = false;
};

// What one thread works with.
struct Lane {
    Buffer<float> small;        // one normalised map
    Buffer<float> rows;         // rows of the enlarged map, or scratch memory of the crossings
    Buffer<std::uint8_t> mask;  // one row of the mask
    Components components;
    Buffer<std::int32_t> found;  // rows x0, y0, x1, y1, pixels of all maps that this lane did
    std::int64_t used = 0;       // how many
};

// Where the components of one map lie.
struct Place {
    std::int64_t start;
    std::int32_t count;
    std::int32_t lane;
};

}  // namespace fastcam

struct fastcam_workspace {
    explicit fastcam_workspace(int threads) : pool(threads), lanes(new fastcam::Lane[threads]) {}

    fastcam::Pool pool;
    std::unique_ptr<fastcam::Lane[]> lanes;
    fastcam::Axis x{}, y{};
    fastcam::Buffer<double> x_memory, y_memory;
    fastcam::Buffer<float> maps;
    fastcam::Buffer<fastcam::Place> places;
    fastcam::Buffer<std::int32_t> components;  // gathered from the lanes, map by map
    std::int64_t rows = 0;
    std::atomic<bool> busy{false};
};
