// A model file as a validated table of named tensors, whatever its container.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <string>
#include <unordered_map>
#include <utility>
#include <vector>

#include "input_file.h"
#include "kernels/kernels.h"
#include "model_notes.h"

namespace rwkv {

struct Tensor {
    std::string name;
    rwkv_type type = RWKV_TYPE_FP32;
    std::vector<size_t> shape;  // PyTorch's order: slowest-varying dimension first
    size_t offset = 0;          // of its data in the file
    size_t n_bytes = 0;
    size_t file = 0;  // which of the files that the model is split into

    size_t n_elements() const noexcept;
    std::string shape_text() const;  // "(768, 3072)"
};

// What the reader of its container found: see containers.h. Everything that the header and the
// tensors' own headers promise is checked against the size of the file before it is used; what is
// read later than that may still fail, if the file changes.
class ModelFile {
  public:
    // Of what was opened; a reader does the rest.
    explicit ModelFile(std::unique_ptr<InputFile> input) { inputs_.push_back(std::move(input)); }

    // The files, of which the first is the one that was named.
    const std::vector<std::unique_ptr<InputFile>>& inputs() const noexcept { return inputs_; }
    const InputFile& input() const noexcept { return *inputs_.front(); }
    const std::string& path() const noexcept { return input().path(); }
    size_t n_bytes() const noexcept;  // of all of them

    const char* container = "";
    size_t n_vocab = 0;
    size_t n_embd = 0;
    size_t n_layer = 0;
    rwkv_type data_type = RWKV_TYPE_FP32;  // of most matrices
    ModelNotes notes;

    const std::vector<Tensor>& tensors() const noexcept { return tensors_; }
    const Tensor* find(const std::string& name) const noexcept;  // nullptr if there is none

    // For readers. Fails with FILE_FORMAT if the name is taken, or if there are more tensors than in
    // any model.
    void add(Tensor tensor);
    // Another file of a model that is split. Fails with FILE_UNREADABLE.
    InputFile& open_next(const std::string& path);

    // A tensor's n bytes from its byte `at` on.
    void read(const Tensor& tensor, size_t at, size_t n, void* out) const {
        inputs_[tensor.file]->read(tensor.offset + at, n, out);
    }

  private:
    std::vector<std::unique_ptr<InputFile>> inputs_;
    std::vector<Tensor> tensors_;
    std::unordered_map<std::string, size_t> by_name_;
};

}  // namespace rwkv
