// A header of six numbers, then tensors one after another: docs/formats.md describes the layout.
#include "read_ggmf.h"

#include "block_types.h"
#include "compiler.h"
#include "file_reader.h"
#include "status.h"

namespace rwkv {

namespace {

constexpr size_t kMaxNameBytes = 1024;

// Types that ggmf has numbers for and that are not read from it.
constexpr struct {
    int32_t number;
    const char* name;
} kRefused[] = {
    {4, "q4_1_o (retired)"},
    {5, "q4_2 (retired)"},
    {6, "q4_3 (retired)"},
    {10, "q8_1"},
    {11, "q2_K"},
    {12, "q3_K"},
    {13, "q4_K"},
    {14, "q5_K"},
    {15, "q6_K"},
    {16, "q8_K"},
};

constexpr const char* kCorrupt = "The file is corrupt, try to download it again";

rwkv_type type_of(int32_t number, const std::string& where) {
    const rwkv_type type = type_in_ggmf(number);
    if (type != RWKV_TYPE_COUNT) return type;
    for (const auto& refused : kRefused) {
        if (refused.number != number) continue;
        throw Failure(RWKV_STATUS_TENSOR_TYPE,
                      format("%s: data type, expected one of fp32, fp16, q4_0, q4_1, q5_0, q5_1, "
                             "q8_0, got %s. Convert the original checkpoint again with "
                             "rwkv-convert",
                             where.c_str(), refused.name));
    }
    throw Failure(RWKV_STATUS_FILE_FORMAT, format("%s: data type, expected 0 to 16, got %d. %s",
                                                  where.c_str(), number, kCorrupt));
}

Tensor read_tensor(const ModelFile& file, FileReader& reader, int32_t version) {
    const char* path = file.path().c_str();
    const std::string header = format("the header of tensor %zu", file.tensors().size());
    const int32_t dim_count = reader.take_i32(header);
    const int32_t name_bytes = reader.take_i32(header);
    const int32_t data_type = reader.take_i32(header);
    if (dim_count < 1 || dim_count > 3) {
        throw Failure(RWKV_STATUS_FILE_FORMAT,
                      format("%s: %s, expected 1 to 3 dimensions, got %d. %s", path, header.c_str(),
                             dim_count, kCorrupt));
    }
    if (name_bytes < 1 || static_cast<size_t>(name_bytes) > kMaxNameBytes) {
        throw Failure(RWKV_STATUS_FILE_FORMAT,
                      format("%s: %s, expected a name of 1 to %zu bytes, got %d. %s", path,
                             header.c_str(), kMaxNameBytes, name_bytes, kCorrupt));
    }
    Tensor tensor;
    tensor.shape.resize(static_cast<size_t>(dim_count));
    size_t n = 1;
    bool sane = true;
    for (size_t i = tensor.shape.size(); i-- > 0;) {  // the file's order is fastest first
        const int32_t d = reader.take_i32(header);
        sane = sane && d > 0 && multiply(n, static_cast<size_t>(d > 0 ? d : 1), &n);
        tensor.shape[i] = static_cast<size_t>(d > 0 ? d : 0);
    }
    const uint8_t* name = reader.take(static_cast<size_t>(name_bytes), header);
    tensor.name = printable(
        std::string(reinterpret_cast<const char*>(name), static_cast<size_t>(name_bytes)));
    const std::string where = file.path() + ": tensor '" + tensor.name + "'";
    if (!sane || n > SIZE_MAX / 8) {
        throw Failure(RWKV_STATUS_FILE_FORMAT,
                      format("%s: shape, expected a possible one, got %s. %s", where.c_str(),
                             tensor.shape_text().c_str(), kCorrupt));
    }
    tensor.type = type_of(data_type, where);
    if (version == 100 && rwkv_is_quantised(tensor.type)) {
        throw Failure(RWKV_STATUS_FILE_VERSION,
                      format("%s: %s in a file of ggmf version 100, whose quantised blocks had "
                             "another layout. Convert the original checkpoint again with "
                             "rwkv-convert",
                             where.c_str(), type_name(tensor.type)));
    }
    if (!row_fits(tensor.type, tensor.shape.back())) {
        throw Failure(
            RWKV_STATUS_TENSOR_SHAPE,
            format("%s: rows of %s, expected a multiple of %zu values, got %zu", where.c_str(),
                   type_name(tensor.type), rwkv_block_values(tensor.type), tensor.shape.back()));
    }
    tensor.n_bytes = n / rwkv_block_values(tensor.type) * rwkv_block_bytes(tensor.type);
    tensor.offset = reader.at();
    reader.skip(tensor.n_bytes, "tensor '" + tensor.name + "'");
    return tensor;
}

}  // namespace

void read_ggmf(ModelFile& file) {
    const char* path = file.path().c_str();
    file.container = "ggmf";
    FileReader reader(file.input());
    const std::string header = "the header";
    reader.take_i32(header);  // the magic number
    const int32_t version = reader.take_i32(header);
    if (version != 100 && version != kGgmfVersion) {
        throw Failure(
            RWKV_STATUS_FILE_VERSION,
            format("%s: ggmf version, expected 100 or %d, got %d", path, kGgmfVersion, version));
    }
    const int32_t n_vocab = reader.take_i32(header);
    const int32_t n_embd = reader.take_i32(header);
    const int32_t n_layer = reader.take_i32(header);
    const int32_t data_type = reader.take_i32(header);
    if (n_vocab <= 0 || n_embd <= 0 || n_layer <= 0) {
        throw Failure(RWKV_STATUS_FILE_FORMAT,
                      format("%s: the header, expected numbers above 0, got n_vocab %d, n_embed "
                             "%d, n_layer %d. %s",
                             path, n_vocab, n_embd, n_layer, kCorrupt));
    }
    file.n_vocab = static_cast<size_t>(n_vocab);
    file.n_embd = static_cast<size_t>(n_embd);
    file.n_layer = static_cast<size_t>(n_layer);
    file.data_type = type_of(data_type, file.path() + ": the header");
    while (reader.left() > 0) file.add(read_tensor(file, reader, version));
}

}  // namespace rwkv
