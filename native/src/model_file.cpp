#include "model_file.h"

#include <cstring>

#include "block_types.h"
#include "status.h"

namespace rwkv {

namespace {

constexpr int32_t kMagic = 0x67676d66;  // "ggmf"
constexpr size_t kMaxNameBytes = 1024;

// ggmf's numbers for types: our types, or the name of one we do not read.
struct FileType {
    int32_t number;
    rwkv_type type;       // RWKV_TYPE_COUNT: not readable
    const char* refused;  // then its name
};

constexpr FileType kFileTypes[] = {
    {0, RWKV_TYPE_FP32, nullptr},
    {1, RWKV_TYPE_FP16, nullptr},
    {2, RWKV_TYPE_Q4_0, nullptr},
    {3, RWKV_TYPE_Q4_1, nullptr},
    {4, RWKV_TYPE_COUNT, "q4_1_o (retired)"},
    {5, RWKV_TYPE_COUNT, "q4_2 (retired)"},
    {6, RWKV_TYPE_COUNT, "q4_3 (retired)"},
    {7, RWKV_TYPE_Q5_0, nullptr},
    {8, RWKV_TYPE_Q5_1, nullptr},
    {9, RWKV_TYPE_Q8_0, nullptr},
    {10, RWKV_TYPE_COUNT, "q8_1"},
    {11, RWKV_TYPE_COUNT, "q2_K"},
    {12, RWKV_TYPE_COUNT, "q3_K"},
    {13, RWKV_TYPE_COUNT, "q4_K"},
    {14, RWKV_TYPE_COUNT, "q5_K"},
    {15, RWKV_TYPE_COUNT, "q6_K"},
    {16, RWKV_TYPE_COUNT, "q8_K"},
};

rwkv_type type_of(int32_t number, const std::string& where) {
    for (const FileType& t : kFileTypes) {
        if (t.number != number) continue;
        if (t.type != RWKV_TYPE_COUNT) return t.type;
        throw Failure(RWKV_STATUS_TENSOR_TYPE,
                      format("%s: data type %s is not supported; expected one of fp32, fp16, q4_0, "
                             "q4_1, q5_0, q5_1, q8_0. Convert the original checkpoint again with "
                             "rwkv-convert.",
                             where.c_str(), t.refused));
    }
    throw Failure(RWKV_STATUS_FILE_FORMAT,
                  format("%s: unknown data type %d; the file is corrupt.", where.c_str(), number));
}

bool multiply(size_t a, size_t b, size_t* product) {
    return !__builtin_mul_overflow(a, b, product);
}

}  // namespace

// Takes values from the file in order; never reads past its end.
class ByteReader {
  public:
    explicit ByteReader(const MappedFile& file)
        : path_(file.path()), begin_(file.data()), size_(file.size()) {}

    size_t left() const noexcept { return size_ - at_; }

    const uint8_t* take(size_t n, const std::string& what) {
        if (left() < n) {
            throw Failure(
                RWKV_STATUS_FILE_TRUNCATED,
                format("%s: truncated: %s needs %zu bytes at offset %zu, %zu are left. Download "
                       "or convert the model again.",
                       path_.c_str(), what.c_str(), n, at_, left()));
        }
        const uint8_t* p = begin_ + at_;
        at_ += n;
        return p;
    }

    int32_t take_i32(const std::string& what) {
        int32_t value;  // the format and every supported machine are little-endian
        std::memcpy(&value, take(sizeof value, what), sizeof value);
        return value;
    }

