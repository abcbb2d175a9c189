// Random sizes and values through every kernel, fused against separate, on several threads: for the sanitizers. Every
// buffer has exactly the size that the header asks for, so that one step too far is found. Arguments: rounds, seed.

#include <cstdio>
#include <cstdlib>
#include <limits>
#include <memory>
#include <random>
#include <thread>
#include <vector>

#include "fastcam/cam.h"

namespace {

using Random = std::mt19937;

std::int64_t between(Random& random, std::int64_t low, std::int64_t high) {
    return std::uniform_int_distribution<std::int64_t>(low, high)(random);
}

std::vector<float> values(Random& random, std::size_t count) {
    constexpr float kSpecial[] = {0.0f,
                                  -0.0f,
                                  1.0f,
                                  1e-42f,
                                  3e38f,
                                  std::numeric_limits<float>::quiet_NaN(),
                                  std::numeric_limits<float>::infinity(),
                                  -std::numeric_limits<float>::infinity()};
    const bool special = between(random, 0, 3) == 0;
    std::normal_distribution<float> normal;
    std::vector<float> result(count);
    for (float& value : result) {
        value = special && between(random, 0, 20) == 0 ? kSpecial[between(random, 0, 7)] : normal(random);
    }
    return result;
}

void check(bool good, const char* what) {
    if (good) return;
    std::fprintf(stderr, "wrong: %s\n", what);
    std::exit(1);
}

struct Sizes {
    std::int64_t images, targets, channels, height, width, out_height, out_width;
    std::int64_t maps() const { return images * targets; }
    std::int64_t area() const { return height * width; }
    std::int64_t out_area() const { return out_height * out_width; }
};

// The components of one map by the separate kernels.
std::vector<std::int32_t> separately(const Sizes& s, const float* map, bool positive, float fraction, int connectivity,
                                     const std::int32_t* window) {
    std::vector<float> rectified(s.area()), small(s.area()), large(s.out_area());
    fastcam_relu(map, s.area(), rectified.data());
    if (!positive) rectified.assign(rectified.size(), 0.0f);
    fastcam_normalize(rectified.data(), 1, s.area(), small.data());
    std::vector<unsigned char> scratch(fastcam_upsample_scratch(s.out_width));
    fastcam_upsample(small.data(), 1, s.height, s.width, s.out_height, s.out_width, scratch.data(), large.data());
    std::vector<std::uint8_t> mask(s.out_area());
    fastcam_threshold(large.data(), 1, s.out_area(), fraction, mask.data());
    for (std::int64_t i = 0; i < s.out_area(); ++i) {
        const std::int64_t x = i % s.out_width, y = i / s.out_width;
        if (x < window[0] || x >= window[2] || y < window[1] || y >= window[3]) mask[i] = 0;
    }
    scratch.resize(fastcam_label_scratch(s.out_height, s.out_width));
    std::vector<std::int32_t> labels(s.out_area());
    std::int32_t count = 0;
    fastcam_label(mask.data(), 1, s.out_height, s.out_width, connectivity, scratch.data(), labels.data(), &count);
    std::vector<std::int32_t> rows(5 * static_cast<std::size_t>(count));
    check(fastcam_boxes(labels.data(), s.out_height, s.out_width, count, rows.data()), "boxes");
    return rows;
}

void one_round(Random& random, fastcam_workspace* workspace) {
    const Sizes s{between(random, 0, 3), between(random, 0, 3),  between(random, 0, 40), between(random, 1, 9),
                  between(random, 1, 9), between(random, 1, 90), between(random, 1, 90)};
    const auto activations = values(random, s.images * s.channels * s.area());
    const auto weights = values(random, s.maps() * s.channels);
    std::vector<std::int32_t> windows;
    for (std::int64_t n = 0; n < s.images; ++n) {
        windows.insert(windows.end(), {static_cast<std::int32_t>(between(random, -2, 20)), 0,
                                       static_cast<std::int32_t>(between(random, 0, 95)), 60});
    }
    std::vector<float> signed_maps(s.maps() * s.area()), maps(signed_maps.size());
    std::vector<std::uint8_t> status(s.maps());
    std::vector<std::int32_t> counts(s.maps());
    fastcam_task task{};
    task.struct_size = sizeof task;
    task.activations = {activations.data(), FASTCAM_FLOAT32};
    const float nothing = 0.0f;  // a pointer must be there even if no weight is
    task.weights = weights.empty() ? &nothing : weights.data();
    task.images = s.images;
    task.targets = s.targets;
    task.channels = s.channels;
    task.height = s.height;
    task.width = s.width;
    task.out_height = s.out_height;
    task.out_width = s.out_width;
    task.fraction = between(random, 0, 1) == 0 ? 0.15f : 1.0f;
    task.connectivity = between(random, 0, 1) == 0 ? 4 : 8;
    task.windows = windows.data();
    task.maps = maps.data();
    task.status = status.data();
    task.counts = counts.data();
    check(fastcam_explain(workspace, &task) == FASTCAM_SUCCESS, "explain");
    fastcam_weigh(task.activations, task.weights, s.images, s.targets, s.channels, s.area(), signed_maps.data());
    std::int64_t rows = 0;
    const std::int32_t* found = fastcam_components(workspace, &rows);
    for (std::int64_t m = 0; m < s.maps(); ++m) {
        const float* map = signed_maps.data() + m * s.area();
        const auto wanted = separately(s, map, status[m] == FASTCAM_OK, task.fraction, task.connectivity,
                                       windows.data() + 4 * (m / s.targets));
        check(counts[m] * std::size_t{5} == wanted.size(), "counts");
        for (const std::int32_t number : wanted) check(*found++ == number, "components");
    }
}

// A picture of one colour stays that colour, whatever the sizes; planes and interleaved, with gaps between the rows.
void picture(Random& random) {
    const std::int64_t height = between(random, 1, 90), width = between(random, 1, 90), gap = between(random, 0, 5);
    const std::int64_t rows = between(random, 1, height), columns = between(random, 1, width);
    const std::int64_t stride = 3 * width + gap;
    const auto byte = static_cast<std::uint8_t>(between(random, 0, 255));
    std::vector<std::uint8_t> pixels((height - 1) * stride + 3 * width, byte);
    const float factor[3] = {0.5f, 1.0f, 2.0f}, shift[3] = {0.0f, 3.0f, -1.0f};  // exact, so that no fused product differs
    const std::int64_t planes[3] = {columns, 1, rows * columns}, together[3] = {3 * columns, 3, 1};
    const std::int64_t* strides = between(random, 0, 1) == 0 ? planes : together;
    std::vector<unsigned char> scratch(fastcam_prepare_scratch(width, columns));
    std::vector<float> out(rows * columns * 3);
    fastcam_prepare(pixels.data(), height, width, stride, rows, columns, factor, shift, scratch.data(), out.data(),
                    strides);
    for (std::int64_t i = 0; i < rows * columns * 3; ++i) {
        const std::int64_t y = i / (3 * columns), x = i / 3 % columns, c = i % 3;
        const float wanted = static_cast<float>(byte) * factor[c] - shift[c];
        check(out[y * strides[0] + x * strides[1] + c * strides[2]] == wanted, "prepare");
    }
}

}  // namespace

