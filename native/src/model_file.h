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

// What the file's reader found. Everything that the header and the tensors' own headers promise is
// checked against the size of the file before it is used; what is read later than that may still
// fail, if the file changes.
class ModelFile {
  public:
    // A file's first bytes choose its reader. Fails with any of the FILE statuses, TENSOR_TYPE or
    // TENSOR_SHAPE.
    explicit ModelFile(const std::string& path);

    const InputFile& input() const noexcept { return input_; }
    const std::string& path() const noexcept { return input_.path(); }

    size_t n_vocab = 0;
    size_t n_embd = 0;
    size_t n_layer = 0;
    rwkv_type data_type = RWKV_TYPE_FP32;  // of most matrices

    const std::vector<Tensor>& tensors() const noexcept { return tensors_; }
    const Tensor* find(const std::string& name) const noexcept;  // nullptr if there is none

    // For readers. Fails if the name is taken, or if there are more tensors than in any model.
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

// Takes values from a file in order, never past its end. For headers: small reads are collected.
class FileReader {
  public:
    explicit FileReader(const InputFile& file) : file_(file) {}

    size_t at() const noexcept { return at_; }
    size_t left() const noexcept { return file_.size() - at_; }

    // The next n bytes, valid until the next call; n <= kMostBytes. `what` is for the message.
    static constexpr size_t kMostBytes = 4096;
    const uint8_t* take(size_t n, const std::string& what);
    int32_t take_i32(const std::string& what);

    // Passes n bytes over, which must be there.
    void skip(size_t n, const std::string& what);

  private:
    void require(size_t n, const std::string& what) const;

    const InputFile& file_;
    size_t at_ = 0;
    std::vector<uint8_t> window_;  // the bytes from window_begin_ on
    size_t window_begin_ = 0;
};

// The containers, each its reader. model_file.cpp has the list of how they begin.
void read_ggmf(ModelFile& file);

}  // namespace rwkv
