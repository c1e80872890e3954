#include "model_loader.h"

#include <algorithm>
#include <cmath>
#include <utility>
#include <vector>

#include "block_types.h"
#include "containers.h"
#include "cpu_cores.h"
#include "hash64.h"
#include "kernels/registry.h"
#include "log.h"
#include "packer.h"
#include "status.h"

namespace rwkv {

namespace {

using Shape = std::vector<size_t>;

// Dimensions of size 1 carry no meaning: official vectors are (1, 1, C), (C,) or (H, N, 1).
Shape squeezed(const Shape& shape) {
    Shape kept;
    for (const size_t d : shape) {
        if (d != 1) kept.push_back(d);
    }
    return kept;
}

std::string text_of(const Shape& shape) {
    Tensor tensor;
    tensor.shape = shape;
    return tensor.shape_text();
}

// A hash over the sizes in the header, every tensor's name, type and shape, and samples of its
// numbers: 1 KB at its start, one and two thirds, and its end. Two files with one fingerprint hold
// the same model, unless someone changed a few numbers by hand; and it costs less than a
// thousandth of reading the file.
uint64_t fingerprint_of(const ModelFile& file, size_t first_layer, size_t n_layer) {
    constexpr size_t kSampleBytes = 1024;
    constexpr size_t kSamples = 4;
    Hash64 hash;
    const auto number = [&](uint64_t n) { hash.add(&n, sizeof n); };
    const auto sample = [&](const Tensor& t, size_t at, size_t n) {
        uint8_t bytes[kSamples * kSampleBytes];
        file.read(t, at, n, bytes);
        hash.add(bytes, n);
    };
    for (const size_t n : {file.n_vocab, file.n_embd, file.n_layer}) number(n);
    if (n_layer != file.n_layer) {  // some of them are another model
        number(first_layer);
        number(n_layer);
    }
    for (const Tensor& t : file.tensors()) {
        hash.add(t.name.data(), t.name.size());
        number(t.type);
        for (const size_t d : t.shape) number(d);
        if (t.n_bytes <= kSamples * kSampleBytes) {
            sample(t, 0, t.n_bytes);
            continue;
        }
        const size_t last = t.n_bytes - kSampleBytes;
        for (size_t i = 0; i < kSamples; ++i) {
            sample(t, last / (kSamples - 1) * i, kSampleBytes);
        }
    }
    return hash.value();
}

// Fills a Model from a file: first every tensor that the version needs is checked, then the
// matrices are packed, in all threads.
class ModelLoader {
  public:
    ModelLoader(Model& model, const ModelFile& file)
        : model_(model), file_(file), packer_(model, file) {}

    void load(const ModelOptions& options) {
        Config& c = model_.config;
        c.n_vocab = file_.n_vocab;
        c.n_embd = file_.n_embd;
        c.n_layer = file_.n_layer;
        choose_layers(options.first_layer, options.n_layers);
        c.version = detect_version();
        c.n_ffn = shape_of(block(0) + "ffn.key.weight", 2)[0];
        set_heads();
        const bool is_v5 = c.version == Version::v5_1 || c.version == Version::v5_2;
        const bool has_another = options.like_rwkv_cpp && is_v5 && options.ln_x_eps == 0.0f;
        set_ln_x_eps(has_another ? kRwkvCppV5LnXEps : options.ln_x_eps);
        c.rescale_every = file_.notes.rescale_every;

        if (!model_.is_part) {
            embedding();
            norm(model_.ln0, "blocks.0.ln0");
        }
        switch (c.version) {
            case Version::v4:
                layers<LayerV4>();
                break;
            case Version::v5_1:
            case Version::v5_2:
                layers<LayerV5>();
                break;
            case Version::v6:
                layers<LayerV6>();
                break;
            case Version::v7:
                layers<LayerV7>();
                break;
        }
        time_state();
        if (!model_.is_part) {
            norm(model_.ln_out, "ln_out");
            matrix(model_.head, "head.weight", c.n_vocab, c.n_embd);
        }
        packer_.pack(options.progress);

        for (const Tensor& t : file_.tensors()) model_.n_parameters += t.n_elements();
        model_.container = file_.container;
        model_.notes = file_.notes;
        model_.data_type = file_.data_type;
        model_.file_bytes = file_.n_bytes();
        model_.fingerprint = fingerprint_of(file_, c.first_layer, c.n_layer);
    }

