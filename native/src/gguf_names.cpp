#include "gguf_names.h"

#include <cstddef>

namespace rwkv {

namespace {

constexpr GgufName kTop[] = {
    {"token_embd.weight", "emb.weight"},
    {"token_embd_norm.weight", "blocks.0.ln0.weight"},
    {"token_embd_norm.bias", "blocks.0.ln0.bias"},
    {"output_norm.weight", "ln_out.weight"},
    {"output_norm.bias", "ln_out.bias"},
    {"output.weight", "head.weight"},
};

constexpr GgufName kBoth[] = {
    {"attn_norm.weight", "ln1.weight"},
    {"attn_norm.bias", "ln1.bias"},
    {"attn_norm_2.weight", "ln2.weight"},
    {"attn_norm_2.bias", "ln2.bias"},
    {"time_mix_receptance.weight", "att.receptance.weight"},
    {"time_mix_key.weight", "att.key.weight"},
    {"time_mix_value.weight", "att.value.weight"},
    {"time_mix_output.weight", "att.output.weight"},
    {"time_mix_ln.weight", "att.ln_x.weight"},
    {"time_mix_ln.bias", "att.ln_x.bias"},
    {"channel_mix_key.weight", "ffn.key.weight"},
    {"channel_mix_value.weight", "ffn.value.weight"},
};

// Layer 0's v0, v1 and v2, which llama.cpp wants to be there, are copies of a0, a1 and a2; nobody
// reads them.
constexpr GgufName kVersion7[] = {
    {"time_mix_lerp_fused.weight", "att.x_rwkvag"},
    {"time_mix_w0.weight", "att.w0"},
    {"time_mix_w1.weight", "att.w1"},
    {"time_mix_w2.weight", "att.w2"},
    {"time_mix_a0.weight", "att.a0"},
    {"time_mix_a1.weight", "att.a1"},
    {"time_mix_a2.weight", "att.a2"},
    {"time_mix_v0.weight", "att.v0"},
    {"time_mix_v1.weight", "att.v1"},
    {"time_mix_v2.weight", "att.v2"},
    {"time_mix_g1.weight", "att.g1"},
    {"time_mix_g2.weight", "att.g2"},
    {"time_mix_k_k.weight", "att.k_k"},
    {"time_mix_k_a.weight", "att.k_a"},
    {"time_mix_r_k.weight", "att.r_k", GgufForm::heads},
    {"channel_mix_lerp_k.weight", "ffn.x_k"},
};

constexpr GgufName kVersion6[] = {
    {"time_mix_lerp_x.weight", "att.time_maa_x"},
    {"time_mix_lerp_fused.weight", "att.time_maa_", GgufForm::fused},
    {"time_mix_lerp_w.weight", "att.time_maa_w"},  // not fused in the first files of llama.cpp
    {"time_mix_lerp_k.weight", "att.time_maa_k"},
    {"time_mix_lerp_v.weight", "att.time_maa_v"},
    {"time_mix_lerp_r.weight", "att.time_maa_r"},
    {"time_mix_lerp_g.weight", "att.time_maa_g"},
    {"time_mix_w1.weight", "att.time_maa_w1"},
    {"time_mix_w2.weight", "att.time_maa_w2"},
    {"time_mix_first.weight", "att.time_faaaa", GgufForm::heads},
    {"time_mix_decay.weight", "att.time_decay", GgufForm::heads},
    {"time_mix_decay_w1.weight", "att.time_decay_w1"},
    {"time_mix_decay_w2.weight", "att.time_decay_w2"},
    {"time_mix_gate.weight", "att.gate.weight"},
    {"channel_mix_lerp_k.weight", "ffn.time_maa_k"},
    {"channel_mix_lerp_r.weight", "ffn.time_maa_r"},
    {"channel_mix_receptance.weight", "ffn.receptance.weight"},
};

template <size_t n>
const GgufName* find(const GgufName (&names)[n], std::string_view name) {
    for (const GgufName& row : names) {
        if (row.gguf == name) return &row;
    }
    return nullptr;
}

}  // namespace

const GgufName* find_top_name(std::string_view name) { return find(kTop, name); }

const GgufName* find_layer_name(std::string_view rest, bool is_v7) {
    if (const GgufName* found = find(kBoth, rest)) return found;
    return is_v7 ? find(kVersion7, rest) : find(kVersion6, rest);
}

}  // namespace rwkv
