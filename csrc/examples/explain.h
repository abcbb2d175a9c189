// explain MODEL.cam.onnx PICTURE: where an exported model looked, without Python. One line for each target:
//     class, score, status, and the box x0 y0 x1 y1 in pixels of the picture ("-" where the map explains nothing).
//
// Options:
//     --target N          a class, or a rank (-1: the predicted class, which is what is explained without one); repeatable
//     --threshold F       boxes surround what reaches this share of the maximum (0.15)
//     -o FILE             the picture under the first target's heatmap, with its box
//     --threads N         of the engine
//     --onnxruntime FILE  its library; by default the one that the system finds
//     --against PLAIN.onnx --repeat N     times the model without explanations beside it, in turns
//
// What a file must be: class scores, float32, one picture in, --emit weights or cam.
//
// explain.cpp is this program on ONNX Runtime, explain_openvino.cpp on OpenVINO.

#pragma once

#include <algorithm>
#include <charconv>
#include <chrono>
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <exception>
#include <filesystem>
#include <memory>
#include <string>
#include <system_error>
#include <vector>

#include "fastcam/cam.h"
#include "../host/json.h"
#include "../host/picture.h"
#include "network.h"
#include "picture_files.h"

namespace fastcam::example {

using namespace fastcam::host;
using Clock = std::chrono::steady_clock;

const char* const kStatus[] = {"ok", "all_negative", "zero_gradient", "non_finite"};

inline double milliseconds(Clock::time_point from) {
    return std::chrono::duration<double, std::milli>(Clock::now() - from).count();
}

struct Options {
    std::string model, picture, output, against;
    std::vector<std::int64_t> targets;
    float threshold = 0.15f;
    const char* runtime = nullptr;
    int threads = 0, repeat = 0;
};

// Whether all of a text is a whole number of the type of `out`.
template <class Number>
bool whole_number(const char* text, Number& out) {
    const char* const end = text + std::strlen(text);
    const auto read = std::from_chars(text, end, out);
    return read.ec == std::errc() && read.ptr == end;
}

inline bool read_options(int count, char** given, Options& options) {
    std::vector<std::string> files;
    for (int i = 1; i < count; ++i) {
        const std::string name = given[i];
        const bool takes_value = name.size() > 1 && name[0] == '-';
        if (!takes_value) {
            files.push_back(name);
            continue;
        }
        if (++i == count) return false;
        const char* value = given[i];
        if (name == "--target" && whole_number(value, options.targets.emplace_back())) continue;
        else if (name == "--threshold") options.threshold = static_cast<float>(std::atof(value));
        else if (name == "-o") options.output = value;
        else if (name == "--threads" && whole_number(value, options.threads) && options.threads >= 0) continue;
        else if (name == "--onnxruntime") options.runtime = value;
        else if (name == "--against") options.against = value;
        else if (name == "--repeat" && whole_number(value, options.repeat)) continue;
        else return false;
    }
    if (options.targets.empty()) options.targets.push_back(-1);
    if (files.size() != 2 || !(options.threshold > 0 && options.threshold <= 1)) return false;
    options.model = files[0];
    options.picture = files[1];
    return true;
}

// What the metadata says, or an exception that says what is missing.
struct About {
    Preprocessing how;
    Size size{0, 0};  // 0: any
    std::string input, score, emit;
    std::vector<std::string> labels;

