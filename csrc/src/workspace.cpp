// The workspace: threads that wait for work, and the functions that make and end it. The only file that starts threads.

#include "workspace.h"

#include <new>

namespace fastcam {

Pool::Pool(int threads) : threads_(threads), workers_(new std::thread[threads > 1 ? threads - 1 : 0]) {
    try {
        for (int lane = 1; lane < threads_; ++lane) workers_[lane - 1] = std::thread(&Pool::serve, this, lane);
    } catch (...) {
        stop();
        throw;
    }
}

Pool::~Pool() { stop(); }

void Pool::stop() noexcept {
    {
        const std::lock_guard<std::mutex> lock(mutex_);
        stopping_ = true;
    }
    begin_.notify_all();
    for (int i = 0; i < threads_ - 1; ++i) {
        if (workers_[i].joinable()) workers_[i].join();
    }
}

void Pool::serve(int lane) noexcept {
    std::uint64_t seen = 0;
    std::unique_lock<std::mutex> lock(mutex_);
    while (true) {
        begin_.wait(lock, [&] { return stopping_ || round_ != seen; });
        if (stopping_) return;
        seen = round_;
        if (lane >= lanes_) continue;
        const Work work = work_;
        void* context = context_;
        lock.unlock();
        work(context, lane);
        lock.lock();
        if (--busy_ == 0) end_.notify_one();
    }
}

void Pool::run(Work work, void* context, int lanes) noexcept {
    if (lanes > 1) {
        const std::lock_guard<std::mutex> lock(mutex_);
        work_ = work;
        context_ = context;
        lanes_ = lanes;
        busy_ = lanes - 1;
        ++round_;
    }
    if (lanes > 1) begin_.notify_all();
    work(context, 0);
    if (lanes > 1) {
        std::unique_lock<std::mutex> lock(mutex_);
        end_.wait(lock, [&] { return busy_ == 0; });
    }
}

}  // namespace fastcam

const char* fastcam_version(void) noexcept { return FASTCAM_VERSION; }

fastcam_workspace* fastcam_workspace_new(int threads) noexcept {
    if (threads < 1) return nullptr;
    try {
        return new fastcam_workspace(threads);
    } catch (...) {
        return nullptr;
    }
}

void fastcam_workspace_free(fastcam_workspace* workspace) noexcept { delete workspace; }