  private:
    const std::string& path_;
    const uint8_t* begin_;
    size_t size_;
    size_t at_ = 0;
};

size_t Tensor::n_elements() const noexcept {
    size_t n = 1;
    for (const size_t d : shape) n *= d;  // cannot overflow: checked when the tensor was read
    return n;
}

std::string Tensor::shape_text() const {
    std::string text = "(";
    for (size_t i = 0; i < shape.size(); ++i) {
        text += (i == 0 ? "" : ", ") + std::to_string(shape[i]);
    }
    return text + ")";
}

ModelFile::ModelFile(const std::string& path) : file_(path) {
    ByteReader reader(file_);
    read_header(reader);
}

const Tensor* ModelFile::find(const std::string& name) const noexcept {
    const auto found = by_name_.find(name);
    return found == by_name_.end() ? nullptr : &tensors_[found->second];
}

void ModelFile::read_header(ByteReader& reader) {
    const char* name = path().c_str();
    if (size() < 4 || reader.take_i32("the magic number") != kMagic) {
        throw Failure(RWKV_STATUS_FILE_FORMAT,
                      format("%s: not a ggmf model file (it does not begin with the magic number "
                             "0x67676d66). A checkpoint (.pth, .safetensors) is converted with: "
                             "rwkv-convert IN OUT.bin",
                             name));
    }
    const int32_t version = reader.take_i32("the header");
    if (version != 100 && version != 101) {
        throw Failure(RWKV_STATUS_FILE_VERSION,
                      format("%s: ggmf version %d, expected 100 or 101.", name, version));
    }
    const int32_t n_vocab = reader.take_i32("the header");
    const int32_t n_embd = reader.take_i32("the header");
    const int32_t n_layer = reader.take_i32("the header");
    const int32_t data_type = reader.take_i32("the header");
    if (n_vocab <= 0 || n_embd <= 0 || n_layer <= 0) {
        throw Failure(RWKV_STATUS_FILE_FORMAT,
                      format("%s: the header says n_vocab %d, n_embed %d, n_layer %d, expected "
                             "positive numbers; the file is corrupt.",
                             name, n_vocab, n_embd, n_layer));
    }
    n_vocab_ = static_cast<size_t>(n_vocab);
    n_embd_ = static_cast<size_t>(n_embd);
    n_layer_ = static_cast<size_t>(n_layer);
    data_type_ = type_of(data_type, path() + ": header");
    while (reader.left() > 0) read_tensor(reader, version);
}

void ModelFile::read_tensor(ByteReader& reader, int32_t version) {
    const char* path_text = path().c_str();
    const std::string header = format("the header of tensor %zu", tensors_.size());
    const int32_t dim_count = reader.take_i32(header);
    const int32_t name_bytes = reader.take_i32(header);
    const int32_t data_type = reader.take_i32(header);
    if (dim_count < 1 || dim_count > 3 || name_bytes < 1 ||
        static_cast<size_t>(name_bytes) > kMaxNameBytes) {
        throw Failure(RWKV_STATUS_FILE_FORMAT,
                      format("%s: %s says %d dimensions and a name of %d bytes, expected 1 to 3 "
                             "and 1 to %zu; the file is corrupt.",
                             path_text, header.c_str(), dim_count, name_bytes, kMaxNameBytes));
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
    tensor.name.assign(reinterpret_cast<const char*>(name), static_cast<size_t>(name_bytes));
    for (char& c : tensor.name) {
        if (c < 0x20 || c > 0x7e) c = '?';  // names are ASCII; keep messages printable
    }
    const std::string where = path() + ": tensor '" + tensor.name + "'";
    if (!sane || n > SIZE_MAX / 8) {
        throw Failure(RWKV_STATUS_FILE_FORMAT,
                      format("%s has the impossible shape %s; the file is corrupt.", where.c_str(),
                             tensor.shape_text().c_str()));
    }
    tensor.type = type_of(data_type, where);
    const bool quantised = tensor.type != RWKV_TYPE_FP32 && tensor.type != RWKV_TYPE_FP16;
    if (version == 100 && quantised) {
        throw Failure(
            RWKV_STATUS_FILE_VERSION,
            format("%s is %s in a file of version 100, whose quantised blocks had another "
                   "layout. Convert the original checkpoint again with rwkv-convert.",
                   where.c_str(), type_name(tensor.type)));
    }
    if (!row_fits(tensor.type, tensor.shape.back())) {
        throw Failure(RWKV_STATUS_TENSOR_SHAPE,
                      format("%s has rows of %zu values, expected a multiple of 32 for type %s.",
                             where.c_str(), tensor.shape.back(), type_name(tensor.type)));
    }
    tensor.n_bytes = n / rwkv_block_values(tensor.type) * rwkv_block_bytes(tensor.type);
    tensor.data = reader.take(tensor.n_bytes, "tensor '" + tensor.name + "'");
    if (!by_name_.emplace(tensor.name, tensors_.size()).second) {
        throw Failure(RWKV_STATUS_FILE_FORMAT,
                      format("%s appears twice; the file is corrupt.", where.c_str()));
    }
    tensors_.push_back(std::move(tensor));
}

}  // namespace rwkv
