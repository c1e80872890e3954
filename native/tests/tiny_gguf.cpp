#include "tiny_gguf.h"

#include <unistd.h>

#include <cstring>
#include <fstream>
#include <map>
#include <string_view>

#include "block_types.h"
#include "check.h"

namespace tiny {

namespace {

using Bytes = std::vector<uint8_t>;

template <class T>
void put(Bytes& out, T value) {
    const auto* p = reinterpret_cast<const uint8_t*>(&value);
    out.insert(out.end(), p, p + sizeof value);
}

void put(Bytes& out, const std::string& text) {
    put(out, static_cast<uint64_t>(text.size()));
    out.insert(out.end(), text.begin(), text.end());
}

enum : uint32_t { kU32 = 4, kI32 = 5, kF32 = 6, kString = 8, kArray = 9 };

const std::map<std::string_view, std::string_view>& names() {
    static const std::map<std::string_view, std::string_view> all = {
        {"emb.weight", "token_embd.weight"},
        {"blocks.0.ln0.weight", "token_embd_norm.weight"},
        {"blocks.0.ln0.bias", "token_embd_norm.bias"},
        {"ln_out.weight", "output_norm.weight"},
        {"ln_out.bias", "output_norm.bias"},
        {"head.weight", "output.weight"},
        {"ln1.weight", "attn_norm.weight"},
        {"ln1.bias", "attn_norm.bias"},
        {"ln2.weight", "attn_norm_2.weight"},
        {"ln2.bias", "attn_norm_2.bias"},
        {"att.ln_x.weight", "time_mix_ln.weight"},
        {"att.ln_x.bias", "time_mix_ln.bias"},
        {"att.x_rwkvag", "time_mix_lerp_fused.weight"},
        {"att.time_maa_x", "time_mix_lerp_x.weight"},
        {"att.time_maa_w1", "time_mix_w1.weight"},
        {"att.time_maa_w2", "time_mix_w2.weight"},
        {"att.time_faaaa", "time_mix_first.weight"},
        {"att.time_decay", "time_mix_decay.weight"},
        {"att.time_decay_w1", "time_mix_decay_w1.weight"},
        {"att.time_decay_w2", "time_mix_decay_w2.weight"},
        {"ffn.key.weight", "channel_mix_key.weight"},
        {"ffn.value.weight", "channel_mix_value.weight"},
        {"ffn.receptance.weight", "channel_mix_receptance.weight"},
        {"ffn.x_k", "channel_mix_lerp_k.weight"},
        {"ffn.time_maa_k", "channel_mix_lerp_k.weight"},
        {"ffn.time_maa_r", "channel_mix_lerp_r.weight"},
    };
    return all;
}

// "att.receptance.weight" -> "time_mix_receptance.weight", "att.w1" -> "time_mix_w1.weight"
std::string name_of(const std::string& rest) {
    const auto found = names().find(rest);
    if (found != names().end()) return std::string(found->second);
    CHECK(rest.rfind("att.", 0) == 0);
    const std::string name = "time_mix_" + rest.substr(4);
    return name.find(".weight") == std::string::npos ? name + ".weight" : name;
}

// ggml's number of a type that ggmf numbers otherwise.
uint32_t ggml_type(int32_t ggmf) {
    const uint32_t numbers[] = {0, 1, 2, 3, 0, 0, 0, 6, 7, 8};
    return numbers[ggmf];
}

}  // namespace

void Gguf::set(const std::string& key, uint32_t number) {
    Bytes value;
    put(value, uint32_t{kU32});
    put(value, number);
    erase(key);
    keys.emplace_back(key, value);
}

void Gguf::set(const std::string& key, float number) {
    Bytes value;
    put(value, uint32_t{kF32});
    put(value, number);
    erase(key);
    keys.emplace_back(key, value);
}

void Gguf::set(const std::string& key, const std::string& text) {
    Bytes value;
    put(value, uint32_t{kString});
    put(value, text);
    erase(key);
    keys.emplace_back(key, value);
}

void Gguf::set(const std::string& key, const std::vector<std::string>& texts) {
    Bytes value;
    put(value, uint32_t{kArray});
    put(value, uint32_t{kString});
    put(value, static_cast<uint64_t>(texts.size()));
    for (const std::string& text : texts) put(value, text);
    erase(key);
    keys.emplace_back(key, value);
}

void Gguf::set(const std::string& key, const std::vector<int32_t>& numbers) {
    Bytes value;
    put(value, uint32_t{kArray});
    put(value, uint32_t{kI32});
    put(value, static_cast<uint64_t>(numbers.size()));
    for (const int32_t n : numbers) put(value, n);
    erase(key);
    keys.emplace_back(key, value);
}

void Gguf::erase(const std::string& key) {
    for (size_t i = 0; i < keys.size(); ++i) {
        if (keys[i].first == key) keys.erase(keys.begin() + static_cast<ptrdiff_t>(i--));
    }
}

Gguf::Tensor& Gguf::at(const std::string& name) {
    for (Tensor& t : tensors) {
        if (t.name == name) return t;
    }
    std::fprintf(stderr, "no tensor '%s'\n", name.c_str());
    std::exit(1);
}

std::vector<uint8_t> Gguf::bytes() const {
    Bytes out = {'G', 'G', 'U', 'F'};
    put(out, version);
    put(out, static_cast<uint64_t>(tensors.size()));
    put(out, static_cast<uint64_t>(keys.size()));
    for (const auto& [key, value] : keys) {
        put(out, key);
        out.insert(out.end(), value.begin(), value.end());
    }
    uint64_t offset = 0;
    const auto aligned = [&](uint64_t n) { return (n + alignment - 1) / alignment * alignment; };
    for (const Tensor& t : tensors) {
        put(out, t.name);
        put(out, static_cast<uint32_t>(t.shape.size()));
        for (size_t i = t.shape.size(); i-- > 0;) put(out, t.shape[i]);
        put(out, t.type);
        put(out, offset);
        offset = aligned(offset + t.data.size());
    }
    for (const Tensor& t : tensors) {
        out.resize(aligned(out.size()));
        out.insert(out.end(), t.data.begin(), t.data.end());
    }
    return out;
}

Gguf gguf_of(const Model& model, const std::string& version, const Sizes& sizes) {
    const std::string architecture = "rwkv" + version;
    const auto C = static_cast<uint32_t>(sizes.n_head * sizes.head_size);
    Gguf gguf;
    gguf.set("general.architecture", architecture);
    gguf.set("general.name", std::string("a tiny model"));
    gguf.set(architecture + ".embedding_length", C);
    gguf.set(architecture + ".block_count", static_cast<uint32_t>(sizes.n_layer));
    gguf.set(architecture + ".feed_forward_length", static_cast<uint32_t>(sizes.n_ffn));
    gguf.set(architecture + ".attention.layer_norm_epsilon", 1e-5f);
    gguf.set(architecture + ".attention.head_count", uint32_t{0});
    gguf.set(architecture + ".wkv.head_size", static_cast<uint32_t>(sizes.head_size));
    std::vector<std::string> tokens = {"<s>", "a", "\\n\\t", "\\'\\\"", "\\xe4\\xb8", "\\\\"};
    std::vector<int32_t> types = {3, 1, 1, 1, 1, 1};
    while (tokens.size() < sizes.n_vocab) {
        tokens.push_back("[PAD" + std::to_string(tokens.size()) + "]");
        types.push_back(5);
    }
    gguf.set("tokenizer.ggml.model", std::string("rwkv"));
    gguf.set("tokenizer.ggml.tokens", tokens);
    gguf.set("tokenizer.ggml.token_type", types);
    gguf.set("tokenizer.ggml.eos_token_id", uint32_t{0});
    gguf.set("tokenizer.ggml.eot_token_id", uint32_t{2});
    gguf.set("tokenizer.chat_template", std::string("{{ messages }}"));
    gguf.set("something.else", std::vector<int32_t>{1, 2, 3});

    std::map<std::string, Bytes> mixes;  // version 6's, by layer, in the order w k v r g
    for (const tiny::Tensor& t : model.tensors) {
        std::vector<uint64_t> shape(t.shape.begin(), t.shape.end());
        std::string name = t.name;
        if (names().count(name) != 0) {
            gguf.tensors.push_back({name_of(name), shape, ggml_type(t.type), t.data});
            continue;
        }
        const size_t dot = name.find('.', 7);  // after "blocks.N"
        const std::string block = "blk." + name.substr(7, dot - 7) + ".";
        const std::string rest = name.substr(dot + 1);
        static const std::string kMix = "att.time_maa_";
        const bool is_mix = rest.size() == kMix.size() + 1 && rest.rfind(kMix, 0) == 0 &&
                            std::string("wkvrg").find(rest.back()) != std::string::npos;
        if (is_mix) {
            CHECK(t.type == 0);
            Bytes& fused = mixes[block];
            fused.resize(5 * t.data.size());
            std::memcpy(fused.data() + std::string("wkvrg").find(rest.back()) * t.data.size(),
                        t.data.data(), t.data.size());
            continue;
        }
        if (rest == "att.x_rwkvag") shape = {6, 1, 1, C};
        if (rest == "att.r_k" || rest == "att.time_decay") shape = {C};
        if (rest == "att.time_faaaa") shape = {C / sizes.head_size, sizes.head_size};
        gguf.tensors.push_back({block + name_of(rest), shape, ggml_type(t.type), t.data});
        // llama.cpp wants layer 0 to have what version 7 does not use there.
        if (version == "7" && block == "blk.0." && rest.size() == 6 &&
            rest.rfind("att.a", 0) == 0) {
            gguf.tensors.push_back(
                {block + "time_mix_v" + rest.back() + ".weight", shape, ggml_type(t.type), t.data});
        }
    }
    for (const auto& [block, fused] : mixes) {
        gguf.tensors.push_back({block + "time_mix_lerp_fused.weight", {5, 1, 1, C}, 0, fused});
    }
    return gguf;
}

SplitFiles::SplitFiles(const Gguf& whole, uint32_t n_files)
    : prefix_(std::string(RWKV_BINARY_DIR) + "/split-" + std::to_string(::getpid())),
      n_files_(n_files) {
    for (uint32_t i = 0; i < n_files; ++i) {
        Gguf part;
        if (i == 0) part.keys = whole.keys;
        part.set("split.no", i);
        part.set("split.count", n_files);
        for (size_t t = i; t < whole.tensors.size(); t += n_files)
            part.tensors.push_back(whole.tensors[t]);
        const Bytes bytes = part.bytes();
        std::ofstream(path(i), std::ios::binary)
            .write(reinterpret_cast<const char*>(bytes.data()),
                   static_cast<std::streamsize>(bytes.size()));
    }
}

SplitFiles::~SplitFiles() {
    for (uint32_t i = 0; i < n_files_; ++i) ::unlink(path(i).c_str());
}

std::string SplitFiles::path(uint32_t i) const {
    return prefix_ + "-0000" + std::to_string(i + 1) + "-of-0000" + std::to_string(n_files_) +
           ".gguf";
}

}  // namespace tiny
