// An exported file in ONNX Runtime: its session, and what it says of itself.

#pragma once

#include <cstdint>
#include <stdexcept>
#include <string>
#include <vector>

#include "../host/json.h"
#include "../host/picture.h"
#include "runtime.h"

namespace fastcam::example {

struct Tensor {
    std::vector<std::int64_t> shape;
    ONNXTensorElementDataType type;
    OrtValue* value;
    void* data;

    const float* floats() const { return static_cast<const float*>(data); }
    std::int64_t count() const {
        std::int64_t n = 1;
        for (const std::int64_t side : shape) n *= side;
        return n;
    }
};

class Network {
  public:
    Network(const OrtApi* api, const std::string& path, int threads) : api_(api) {
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

    ~Network() {
        release();
        if (memory_ != nullptr) api_->ReleaseMemoryInfo(memory_);
        if (session_ != nullptr) api_->ReleaseSession(session_);
        if (environment_ != nullptr) api_->ReleaseEnv(environment_);
    }
    Network(const Network&) = delete;

    // The metadata under a key; empty where there is none.
    std::string metadata(const char* key) const {
        OrtModelMetadata* all = nullptr;
        char* found = nullptr;
        check(api_->SessionGetModelMetadata(session_, &all));
        OrtStatus* status = api_->ModelMetadataLookupCustomMetadataMap(all, allocator_, key, &found);
        api_->ReleaseModelMetadata(all);
        check(status);
        return take(found);
    }

    // The names of the inputs, of those with a default too.
    std::vector<std::string> inputs() const {
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

    // What goes in; the memory stays the caller's, and must stay until the run.
    void feed(const char* name, void* data, std::size_t bytes, const std::vector<std::int64_t>& shape,
              ONNXTensorElementDataType type) {
        OrtValue* value = nullptr;
        check(api_->CreateTensorWithDataAsOrtValue(memory_, data, bytes, shape.data(), shape.size(), type, &value));
        names_.push_back(name);
        values_.push_back(value);
    }

    // The outputs of that name. They live until the next run.
    std::vector<Tensor> run(const std::vector<const char*>& outputs) {
        for (OrtValue* value : made_) api_->ReleaseValue(value);
        made_.assign(outputs.size(), nullptr);
        check(api_->Run(session_, nullptr, names_.data(), values_.data(), names_.size(), outputs.data(), outputs.size(),
                        made_.data()));
        std::vector<Tensor> found(outputs.size());
        for (std::size_t i = 0; i < outputs.size(); ++i) {
            OrtTensorTypeAndShapeInfo* info = nullptr;
            check(api_->GetTensorTypeAndShape(made_[i], &info));
            found[i].shape = shape_of(info);
            check(api_->GetTensorElementType(info, &found[i].type));
            api_->ReleaseTensorTypeAndShapeInfo(info);
            found[i].value = made_[i];
            check(api_->GetTensorMutableData(made_[i], &found[i].data));
        }
        return found;
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

    std::vector<std::int64_t> shape_of(const OrtTensorTypeAndShapeInfo* info) const {
        std::size_t rank = 0;
        check(api_->GetDimensionsCount(info, &rank));
        std::vector<std::int64_t> shape(rank);
        check(api_->GetDimensions(info, shape.data(), rank));
        return shape;
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
};

}  // namespace fastcam::example
