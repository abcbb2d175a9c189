// explain (explain.h) on OpenVINO's C++ API, in float32.
//
// OpenVINO makes a constant of an input with a default: a file that is asked for classes is exported with --targets
// required. Its library is linked, so the program wants the version that it was built with.

#include <openvino/openvino.hpp>

#include "explain.h"

using namespace fastcam::example;

namespace {

class OpenVino final : public Network {
  public:
    OpenVino(const std::string& path, int threads) {
        std::shared_ptr<ov::Model> model = core_.read_model(path);
        if (model->has_rt_info("framework", "fastcam")) said_ = model->get_rt_info<std::string>("framework", "fastcam");
        ov::AnyMap options{ov::hint::performance_mode(ov::hint::PerformanceMode::LATENCY),
                           ov::hint::inference_precision(ov::element::f32)};
        if (threads > 0) options.insert(ov::inference_num_threads(threads));
        compiled_ = core_.compile_model(model, "CPU", options);
        request_ = compiled_.create_infer_request();
    }

    std::string metadata(const char* key) const override { return std::string(key) == "fastcam" ? said_ : ""; }

    std::vector<std::string> inputs() const override {
        std::vector<std::string> names;
        for (const auto& input : compiled_.inputs()) names.push_back(input.get_any_name());
        return names;
    }

    void feed(const char* name, void* data, Type type, const std::vector<std::int64_t>& shape) override {
        const ov::element::Type element = type == Type::int64 ? ov::element::i64 : ov::element::f32;
        request_.set_tensor(name, ov::Tensor(element, ov::Shape(shape.begin(), shape.end()), data));
    }

    const std::vector<Tensor>& run(const std::vector<const char*>& outputs) override {
        request_.infer();
        found_.resize(outputs.size());
        made_.resize(outputs.size());
        for (std::size_t i = 0; i < outputs.size(); ++i) {
            made_[i] = request_.get_tensor(outputs[i]);
            const ov::element::Type type = made_[i].get_element_type();
            const ov::Shape shape = made_[i].get_shape();
            found_[i].shape.assign(shape.begin(), shape.end());
            found_[i].data = made_[i].data();
            found_[i].type = type == ov::element::f32   ? Type::float32
                             : type == ov::element::f16 ? Type::float16
                             : type == ov::element::i64 ? Type::int64
                                                        : Type::other;
        }
        return found_;
    }

  private:
    ov::Core core_;
    ov::CompiledModel compiled_;
    ov::InferRequest request_;
    std::string said_;
    std::vector<ov::Tensor> made_;
    std::vector<Tensor> found_;
};

}  // namespace

int main(int count, char** given) {
    return explain_main(count, given, [](const Options&) -> Open {
        return [](const std::string& path, int threads) { return std::make_unique<OpenVino>(path, threads); };
    });
}