    About(const std::string& text, const std::string& file) {
        if (text.empty()) throw std::runtime_error(file + ": FastCAM did not export this file; run: fastcam export MODEL.onnx");
        const Json all(text), p = all["preprocessing"];
        if (all["schema"].number(0) != 1) throw std::runtime_error(file + ": the file is of another version of FastCAM; export it again");
        emit = all["emit"].text();
        input = all["input"].text();
        score = all["score"]["output"].text();
        if (emit == "gradients" || !all["cotangents"].items().empty() || all["frames"].truth() || !all["pair"].is_null() ||
            !all["inputs"].items().empty() || !all["score"]["single"].text().empty() || all["input_shape"].items().size() != 4) {
            throw std::runtime_error(file + ": this example explains class scores of one picture; export without --emit gradients, "
                                     "--targets cotangent, --frames and --on-demand");
        }
        if (p.is_null()) throw std::runtime_error(file + ": the file does not say how pictures are prepared; export it with --preprocess");
        for (const Json& label : all["labels"].items()) labels.push_back(label.text());
        const std::string resize = p["resize"].text(), color = p["color"].text();
        how.resize = resize == "crop" ? Resize::crop : resize == "letterbox" ? Resize::letterbox : Resize::stretch;
        if (color != "RGB" && color != "BGR" && color != "GRAY") throw std::runtime_error(file + ": pictures of " + color + " are not prepared here");
        how.color = color == "RGB" ? Color::rgb : color == "BGR" ? Color::bgr : Color::gray;
        how.crop_fraction = p["crop_fraction"].number(how.crop_fraction);
        how.scale = p["scale"].number(1);
        how.pad_value = p["pad_value"].number(how.pad_value);
        how.channels_last = p["layout"].text() == "NHWC";
        const auto mean = p["mean"].items(), std = p["std"].items(), sides = p["size"].items();
        for (std::size_t c = 0; c < 3; ++c) {
            how.mean[c] = mean[std::min(c, mean.size() - 1)].number(0);
            how.std[c] = std[std::min(c, std.size() - 1)].number(1);
        }
        if (sides.size() == 2) size = {static_cast<std::int32_t>(sides[0].number(0)), static_cast<std::int32_t>(sides[1].number(0))};
    }

    std::string name(std::int64_t index) const {
        return index >= 0 && index < static_cast<std::int64_t>(labels.size()) ? labels[index] : "class " + std::to_string(index);
    }
};

// Pictures in, maps and boxes out.
class Explainer {
  public:
    Explainer(const Open& open, const Options& options)
        : options_(options), network_(open(options.model, options.threads)), about_(network_->metadata("fastcam"), options.model),
          workspace_(fastcam_workspace_new(), fastcam_workspace_free) {
        outputs_ = {about_.score.c_str(), "fastcam.classes"};
        if (about_.emit == "weights") outputs_.insert(outputs_.end(), {"fastcam.activations", "fastcam.weights"});
        else outputs_.push_back("fastcam.cam");
    }

    void explain(const Picture& picture) {
        if (input_.empty()) bind(picture);
        if (!prepare(picture.pixels.data(), geometry_, about_.how, input_.data())) {
            throw std::runtime_error("the picture is too large for the model's input; make it smaller");
        }
        const std::vector<Tensor>& found = network_->run(outputs_);
        const auto targets = static_cast<std::int64_t>(options_.targets.size());
        classes.assign(static_cast<const std::int64_t*>(found[1].data), static_cast<const std::int64_t*>(found[1].data) + targets);
        scores.clear();
        for (const std::int64_t index : classes) scores.push_back(found[0].floats()[index]);
        maps(found, targets);
    }

    Picture overlay(Picture picture, int target) const {
        const std::size_t area = static_cast<std::size_t>(picture.height) * picture.width;
        std::vector<float> heat(area);
        place(heatmaps.data() + target * input_area(), geometry_, heat.data());
        Picture mixed{picture.height, picture.width, std::vector<std::uint8_t>(3 * area)};
        const auto table = jet();
        fastcam_overlay(picture.pixels.data(), heat.data(), table.data(), 0.5, static_cast<std::int64_t>(area), mixed.pixels.data());
        if (largest[5 * target + 4] > 0) draw_box(mixed, box(target).data());
        return mixed;
    }

