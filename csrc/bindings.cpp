// The Python module fastcam._native: the functions of cam.h on NumPy arrays. No other file here knows Python.
//
// fastcam/kernels/native.py has validated every argument; shapes are read here, not checked. Arguments must already be
// C-contiguous and of the exact type (noconvert: a TypeError instead of a silent copy). Outputs are allocated first,
// then the GIL is released for the computation.

#include <pybind11/numpy.h>
#include <pybind11/pybind11.h>

#include <cstdint>
#include <memory>
#include <utility>
#include <vector>

#include "cam.h"

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

Floats weigh(const Floats& activations, const Floats& weights) {
    const Maps maps = maps_of(activations);
    const std::int64_t images = activations.shape(0), channels = activations.shape(1), targets = weights.shape(1);
    Floats out(Shape{images, targets, maps.height, maps.width});
    const float *a = activations.data(), *w = weights.data();
    float* result = out.mutable_data();
    {
        const py::gil_scoped_release released;
        fastcam::weigh(a, w, images, targets, channels, maps.area(), result);
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
        fastcam::status(in, maps.count, maps.area(), result);
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
        fastcam::relu(in, count, result);
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
        fastcam::normalize(in, maps.count, maps.area(), result);
    }
    return out;
}

Floats upsample(const Floats& values, std::int64_t height, std::int64_t width) {
    const Maps maps = maps_of(values);
    Floats out(maps.sized(height, width));
    const auto scratch = scratch_of(fastcam::upsample_scratch(width));
    const float* in = values.data();
    float* result = out.mutable_data();
    {
        const py::gil_scoped_release released;
        fastcam::upsample(in, maps.count, maps.height, maps.width, height, width, scratch.get(), result);
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
        fastcam::threshold(in, maps.count, maps.area(), fraction, result);
    }
    return out;
}

std::pair<Ints, Ints> label(const Bytes& mask, int connectivity) {
    const Maps maps = maps_of(mask);
    Ints labels(maps.sized(maps.height, maps.width));
    Ints counts(maps.leading);
    const auto scratch = scratch_of(fastcam::label_scratch(maps.height, maps.width));
    const std::uint8_t* in = mask.data();
    std::int32_t *result = labels.mutable_data(), *found = counts.mutable_data();
    {
        const py::gil_scoped_release released;
        fastcam::label(in, maps.count, maps.height, maps.width, connectivity, scratch.get(), result, found);
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
        valid = fastcam::boxes(in, maps.height, maps.width, count, result);
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
        fastcam::overlay(pixels, heat, colors, alpha, area, result);
    }
    return out;
}

}  // namespace

PYBIND11_MODULE(_native, m, py::mod_gil_not_used()) {
    m.doc() = "C++ kernels; call them through fastcam.kernels, which validates.";
    m.attr("__version__") = FASTCAM_VERSION;
    m.def("weigh", &weigh, py::arg("activations").noconvert(), py::arg("weights").noconvert());
    m.def("status", &status, py::arg("maps").noconvert());
    m.def("relu", &relu, py::arg("maps").noconvert());
    m.def("normalize", &normalize, py::arg("maps").noconvert());
    m.def("upsample", &upsample, py::arg("maps").noconvert(), "height"_a, "width"_a);
    m.def("threshold", &threshold, py::arg("maps").noconvert(), "fraction"_a);
    m.def("label", &label, py::arg("mask").noconvert(), "connectivity"_a);
    m.def("boxes", &boxes, py::arg("labels").noconvert(), "count"_a);
    m.def("overlay", &overlay, py::arg("image").noconvert(), py::arg("heatmap").noconvert(),
          py::arg("lut").noconvert(), "alpha"_a);
}
