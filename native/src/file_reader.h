// A file's headers, value after value.
#pragma once

#include <cstddef>
#include <cstdint>
#include <cstring>
#include <string>
#include <vector>

#include "input_file.h"

namespace rwkv {

// Takes values from a file in order, never past its end. For headers: small reads are collected.
class FileReader {
  public:
    explicit FileReader(const InputFile& file) : file_(file) {}

    size_t at() const noexcept { return at_; }
    size_t left() const noexcept { return file_.size() - at_; }

    // The next n bytes, valid until the next call; n <= kMostBytes. `what` is for the message.
    static constexpr size_t kMostBytes = 4096;
    const uint8_t* take(size_t n, const std::string& what);
    template <class Number>
    Number take_number(const std::string& what) {
        Number value;  // the formats and every supported machine are little-endian
        std::memcpy(&value, take(sizeof value, what), sizeof value);
        return value;
    }
    int32_t take_i32(const std::string& what) { return take_number<int32_t>(what); }

    // The next n bytes, however many they are: more than the file has are refused before memory is
    // asked for.
    std::string take_bytes(size_t n, const std::string& what);

    // Passes n bytes over, which must be there.
    void skip(size_t n, const std::string& what);

  private:
    void require(size_t n, const std::string& what) const;

    const InputFile& file_;
    size_t at_ = 0;
    std::vector<uint8_t> window_;  // the bytes from window_begin_ on
    size_t window_begin_ = 0;
};

}  // namespace rwkv