    std::array<float, 4> box(int target) const { return to_original(geometry_, largest.data() + 5 * target); }
    const char* verdict(int target) const {
        const int code = status[target];
        if (constant_[target]) return "constant";
        return about_.emit == "cam" && (code == FASTCAM_ALL_NEGATIVE || code == FASTCAM_ZERO_GRADIENT) ? "no_positive" : kStatus[code];
    }
    const About& about() const { return about_; }
    std::vector<float>& input() { return input_; }
    const std::vector<std::int64_t>& input_shape() const { return shape_; }
    const Geometry& geometry() const { return geometry_; }

    std::vector<std::int64_t> classes;
    std::vector<float> scores, heatmaps;
    std::vector<std::uint8_t> status;
    std::vector<std::int32_t> largest;

  private:
    std::int64_t input_area() const { return static_cast<std::int64_t>(geometry_.network.height) * geometry_.network.width; }

    // Sizes of the first picture, and memory for them; the others have the same size.
    void bind(const Picture& picture) {
        const Size own{picture.height, picture.width};
        geometry_ = fit(own, about_.size.height > 0 ? about_.size : own, about_.how);
        const std::int64_t height = geometry_.network.height, width = geometry_.network.width, channels = about_.how.channels();
        shape_ = about_.how.channels_last ? std::vector<std::int64_t>{1, height, width, channels}
                                          : std::vector<std::int64_t>{1, channels, height, width};
        input_.resize(static_cast<std::size_t>(height * width * channels));
        network_->feed(about_.input.c_str(), input_.data(), Type::float32, shape_);
        const std::vector<std::string> names = network_->inputs();
        if (std::find(names.begin(), names.end(), "fastcam.targets") != names.end()) {
            network_->feed("fastcam.targets", options_.targets.data(), Type::int64,
                           {1, static_cast<std::int64_t>(options_.targets.size())});
        } else if (options_.targets != std::vector<std::int64_t>{-1}) {
            throw std::runtime_error(options_.model + ": explains the predicted class alone here; export it with --targets required");
        }
    }

    void maps(const std::vector<Tensor>& found, std::int64_t targets) {
        const Tensor& shown = found[2];
        if (shown.type != Type::float32 && shown.type != Type::float16) {
            throw std::runtime_error("the activations are neither float32 nor float16");
        }
        heatmaps.resize(static_cast<std::size_t>(targets * input_area()));
        status.resize(static_cast<std::size_t>(targets));
        largest.resize(static_cast<std::size_t>(5 * targets));
        const std::int32_t window[4] = {geometry_.target.x0, geometry_.target.y0, geometry_.target.x1, geometry_.target.y1};
        fastcam_task task = {};
        task.struct_size = sizeof task;
        task.activations = {shown.data, shown.type == Type::float16 ? FASTCAM_FLOAT16 : FASTCAM_FLOAT32};
        task.weights = about_.emit == "weights" ? found[3].floats() : nullptr;
        task.images = 1;
        task.targets = targets;
        task.channels = about_.emit == "weights" ? shown.shape[1] : 0;
        task.height = shown.shape[2];
        task.width = shown.shape[3];
        task.out_height = geometry_.network.height;
        task.out_width = geometry_.network.width;
        task.fraction = options_.threshold;
        task.connectivity = 8;
        task.windows = window;
        small_.resize(static_cast<std::size_t>(targets * task.height * task.width));
        task.maps = small_.data();
        task.status = status.data();
        task.heatmaps = heatmaps.data();
        task.largest = largest.data();
        if (fastcam_explain(workspace_.get(), &task) != FASTCAM_SUCCESS) throw std::runtime_error("the kernels refused the outputs");
        constant_.assign(static_cast<std::size_t>(targets), false);
        for (std::int64_t t = 0; t < targets; ++t) {  // a map that is the same everywhere says nothing about where
            const auto first = small_.begin() + t * task.height * task.width, last = first + task.height * task.width;
            const auto [low, high] = std::minmax_element(first, last);
            if (status[t] != FASTCAM_OK || *high - *low > 1e-6f * *high) continue;
            constant_[t] = true;
            std::fill_n(heatmaps.begin() + t * input_area(), input_area(), 0.0f);
            std::fill_n(largest.begin() + 5 * t, 5, 0);
        }
    }

