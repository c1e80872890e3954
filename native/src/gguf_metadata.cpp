#include "gguf_metadata.h"

#include <cmath>
#include <utility>

#include "status.h"

namespace rwkv {

namespace {

// GGUF's numbers for types of values.
enum GgufType : uint32_t {
    kU8,
    kI8,
    kU16,
    kI16,
    kU32,
    kI32,
    kF32,
    kBool,
    kString,
    kArray,
    kU64,
    kI64,
    kF64
};

// Bytes of a value; 0 for those whose size is in the file, and for unknown types.
size_t bytes_of(uint32_t type) {
    switch (type) {
        case kU8:
        case kI8:
        case kBool:
            return 1;
        case kU16:
        case kI16:
            return 2;
        case kU32:
        case kI32:
        case kF32:
            return 4;
        case kU64:
        case kI64:
        case kF64:
            return 8;
        default:
            return 0;
    }
}

// Bounds on what a file may ask for: above any real one, below what would hurt.
constexpr uint64_t kMaxPairs = 65'536;
constexpr uint64_t kMaxKeyBytes = 65'535;
constexpr uint64_t kMaxTextBytes = uint64_t{16} << 20;
constexpr uint64_t kMaxTokens = uint64_t{1} << 20;
constexpr uint64_t kMaxTokenBytes = 4096;

}  // namespace

GgufMetadata::GgufMetadata(FileReader& reader, uint64_t n, const std::string& path) : path_(path) {
    if (n > kMaxPairs) {
        throw Failure(RWKV_STATUS_FILE_FORMAT,
                      format("%s: the header, expected at most %llu keys, got %llu. The file is "
                             "corrupt, try to download it again",
                             path.c_str(), static_cast<unsigned long long>(kMaxPairs),
                             static_cast<unsigned long long>(n)));
    }
    for (uint64_t i = 0; i < n; ++i) {
        const std::string what = format("key %llu", static_cast<unsigned long long>(i));
        const auto n_bytes = reader.take_number<uint64_t>(what);
        if (n_bytes > kMaxKeyBytes) fail(what, "expected a name of at most 65535 bytes");
        const std::string key = printable(reader.take_bytes(n_bytes, what));
        const auto type = reader.take_number<uint32_t>("key " + key);
        if (type == kArray) {
            take_array(reader, key);
        } else {
            Value value = take_value(reader, type, key);
            if (!values_.emplace(key, std::move(value)).second)
                fail(key, "expected once, got twice");
        }
    }
}

std::string GgufMetadata::take_string(FileReader& reader, const std::string& what) const {
    const auto n = reader.take_number<uint64_t>(what);
    if (n > kMaxTextBytes) fail(what, "expected a text of at most 16 MiB");
    return reader.take_bytes(n, what);
}

GgufMetadata::Value GgufMetadata::take_value(FileReader& reader, uint32_t type,
                                             const std::string& key) {
    const std::string what = "key " + key;
    Value value;
    const auto whole = [&](auto number) {
        value.kind = number >= 0 ? Value::Kind::whole : Value::Kind::other;
        value.whole = static_cast<uint64_t>(number);
        value.number = static_cast<double>(number);
    };
    const auto real = [&](double number) {
        value.kind = Value::Kind::real;
        value.number = number;
    };
    switch (type) {
        case kU8:
        case kBool:
            whole(reader.take_number<uint8_t>(what));
            break;
        case kI8:
            whole(reader.take_number<int8_t>(what));
            break;
        case kU16:
            whole(reader.take_number<uint16_t>(what));
            break;
        case kI16:
            whole(reader.take_number<int16_t>(what));
            break;
        case kU32:
            whole(reader.take_number<uint32_t>(what));
            break;
        case kI32:
            whole(reader.take_number<int32_t>(what));
            break;
        case kU64:
            whole(reader.take_number<uint64_t>(what));
            break;
        case kI64:
            whole(reader.take_number<int64_t>(what));
            break;
        case kF32:
            real(static_cast<double>(reader.take_number<float>(what)));
            break;
        case kF64:
            real(reader.take_number<double>(what));
            break;
        case kString:
            value.kind = Value::Kind::text;
            value.text = take_string(reader, what);
            break;
        default:
            fail(key, format("expected a value of a known type, got type %u", type));
    }
    return value;
}

// Arrays of arrays do not occur and are refused: their depth would be the file's to choose.
void GgufMetadata::take_array(FileReader& reader, const std::string& key) {
    const std::string what = "key " + key;
    const auto type = reader.take_number<uint32_t>(what);
    const auto n = reader.take_number<uint64_t>(what);
    const bool is_tokens = key == "tokenizer.ggml.tokens";
    const bool is_types = key == "tokenizer.ggml.token_type";
    if ((is_tokens && !tokens.empty()) || (is_types && !token_types.empty())) {
        fail(key, "expected once, got twice");
    }
    if ((is_tokens && type != kString) || (is_types && type != kI32)) {
        fail(key, format("expected an array of another type, got type %u", type));
    }
    if ((is_tokens || is_types) && n > kMaxTokens) {
        fail(key, format("expected at most %llu tokens, got %llu",
                         static_cast<unsigned long long>(kMaxTokens),
                         static_cast<unsigned long long>(n)));
    }
    if (type == kString) {
        for (uint64_t i = 0; i < n; ++i) {
            const auto n_bytes = reader.take_number<uint64_t>(what);
            if (!is_tokens) {
                reader.skip(n_bytes, what);
                continue;
            }
            if (n_bytes > kMaxTokenBytes) fail(key, "expected tokens of at most 4096 bytes");
            tokens.push_back(reader.take_bytes(n_bytes, what));
        }
        return;
    }
    const size_t each = bytes_of(type);
    if (each == 0) fail(key, format("expected an array of a known type, got type %u", type));
    if (is_types) {
        for (uint64_t i = 0; i < n; ++i) token_types.push_back(reader.take_number<int32_t>(what));
        return;
    }
    if (n > reader.left() / each) fail(key, "expected an array that fits into the file");
    reader.skip(n * each, what);
}

std::string GgufMetadata::text(const std::string& key, const std::string& missing) const {
    const auto found = values_.find(key);
    if (found == values_.end()) return missing;
    if (found->second.kind != Value::Kind::text) fail(key, "expected a text, got a number");
    return found->second.text;
}

uint64_t GgufMetadata::number(const std::string& key, uint64_t missing) const {
    const auto found = values_.find(key);
    if (found == values_.end()) return missing;
    if (found->second.kind != Value::Kind::whole) {
        fail(key, "expected a whole number, 0 or more, got another value");
    }
    return found->second.whole;
}

double GgufMetadata::real(const std::string& key, double missing) const {
    const auto found = values_.find(key);
    if (found == values_.end()) return missing;
    if (found->second.kind == Value::Kind::text) fail(key, "expected a number, got a text");
    return found->second.number;
}

void GgufMetadata::fail(const std::string& key, const std::string& what) const {
    throw Failure(RWKV_STATUS_FILE_FORMAT,
                  format("%s: key %s, %s. The file is corrupt, try to download it again",
                         path_.c_str(), key.c_str(), what.c_str()));
}

}  // namespace rwkv
