// The Python module fastcam._native: the functions of fastcam/cam.h on NumPy arrays. No other file here knows Python.
//
// fastcam/kernels/native.py has validated every argument; shapes are read here, not checked. Arguments must already be
// C-contiguous and of the exact type (noconvert: a TypeError instead of a silent copy). Outputs are allocated first,
// then the GIL is released for the computation.

#include <pybind11/numpy.h>
#include <pybind11/pybind11.h>

#include <algorithm>
#include <cstdint>
#include <memory>
#include <new>
#include <utility>
#include <vector>

#include "fastcam/cam.h"

namespace py = pybind11;
using namespace py::literals;

namespace {

using Floats = py::array_t<float, py::array::c_style>;
using Bytes = py::array_t<std::uint8_t, py::array::c_style>;
using Ints = py::array_t<std::int32_t, py::array::c_style>;
using Shape = std::vector<py::ssize_t>;

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

Maps maps_of(const py::array& array) {
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

// [N, K, h, w]: float32, or float16 by its two bytes.
fastcam_activations activations_of(const py::array& array) {
    return {array.data(), array.itemsize() == 2 ? FASTCAM_FLOAT16 : FASTCAM_FLOAT32};
}

Floats weigh(const py::array& activations, const Floats& weights) {
    const std::int64_t images = weights.shape(0), targets = weights.shape(1), channels = weights.shape(2);
    const std::int64_t height = activations.shape(2), width = activations.shape(3);
    Floats out(Shape{images, targets, height, width});
    const fastcam_activations a = activations_of(activations);
    const float* w = weights.data();
    float* result = out.mutable_data();
    {
        const py::gil_scoped_release released;
        fastcam_weigh(a, w, images, targets, channels, height * width, result);
    }
    return out;
}

Bytes status(const Floats& values) {
    const Maps maps = maps_of(values);
    Bytes out(maps.leading);
    const float* in = values.data();
    std::uint8_t* result = out.mutable_data();
    {
        const py::gil_scoped_release released;
        fastcam_status(in, maps.count, maps.area(), result);
    }
    return out;
}

Floats relu(const Floats& values) {
    Floats out(Shape(values.shape(), values.shape() + values.ndim()));
    const float* in = values.data();
    const std::int64_t count = values.size();
    float* result = out.mutable_data();
    {
        const py::gil_scoped_release released;
        fastcam_relu(in, count, result);
    }
    return out;
}

Floats normalize(const Floats& values) {
    const Maps maps = maps_of(values);
    Floats out(maps.sized(maps.height, maps.width));
    const float* in = values.data();
    float* result = out.mutable_data();
    {
        const py::gil_scoped_release released;
        fastcam_normalize(in, maps.count, maps.area(), result);
    }
    return out;
}

Floats upsample(const Floats& values, std::int64_t height, std::int64_t width) {
    const Maps maps = maps_of(values);
    Floats out(maps.sized(height, width));
    const auto scratch = scratch_of(fastcam_upsample_scratch(width));
    const float* in = values.data();
    float* result = out.mutable_data();
    {
        const py::gil_scoped_release released;
        fastcam_upsample(in, maps.count, maps.height, maps.width, height, width, scratch.get(), result);
    }
    return out;
}

Bytes threshold(const Floats& values, float fraction) {
    const Maps maps = maps_of(values);
    Bytes out(maps.sized(maps.height, maps.width));
    const float* in = values.data();
    std::uint8_t* result = out.mutable_data();
    {
        const py::gil_scoped_release released;
        fastcam_threshold(in, maps.count, maps.area(), fraction, result);
    }
    return out;
}

std::pair<Ints, Ints> label(const Bytes& mask, int connectivity) {
    const Maps maps = maps_of(mask);
    Ints labels(maps.sized(maps.height, maps.width));
    Ints counts(maps.leading);
    const auto scratch = scratch_of(fastcam_label_scratch(maps.height, maps.width));
    const std::uint8_t* in = mask.data();
    std::int32_t *result = labels.mutable_data(), *found = counts.mutable_data();
    {
        const py::gil_scoped_release released;
        fastcam_label(in, maps.count, maps.height, maps.width, connectivity, scratch.get(), result, found);
    }
    return {std::move(labels), std::move(counts)};
}

// None where a label lies outside 0..count.
py::object boxes(const Ints& labels, std::int64_t count) {
    const Maps maps = maps_of(labels);
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
    Bytes out(Shape(image.shape(), image.shape() + 3));
    const std::uint8_t *pixels = image.data(), *colors = lut.data();
    const float* heat = heatmap.data();
    const std::int64_t area = heatmap.size();
    std::uint8_t* result = out.mutable_data();
    {
        const py::gil_scoped_release released;
        fastcam_overlay(pixels, heat, colors, alpha, area, result);
    }
    return out;
}

// pixels [height, width, 3] with any stride from row to row; `out` is the part of the tensor to be written, [H, W, 3] in
// any order of memory, and is written although it is an argument.
void prepare(const py::array& pixels, const Floats& factor, const Floats& shift, py::array& out) {
    const std::int64_t height = pixels.shape(0), width = pixels.shape(1), rows = out.shape(0), columns = out.shape(1);
    const auto scratch = scratch_of(fastcam_prepare_scratch(width, columns));
    const auto* in = static_cast<const std::uint8_t*>(pixels.data());
    const std::int64_t stride = pixels.strides(0), size = sizeof(float);
    const std::int64_t strides[3] = {out.strides(0) / size, out.strides(1) / size, out.strides(2) / size};
    const float *factors = factor.data(), *shifts = shift.data();
    float* result = static_cast<float*>(out.mutable_data());
    {
        const py::gil_scoped_release released;
        fastcam_prepare(in, height, width, stride, rows, columns, factors, shifts, scratch.get(), result, strides);
    }
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
    const std::int64_t height = activations.shape(2), width = activations.shape(3);
    fastcam_task task{};
    task.struct_size = sizeof task;
    task.activations = activations_of(activations);
    if (!weights.is_none()) {
        const Floats w = py::reinterpret_borrow<Floats>(weights);
        task.weights = w.data();
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
    if (!windows.is_none()) task.windows = py::reinterpret_borrow<Ints>(windows).data();

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
    if (error == FASTCAM_NO_MEMORY) throw std::bad_alloc();
    if (error != FASTCAM_SUCCESS) throw py::value_error("fastcam_explain: invalid task");
    std::int64_t rows = 0;
    const std::int32_t* found = fastcam_components(workspace.get(), &rows);
    Ints components(Shape{rows, 5});
    std::copy(found, found + 5 * rows, components.mutable_data());
    return py::make_tuple(std::move(maps), std::move(verdicts), std::move(heatmaps), std::move(counts),
                          std::move(components), std::move(largest));
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
}
