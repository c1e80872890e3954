// A header, keys with values, a table of tensors, then their data: docs/formats.md describes the
// layout, and the names that llama.cpp gives to RWKV's tensors.
#include "read_gguf.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <map>
#include <string>
#include <vector>

#include "block_types.h"
#include "compiler.h"
#include "file_reader.h"
#include "gguf_metadata.h"
#include "gguf_names.h"
#include "status.h"

namespace rwkv {

namespace {

constexpr const char* kCorrupt = "The file is corrupt, try to download it again";

constexpr size_t kMaxNameBytes = 1024;
constexpr uint64_t kMaxTensors = 100'000;
constexpr uint64_t kMaxFiles = 1000;

// ---- types

// ggml's numbers of types that we do not read.
constexpr struct {
    uint32_t number;
    const char* name;
} kRefused[] = {
    {9, "q8_1"},    {10, "q2_K"},    {11, "q3_K"},  {15, "q8_K"},  {16, "iq2_xxs"},
    {17, "iq2_xs"}, {18, "iq3_xxs"}, {19, "iq1_s"}, {21, "iq3_s"}, {22, "iq2_s"},
    {23, "iq4_xs"}, {24, "i8"},      {25, "i16"},   {26, "i32"},   {27, "i64"},
    {28, "f64"},    {29, "iq1_m"},   {34, "tq1_0"}, {35, "tq2_0"}, {39, "mxfp4"},
};

rwkv_type type_of(uint32_t number, const std::string& where) {
    const rwkv_type type =
        number <= INT32_MAX ? type_in_gguf(static_cast<int32_t>(number)) : RWKV_TYPE_COUNT;
    if (type != RWKV_TYPE_COUNT) return type;
    std::string known;
    for (int t = 0; t < RWKV_TYPE_COUNT; ++t) {
        known += (t == 0 ? "" : ", ") + std::string(type_name(static_cast<rwkv_type>(t)));
    }
    for (const auto& refused : kRefused) {
        if (refused.number != number) continue;
        throw Failure(RWKV_STATUS_TENSOR_TYPE,
                      format("%s: data type, expected one of %s, got %s. Try a file in another "
                             "type, such as Q4_K_M or Q8_0, or convert the checkpoint with "
                             "rwkv-convert",
                             where.c_str(), known.c_str(), refused.name));
    }
    throw Failure(RWKV_STATUS_FILE_FORMAT,
                  format("%s: data type, expected one of %s, got number %u. %s", where.c_str(),
                         known.c_str(), number, kCorrupt));
}

// ---- tokens

// A token as it is written in a file: the text of Python's repr() of its bytes, without quotes.
std::string unescaped(const std::string& text) {
    const auto digit = [](char c) {
        return c >= '0' && c <= '9'   ? c - '0'
               : c >= 'a' && c <= 'f' ? c - 'a' + 10
               : c >= 'A' && c <= 'F' ? c - 'A' + 10
                                      : -1;
    };
    std::string bytes;
    for (size_t i = 0; i < text.size(); ++i) {
        if (text[i] != '\\' || i + 1 == text.size()) {
            bytes += text[i];
            continue;
        }
        const char c = text[++i];
        if (c == 'x' && i + 2 < text.size() && digit(text[i + 1]) >= 0 && digit(text[i + 2]) >= 0) {
            bytes += static_cast<char>(digit(text[i + 1]) * 16 + digit(text[i + 2]));
            i += 2;
        } else {
            bytes += c == 'n' ? '\n' : c == 'r' ? '\r' : c == 't' ? '\t' : c;
        }
    }
    return bytes;
}

// What tokens stand for; empty if the file's list is of no use: another kind of tokenizer, or
// nothing but paddings, as in files that were made without a vocabulary.
std::vector<std::string> tokens_of(const GgufMetadata& metadata) {
    constexpr int32_t kNormal =
        1;  // others are control tokens and paddings, which stand for nothing
    if (metadata.text("tokenizer.ggml.model", "") != "rwkv") return {};
    std::vector<std::string> tokens(metadata.tokens.size());
    bool any = false;
    for (size_t i = 0; i < tokens.size(); ++i) {
        const int32_t type = i < metadata.token_types.size() ? metadata.token_types[i] : kNormal;
        if (type != kNormal || i == 0) continue;
        tokens[i] = unescaped(metadata.tokens[i]);
        any = any || !tokens[i].empty();
    }
    if (!any) tokens.clear();
    return tokens;
}

// How the name of one of a split model's files ends; `index` counts from 0.
std::string split_end(uint64_t index, uint64_t n_files) {
    const auto digits = [](uint64_t n) {
        const std::string text = std::to_string(n);
        return std::string(5 - std::min<size_t>(5, text.size()), '0') + text;
    };
    return "-" + digits(index + 1) + "-of-" + digits(n_files) + ".gguf";
}

// ---- the reader

class GgufReader {
  public:
    explicit GgufReader(ModelFile& file) : file_(file) {}

