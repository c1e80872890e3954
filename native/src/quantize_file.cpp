#include "quantize_file.h"

#include <algorithm>
#include <cstring>
#include <string_view>
#include <utility>

#include "block_types.h"
#include "read_ggmf.h"
#include "status.h"

namespace rwkv {

namespace {

// ---- which tensors there are, in the order of a model file, and which of them are quantised

struct Row {
    std::string_view name;  // in layers, without `blocks.N.`
    bool quantised;
};

constexpr Row kBeforeLayers[] = {{"emb.weight", false}};
constexpr Row kAfterLayers[] = {
    {"ln_out.weight", false}, {"ln_out.bias", false}, {"head.weight", false}};

// Of all versions: no two of them disagree on the order of what they share.
constexpr Row kLayer[] = {
    {"ln0.weight", false},
    {"ln0.bias", false},
    {"ln1.weight", false},
    {"ln1.bias", false},
    {"ln2.weight", false},
    {"ln2.bias", false},
    // versions 4 and 5
    {"att.time_mix_k", false},
    {"att.time_mix_v", false},
    {"att.time_mix_r", false},
    {"att.time_mix_g", false},
    // version 6, two of them in versions 4 and 5 too
    {"att.time_maa_x", false},
    {"att.time_maa_w", false},
    {"att.time_maa_k", false},
    {"att.time_maa_v", false},
    {"att.time_maa_r", false},
    {"att.time_maa_g", false},
    {"att.time_maa_w1", true},
    {"att.time_maa_w2", false},
    {"att.time_decay", false},
    {"att.time_decay_w1", true},
    {"att.time_decay_w2", true},
    {"att.time_first", false},
    {"att.time_faaaa", false},
    // version 7
    {"att.x_rwkvag", false},
    {"att.w0", false},
    {"att.w1", false},
    {"att.w2", false},
    {"att.a0", false},
    {"att.a1", false},
    {"att.a2", false},
    {"att.v0", false},
    {"att.v1", false},
    {"att.v2", false},
    {"att.g1", false},
    {"att.g2", false},
    {"att.k_k", false},
    {"att.k_a", false},
    {"att.r_k", false},
    // all
    {"att.receptance.weight", true},
    {"att.key.weight", true},
    {"att.value.weight", true},
    {"att.gate.weight", true},
    {"att.output.weight", true},
    {"att.ln_x.weight", false},
    {"att.ln_x.bias", false},
    {"ffn.time_mix_k", false},
    {"ffn.time_mix_r", false},
    {"ffn.time_maa_k", false},
    {"ffn.time_maa_r", false},
    {"ffn.x_k", false},
    {"ffn.key.weight", true},
    {"ffn.value.weight", true},
    {"ffn.receptance.weight", true},
    {"att.time_state", false},
};

// Layer 0 of a version 7 has no use for these.
constexpr std::string_view kNotInLayer0[] = {"att.v0", "att.v1", "att.v2"};

template <size_t N>
const Row* find(const Row (&rows)[N], std::string_view name) {
    const Row* const row =
        std::find_if(rows, rows + N, [&](const Row& r) { return r.name == name; });
    return row == rows + N ? nullptr : row;
}

// The number N of `blocks.N.rest`, below n_layer, and the rest; false if the name is no such one.
bool split(std::string_view name, size_t n_layer, size_t* layer, std::string_view* rest) {
    constexpr std::string_view kBlocks = "blocks.";
    if (name.substr(0, kBlocks.size()) != kBlocks) return false;
    name.remove_prefix(kBlocks.size());
    const size_t dot = name.find('.');
    if (dot == 0 || dot == std::string_view::npos || dot > 6) return false;
    size_t n = 0;
    for (const char c : name.substr(0, dot)) {
        if (c < '0' || c > '9') return false;
        n = 10 * n + static_cast<size_t>(c - '0');
    }
    if (n >= n_layer || std::to_string(n) != name.substr(0, dot)) return false;  // "01" is not 1
    *layer = n;
    *rest = name.substr(dot + 1);
    return true;
}

// A tensor and where it goes.
struct Placed {
    std::pair<size_t, const Row*> place;  // 0: before layers; 1 + layer; n_layer + 1: after them
    const Tensor* tensor;
};

bool place(const Tensor& tensor, size_t n_layer, Placed* placed) {
    placed->tensor = &tensor;
    if (const Row* row = find(kBeforeLayers, tensor.name)) {
        placed->place = {0, row};
        return true;
    }
    if (const Row* row = find(kAfterLayers, tensor.name)) {
        placed->place = {n_layer + 1, row};
        return true;
    }
    size_t layer = 0;
    std::string_view rest;
    if (!split(tensor.name, n_layer, &layer, &rest)) return false;
    if (layer == 0 && std::count(std::begin(kNotInLayer0), std::end(kNotInLayer0), rest)) {
        return false;
    }
    const Row* const row = find(kLayer, rest);
    placed->place = {1 + layer, row};
    return row != nullptr;
}

// ---- writing

rwkv_type type_in_output(const Tensor& tensor, const Row& row, rwkv_type to) {
    if (!row.quantised || tensor.shape.size() != 2 || rwkv_is_quantised(tensor.type)) {
        return tensor.type;
    }
    return row_fits(to, tensor.shape.back()) ? to : RWKV_TYPE_FP16;
}

void write_numbers(NewFile& out, const std::vector<int32_t>& numbers) {
    out.write(numbers.data(), numbers.size() * sizeof(int32_t));
}

int32_t number_of(rwkv_type type) { return rwkv_block_type_of(type)->ggmf; }

// Values, or bytes that are copied, which are in memory at once: whole blocks.
constexpr size_t kPiece = size_t{1} << 16;

void write_tensor(const ModelFile& in, const Tensor& tensor, rwkv_type to, NewFile& out) {
    std::vector<int32_t> header = {static_cast<int32_t>(tensor.shape.size()),
                                   static_cast<int32_t>(tensor.name.size()), number_of(to)};
    for (size_t i = tensor.shape.size(); i-- > 0;) {  // the file's order is fastest first
        header.push_back(static_cast<int32_t>(tensor.shape[i]));
    }
    write_numbers(out, header);
    out.write(tensor.name.data(), tensor.name.size());

    std::vector<uint8_t> bytes(std::min(kPiece * sizeof(float), tensor.n_bytes));
    if (to == tensor.type) {
        for (size_t at = 0; at < tensor.n_bytes; at += bytes.size()) {
            const size_t n = std::min(bytes.size(), tensor.n_bytes - at);
            in.read(tensor, at, n, bytes.data());
            out.write(bytes.data(), n);
        }
        return;
    }
    // Rows are whole blocks, so where a row ends does not matter.
    const size_t n_values = tensor.n_elements();
    std::vector<float> values(std::min(kPiece, n_values));
    std::vector<uint8_t> encoded(rwkv_row_bytes(to, values.size()));
    for (size_t at = 0; at < n_values; at += values.size()) {
        const size_t n = std::min(values.size(), n_values - at);
        in.read(tensor, rwkv_row_bytes(tensor.type, at), rwkv_row_bytes(tensor.type, n),
                bytes.data());
        dequantize_row(tensor.type, bytes.data(), n, values.data());
        quantize_row(to, values.data(), n, encoded.data());
        out.write(encoded.data(), rwkv_row_bytes(to, n));
    }
}

// What a reader checks before all else: without it the file is no model, whatever it holds.
void check(const ModelFile& in) {
    const char* const path = in.path().c_str();
    if (in.container != std::string_view("ggmf")) {
        throw Failure(RWKV_STATUS_FILE_FORMAT,
                      format("%s: expected a ggmf file, got a %s file", path, in.container));
    }
    if (in.data_type != RWKV_TYPE_FP32 && in.data_type != RWKV_TYPE_FP16) {
        throw Failure(
            RWKV_STATUS_TENSOR_TYPE,
            format("%s: type of the file, expected fp32 or fp16, got %s: quantising twice "
                   "loses more than once. Try the file that it was made from",
                   path, type_name(in.data_type)));
    }
    const Tensor* const emb = in.find("emb.weight");
    if (emb == nullptr) {
        throw Failure(RWKV_STATUS_TENSOR_MISSING,
                      format("%s: expected a tensor 'emb.weight', got %zu others", path,
                             in.tensors().size()));
    }
    if (emb->shape != std::vector<size_t>{in.n_vocab, in.n_embd}) {
        throw Failure(
            RWKV_STATUS_TENSOR_SHAPE,
            format("%s: tensor 'emb.weight', expected the header's shape (%zu, %zu), got %s", path,
                   in.n_vocab, in.n_embd, emb->shape_text().c_str()));
    }
}

}  // namespace

std::vector<std::string> quantize_file(const ModelFile& in, rwkv_type to, NewFile& out) {
    check(in);
    std::vector<std::string> left_out;
    std::vector<Placed> tensors;
    for (const Tensor& tensor : in.tensors()) {
        Placed placed;
        if (place(tensor, in.n_layer, &placed)) {
            tensors.push_back(placed);
        } else {
            left_out.push_back(tensor.name);
        }
    }
    std::sort(tensors.begin(), tensors.end(),
              [](const Placed& a, const Placed& b) { return a.place < b.place; });

    out.write(kGgmfMagic.data(), kGgmfMagic.size());
    write_numbers(out,
                  {kGgmfVersion, static_cast<int32_t>(in.n_vocab), static_cast<int32_t>(in.n_embd),
                   static_cast<int32_t>(in.n_layer), number_of(to)});
    for (const Placed& p : tensors) {
        write_tensor(in, *p.tensor, type_in_output(*p.tensor, *p.place.second, to), out);
    }
    out.finish();
    return left_out;
}

}  // namespace rwkv
