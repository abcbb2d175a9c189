// An exported file in some engine: what goes in, what comes out, and what the file says of itself.

#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <vector>

namespace fastcam::example {

enum class Type { other, float16, float32, int64 };

struct Tensor {
    std::vector<std::int64_t> shape;
    Type type;
    const void* data;

    const float* floats() const { return static_cast<const float*>(data); }
};

class Network {
  public:
    virtual ~Network() = default;
    // The metadata under a key; empty where there is none.
    virtual std::string metadata(const char* key) const = 0;
    // The names of the inputs, of those with a default too where the engine takes values for them.
    virtual std::vector<std::string> inputs() const = 0;
    // What goes in; the memory stays the caller's, and must stay until the run.
    virtual void feed(const char* name, void* data, Type type, const std::vector<std::int64_t>& shape) = 0;
    // The outputs of that name. They live until the next run.
    virtual const std::vector<Tensor>& run(const std::vector<const char*>& outputs) = 0;
};

// Opens a file with so many threads; 0 leaves the choice to the engine.
using Open = std::function<std::unique_ptr<Network>(const std::string& path, int threads)>;

}  // namespace fastcam::example
