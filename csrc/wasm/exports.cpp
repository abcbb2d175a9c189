// What JavaScript calls beside the functions of fastcam/cam.h: the same with 32-bit extents, and pictures as a canvas
// has them, RGBA. Pointers are offsets in the module's memory, which the caller takes from `malloc`.

#include <cstdint>
#include <cstdlib>
#include <new>
#include <vector>

#include "../host/picture.h"
#include "fastcam/cam.h"

using namespace fastcam::host;

// Without memory the module traps, which JavaScript sees as an error; the library's own would print, and import a system.
void* operator new(std::size_t size) {
    void* memory = std::malloc(size);
    if (memory == nullptr) __builtin_trap();
    return memory;
}
void operator delete(void* memory) noexcept { std::free(memory); }
void operator delete(void* memory, std::size_t) noexcept { std::free(memory); }

namespace {

constexpr int kDone = FASTCAM_SUCCESS, kRefused = FASTCAM_INVALID;

// Numbers as JavaScript writes them: resize, crop fraction, color, scale, 3 means, 3 stds, channels last, pad value.
Preprocessing read_preprocessing(const double* how) {
    Preprocessing p;
    p.resize = static_cast<Resize>(static_cast<int>(how[0]));
    p.crop_fraction = how[1];
    p.color = static_cast<Color>(static_cast<int>(how[2]));
    p.scale = how[3];
    for (int c = 0; c < 3; ++c) {
        p.mean[c] = how[4 + c];
        p.std[c] = how[7 + c];
    }
    p.channels_last = how[10] != 0;
    p.pad_value = how[11];
    return p;
}

// Six pairs: original and network (height, width), then source and target (x0, y0, x1, y1).
Geometry read_geometry(const std::int32_t* g) {
    return {{g[0], g[1]}, {g[2], g[3]}, {g[4], g[5], g[6], g[7]}, {g[8], g[9], g[10], g[11]}};
}

void write_geometry(const Geometry& g, std::int32_t* out) {
    const std::int32_t all[12] = {g.original.height, g.original.width, g.network.height, g.network.width,
                                  g.source.x0,       g.source.y0,      g.source.x1,      g.source.y1,
                                  g.target.x0,       g.target.y0,      g.target.x1,      g.target.y1};
    for (int i = 0; i < 12; ++i) out[i] = all[i];
}

std::vector<std::uint8_t> without_alpha(const std::uint8_t* rgba, std::size_t area) {
    std::vector<std::uint8_t> rgb(3 * area);
    for (std::size_t i = 0; i < area; ++i) {
        for (int c = 0; c < 3; ++c) rgb[3 * i + c] = rgba[4 * i + c];
    }
    return rgb;
}

}  // namespace

#define EXPORTED(name) extern "C" __attribute__((export_name(name), visibility("default")))

// The network's input of a picture uint8 [height, width, 4], and its geometry, int32 [12].
EXPORTED("prepare")
int web_prepare(const std::uint8_t* rgba, std::int32_t height, std::int32_t width, std::int32_t network_height,
                std::int32_t network_width, const double* how, float* out, std::int32_t* geometry) {
    const Preprocessing p = read_preprocessing(how);
    const Geometry g = fit({height, width}, {network_height, network_width}, p);
    write_geometry(g, geometry);
    const auto rgb = without_alpha(rgba, static_cast<std::size_t>(height) * width);
    return prepare(rgb.data(), g, p, out) ? kDone : kRefused;
}

// fastcam_explain of one image; see there. `weights` may be 0, `heatmaps` too. `window` is int32 [4].
EXPORTED("explain")
int web_explain(fastcam_workspace* workspace, const void* activations, std::int32_t dtype, const float* weights,
                std::int32_t targets, std::int32_t channels, std::int32_t height, std::int32_t width,
                std::int32_t out_height, std::int32_t out_width, float fraction, std::int32_t connectivity,
                const std::int32_t* window, float* maps, std::uint8_t* status, float* heatmaps, std::int32_t* counts,
                std::int32_t* largest) {
    fastcam_task task = {};
    task.struct_size = sizeof task;
    task.activations = {activations, dtype};
    task.weights = weights;
    task.images = 1;
    task.targets = targets;
    task.channels = channels;
    task.height = height;
    task.width = width;
    task.out_height = out_height;
    task.out_width = out_width;
    task.fraction = fraction;
    task.connectivity = connectivity;
    task.windows = window;
    task.maps = maps;
    task.status = status;
    task.heatmaps = heatmaps;
    task.counts = counts;
    task.largest = largest;
    return fastcam_explain(workspace, &task);
}

// The components of the last call of `explain`, int32 [rows, 5] at the returned place; `rows` is int32 [1].
EXPORTED("components")
const std::int32_t* web_components(const fastcam_workspace* workspace, std::int32_t* rows) {
    std::int64_t count = 0;
    const std::int32_t* found = fastcam_components(workspace, &count);
    *rows = static_cast<std::int32_t>(count);
    return found;
}

// A box int32 [4] of the network's input in pixels of the picture, float32 [4].
EXPORTED("to_original")
void web_to_original(const std::int32_t* geometry, const std::int32_t* box, float* out) {
    const auto moved = to_original(read_geometry(geometry), box);
    std::copy(moved.begin(), moved.end(), out);
}

// A heatmap of the network's input at the size of the picture.
EXPORTED("place")
int web_place(const float* heatmap, const std::int32_t* geometry, float* out) {
    return place(heatmap, read_geometry(geometry), out) ? kDone : kRefused;
}

// fastcam_overlay of a picture uint8 [area, 4], in place; alpha stays.
EXPORTED("overlay")
int web_overlay(std::uint8_t* rgba, const float* heat, double alpha, std::int32_t area) {
    static const auto table = jet();
    const auto rgb = without_alpha(rgba, static_cast<std::size_t>(area));
    std::vector<std::uint8_t> mixed(rgb.size());
    if (fastcam_overlay(rgb.data(), heat, table.data(), alpha, area, mixed.data())) return kRefused;
    for (std::int32_t i = 0; i < area; ++i) {
        for (int c = 0; c < 3; ++c) rgba[4 * i + c] = mixed[3 * i + c];
    }
    return kDone;
}