    void read() {
        const GgufMetadata metadata = read_file(0);
        const uint64_t n_files = metadata.number("split.count", 1);
        if (n_files > 1) {
            read_split(metadata, n_files);
        } else {
            take_notes(metadata);
        }
        finish();
    }

  private:
    struct Info {
        std::string name;
        Tensor tensor;
    };

    [[noreturn]] void fail(const std::string& what) const {
        throw Failure(RWKV_STATUS_FILE_FORMAT,
                      format("%s: %s. %s", path_.c_str(), what.c_str(), kCorrupt));
    }

    // Reads one of the model's files: its keys, and its tensors into infos_.
    GgufMetadata read_file(size_t index) {
        const InputFile& input = *file_.inputs()[index];
        path_ = input.path();
        FileReader reader(input);
        const std::string header = "the header";
        reader.skip(kGgufMagic.size(), header);
        const auto version = reader.take_number<uint32_t>(header);
        if (version != 2 && version != 3) {
            const bool swapped = version == 0x02000000 || version == 0x03000000;
            throw Failure(
                RWKV_STATUS_FILE_VERSION,
                format("%s: GGUF version, expected 2 or 3, got %s", path_.c_str(),
                       swapped ? "one of a big-endian machine" : std::to_string(version).c_str()));
        }
        const auto n_tensors = reader.take_number<uint64_t>(header);
        const auto n_pairs = reader.take_number<uint64_t>(header);
        if (n_tensors > kMaxTensors) {
            fail(format("the header, expected at most %llu tensors, got %llu",
                        static_cast<unsigned long long>(kMaxTensors),
                        static_cast<unsigned long long>(n_tensors)));
        }
        GgufMetadata metadata(reader, n_pairs, path_);
        const size_t first = infos_.size();
        for (uint64_t i = 0; i < n_tensors; ++i) read_info(reader, i, index);

        // Data begin at the next multiple of the alignment, and so does each tensor's.
        const uint64_t alignment = metadata.number("general.alignment", 32);
        if (alignment == 0 || alignment > (1u << 20) || (alignment & (alignment - 1)) != 0) {
            fail(format("key general.alignment, expected a power of 2 up to 2^20, got %llu",
                        static_cast<unsigned long long>(alignment)));
        }
        const size_t begin = (reader.at() + alignment - 1) / alignment * alignment;
        for (size_t i = first; i < infos_.size(); ++i) {
            Tensor& t = infos_[i].tensor;
            const size_t size = input.size();
            if (t.offset % alignment != 0) {
                fail(format("tensor '%s', expected data at a multiple of %llu, got %zu",
                            infos_[i].name.c_str(), static_cast<unsigned long long>(alignment),
                            t.offset));
            }
            if (begin > size || t.offset > size - begin || t.n_bytes > size - begin - t.offset) {
                throw Failure(RWKV_STATUS_FILE_TRUNCATED,
                              format("%s: truncated at tensor '%s', expected %zu bytes, got fewer. "
                                     "Try to download or convert it again",
                                     path_.c_str(), infos_[i].name.c_str(), t.n_bytes));
            }
            t.offset += begin;
        }
        return metadata;
    }