int main(int count, char** arguments) {
    const int rounds = count > 1 ? std::atoi(arguments[1]) : 100;
    const unsigned seed = count > 2 ? static_cast<unsigned>(std::atoi(arguments[2])) : 0;
    std::vector<std::thread> threads;
    for (unsigned t = 0; t < 3; ++t) {
        threads.emplace_back([=] {
            Random random(seed + t);
            fastcam_workspace* workspace = fastcam_workspace_new();
            for (int i = 0; i < rounds; ++i) one_round(random, workspace), picture(random);
            fastcam_workspace_free(workspace);
        });
    }
    for (std::thread& thread : threads) thread.join();
    fastcam_workspace* shared = fastcam_workspace_new();  // two callers: one of them may find it busy, no more
    std::vector<float> map(49, 1.0f);
    const auto call = [&] {
        fastcam_task task{};
        task.struct_size = sizeof task;
        task.activations.data = map.data();
        task.images = task.targets = 1;
        task.height = task.width = 7;
        task.out_height = task.out_width = 64;
        task.fraction = 0.15f;
        task.connectivity = 8;
        for (int i = 0; i < rounds; ++i) {
            const int error = fastcam_explain(shared, &task);
            check(error == FASTCAM_SUCCESS || error == FASTCAM_BUSY, "a shared workspace");
        }
    };
    std::thread other(call);
    call();
    other.join();
    fastcam_workspace_free(shared);
    std::puts("all equal");
}
