// Tiny random models of every RWKV version and weight type as ggmf files: what tests need that must
// not depend on a converter. The fields can be changed before a file is written, to make it lie.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <vector>

#include "kernels/kernels.h"

namespace tiny {

// A tensor as it lies in a file. Everything may be set to nonsense.
struct Tensor {
    std::string name;
    int32_t type;                // ggmf's number, see file_type
    std::vector<int32_t> shape;  // PyTorch's order: slowest-varying dimension first
    std::vector<uint8_t> data;
};

struct Model {
    int32_t magic = 0x67676d66;
    int32_t file_version = 101;
    int32_t n_vocab = 0;
    int32_t n_embd = 0;
    int32_t n_layer = 0;
    int32_t data_type = 0;
    std::vector<Tensor> tensors;

    Tensor& at(const std::string& name);  // must exist
    void erase(const std::string& name);  // must exist
    std::vector<uint8_t> bytes() const;   // the file
};

struct Sizes {
    size_t n_layer = 2;
    size_t n_head = 2;
    size_t head_size = 32;  // n_embd = n_head * head_size: a multiple of 32 for quantised types
    size_t n_ffn = 96;
    size_t n_vocab = 40;
    size_t rank = 32;         // of low-rank matrices
    size_t ffn_zeros = 0;     // this many rows of every four of ffn.key are zero
    bool time_state = false;  // hold an initial state; not version 4
};

inline const char* const kVersions[] = {"4", "5.1", "5.2", "6", "7"};

// ggmf's number of a type.
int32_t file_type(rwkv_type type);

// A tensor of `type` with the values of `x`, which are quantised as the type says.
Tensor tensor(const std::string& name, rwkv_type type, const std::vector<size_t>& shape,
              const std::vector<float>& x);

// A random model of `version` (one of kVersions): every matrix, the embedding, the head and
// low-rank matrices too, is of `type`, all else fp32. The same arguments give the same file on
// every machine.
Model random_model(const std::string& version, rwkv_type type, const Sizes& sizes = {},
                   uint32_t seed = 1);

// The same with another type for every tensor: matrices of all types in turn, vectors in fp16.
Model mixed_model(const std::string& version, const Sizes& sizes = {});

// A file that lives as long as this object, in the build folder.
class File {
  public:
    explicit File(const Model& model) : File(model.bytes()) {}
    explicit File(const std::vector<uint8_t>& bytes);
    ~File();
    File(const File&) = delete;
    File& operator=(const File&) = delete;

    const char* path() const noexcept { return path_.c_str(); }

    // Replaces the file's content.
    void write(const uint8_t* bytes, size_t n) const;

  private:
    std::string path_;
};

}  // namespace tiny
