#include "tiny_model.h"

#include <unistd.h>

#include <atomic>
#include <cmath>
#include <cstdio>
#include <cstring>
#include <random>

#include "block_types.h"
#include "check.h"

namespace tiny {

namespace {

// Random numbers that are the same with every standard library: mt19937's output is specified, the
// distributions' is not.
class Random {
  public:
    explicit Random(uint32_t seed) : engine_(seed) {}

    std::vector<float> uniform(size_t n, float low, float high) {
        std::vector<float> x(n);
        for (float& v : x) v = low + (high - low) * static_cast<float>(engine_() >> 8) * 0x1p-24f;
        return x;
    }

  private:
    std::mt19937 engine_;
};

// Collects the tensors of one model, in the order of an official checkpoint.
class Maker {
  public:
    Maker(rwkv_type type, const Sizes& sizes, uint32_t seed)
        : type_(type), sizes_(sizes), C_(sizes.n_head * sizes.head_size), random_(seed) {}

    Model make(const std::string& version) {
        const Sizes& s = sizes_;
        model_.n_vocab = static_cast<int32_t>(s.n_vocab);
        model_.n_embd = static_cast<int32_t>(C_);
        model_.n_layer = static_cast<int32_t>(s.n_layer);
        model_.data_type = file_type(type_);
        values("emb.weight", type_, {s.n_vocab, C_}, -0.5f, 0.5f);
        for (size_t i = 0; i < s.n_layer; ++i) {
            const std::string block = "blocks." + std::to_string(i) + ".";
            norm(block + "ln1");
            norm(block + "ln2");
            if (i == 0) norm(block + "ln0");
            if (version == "4") {
                time_mix_v4(block + "att.");
            } else if (version == "6") {
                time_mix_v6(block + "att.");
            } else if (version == "7") {
                time_mix_v7(block + "att.", i > 0);
            } else {
                time_mix_v5(block + "att.", version == "5.2");
            }
            channel_mix(block + "ffn.", version);
            if (s.time_state && version != "4") {
                vector(block + "att.time_state", {s.n_head, s.head_size, s.head_size}, -1.0f, 1.0f);
            }
        }
        norm("ln_out");
        matrix("head.weight", s.n_vocab, C_, 3.0f);
        return model_;
    }

  private:
    void values(const std::string& name, rwkv_type type, const std::vector<size_t>& shape,
                float low, float high) {
        size_t n = 1;
        for (const size_t d : shape) n *= d;
        model_.tensors.push_back(tensor(name, type, shape, random_.uniform(n, low, high)));
    }

    void vector(const std::string& name, const std::vector<size_t>& shape, float low, float high) {
        values(name, RWKV_TYPE_FP32, shape, low, high);
    }

    // Keeps the variance of what it is multiplied with if gain is 1.
    void matrix(const std::string& name, size_t rows, size_t columns, float gain = 1.0f) {
        const float limit = gain * std::sqrt(3.0f / static_cast<float>(columns));
        values(name, type_, {rows, columns}, -limit, limit);
    }

    void norm(const std::string& name) {
        vector(name + ".weight", {C_}, 0.7f, 1.3f);
        vector(name + ".bias", {C_}, -0.1f, 0.1f);
    }

    void projections(const std::string& att, bool gate) {
        for (const char* name : {"receptance", "key", "value", "output"}) {
            matrix(att + name + ".weight", C_, C_);
        }
        if (gate) matrix(att + "gate.weight", C_, C_);
    }

    void mixes(const std::string& prefix, const char* letters) {
        for (; *letters != '\0'; ++letters) vector(prefix + *letters, {C_}, 0.0f, 1.0f);
    }

    void time_mix_v4(const std::string& att) {
        vector(att + "time_decay", {C_}, -3.0f, -0.01f);
        vector(att + "time_first", {C_}, -1.0f, 1.5f);
        mixes(att + "time_mix_", "kvr");
        projections(att, false);
    }

    void time_mix_v5(const std::string& att, bool gate) {
        const size_t N = gate ? sizes_.head_size : 1;
        vector(att + "time_decay", {sizes_.n_head, N, 1}, 0.2f, 0.999f);
        vector(att + (gate ? "time_faaaa" : "time_first"), {sizes_.n_head, N, 1}, 0.1f, 2.0f);
        mixes(att + "time_mix_", gate ? "kvrg" : "kvr");
        projections(att, gate);
        norm(att + "ln_x");
    }

    void time_mix_v6(const std::string& att) {
        const size_t R = sizes_.rank;
        mixes(att + "time_maa_", "xwkvrg");
        matrix(att + "time_maa_w1", 5 * R, C_);
        values(att + "time_maa_w2", type_, {5, C_, R}, -0.2f, 0.2f);
        vector(att + "time_decay", {sizes_.n_head, sizes_.head_size, 1}, -6.0f, 1.0f);
        matrix(att + "time_decay_w1", R, C_);
        matrix(att + "time_decay_w2", C_, R);
        vector(att + "time_faaaa", {sizes_.n_head, sizes_.head_size, 1}, -1.0f, 1.5f);
        projections(att, true);
        norm(att + "ln_x");
    }

