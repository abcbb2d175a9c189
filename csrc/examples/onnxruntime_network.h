// An exported file in ONNX Runtime.

#pragma once

#include <cstring>
#include <stdexcept>

#include "network.h"
#include "runtime.h"

namespace fastcam::example {

class OnnxRuntime final : public Network {
  public:
    OnnxRuntime(const OrtApi* api, const std::string& path, int threads) : api_(api) {
        OrtSessionOptions* options = nullptr;
        check(api->CreateEnv(ORT_LOGGING_LEVEL_ERROR, "fastcam", &environment_));
        check(api->CreateSessionOptions(&options));
        if (threads > 0) check(api->SetIntraOpNumThreads(options, threads));
        const std::basic_string<ORTCHAR_T> name(path.begin(), path.end());
        OrtStatus* status = api->CreateSession(environment_, name.c_str(), options, &session_);
        api->ReleaseSessionOptions(options);
        check(status);
        check(api->CreateCpuMemoryInfo(OrtArenaAllocator, OrtMemTypeDefault, &memory_));
        check(api->GetAllocatorWithDefaultOptions(&allocator_));
    }

    ~OnnxRuntime() override {
        release();
        if (memory_ != nullptr) api_->ReleaseMemoryInfo(memory_);
        if (session_ != nullptr) api_->ReleaseSession(session_);
        if (environment_ != nullptr) api_->ReleaseEnv(environment_);
    }
    OnnxRuntime(const OnnxRuntime&) = delete;

    std::string metadata(const char* key) const override {
        OrtModelMetadata* all = nullptr;
        char* found = nullptr;
        check(api_->SessionGetModelMetadata(session_, &all));
        OrtStatus* status = api_->ModelMetadataLookupCustomMetadataMap(all, allocator_, key, &found);
        api_->ReleaseModelMetadata(all);
        check(status);
        return take(found);
    }

    std::vector<std::string> inputs() const override {
        std::vector<std::string> names;
        std::size_t count = 0;
        char* name = nullptr;
        check(api_->SessionGetInputCount(session_, &count));
        for (std::size_t i = 0; i < count; ++i) {
            check(api_->SessionGetInputName(session_, i, allocator_, &name));
            names.push_back(take(name));
        }
        check(api_->SessionGetOverridableInitializerCount(session_, &count));
        for (std::size_t i = 0; i < count; ++i) {
            check(api_->SessionGetOverridableInitializerName(session_, i, allocator_, &name));
            names.push_back(take(name));
        }
        return names;
    }

    void feed(const char* name, void* data, Type type, const std::vector<std::int64_t>& shape) override {
        const bool words = type == Type::int64;
        std::size_t bytes = words ? 8 : 4;
        for (const std::int64_t side : shape) bytes *= static_cast<std::size_t>(side);
        OrtValue* value = nullptr;
        check(api_->CreateTensorWithDataAsOrtValue(
            memory_, data, bytes, shape.data(), shape.size(),
            words ? ONNX_TENSOR_ELEMENT_DATA_TYPE_INT64 : ONNX_TENSOR_ELEMENT_DATA_TYPE_FLOAT, &value));
        names_.push_back(name);
        values_.push_back(value);
    }

    const std::vector<Tensor>& run(const std::vector<const char*>& outputs) override {
        for (OrtValue* value : made_) api_->ReleaseValue(value);
        made_.assign(outputs.size(), nullptr);
        check(api_->Run(session_, nullptr, names_.data(), values_.data(), names_.size(), outputs.data(), outputs.size(),
                        made_.data()));
        found_.resize(outputs.size());
        for (std::size_t i = 0; i < outputs.size(); ++i) describe(made_[i], found_[i]);
        return found_;
    }

  private:
    void check(OrtStatus* status) const {
        if (status == nullptr) return;
        const std::string message = api_->GetErrorMessage(status);
        api_->ReleaseStatus(status);
        throw std::runtime_error("ONNX Runtime: " + message);
    }

    std::string take(char* text) const {
        if (text == nullptr) return "";
        const std::string out = text;
        check(api_->AllocatorFree(allocator_, text));
        return out;
    }

    void describe(OrtValue* value, Tensor& tensor) const {
        OrtTensorTypeAndShapeInfo* info = nullptr;
        std::size_t rank = 0;
        ONNXTensorElementDataType type;
        void* data = nullptr;
        check(api_->GetTensorTypeAndShape(value, &info));
        check(api_->GetDimensionsCount(info, &rank));
        tensor.shape.resize(rank);
        check(api_->GetDimensions(info, tensor.shape.data(), rank));
        check(api_->GetTensorElementType(info, &type));
        api_->ReleaseTensorTypeAndShapeInfo(info);
        check(api_->GetTensorMutableData(value, &data));
        tensor.data = data;
        tensor.type = type == ONNX_TENSOR_ELEMENT_DATA_TYPE_FLOAT     ? Type::float32
                      : type == ONNX_TENSOR_ELEMENT_DATA_TYPE_FLOAT16 ? Type::float16
                      : type == ONNX_TENSOR_ELEMENT_DATA_TYPE_INT64   ? Type::int64
                                                                      : Type::other;
    }

    void release() {
        for (OrtValue* value : made_) api_->ReleaseValue(value);
        for (OrtValue* value : values_) api_->ReleaseValue(value);
        made_.clear();
        values_.clear();
        names_.clear();
    }

    const OrtApi* api_;
    OrtEnv* environment_ = nullptr;
    OrtSession* session_ = nullptr;
    OrtMemoryInfo* memory_ = nullptr;
    OrtAllocator* allocator_ = nullptr;
    std::vector<const char*> names_;
    std::vector<OrtValue*> values_, made_;
    std::vector<Tensor> found_;
};

}  // namespace fastcam::example
