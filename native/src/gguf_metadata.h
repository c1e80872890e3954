// The keys and values of a GGUF file, of which few are kept.
#pragma once

#include <cstddef>
#include <cstdint>
#include <map>
#include <string>
#include <vector>

#include "file_reader.h"

namespace rwkv {

class GgufMetadata {
  public:
    // Reads n pairs. Fails with FILE_TRUNCATED and FILE_FORMAT.
    GgufMetadata(FileReader& reader, uint64_t n, const std::string& path);

    // The value of a key, or `missing`; fails with FILE_FORMAT if it is of another kind, or if a
    // number is negative or no whole one.
    std::string text(const std::string& key, const std::string& missing) const;
    uint64_t number(const std::string& key, uint64_t missing) const;
    double real(const std::string& key, double missing) const;
    bool has(const std::string& key) const { return values_.count(key) != 0; }

    // The values of the arrays that are kept, empty where the file has none: tokenizer.ggml.tokens,
    // tokenizer.ggml.token_type.
    std::vector<std::string> tokens;
    std::vector<int32_t> token_types;

  private:
    struct Value {
        enum class Kind { whole, real, text, other } kind = Kind::other;
        uint64_t whole = 0;
        double number = 0;
        std::string text;
    };

    std::string take_string(FileReader& reader, const std::string& what) const;
    Value take_value(FileReader& reader, uint32_t type, const std::string& key);
    void take_array(FileReader& reader, const std::string& key);
    [[noreturn]] void fail(const std::string& key, const std::string& what) const;

    const std::string path_;
    std::map<std::string, Value> values_;
};

}  // namespace rwkv