    void read_info(FileReader& reader, uint64_t number, size_t file) {
        const std::string header =
            format("the header of tensor %llu", static_cast<unsigned long long>(number));
        Info info;
        const auto n_bytes = reader.take_number<uint64_t>(header);
        if (n_bytes < 1 || n_bytes > kMaxNameBytes) {
            fail(format("%s, expected a name of 1 to %zu bytes, got %llu", header.c_str(),
                        kMaxNameBytes, static_cast<unsigned long long>(n_bytes)));
        }
        info.name = printable(reader.take_bytes(n_bytes, header));
        const std::string where = path_ + ": tensor '" + info.name + "'";
        const auto n_dims = reader.take_number<uint32_t>(header);
        if (n_dims < 1 || n_dims > 4) {
            fail(format("tensor '%s', expected 1 to 4 dimensions, got %u", info.name.c_str(),
                        n_dims));
        }
        Tensor& t = info.tensor;
        t.shape.resize(n_dims);
        uint64_t n = 1;
        bool sane = true;
        for (size_t i = n_dims; i-- > 0;) {  // the file's order is fastest first
            const auto d = reader.take_number<uint64_t>(header);
            sane = sane && d > 0 && multiply(n, d, &n);
            t.shape[i] = static_cast<size_t>(d);
        }
        if (!sane || n > SIZE_MAX / 8) {
            fail(format("tensor '%s', shape, expected a possible one, got %s", info.name.c_str(),
                        t.shape_text().c_str()));
        }
        t.type = type_of(reader.take_number<uint32_t>(header), where);
        if (!row_fits(t.type, t.shape.back())) {
            throw Failure(
                RWKV_STATUS_TENSOR_SHAPE,
                format("%s: rows of %s, expected a multiple of %zu values, got %zu", where.c_str(),
                       type_name(t.type), rwkv_block_values(t.type), t.shape.back()));
        }
        t.n_bytes = n / rwkv_block_values(t.type) * rwkv_block_bytes(t.type);
        t.offset = reader.take_number<uint64_t>(header);
        t.file = file;
        infos_.push_back(std::move(info));
    }

    // The other files of a model that is split: PREFIX-00001-of-00003.gguf and so on. The first has
    // the keys.
    void read_split(const GgufMetadata& named, uint64_t n_files) {
        if (file_.input().is_memory()) {
            throw Failure(RWKV_STATUS_FILE_FORMAT,
                          format("%s: expected all of a model, got one of its %llu files. Open it "
                                 "by the path of the file",
                                 file_.path().c_str(), static_cast<unsigned long long>(n_files)));
        }
        const uint64_t index = named.number("split.no", 0);
        const std::string end = split_end(index, n_files);
        const std::string path = file_.path();
        if (n_files > kMaxFiles || index >= n_files || path.size() < end.size() ||
            path.compare(path.size() - end.size(), end.size(), end) != 0) {
            throw Failure(
                RWKV_STATUS_FILE_FORMAT,
                format("%s: one of %llu files of a model, expected a name that ends in "
                       "%s, got another. Try the names that the files were published "
                       "with",
                       path.c_str(), static_cast<unsigned long long>(n_files), end.c_str()));
        }
        const std::string prefix = path.substr(0, path.size() - end.size());
        if (index == 0) take_notes(named);
        for (uint64_t i = 0; i < n_files; ++i) {
            if (i == index) continue;
            const std::string other = prefix + split_end(i, n_files);
            const InputFile& input = file_.open_next(other);
            char magic[4] = {};
            input.read(0, std::min(sizeof magic, input.size()), magic);
            if (std::string_view(magic, sizeof magic) != kGgufMagic) {
                path_ = other;
                fail("expected a GGUF file, got another");
            }
            const GgufMetadata metadata = read_file(file_.inputs().size() - 1);
            if (metadata.number("split.no", n_files) != i ||
                metadata.number("split.count", 0) != n_files) {
                fail("key split.no, expected that of a file named " + split_end(i, n_files) +
                     ", got another");
            }
            if (i == 0) take_notes(metadata);
        }
    }