  private:
    [[noreturn]] void fail(rwkv_status status, const std::string& what) const {
        throw Failure(status, file_.path() + ": " + what);
    }

    // ---- what the file holds

    void choose_layers(size_t first, size_t n) {
        Config& c = model_.config;
        if (first == 0 && n == 0) return;
        if (n == 0 || first >= c.n_layer || n > c.n_layer - first) {
            fail(RWKV_STATUS_MODEL_OPTION,
                 format("first_layer and n_layers, expected some of its %zu layers, got %zu from "
                        "layer %zu on",
                        c.n_layer, n, first));
        }
        model_.is_part = true;
        c.first_layer = first;
        c.n_layer = n;
    }

    // How the names of a layer's tensors begin.
    std::string block(size_t i) const {
        return "blocks." + std::to_string(model_.config.first_layer + i) + ".";
    }

    const Tensor& need(const std::string& name) const {
        const Tensor* tensor = file_.find(name);
        if (tensor == nullptr) {
            fail(RWKV_STATUS_TENSOR_MISSING,
                 format("tensor '%s', expected one in an RWKV-%s model of %zu layers, got none. "
                        "Convert the checkpoint again with rwkv-convert",
                        name.c_str(), version_name(model_.config.version), model_.config.n_layer));
        }
        return *tensor;
    }

    [[noreturn]] void wrong_shape(const Tensor& tensor, const std::string& expected) const {
        fail(RWKV_STATUS_TENSOR_SHAPE,
             format("tensor '%s', expected shape %s, got %s. Convert the checkpoint again with "
                    "rwkv-convert",
                    tensor.name.c_str(), expected.c_str(), tensor.shape_text().c_str()));
    }

    // The shape of a tensor that must have n_dims dimensions.
    const Shape& shape_of(const std::string& name, size_t n_dims) const {
        const Tensor& tensor = need(name);
        if (tensor.shape.size() != n_dims) {
            wrong_shape(tensor, std::to_string(n_dims) + " dimensions");
        }
        return tensor.shape;
    }

    Version detect_version() const {
        const std::string att = block(0) + "att.";
        const auto has = [&](const char* name) { return file_.find(att + name) != nullptr; };
        if (has("r_k") || has("x_rwkvag")) return Version::v7;
        if (has("time_maa_x")) return Version::v6;
        if (has("ln_x.weight")) return has("gate.weight") ? Version::v5_2 : Version::v5_1;
        if (has("time_first") && has("time_decay")) return Version::v4;
        fail(RWKV_STATUS_MODEL_VERSION,
             format("expected the tensors of RWKV 4, 5.1, 5.2, 6 or 7, got %zu others (no "
                    "'%stime_decay', 'time_maa_x' or 'r_k')",
                    file_.tensors().size(), att.c_str()));
    }

    void set_heads() {
        Config& c = model_.config;
        switch (c.version) {
            case Version::v4:
                return;
            case Version::v5_1:
            case Version::v5_2:
                c.n_head = need(block(0) + "att.time_decay").shape[0];
                break;
            case Version::v6:
                c.n_head = need(block(0) + "att.time_faaaa").shape[0];
                break;
            case Version::v7:
                c.n_head = need(block(0) + "att.r_k").shape[0];
                break;
        }
        if (c.n_head == 0 || c.n_embd % c.n_head != 0) {
            fail(
                RWKV_STATUS_TENSOR_SHAPE,
                format("expected heads that divide the width of %zu, got %zu", c.n_embd, c.n_head));
        }
        c.head_size = c.n_embd / c.n_head;
    }

    void set_ln_x_eps(float wanted) {
        Config& c = model_.config;
        if (!(wanted >= 0.0f) || std::isinf(wanted)) {
            throw Failure(
                RWKV_STATUS_INVALID_ARGUMENT,
                format("ln_x_eps: expected a number above 0, or 0 for the official value, got %g",
                       static_cast<double>(wanted)));
        }
        if (c.version == Version::v4) {
            if (wanted != 0.0f) {
                fail(RWKV_STATUS_MODEL_OPTION,
                     "ln_x_eps, expected none for RWKV-4, which has no group norm after WKV. Open "
                     "the model without it");
            }
            return;
        }
        c.ln_x_eps = wanted == 0.0f ? kDefaultLnXEps : wanted;
        const bool is_v5 = c.version == Version::v5_1 || c.version == Version::v5_2;
        if (is_v5 && wanted == 0.0f) {
            log_note(
                format("%s: RWKV-%s is computed with the official eps of 64e-5 in its group "
                       "norm. rwkv.cpp computes it with 1e-5, which changes logits by up to "
                       "1.3: open the model with ln_x_eps 1e-5 to get its numbers",
                       file_.path().c_str(), version_name(c.version)));
        }
    }

