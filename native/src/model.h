// A model: its shape (Config), one struct of weights per RWKV version, packed for the kernels in
// use. Immutable after model_loader has filled it, but for what steps take turns to use.
//
// Shapes are given in comments: C = n_embd, H = n_head, N = head_size, F = n_ffn, V = n_vocab,
// R = the rank of a low-rank matrix pair. A matrix (out, in) computes y = W x.
#pragma once

#include <atomic>
#include <memory>
#include <string>
#include <variant>
#include <vector>

#include "kernels/kernels.h"
#include "memory.h"
#include "model_notes.h"

namespace rwkv {

enum class Version { v4, v5_1, v5_2, v6, v7 };

const char* version_name(Version version) noexcept;  // "4", "5.1", ...

struct Config {
    Version version = Version::v4;
    size_t n_vocab = 0;
    size_t n_embd = 0;
    size_t n_layer = 0;
    size_t n_head = 0;     // 0 for v4
    size_t head_size = 0;  // 0 for v4; n_head * head_size = n_embd
    size_t n_ffn = 0;
    float ln_x_eps = 0.0f;     // 0 for v4
    size_t rescale_every = 0;  // v6: layers after which the residual stream is halved; 0: never
    size_t first_layer = 0;    // of the file's, where only some of them are there

    size_t layer_state_size() const noexcept;  // floats
    size_t state_size() const noexcept { return n_layer * layer_state_size(); }
};

constexpr float kLayerNormEps = 1e-5f;
constexpr float kDefaultLnXEps = 64e-5f;
constexpr float kRwkvCppV5LnXEps = 1e-5f;

using Vector = const float*;
using Matrix = rwkv_matrix;

struct Norm {
    Vector weight;  // (C)
    Vector bias;    // (C)
};

// The token shift of v4 and v5 mixes x * m + prev * (1 - m). Weights hold 1 - m, so that every
// version computes x + (prev - x) * mix.

// Channel mix of v4, v5 and v6.
struct ChannelMix {
    Vector mix_k;       // (C)
    Vector mix_r;       // (C)
    Matrix key;         // (F, C)
    Matrix receptance;  // (C, C)
    Matrix value;       // (C, F)
};

struct LayerV4 {
    Norm ln1, ln2;
    Vector mix_k, mix_v, mix_r;             // (C)
    Vector time_first;                      // (C)
    Vector time_decay;                      // (C), = -exp(.) of the checkpoint's
    Matrix receptance, key, value, output;  // (C, C)
    ChannelMix ffn;
};

struct LayerV5 {
    Norm ln1, ln2, ln_x;
    Vector mix_k, mix_v, mix_r, mix_g;      // (C); mix_g in v5.2 only
    Vector time_first;                      // (H, N); in v5.1 the same for all of a head
    Vector time_decay;                      // (H, N); likewise; = exp(-exp(.)) of the checkpoint's
    Matrix receptance, key, value, output;  // (C, C)
    Matrix gate;                            // (C, C), v5.2 only
    ChannelMix ffn;
};

struct LayerV6 {
    Norm ln1, ln2, ln_x;
    Vector maa_x;                                 // (C)
    Vector maa[5];                                // w k v r g: (C)
    Matrix maa_w1;                                // (5 R, C)
    Matrix maa_w2[5];                             // w k v r g: (C, R)
    Vector time_decay;                            // (C)
    Matrix decay_w1;                              // (R, C)
    Matrix decay_w2;                              // (C, R)
    Vector time_faaaa;                            // (H, N)
    Matrix receptance, key, value, gate, output;  // (C, C)
    ChannelMix ffn;
};

struct LayerV7 {
    Norm ln1, ln2, ln_x;
    Vector x_r, x_w, x_k, x_v, x_a, x_g;    // (C)
    Vector w0, a0, v0;                      // (C); v0, v1, v2 are not there in layer 0
    Matrix w1, a1, v1, g1;                  // (R, C)
    Matrix w2, a2, v2, g2;                  // (C, R)
    Vector k_k, k_a;                        // (C)
    Vector r_k;                             // (H, N)
    Matrix receptance, key, value, output;  // (C, C)
    Vector ffn_x_k;                         // (C)
    Matrix ffn_key;                         // (F, C)
    Matrix ffn_value;                       // (C, F)
};

// Rows as they lie in the file: a token needs one of them.
struct Embedding {
    Memory rows;  // (V, C)
    rwkv_type type = RWKV_TYPE_FP32;
};

// A matrix by the name of its tensor; of one that is stacked in a tensor with others, "NAME[i]".
struct NamedMatrix {
    std::string name;
    const Matrix* matrix;
};

struct Executor;

class Model {
  public:
    Model(const rwkv_kernels& kernels, size_t n_threads);
    ~Model();
    Model(const Model&) = delete;
    Model& operator=(const Model&) = delete;

    const rwkv_kernels kernels;
    const size_t n_threads;  // that work on a step

    Config config;
    Embedding embedding;
    Norm ln0;
    std::variant<std::vector<LayerV4>, std::vector<LayerV5>, std::vector<LayerV6>,
                 std::vector<LayerV7>>
        layers;
    Norm ln_out;
    Matrix head;           // (V, C)
    bool is_part = false;  // only some layers are there: no embedding, no head, nor their norms
    std::vector<NamedMatrix> named_matrices;  // all, in the order of the file's layers
    // What the heads of each layer hold before the first token, (H, N, N), row = key and column =
    // value as in State; empty where the file does not say: zeros.
    std::vector<Vector> time_state;

    size_t column_panel_bytes = 0;  // of the largest panel of a matrix by columns

    // The memory of all vectors and matrices.
    std::vector<std::unique_ptr<float[]>> vectors;
    Memory matrices;

    // What the file says of itself.
    std::string path;
    const char* container = "";
    ModelNotes notes;
    rwkv_type data_type = RWKV_TYPE_FP32;
    uint64_t n_parameters = 0;
    uint64_t file_bytes = 0;
    uint64_t fingerprint = 0;  // tells this file's model from others: see model_loader.cpp

    uint64_t weight_bytes() const noexcept { return matrices.size() + embedding.rows.size(); }

    // What steps share, in this process: a child of fork() gets its own when it first asks, so
    // that processes can share the weights that one of them has opened. Throws if there is no
    // memory or no thread for it.
    Executor& executor() const;

  private:
    mutable std::atomic<Executor*> executor_;
};

}  // namespace rwkv
