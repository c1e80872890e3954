// bytes -> validated table of named tensors: the reader of ggmf containers.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <unordered_map>
#include <vector>

#include "kernels/kernels.h"
#include "mapped_file.h"

namespace rwkv {

struct Tensor {
    std::string name;
    rwkv_type type;
    std::vector<size_t> shape;  // PyTorch's order: slowest-varying dimension first
    const uint8_t* data;        // in the mapped file; any alignment
    size_t n_bytes;

    size_t n_elements() const noexcept;
    std::string shape_text() const;  // "(768, 3072)"
};

// The layout is described in docs/formats.md. Everything that the header and the tensors' own
// headers promise is checked against the size of the file before it is used.
class ModelFile {
  public:
    // Fails with any of the FILE statuses, TENSOR_TYPE or TENSOR_SHAPE.
    explicit ModelFile(const std::string& path);

    size_t n_vocab() const noexcept { return n_vocab_; }
    size_t n_embd() const noexcept { return n_embd_; }
    size_t n_layer() const noexcept { return n_layer_; }
    rwkv_type data_type() const noexcept { return data_type_; }

    const std::vector<Tensor>& tensors() const noexcept { return tensors_; }
    const Tensor* find(const std::string& name) const noexcept;  // nullptr if there is none

    const std::string& path() const noexcept { return file_.path(); }
    size_t size() const noexcept { return file_.size(); }

  private:
    void read_header(class ByteReader& reader);
    void read_tensor(class ByteReader& reader, int32_t version);

    MappedFile file_;
    size_t n_vocab_ = 0;
    size_t n_embd_ = 0;
    size_t n_layer_ = 0;
    rwkv_type data_type_ = RWKV_TYPE_FP32;
    std::vector<Tensor> tensors_;
    std::unordered_map<std::string, size_t> by_name_;
};

}  // namespace rwkv
