// The Python module fastcam._native: the functions of fastcam/cam.h on NumPy arrays. No other file here knows Python.
//
// fastcam/kernels/native.py validates arguments in the user's words. What is asked here is what memory depends on:
// a ValueError names the argument. Arguments must already be C-contiguous and of the exact type (noconvert: a TypeError
// instead of a silent copy). Outputs are allocated first, then the GIL is released for the computation.

#include <pybind11/numpy.h>
#include <pybind11/pybind11.h>

#include <algorithm>
#include <cstdint>
#include <limits>
#include <memory>
#include <new>
#include <string>
#include <utility>
#include <vector>

#include "fastcam/cam.h"

namespace py = pybind11;
using namespace py::literals;

namespace {

using Floats = py::array_t<float, py::array::c_style>;
using Bytes = py::array_t<std::uint8_t, py::array::c_style>;
using Doubles = py::array_t<double, py::array::c_style>;
using Ints = py::array_t<std::int32_t, py::array::c_style>;
using Shape = std::vector<py::ssize_t>;

void ask(bool condition, const char* name, const char* wanted) {
    if (!condition) throw py::value_error(std::string(name) + " must be " + wanted);
}

void check(int error, const char* function) {
    if (error == FASTCAM_NO_MEMORY) throw std::bad_alloc();
    if (error != FASTCAM_SUCCESS) throw py::value_error(std::string(function) + ": an argument is out of range");
}

template <typename T>
bool is_of(const py::array& array) {
    return py::isinstance<py::array_t<T, py::array::c_style>>(array);
}

// [..., height, width] seen as a list of maps.
struct Maps {
    Shape leading;
    std::int64_t count;
    std::int64_t height;
    std::int64_t width;

    std::int64_t area() const { return height * width; }

