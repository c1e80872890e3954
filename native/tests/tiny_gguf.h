// Tiny models as GGUF files: what llama.cpp's converter would make of them.
#pragma once

#include <cstdint>
#include <string>
#include <utility>
#include <vector>

#include "tiny_model.h"

namespace tiny {

// A GGUF file that is put together key by key. Everything may be set to nonsense.
struct Gguf {
    uint32_t version = 3;
    uint32_t alignment = 32;
    std::vector<std::pair<std::string, std::vector<uint8_t>>> keys;  // with type and value

    struct Tensor {
        std::string name;
        std::vector<uint64_t> shape;  // PyTorch's order
        uint32_t type;                // ggml's number
        std::vector<uint8_t> data;
    };
    std::vector<Tensor> tensors;

    void set(const std::string& key, uint32_t number);
    void set(const std::string& key, float number);
    void set(const std::string& key, const std::string& text);
    void set(const std::string& key, const std::vector<std::string>& texts);
    void set(const std::string& key, const std::vector<int32_t>& numbers);
    void erase(const std::string& key);
    Tensor& at(const std::string& name);  // must exist

    std::vector<uint8_t> bytes() const;  // the file
};

// The same model as `model`, of version "6" or "7".
Gguf gguf_of(const Model& model, const std::string& version, const Sizes& sizes);

// The same model in several files, which lie in the build folder as long as this object lives.
class SplitFiles {
  public:
    SplitFiles(const Gguf& whole, uint32_t n_files);
    ~SplitFiles();
    SplitFiles(const SplitFiles&) = delete;
    SplitFiles& operator=(const SplitFiles&) = delete;

    std::string path(uint32_t i) const;  // 0 to n_files - 1

  private:
    std::string prefix_;
    uint32_t n_files_;
};

}  // namespace tiny
