// A model file as a validated table of named tensors, whatever its container.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <unordered_map>
#include <vector>

#include "input_file.h"
#include "kernels/kernels.h"

namespace rwkv {

struct Tensor {
    std::string name;
    rwkv_type type = RWKV_TYPE_FP32;
    std::vector<size_t> shape;  // PyTorch's order: slowest-varying dimension first
    size_t offset = 0;          // of its data in the file
    size_t n_bytes = 0;

    size_t n_elements() const noexcept;
    std::string shape_text() const;  // "(768, 3072)"
};

// What the reader of its container found: see containers.h. Everything that the header and the
// tensors' own headers promise is checked against the size of the file before it is used; what is
// read later than that may still fail, if the file changes.
class ModelFile {
  public:
    // Opens it; a reader does the rest. Fails with FILE_UNREADABLE.
    explicit ModelFile(const std::string& path) : input_(path) {}

    const InputFile& input() const noexcept { return input_; }
    const std::string& path() const noexcept { return input_.path(); }

    size_t n_vocab = 0;
    size_t n_embd = 0;
    size_t n_layer = 0;
    rwkv_type data_type = RWKV_TYPE_FP32;  // of most matrices

    const std::vector<Tensor>& tensors() const noexcept { return tensors_; }
    const Tensor* find(const std::string& name) const noexcept;  // nullptr if there is none

    // For readers. Fails with FILE_FORMAT if the name is taken, or if there are more tensors than in any model.
    void add(Tensor tensor);

    // A tensor's n bytes from its byte `at` on.
    void read(const Tensor& tensor, size_t at, size_t n, void* out) const {
        input_.read(tensor.offset + at, n, out);
    }

  private:
    InputFile input_;
    std::vector<Tensor> tensors_;
    std::unordered_map<std::string, size_t> by_name_;
};

}  // namespace rwkv