    Shape sized(std::int64_t rows, std::int64_t columns) const {
        Shape shape = leading;
        shape.push_back(rows);
        shape.push_back(columns);
        return shape;
    }
};

Maps maps_of(const py::array& array, const char* name) {
    ask(array.ndim() >= 2, name, "[..., height, width]");
    const py::ssize_t* shape = array.shape();
    const py::ssize_t dimensions = array.ndim();
    Maps maps{Shape(shape, shape + dimensions - 2), 1, shape[dimensions - 2], shape[dimensions - 1]};
    for (const py::ssize_t extent : maps.leading) maps.count *= extent;
    return maps;
}

// Memory for one call; unlike a vector's it is not cleared, so pages that a kernel does not need are never touched.
std::unique_ptr<unsigned char[]> scratch_of(std::size_t bytes) {
    return std::unique_ptr<unsigned char[]>(new unsigned char[bytes]);
}

// [N, K, h, w]: float32, or float16, C-contiguous.
fastcam_activations activations_of(const py::array& array) {
    const py::dtype kind = array.dtype();
    const bool half = kind.kind() == 'f' && kind.itemsize() == 2 && kind.byteorder() == '=';
    const bool whole = (array.flags() & py::array::c_style) != 0;
    ask(whole && array.ndim() == 4 && (half || is_of<float>(array)), "activations",
        "[N, K, h, w], float32 or float16, in C order");
    return {array.data(), half ? FASTCAM_FLOAT16 : FASTCAM_FLOAT32};
}

void ask_weights(const py::array& weights, const py::array& activations) {
    const bool fits =
        weights.ndim() == 3 && weights.shape(0) == activations.shape(0) && weights.shape(2) == activations.shape(1);
    ask(fits && is_of<float>(weights), "weights", "[N, T, K], float32 in C order, of the activations' N and K");
}

Floats weigh(const py::array& activations, const Floats& weights) {
    const fastcam_activations a = activations_of(activations);
    ask_weights(weights, activations);
    const std::int64_t images = weights.shape(0), targets = weights.shape(1), channels = weights.shape(2);
    const std::int64_t height = activations.shape(2), width = activations.shape(3);
    Floats out(Shape{images, targets, height, width});
    const float* w = weights.data();
    float* result = out.mutable_data();
    int error = FASTCAM_SUCCESS;
    {
        const py::gil_scoped_release released;
        error = fastcam_weigh(a, w, images, targets, channels, height * width, result);
    }
    check(error, "weigh");
    return out;
}

Bytes status(const Floats& values) {
    const Maps maps = maps_of(values, "maps");
    Bytes out(maps.leading);
    const float* in = values.data();
    std::uint8_t* result = out.mutable_data();
    int error = FASTCAM_SUCCESS;
    {
        const py::gil_scoped_release released;
        error = fastcam_status(in, maps.count, maps.area(), result);
    }
    check(error, "status");
    return out;
}

Floats relu(const Floats& values) {
    Floats out(Shape(values.shape(), values.shape() + values.ndim()));
    const float* in = values.data();
    const std::int64_t count = values.size();
    float* result = out.mutable_data();
    int error = FASTCAM_SUCCESS;
    {
        const py::gil_scoped_release released;
        error = fastcam_relu(in, count, result);
    }
    check(error, "relu");
    return out;
}

Floats normalize(const Floats& values) {
    const Maps maps = maps_of(values, "maps");
    Floats out(maps.sized(maps.height, maps.width));
    const float* in = values.data();
    float* result = out.mutable_data();
    int error = FASTCAM_SUCCESS;
    {
        const py::gil_scoped_release released;
        error = fastcam_normalize(in, maps.count, maps.area(), result);
    }
    check(error, "normalize");
    return out;
}

Floats upsample(const Floats& values, std::int64_t height, std::int64_t width) {
    const Maps maps = maps_of(values, "maps");
    Floats out(maps.sized(height, width));
    const auto scratch = scratch_of(fastcam_upsample_scratch(width));
    const float* in = values.data();
    float* result = out.mutable_data();
    int error = FASTCAM_SUCCESS;
    {
        const py::gil_scoped_release released;
        error = fastcam_upsample(in, maps.count, maps.height, maps.width, height, width, scratch.get(), result);
    }
    check(error, "upsample");
    return out;
}

Bytes threshold(const Floats& values, float fraction) {
    const Maps maps = maps_of(values, "maps");
    Bytes out(maps.sized(maps.height, maps.width));
    const float* in = values.data();
    std::uint8_t* result = out.mutable_data();
    int error = FASTCAM_SUCCESS;
    {
        const py::gil_scoped_release released;
        error = fastcam_threshold(in, maps.count, maps.area(), fraction, result);
    }
    check(error, "threshold");
    return out;
}

std::pair<Ints, Ints> label(const Bytes& mask, int connectivity) {
    const Maps maps = maps_of(mask, "mask");
    Ints labels(maps.sized(maps.height, maps.width));
    Ints counts(maps.leading);
    const auto scratch = scratch_of(fastcam_label_scratch(maps.height, maps.width));
    const std::uint8_t* in = mask.data();
    std::int32_t *result = labels.mutable_data(), *found = counts.mutable_data();
    int error = FASTCAM_SUCCESS;
    {
        const py::gil_scoped_release released;
        error = fastcam_label(in, maps.count, maps.height, maps.width, connectivity, scratch.get(), result, found);
    }
    check(error, "label");
    return {std::move(labels), std::move(counts)};
}

// None where a label lies outside 0..count.
py::object boxes(const Ints& labels, std::int64_t count) {
    const Maps maps = maps_of(labels, "labels");
    ask(maps.leading.empty(), "labels", "[height, width]");
    ask(count >= 0 && count <= labels.size(), "count", "0 to the number of pixels");
    Ints out(Shape{count, 5});
    const std::int32_t* in = labels.data();
    std::int32_t* result = out.mutable_data();
    bool valid = false;
    {
        const py::gil_scoped_release released;
        valid = fastcam_boxes(in, maps.height, maps.width, count, result);
    }
    return valid ? py::object(std::move(out)) : py::object(py::none());
}

Bytes overlay(const Bytes& image, const Floats& heatmap, const Bytes& lut, double alpha) {
    ask(image.ndim() == 3 && image.shape(2) == 3, "image", "[H, W, 3]");
    const bool same = heatmap.ndim() == 2 && heatmap.shape(0) == image.shape(0) && heatmap.shape(1) == image.shape(1);
    ask(same, "heatmap", "[H, W], as the image");
    ask(lut.ndim() == 2 && lut.shape(0) == 256 && lut.shape(1) == 3, "lut", "[256, 3]");
    Bytes out(Shape(image.shape(), image.shape() + 3));
    const std::uint8_t *pixels = image.data(), *colors = lut.data();
    const float* heat = heatmap.data();
    const std::int64_t area = heatmap.size();
    std::uint8_t* result = out.mutable_data();
    int error = FASTCAM_SUCCESS;
    {
        const py::gil_scoped_release released;
        error = fastcam_overlay(pixels, heat, colors, alpha, area, result);
    }
    check(error, "overlay");
    return out;
}

// pixels [height, width, 3] with any stride from row to row; `out` is the part of the tensor to be written, [H, W, 3] in
// any order of memory, and is written although it is an argument.
void prepare(const py::array& pixels, const Floats& factor, const Floats& shift, py::array& out) {
    const bool bytes = py::isinstance<py::array_t<std::uint8_t>>(pixels);
    const bool together = pixels.ndim() == 3 && pixels.shape(2) == 3 && pixels.strides(1) == 3 && pixels.strides(2) == 1;
    ask(bytes && together, "pixels", "uint8 [h, w, 3] of pixels side by side");
    ask(factor.ndim() == 1 && factor.size() == 3, "factor", "[3]");
    ask(shift.ndim() == 1 && shift.size() == 3, "shift", "[3]");
    const bool floats = py::isinstance<py::array_t<float>>(out) && out.writeable();
    bool whole = out.ndim() == 3 && out.shape(2) == 3;
    for (int axis = 0; whole && axis < 3; ++axis) whole = out.strides(axis) % static_cast<py::ssize_t>(sizeof(float)) == 0;
    ask(floats && whole, "out", "float32 [H, W, 3] that can be written");
    const std::int64_t height = pixels.shape(0), width = pixels.shape(1), rows = out.shape(0), columns = out.shape(1);
    const auto scratch = scratch_of(fastcam_prepare_scratch(width, columns));
    const auto* in = static_cast<const std::uint8_t*>(pixels.data());
    const std::int64_t stride = pixels.strides(0), size = sizeof(float);
    const std::int64_t strides[3] = {out.strides(0) / size, out.strides(1) / size, out.strides(2) / size};
    const float *factors = factor.data(), *shifts = shift.data();
    float* result = static_cast<float*>(out.mutable_data());
    int error = FASTCAM_SUCCESS;
    {
        const py::gil_scoped_release released;
        error = fastcam_prepare(in, height, width, stride, rows, columns, factors, shifts, scratch.get(), result, strides);
    }
    check(error, "prepare");
}

struct Free {
    void operator()(fastcam_workspace* workspace) const noexcept { fastcam_workspace_free(workspace); }
};

// maps, status, heatmaps (or None), counts, components, largest. The workspace is this call's own: a few allocations, which
// nobody could measure in a call of the Explainer.
py::tuple explain_maps(const py::array& activations, const py::object& weights, std::int64_t out_height,
                       std::int64_t out_width, float fraction, int connectivity, bool want_heatmaps,
                       const py::object& windows) {
    const std::unique_ptr<fastcam_workspace, Free> workspace(fastcam_workspace_new());
    if (!workspace) throw std::bad_alloc();
    fastcam_task task{};
    task.struct_size = sizeof task;
    task.activations = activations_of(activations);
    const std::int64_t height = activations.shape(2), width = activations.shape(3);
    if (!weights.is_none()) {
        ask(py::isinstance<py::array>(weights), "weights", "an array");
        const py::array w = py::reinterpret_borrow<py::array>(weights);
        ask_weights(w, activations);
        task.weights = static_cast<const float*>(w.data());
        task.targets = w.shape(1);
        task.channels = w.shape(2);
    } else {
        task.targets = activations.shape(1);
    }
    task.images = activations.shape(0);
    task.height = height;
    task.width = width;
    task.out_height = out_height;
    task.out_width = out_width;
    task.fraction = fraction;
    task.connectivity = connectivity;
    if (!windows.is_none()) {
        ask(py::isinstance<Ints>(windows), "windows", "int32 [N, 4] in C order");
        const Ints w = py::reinterpret_borrow<Ints>(windows);
        ask(w.ndim() == 2 && w.shape(0) == task.images && w.shape(1) == 4, "windows", "int32 [N, 4] in C order");
        task.windows = w.data();
    }
    constexpr std::int64_t kMost = std::numeric_limits<std::int32_t>::max();
    ask(out_height >= 1 && out_width >= 1 && out_height <= kMost / out_width, "size", "heights and widths of 1 or more");

    Floats maps(Shape{task.images, task.targets, height, width});
    Bytes verdicts(Shape{task.images, task.targets});
    Ints counts(Shape{task.images, task.targets}), largest(Shape{task.images, task.targets, 5});
    py::object heatmaps = py::none();
    if (want_heatmaps) {
        Floats enlarged(Shape{task.images, task.targets, out_height, out_width});
        task.heatmaps = enlarged.mutable_data();
        heatmaps = std::move(enlarged);
    }
    task.maps = maps.mutable_data();
    task.status = verdicts.mutable_data();
    task.counts = counts.mutable_data();
    task.largest = largest.mutable_data();
    int error = FASTCAM_SUCCESS;
    {
        const py::gil_scoped_release released;
        error = fastcam_explain(workspace.get(), &task);
    }
    check(error, "explain_maps");
    std::int64_t rows = 0;
    const std::int32_t* found = fastcam_components(workspace.get(), &rows);
    Ints components(Shape{rows, 5});
    std::copy(found, found + 5 * rows, components.mutable_data());
    return py::make_tuple(std::move(maps), std::move(verdicts), std::move(heatmaps), std::move(counts),
                          std::move(components), std::move(largest));
}

// bool [N, T]: whether the values of a map [N, T, ...] differ by a millionth of the highest at most.
py::array_t<bool> same_everywhere(const Floats& maps) {
    ask(maps.ndim() >= 2, "maps", "[N, T, ...]");
    py::array_t<bool> out(Shape(maps.shape(), maps.shape() + 2));
    bool* same = out.mutable_data();
    const std::int64_t area = out.size() == 0 ? 0 : maps.size() / out.size();
    const float* value = maps.data();
    for (const bool* const end = same + out.size(); same != end; ++same) {
        float low = std::numeric_limits<float>::infinity(), high = -low;
        bool numbers = true;
        for (const float* const next = value + area; value != next; ++value) {
            numbers &= *value == *value;
            low = std::min(low, *value);
            high = std::max(high, *value);
        }
        *same = numbers && high - low <= 1e-6f * high;
    }
    return out;
}

// One side of a box in pixels of the picture; way [4, 4] as fastcam.image.preprocess.Geometry has it.
float moved(std::int32_t value, const double* way, int side) {
    const double place = (value - way[side]) * way[4 + side] + way[8 + side];
    return static_cast<float>(std::min(std::max(place, 0.0), way[12 + side]));
}

// boxes [N, T, 4], and per image and target its components [count, 5]: those of explain_maps in pixels of the pictures.
py::tuple in_original(const Ints& counts, const Ints& components, const py::sequence& ways) {
    ask(counts.ndim() == 2, "counts", "[N, T]");
    const py::ssize_t images = counts.shape(0), targets = counts.shape(1);
    ask(static_cast<py::ssize_t>(ways.size()) == images, "ways", "one for each image");
    const std::int32_t* count = counts.data();
    const std::int32_t* const end = count + counts.size();
    std::int64_t rows = 0;
    for (const std::int32_t* c = count; c != end; ++c) rows = *c < 0 || rows < 0 ? -1 : rows + *c;
    ask(components.ndim() == 2 && components.shape(1) == 5 && components.shape(0) == rows, "components", "[sum of counts, 5]");
    const std::int32_t* row = components.data();
    Floats boxes(Shape{images, targets, 4});
    float* box = boxes.mutable_data();
    std::fill(box, box + boxes.size(), 0.0f);
    py::tuple found(images);
    for (py::ssize_t i = 0; i < images; ++i) {
        const py::object given = ways[i];
        ask(py::isinstance<Doubles>(given) && py::len(given) == 4, "ways", "float64 [4, 4]");
        const Doubles way = py::reinterpret_borrow<Doubles>(given);
        ask(way.ndim() == 2 && way.shape(1) == 4, "ways", "float64 [4, 4]");
        py::tuple of_image(targets);
        for (py::ssize_t t = 0; t < targets; ++t, ++count, box += 4) {
            Floats parts(Shape{*count, 5});
            float* part = parts.mutable_data();
            std::int32_t most = 0;
            for (std::int32_t k = 0; k < *count; ++k, row += 5, part += 5) {
                for (int side = 0; side < 4; ++side) part[side] = moved(row[side], way.data(), side);
                part[4] = static_cast<float>(row[4]);
                if (row[4] > most) std::copy(part, part + 4, box);
                most = std::max(most, row[4]);
            }
            of_image[static_cast<std::size_t>(t)] = std::move(parts);
        }
        found[static_cast<std::size_t>(i)] = std::move(of_image);
    }
    return py::make_tuple(std::move(boxes), std::move(found));
}

// components [rows, 5] cut by cut, counts [cuts]
py::tuple sweep(const Floats& values, const Floats& cuts, int connectivity, const py::object& window) {
    ask(values.ndim() == 2, "values", "[H, W]");
    ask(cuts.ndim() == 1, "cuts", "[n]");
    const std::unique_ptr<fastcam_workspace, Free> workspace(fastcam_workspace_new());
    if (!workspace) throw std::bad_alloc();
    const std::int32_t* inside = nullptr;
    if (!window.is_none()) {
        ask(py::isinstance<Ints>(window), "window", "int32 [4] in C order");
        const Ints w = py::reinterpret_borrow<Ints>(window);
        ask(w.ndim() == 1 && w.size() == 4, "window", "int32 [4] in C order");
        inside = w.data();
    }
    const std::int64_t height = values.shape(0), width = values.shape(1), count = cuts.size();
    Ints counts(Shape{count});
    const float *map = values.data(), *levels = cuts.data();
    std::int32_t* result = counts.mutable_data();
    int error = FASTCAM_SUCCESS;
    {
        const py::gil_scoped_release released;
        error = fastcam_sweep(workspace.get(), map, height, width, levels, count, connectivity, inside, result);
    }
    check(error, "sweep");
    std::int64_t rows = 0;
    const std::int32_t* found = fastcam_components(workspace.get(), &rows);
    Ints components(Shape{rows, 5});
    std::copy(found, found + 5 * rows, components.mutable_data());
    return py::make_tuple(std::move(components), std::move(counts));
}

}  // namespace