    Options options_;
    std::unique_ptr<Network> network_;
    About about_;
    std::unique_ptr<fastcam_workspace, void (*)(fastcam_workspace*)> workspace_;
    std::vector<const char*> outputs_;
    Geometry geometry_{};
    std::vector<std::int64_t> shape_;
    std::vector<float> input_, small_;
    std::vector<bool> constant_;
};

inline double median(std::vector<double> values) {
    std::nth_element(values.begin(), values.begin() + values.size() / 2, values.end());
    return values[values.size() / 2];
}

// The model without explanations and with them, in turns; one line of JSON.
inline void compare(const Open& open, const Options& options, Explainer& explainer, const Picture& picture, double first) {
    const std::unique_ptr<Network> plain = open(options.against, options.threads);
    std::vector<float> input = explainer.input();
    const std::vector<const char*> outputs = {explainer.about().score.c_str()};
    plain->feed(explainer.about().input.c_str(), input.data(), Type::float32, explainer.input_shape());
    std::vector<double> with, without, ratio;
    for (int i = 0; i < options.repeat + 5; ++i) {
        double took[2];
        for (int turn = 0; turn < 2; ++turn) {
            const bool explained = (i + turn) % 2 == 0;
            const auto from = Clock::now();
            if (explained) {
                explainer.explain(picture);
            } else {
                prepare(picture.pixels.data(), explainer.geometry(), explainer.about().how, input.data());
                plain->run(outputs);
            }
            took[explained ? 1 : 0] = milliseconds(from);
        }
        if (i < 5) continue;  // warming up
        without.push_back(took[0]);
        with.push_back(took[1]);
        ratio.push_back(took[1] / took[0]);
    }
    std::printf("{\"first_box_ms\": %.2f, \"plain_ms\": %.4f, \"explained_ms\": %.4f, \"ratio\": %.4f, \"rounds\": %d}\n", first,
                median(without), median(with), median(ratio), options.repeat);
}

// The program, with what opens a file once the options are read.
inline int explain_main(int count, char** given, const std::function<Open(const Options&)>& engine) {
    const auto start = Clock::now();
    Options options;
    if (!read_options(count, given, options)) {
        std::fprintf(stderr, "usage: explain MODEL.cam.onnx PICTURE [--target N]... [--threshold F] [-o FILE] [--threads N]\n"
                             "               [--onnxruntime FILE] [--against PLAIN.onnx --repeat N]\n");
        return 2;
    }
    try {
        const Open open = engine(options);
        if (!open) return 2;
        for (const std::string& read : {options.picture, options.model}) {
            std::error_code absent;
            if (!options.output.empty() && std::filesystem::equivalent(options.output, read, absent)) {
                throw std::runtime_error(options.output + ": cannot be written, as it is read; choose another name with -o");
            }
        }
        const Picture picture = read_picture(options.picture);
        Explainer explainer(open, options);
        explainer.explain(picture);
        const double first = milliseconds(start);
        if (options.repeat > 0 && !options.against.empty()) {
            compare(open, options, explainer, picture, first);
            return 0;
        }
        for (int t = 0; t < static_cast<int>(options.targets.size()); ++t) {
            std::printf("%s\t%.6g\t%s", explainer.about().name(explainer.classes[t]).c_str(), explainer.scores[t], explainer.verdict(t));
            const auto box = explainer.box(t);
            if (explainer.largest[5 * t + 4] > 0) std::printf("\t%g %g %g %g\n", box[0], box[1], box[2], box[3]);
            else std::printf("\t-\n");
        }
        if (!options.output.empty()) write_picture(options.output, explainer.overlay(picture, 0));
    } catch (const std::exception& error) {
        std::string line = error.what();
        std::replace(line.begin(), line.end(), '\n', ' ');
        std::fprintf(stderr, "%s\n", line.c_str());
        return 2;
    }
    return 0;
}

}  // namespace fastcam::example
