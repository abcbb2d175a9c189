// explain (explain.h) on ONNX Runtime, which is loaded when the program starts.

#include "explain.h"
#include "onnxruntime_network.h"

using namespace fastcam::example;

int main(int count, char** given) {
    return explain_main(count, given, [](const Options& options) -> Open {
        const OrtApi* api = open_runtime(options.runtime);
        if (api == nullptr) return nullptr;
        return [api](const std::string& path, int threads) { return std::make_unique<OnnxRuntime>(api, path, threads); };
    });
}
