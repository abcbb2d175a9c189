// Internal: what a function of the API asks of its arguments before it reads or writes anything.
//
//     Arguments given;
//     given.least(1, {area}).reads(values, {maps, area}).writes(out, {maps});
//     if (!given.valid()) return FASTCAM_INVALID;

#pragma once

#include <cstddef>
#include <cstdint>
#include <initializer_list>
#include <limits>

namespace fastcam {

constexpr std::int64_t kInt32 = std::numeric_limits<std::int32_t>::max();

class Arguments {
  public:
    Arguments& that(bool condition) noexcept {
        valid_ = valid_ && condition;
        return *this;
    }

    // Extents that are `low` or more.
    Arguments& least(std::int64_t low, std::initializer_list<std::int64_t> extents) noexcept {
        for (const std::int64_t extent : extents) that(extent >= low);
        return *this;
    }

    // Extents in 1..2^31 - 1.
    Arguments& sides(std::initializer_list<std::int64_t> extents) noexcept {
        for (const std::int64_t extent : extents) that(extent >= 1 && extent <= kInt32);
        return *this;
    }

    // Two sides whose product is an int32 too.
    Arguments& plane(std::int64_t height, std::int64_t width) noexcept {
        return sides({height, width}).that(!valid_ || height <= kInt32 / width);
    }

    // An array that is read: extents are not negative and its bytes can be counted; where it has elements, the pointer
    // is aligned and not null.
    template <typename T>
    Arguments& reads(const T* data, std::initializer_list<std::int64_t> shape) noexcept {
        return add(data, bytes_of(shape, sizeof(T)), alignof(T), Use::kRead);
    }

    // An array that is written: the same, and it overlaps no other array.
    template <typename T>
    Arguments& writes(T* data, std::initializer_list<std::int64_t> shape) noexcept {
        return add(data, bytes_of(shape, sizeof(T)), alignof(T), Use::kWritten);
    }

    // As `writes`, but it may be exactly the array that is read.
    template <typename T>
    Arguments& writes_in_place(T* data, std::initializer_list<std::int64_t> shape) noexcept {
        return add(data, bytes_of(shape, sizeof(T)), alignof(T), Use::kInPlace);
    }

    // Memory of so many bytes for numbers of up to eight.
    Arguments& scratch(void* memory, std::size_t bytes) noexcept {
        return add(memory, bytes <= kMostBytes ? static_cast<std::int64_t>(bytes) : -1, 8, Use::kWritten);
    }

    // Bytes from `lowest` on, counted by the caller; -1 where they cannot be counted.
    Arguments& reads_bytes(const void* lowest, std::int64_t bytes) noexcept { return add(lowest, bytes, 1, Use::kRead); }
    Arguments& writes_bytes(void* lowest, std::int64_t bytes, std::size_t alignment) noexcept {
        return add(lowest, bytes, alignment, Use::kWritten);
    }

    bool valid() const noexcept { return valid_; }

    // a * b, a + b of numbers >= 0; -1 where one is negative or the result is not below 2^63.
    static std::int64_t times(std::int64_t a, std::int64_t b) noexcept {
        if (a < 0 || b < 0) return -1;
        return b != 0 && a > kMostBytes / b ? -1 : a * b;
    }
    static std::int64_t plus(std::int64_t a, std::int64_t b) noexcept {
        return a < 0 || b < 0 || a > kMostBytes - b ? -1 : a + b;
    }

  private:
    static constexpr std::int64_t kMostBytes = std::numeric_limits<std::ptrdiff_t>::max();
    static constexpr int kMostArrays = 12;
    enum class Use { kRead, kWritten, kInPlace };
    struct Array {
        std::uintptr_t begin, end;
        Use use;
    };

    static std::int64_t bytes_of(std::initializer_list<std::int64_t> shape, std::size_t size) noexcept {
        bool empty = false;
        for (const std::int64_t extent : shape) {
            if (extent < 0) return -1;
            empty = empty || extent == 0;
        }
        if (empty) return 0;
        std::int64_t bytes = static_cast<std::int64_t>(size);
        for (const std::int64_t extent : shape) bytes = times(bytes, extent);
        return bytes;
    }

    Arguments& add(const void* data, std::int64_t bytes, std::size_t alignment, Use use) noexcept {
        if (!valid_ || bytes == 0) return *this;
        const std::uintptr_t begin = reinterpret_cast<std::uintptr_t>(data);
        that(bytes > 0 && begin != 0 && begin % alignment == 0);
        that(valid_ && static_cast<std::uintptr_t>(bytes) <= std::numeric_limits<std::uintptr_t>::max() - begin);
        if (!valid_) return *this;
        const Array mine{begin, begin + static_cast<std::uintptr_t>(bytes), use};
        for (int i = 0; i < count_; ++i) {
            const Array& other = arrays_[i];
            const bool apart = mine.end <= other.begin || other.end <= mine.begin;
            const bool same = use == Use::kInPlace && mine.begin == other.begin && mine.end == other.end;
            that(apart || same || (use == Use::kRead && other.use == Use::kRead));
        }
        that(count_ < kMostArrays);
        if (valid_) arrays_[count_++] = mine;
        return *this;
    }

    bool valid_ = true;
    int count_ = 0;
    Array arrays_[kMostArrays];
};

}  // namespace fastcam
