// Internal: memory that grows and is kept, for the workspace, and parts of memory that the caller gave.

#pragma once

#include <cstddef>
#include <cstdint>
#include <cstdlib>

namespace fastcam {

// Plain data, aligned as malloc does. Growing keeps the contents.
template <typename T>
class Buffer {
  public:
    Buffer() = default;
    Buffer(const Buffer&) = delete;
    Buffer& operator=(const Buffer&) = delete;
    ~Buffer() { std::free(data_); }

    // Room for `count` elements; false, and nothing changed, where there is no memory.
    bool reserve(std::size_t count) noexcept {
        if (count <= room_) return true;
        const std::size_t room = count + room_ / 2;
        void* grown = room < static_cast<std::size_t>(-1) / 2 / sizeof(T) ? std::realloc(data_, room * sizeof(T)) : nullptr;
        if (grown == nullptr) return false;
        data_ = static_cast<T*>(grown);
        room_ = room;
        return true;
    }

    T* data() noexcept { return data_; }
    const T* data() const noexcept { return data_; }
    T& operator[](std::size_t i) noexcept { return data_[i]; }

  private:
    T* data_ = nullptr;
    std::size_t room_ = 0;
};

// Hands out parts of one piece of memory, each aligned to eight bytes; without memory, it only counts.
struct Arena {
    unsigned char* memory;
    std::size_t used = 0;

    template <typename T>
    T* take(std::int64_t count) noexcept {
        T* const part = memory == nullptr ? nullptr : reinterpret_cast<T*>(memory + used);
        used += (static_cast<std::size_t>(count) * sizeof(T) + 7) / 8 * 8;
        return part;
    }
};

}  // namespace fastcam
