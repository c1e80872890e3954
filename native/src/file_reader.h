// A file's headers, value after value.
#pragma once

#include <cstddef>
#include <cstdint>
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
    int32_t take_i32(const std::string& what);

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