    // ---- one tensor each

    std::vector<uint8_t> bytes_of(const Tensor& tensor) const {
        std::vector<uint8_t> bytes(tensor.n_bytes);
        file_.read(tensor, 0, tensor.n_bytes, bytes.data());
        return bytes;
    }

    // A tensor as floats; `shape` may differ from the file's in dimensions of size 1.
    float* values(const std::string& name, const Shape& shape) {
        const Tensor& tensor = need(name);
        if (squeezed(tensor.shape) != squeezed(shape)) wrong_shape(tensor, text_of(shape));
        const size_t n = tensor.n_elements();
        model_.vectors.push_back(std::make_unique<float[]>(n));
        float* out = model_.vectors.back().get();
        const std::vector<uint8_t> bytes = bytes_of(tensor);
        const size_t row = tensor.shape.back();
        for (size_t i = 0; i < n / row; ++i) {
            dequantize_row(tensor.type, bytes.data() + i * rwkv_row_bytes(tensor.type, row), row,
                           out + i * row);
        }
        return out;
    }

    void vector(Vector& out, const std::string& name, const Shape& shape) {
        out = values(name, shape);
    }

    void vector(Vector& out, const std::string& name) { vector(out, name, {model_.config.n_embd}); }

    // The mix of v4 and v5: see the note in model.h.
    void mix(Vector& out, const std::string& name) {
        const size_t n = model_.config.n_embd;
        float* m = values(name, {n});
        for (size_t i = 0; i < n; ++i) m[i] = 1.0f - m[i];
        out = m;
    }

    // v5.1 has one value a head: repeated for each channel of the head.
    void per_head(Vector& out, const std::string& name) {
        const Config& c = model_.config;
        if (c.version != Version::v5_1) return vector(out, name, {c.n_head, c.head_size});
        const float* one = values(name, {c.n_head});
        model_.vectors.push_back(std::make_unique<float[]>(c.n_embd));
        float* all = model_.vectors.back().get();
        for (size_t i = 0; i < c.n_embd; ++i) all[i] = one[i / c.head_size];
        out = all;
    }

    void norm(Norm& out, const std::string& name) {
        vector(out.weight, name + ".weight");
        vector(out.bias, name + ".bias");
    }

    void matrix(Matrix& out, const std::string& name, size_t n_out, size_t n_in) {
        const Tensor& tensor = need(name);
        if (tensor.shape != Shape{n_out, n_in}) wrong_shape(tensor, text_of({n_out, n_in}));
        add_packing(out, name, tensor, 0, n_out, n_in);
    }

    // One whose inputs come from relu^2, so that most of them are zero.
    void sparse_matrix(Matrix& out, const std::string& name, size_t n_out, size_t n_in) {
        matrix(out, name, n_out, n_in);
        const auto& kernels = model_.kernels.matrix[out.type];
        if (kernels.matmul_columns == nullptr || n_out % RWKV_COLUMN != 0) return;
        // Threads share out panels. Where that leaves the busiest of them with more than 5/4 of its
        // share, smaller pieces are worth more than what can be skipped.
        const size_t n_panels = n_out / RWKV_COLUMN;
        const size_t n_threads = model_.n_threads;
        const size_t most = (n_panels + n_threads - 1) / n_threads;
        if (4 * most * n_threads > 5 * n_panels) return;
        out.by_columns = 1;
        model_.column_panel_bytes =
            std::max(model_.column_panel_bytes, kernels.packed_size(out.type, RWKV_COLUMN, n_in));
    }

    // Matrices stacked in one tensor of shape (count, n_out, n_in).
    void stacked(Matrix* out, size_t count, const std::string& name, size_t n_out, size_t n_in) {
        const Tensor& tensor = need(name);
        if (tensor.shape != Shape{count, n_out, n_in}) {
            wrong_shape(tensor, text_of({count, n_out, n_in}));
        }
        for (size_t i = 0; i < count; ++i) {
            const size_t at = i * n_out * rwkv_row_bytes(tensor.type, n_in);
            add_packing(out[i], name + "[" + std::to_string(i) + "]", tensor, at, n_out, n_in);
        }
    }