    // What the keys say of the model.
    void take_notes(const GgufMetadata& metadata) {
        architecture_ = metadata.text("general.architecture", "");
        if (architecture_ != "rwkv7" && architecture_ != "rwkv6") {
            throw Failure(RWKV_STATUS_MODEL_VERSION,
                          format("%s: architecture, expected rwkv6 or rwkv7, got '%.40s'. Other "
                                 "models run in llama.cpp",
                                 path_.c_str(), printable(architecture_).c_str()));
        }
        const std::string prefix = architecture_ + ".";
        const auto number = [&](const char* key) {
            const uint64_t n = metadata.number(prefix + key, 0);
            if (n == 0 || n > INT32_MAX) {
                fail(format("key %s%s, expected a number above 0, got %llu", prefix.c_str(), key,
                            static_cast<unsigned long long>(n)));
            }
            return static_cast<size_t>(n);
        };
        file_.n_embd = number("embedding_length");
        file_.n_layer = number("block_count");
        head_size_ = number("wkv.head_size");
        if (file_.n_embd % head_size_ != 0) {
            fail(format("key %swkv.head_size, expected one that divides the width of %zu, got %zu",
                        prefix.c_str(), file_.n_embd, head_size_));
        }
        const double eps = metadata.real(prefix + "attention.layer_norm_epsilon", 1e-5);
        if (!(std::fabs(eps - 1e-5) < 1e-9)) {
            fail(format("key %sattention.layer_norm_epsilon, expected 1e-05, got %g",
                        prefix.c_str(), eps));
        }
        ModelNotes& notes = file_.notes;
        notes.name = metadata.text("general.name", "");
        notes.chat_template = metadata.text("tokenizer.chat_template", "");
        notes.tokens = tokens_of(metadata);
        notes.rescale_every = metadata.number(prefix + "rescale_every_n_layers", 0);
        const auto token = [&](const char* key) {
            const uint64_t t = metadata.number(key, UINT64_MAX);
            return t < metadata.tokens.size() ? static_cast<int32_t>(t) : -1;
        };
        notes.end_of_text = token("tokenizer.ggml.eos_token_id");
        notes.end_of_turn = token("tokenizer.ggml.eot_token_id");
        if (notes.end_of_turn < 0) notes.end_of_turn = token("tokenizer.ggml.eom_token_id");
    }

    // Gives the tensors the names and shapes that they have in a ggmf file.
    void finish() {
        file_.container = "gguf";
        path_ = file_.path();
        std::array<size_t, RWKV_TYPE_COUNT> bytes{};
        for (Info& info : infos_) {
            bytes[info.tensor.type] += info.tensor.shape.size() > 1 ? info.tensor.n_bytes : 0;
            add(info);
        }
        const auto most = std::max_element(bytes.begin(), bytes.end());
        file_.data_type = static_cast<rwkv_type>(most - bytes.begin());
        const Tensor* embedding = file_.find("emb.weight");
        if (embedding != nullptr) file_.n_vocab = embedding->shape.front();
        std::vector<std::string>& tokens = file_.notes.tokens;
        if (!tokens.empty() && tokens.size() != file_.n_vocab) {
            fail(format("key tokenizer.ggml.tokens, expected %zu tokens, got %zu", file_.n_vocab,
                        tokens.size()));
        }
    }

    void add(Info& info) {
        Tensor& t = info.tensor;
        if (const GgufName* top = find_top_name(info.name))
            return add_as(std::string(top->name), t);
        // "blk.N.REST"
        const std::string_view name = info.name;
        const size_t dot = name.find('.', 4);
        if (name.substr(0, 4) == "blk." && dot != std::string_view::npos) {
            const std::string block = "blocks." + std::string(name.substr(4, dot - 4)) + ".";
            const GgufName* row = find_layer_name(name.substr(dot + 1), architecture_ == "rwkv7");
            if (row != nullptr) return add_row(*row, block, info);
        }
        add_as(info.name, t);  // nobody reads it
    }

    void add_row(const GgufName& row, const std::string& block, Info& info) {
        Tensor& t = info.tensor;
        const size_t C = file_.n_embd;
        if (row.form == GgufForm::heads && t.n_elements() == C)
            t.shape = {C / head_size_, head_size_};
        if (row.form != GgufForm::fused) return add_as(block + std::string(row.name), t);
        if (t.n_elements() != 5 * C || rwkv_block_values(t.type) != 1) {
            throw Failure(RWKV_STATUS_TENSOR_SHAPE,
                          format("%s: tensor '%s', expected 5 rows of %zu numbers in fp32 or fp16, "
                                 "got %s in %s",
                                 path_.c_str(), info.name.c_str(), C, t.shape_text().c_str(),
                                 type_name(t.type)));
        }
        Tensor part = t;
        part.shape = {C};
        part.n_bytes = t.n_bytes / 5;
        for (const char mix : {'w', 'k', 'v', 'r', 'g'}) {
            add_as(block + std::string(row.name) + mix, part);
            part.offset += part.n_bytes;
        }
    }

    void add_as(const std::string& name, const Tensor& tensor) {
        Tensor named = tensor;
        named.name = name;
        file_.add(std::move(named));
    }

    ModelFile& file_;
    std::string path_;  // of the file being read
    std::string architecture_;
    size_t head_size_ = 0;
    std::vector<Info> infos_;
};

}  // namespace

void read_gguf(ModelFile& file) { GgufReader(file).read(); }

}  // namespace rwkv