PYBIND11_MODULE(_native, m, py::mod_gil_not_used()) {
    m.doc() = "C++ kernels; call them through fastcam.kernels, which validates.";
    m.attr("__version__") = FASTCAM_VERSION;
    m.def("weigh", &weigh, "activations"_a, py::arg("weights").noconvert());
    m.def("status", &status, py::arg("maps").noconvert());
    m.def("relu", &relu, py::arg("maps").noconvert());
    m.def("normalize", &normalize, py::arg("maps").noconvert());
    m.def("upsample", &upsample, py::arg("maps").noconvert(), "height"_a, "width"_a);
    m.def("threshold", &threshold, py::arg("maps").noconvert(), "fraction"_a);
    m.def("label", &label, py::arg("mask").noconvert(), "connectivity"_a);
    m.def("boxes", &boxes, py::arg("labels").noconvert(), "count"_a);
    m.def("overlay", &overlay, py::arg("image").noconvert(), py::arg("heatmap").noconvert(), py::arg("lut").noconvert(),
          "alpha"_a);
    m.def("prepare", &prepare, "pixels"_a, py::arg("factor").noconvert(), py::arg("shift").noconvert(), "out"_a);
    m.def("explain_maps", &explain_maps);
    m.def("same_everywhere", &same_everywhere, py::arg("maps").noconvert());
    m.def("in_original", &in_original, py::arg("counts").noconvert(), py::arg("components").noconvert(), "ways"_a);
    m.def("sweep", &sweep, py::arg("values").noconvert(), py::arg("cuts").noconvert(), "connectivity"_a, "window"_a);
}