    // A pair y = W2 f(W1 x) through a small rank, which only the file knows.
    void low_rank(Matrix& w1, const std::string& name1, Matrix& w2, const std::string& name2) {
        const size_t C = model_.config.n_embd;
        const size_t rank = shape_of(name1, 2)[0];
        matrix(w1, name1, rank, C);
        matrix(w2, name2, C, rank);
    }

    void add_packing(Matrix& out, const std::string& name, const Tensor& tensor, size_t at,
                     size_t n_out, size_t n_in) {
        out.n_out = n_out;
        out.n_in = n_in;
        out.type = tensor.type;
        out.by_columns = 0;
        packer_.add(out, tensor, at);
        model_.named_matrices.push_back({name, &out});
    }

    void embedding() {
        const Config& c = model_.config;
        const Tensor& tensor = need("emb.weight");
        if (tensor.shape != Shape{c.n_vocab, c.n_embd}) {
            wrong_shape(tensor, text_of({c.n_vocab, c.n_embd}) + " as the header says");
        }
        model_.embedding.type = tensor.type;
        model_.embedding.rows = Memory(tensor.n_bytes);
        file_.read(tensor, 0, tensor.n_bytes, model_.embedding.rows.data());
    }

    // ---- one layer each

    template <class Layer>
    void layers() {
        // Before memory for all of them is asked for: is the last one there, and is it the last?
        // (Each layer has many tensors: more layers than tensors cannot be.)
        const size_t n_layer = model_.config.n_layer;
        const size_t n_tensors = file_.tensors().size();
        need(block(n_layer - 1) + "ln1.weight");
        const bool is_one_more = file_.find(block(n_layer) + "ln1.weight") != nullptr;
        if (n_layer > n_tensors || (is_one_more && !model_.is_part)) {
            fail(RWKV_STATUS_FILE_FORMAT,
                 format("expected the header's %zu layers, got %zu tensors of %s. The file is "
                        "corrupt, try to download it again",
                        n_layer, n_tensors, n_layer > n_tensors ? "fewer" : "more"));
        }
        auto& all = model_.layers.emplace<std::vector<Layer>>(n_layer);
        for (size_t i = 0; i < all.size(); ++i) {
            norm(all[i].ln1, block(i) + "ln1");
            norm(all[i].ln2, block(i) + "ln2");
            layer(all[i], block(i) + "att.", block(i) + "ffn.", i + model_.config.first_layer);
        }
    }

    void channel_mix(ChannelMix& m, const std::string& ffn, bool is_v6) {
        const Config& c = model_.config;
        if (is_v6) {
            vector(m.mix_k, ffn + "time_maa_k");
            vector(m.mix_r, ffn + "time_maa_r");
        } else {
            mix(m.mix_k, ffn + "time_mix_k");
            mix(m.mix_r, ffn + "time_mix_r");
        }
        matrix(m.key, ffn + "key.weight", c.n_ffn, c.n_embd);
        matrix(m.receptance, ffn + "receptance.weight", c.n_embd, c.n_embd);
        sparse_matrix(m.value, ffn + "value.weight", c.n_embd, c.n_ffn);
    }

    template <class Layer>
    void time_mix_matrices(Layer& l, const std::string& att) {
        const size_t C = model_.config.n_embd;
        matrix(l.receptance, att + "receptance.weight", C, C);
        matrix(l.key, att + "key.weight", C, C);
        matrix(l.value, att + "value.weight", C, C);
        matrix(l.output, att + "output.weight", C, C);
    }

    void layer(LayerV4& l, const std::string& att, const std::string& ffn, size_t) {
        mix(l.mix_k, att + "time_mix_k");
        mix(l.mix_v, att + "time_mix_v");
        mix(l.mix_r, att + "time_mix_r");
        vector(l.time_first, att + "time_first");
        vector(l.time_decay, att + "time_decay");
        time_mix_matrices(l, att);
        channel_mix(l.ffn, ffn, false);
    }

    void layer(LayerV5& l, const std::string& att, const std::string& ffn, size_t) {
        const Config& c = model_.config;
        const bool gated = c.version == Version::v5_2;
        mix(l.mix_k, att + "time_mix_k");
        mix(l.mix_v, att + "time_mix_v");
        mix(l.mix_r, att + "time_mix_r");
        per_head(l.time_first, att + (gated ? "time_faaaa" : "time_first"));
        per_head(l.time_decay, att + "time_decay");
        time_mix_matrices(l, att);
        if (gated) {
            mix(l.mix_g, att + "time_mix_g");
            matrix(l.gate, att + "gate.weight", c.n_embd, c.n_embd);
        }
        norm(l.ln_x, att + "ln_x");
        channel_mix(l.ffn, ffn, false);
    }

