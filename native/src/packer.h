// Matrices from a file, packed for the kernels in use.
#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

#include "model.h"
#include "model_file.h"

namespace rwkv {

// Whom to tell how far the packing is; what is returned other than 0 ends it.
struct Progress {
    int32_t (*tell)(void* data, uint64_t done, uint64_t total) = nullptr;
    void* data = nullptr;
};

class Packer {
  public:
    Packer(Model& model, const ModelFile& file) : model_(model), file_(file) {}

    // A matrix to pack, whose shape and type are set; its first row lies `at` bytes into the
    // tensor's, of which it may be a part.
    void add(Matrix& matrix, const Tensor& tensor, size_t at);

    // Reads and packs them into model.matrices, in all threads, piece by piece: the file is never in
    // memory as a whole. Fails with FILE_UNREADABLE, FILE_TRUNCATED, CANCELLED.
    void pack(const Progress& progress);

  private:
    struct Packing {
        Matrix* matrix;
        const Tensor* tensor;
        size_t at;      // of its first row among the tensor's bytes
        size_t offset;  // in model_.matrices
    };
    void pack_rows(const Packing& p, size_t begin, size_t end, uint8_t* buffer, uint8_t* dst) const;

    Model& model_;
    const ModelFile& file_;
    std::vector<Packing> packings_;
    size_t packed_bytes_ = 0;
};

}  // namespace rwkv