    void time_mix_v7(const std::string& att, bool has_v) {
        const size_t R = sizes_.rank;
        vector(att + "x_rwkvag", {6, 1, C_}, 0.0f, 1.0f);
        for (const char c : std::string(has_v ? "wavg" : "wag")) {
            matrix(att + c + "1", R, C_);
            matrix(att + c + "2", C_, R);
            if (c != 'g') vector(att + c + "0", {1, 1, C_}, -1.5f, 1.5f);
        }
        vector(att + "k_k", {1, 1, C_}, 0.4f, 1.2f);
        vector(att + "k_a", {1, 1, C_}, 0.5f, 1.3f);
        vector(att + "r_k", {sizes_.n_head, sizes_.head_size}, -0.5f, 0.5f);
        projections(att, false);
        norm(att + "ln_x");
    }

    void channel_mix(const std::string& ffn, const std::string& version) {
        if (version == "7") {
            vector(ffn + "x_k", {1, 1, C_}, 0.0f, 1.0f);
        } else {
            mixes(ffn + (version == "6" ? "time_maa_" : "time_mix_"), "kr");
            matrix(ffn + "receptance.weight", C_, C_);
        }
        const float limit = std::sqrt(3.0f / static_cast<float>(C_));
        std::vector<float> key = random_.uniform(sizes_.n_ffn * C_, -limit, limit);
        for (size_t i = 0; i < key.size(); ++i) {
            if (i / C_ % 4 < sizes_.ffn_zeros) key[i] = 0.0f;
        }
        model_.tensors.push_back(tensor(ffn + "key.weight", type_, {sizes_.n_ffn, C_}, key));
        matrix(ffn + "value.weight", C_, sizes_.n_ffn);
    }

    const rwkv_type type_;
    const Sizes sizes_;
    const size_t C_;
    Random random_;
    Model model_;
};

void append_i32(std::vector<uint8_t>& bytes, int32_t value) {
    uint8_t raw[sizeof value];
    std::memcpy(raw, &value, sizeof value);
    bytes.insert(bytes.end(), raw, raw + sizeof raw);
}

}  // namespace

int32_t file_type(rwkv_type type) { return rwkv_block_type_of(type)->ggmf; }

Tensor tensor(const std::string& name, rwkv_type type, const std::vector<size_t>& shape,
              const std::vector<float>& x) {
    const size_t columns = shape.back();
    const size_t row_bytes = rwkv_row_bytes(type, columns);
    Tensor t{name, file_type(type), {shape.begin(), shape.end()}, {}};
    t.data.resize(x.size() / columns * row_bytes);
    for (size_t i = 0; i < x.size() / columns; ++i) {
        rwkv::quantize_row(type, x.data() + i * columns, columns, t.data.data() + i * row_bytes);
    }
    return t;
}

Model random_model(const std::string& version, rwkv_type type, const Sizes& sizes, uint32_t seed) {
    return Maker(type, sizes, seed).make(version);
}

Model mixed_model(const std::string& version, const Sizes& sizes) {
    constexpr int kGgmfTypes = RWKV_TYPE_Q8_0 + 1;  // which come first
    Model mixed = random_model(version, RWKV_TYPE_FP32, sizes);
    int turn = 0;
    for (Tensor& t : mixed.tensors) {
        std::vector<float> x(t.data.size() / sizeof(float));
        std::memcpy(x.data(), t.data.data(), t.data.size());
        const bool matrix = t.shape.back() % 32 == 0 && t.shape.front() > 1;
        const auto type = matrix ? static_cast<rwkv_type>(turn++ % kGgmfTypes) : RWKV_TYPE_FP16;
        t = tensor(t.name, type, {t.shape.begin(), t.shape.end()}, x);
    }
    CHECK(turn >= kGgmfTypes);
    return mixed;
}

Tensor& Model::at(const std::string& name) {
    for (Tensor& t : tensors) {
        if (t.name == name) return t;
    }
    std::fprintf(stderr, "no tensor '%s' in the model\n", name.c_str());
    std::exit(1);
}

void Model::erase(const std::string& name) {
    tensors.erase(tensors.begin() + (&at(name) - tensors.data()));
}

std::vector<uint8_t> Model::bytes() const {
    std::vector<uint8_t> out;
    for (const int32_t v : {magic, file_version, n_vocab, n_embd, n_layer, data_type}) {
        append_i32(out, v);
    }
    for (const Tensor& t : tensors) {
        append_i32(out, static_cast<int32_t>(t.shape.size()));
        append_i32(out, static_cast<int32_t>(t.name.size()));
        append_i32(out, t.type);
        for (size_t i = t.shape.size(); i-- > 0;) append_i32(out, t.shape[i]);
        out.insert(out.end(), t.name.begin(), t.name.end());
        out.insert(out.end(), t.data.begin(), t.data.end());
    }
    return out;
}

File::File(const std::vector<uint8_t>& bytes) {
    static std::atomic<int> count{0};
    path_ = std::string(RWKV_BINARY_DIR) + "/tiny-" + std::to_string(::getpid()) + "-" +
            std::to_string(count++) + ".bin";
    write(bytes.data(), bytes.size());
}

File::~File() { ::unlink(path_.c_str()); }

void File::write(const uint8_t* bytes, size_t n) const {
    // A new file each time: one that is mapped somewhere must not change under its reader.
    ::unlink(path_.c_str());
    std::FILE* file = std::fopen(path_.c_str(), "wb");
    CHECK(file != nullptr);
    CHECK(n == 0 || std::fwrite(bytes, 1, n, file) == n);
    CHECK(std::fclose(file) == 0);
}

}  // namespace tiny