    void layer(LayerV6& l, const std::string& att, const std::string& ffn, size_t) {
        const Config& c = model_.config;
        vector(l.maa_x, att + "time_maa_x");
        for (size_t i = 0; i < 5; ++i) vector(l.maa[i], att + "time_maa_" + "wkvrg"[i]);
        const size_t rank = shape_of(att + "time_maa_w2", 3)[2];
        matrix(l.maa_w1, att + "time_maa_w1", 5 * rank, c.n_embd);
        stacked(l.maa_w2, 5, att + "time_maa_w2", c.n_embd, rank);
        vector(l.time_decay, att + "time_decay", {c.n_head, c.head_size});
        low_rank(l.decay_w1, att + "time_decay_w1", l.decay_w2, att + "time_decay_w2");
        vector(l.time_faaaa, att + "time_faaaa", {c.n_head, c.head_size});
        time_mix_matrices(l, att);
        matrix(l.gate, att + "gate.weight", c.n_embd, c.n_embd);
        norm(l.ln_x, att + "ln_x");
        channel_mix(l.ffn, ffn, true);
    }

    void layer(LayerV7& l, const std::string& att, const std::string& ffn, size_t i) {
        const Config& c = model_.config;
        const float* x = values(att + "x_rwkvag", {6, c.n_embd});
        Vector* const mixes[] = {&l.x_r, &l.x_w, &l.x_k, &l.x_v, &l.x_a, &l.x_g};
        for (size_t j = 0; j < 6; ++j) *mixes[j] = x + j * c.n_embd;
        vector(l.w0, att + "w0");
        vector(l.a0, att + "a0");
        low_rank(l.w1, att + "w1", l.w2, att + "w2");
        low_rank(l.a1, att + "a1", l.a2, att + "a2");
        low_rank(l.g1, att + "g1", l.g2, att + "g2");
        if (i > 0) {
            vector(l.v0, att + "v0");
            low_rank(l.v1, att + "v1", l.v2, att + "v2");
        }
        vector(l.k_k, att + "k_k");
        vector(l.k_a, att + "k_a");
        vector(l.r_k, att + "r_k", {c.n_head, c.head_size});
        time_mix_matrices(l, att);
        norm(l.ln_x, att + "ln_x");
        vector(l.ffn_x_k, ffn + "x_k");
        matrix(l.ffn_key, ffn + "key.weight", c.n_ffn, c.n_embd);
        sparse_matrix(l.ffn_value, ffn + "value.weight", c.n_embd, c.n_ffn);
    }

    // The initial state that a state tuning has found. All layers have one, or none.
    void time_state() {
        const Config& c = model_.config;
        if (c.version == Version::v4) return;
        std::vector<std::string> names;
        bool any = false;
        for (size_t i = 0; i < c.n_layer; ++i) {
            names.push_back(block(i) + "att.time_state");
            any = any || file_.find(names.back()) != nullptr;
        }
        if (!any) return;
        const size_t N = c.head_size;
        for (const std::string& name : names) {
            float* const heads = values(name, {c.n_head, N, N});
            for (size_t head = 0; head < c.n_head; ++head) {
                float* const s = heads + head * N * N;  // in the file: row = value, column = key
                for (size_t i = 0; i < N; ++i) {
                    for (size_t j = 0; j < i; ++j) std::swap(s[i * N + j], s[j * N + i]);
                }
            }
            model_.time_state.push_back(heads);
        }
    }

    Model& model_;
    const ModelFile& file_;
    Packer packer_;
};

}  // namespace

std::shared_ptr<const Model> load_model(std::unique_ptr<InputFile> input,
                                        const ModelOptions& options) {
    const rwkv_kernels kernels = choose_kernels();
    const auto model = std::make_shared<Model>(kernels, thread_count(options.n_threads));
    model->path = input->path();
    const std::unique_ptr<ModelFile> file = read_model_file(std::move(input));
    ModelLoader(*model, *file).load(options);
    return model;
}

std::shared_ptr<const Model> load_model(const std::string& path, const ModelOptions& options) {
    return load_model(std::make_unique<InputFile>(path), options);
}

}  // namespace rwkv
