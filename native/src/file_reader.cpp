#include "file_reader.h"

#include <algorithm>
#include <cstring>

#include "status.h"

namespace rwkv {

void FileReader::require(size_t n, const std::string& what) const {
    if (left() >= n) return;
    throw Failure(RWKV_STATUS_FILE_TRUNCATED,
                  format("%s: truncated at %s, expected %zu bytes at offset %zu, got %zu. Try to "
                         "download or convert it again",
                         file_.path().c_str(), what.c_str(), n, at_, left()));
}

const uint8_t* FileReader::take(size_t n, const std::string& what) {
    require(n, what);
    const size_t in_window = at_ - window_begin_;
    if (at_ < window_begin_ || in_window + n > window_.size()) {
        window_.resize(std::min(kMostBytes, left()));
        file_.read(at_, window_.size(), window_.data());
        window_begin_ = at_;
    }
    const uint8_t* p = window_.data() + (at_ - window_begin_);
    at_ += n;
    return p;
}

int32_t FileReader::take_i32(const std::string& what) {
    int32_t value;  // the format and every supported machine are little-endian
    std::memcpy(&value, take(sizeof value, what), sizeof value);
    return value;
}

void FileReader::skip(size_t n, const std::string& what) {
    require(n, what);
    at_ += n;
}

}  // namespace rwkv
