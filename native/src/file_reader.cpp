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

std::string FileReader::take_bytes(size_t n, const std::string& what) {
    require(n, what);
    std::string bytes(n, '\0');
    for (size_t done = 0; done < n;) {
        const size_t part = std::min(n - done, kMostBytes);
        std::memcpy(bytes.data() + done, take(part, what), part);
        done += part;
    }
    return bytes;
}

void FileReader::skip(size_t n, const std::string& what) {
    require(n, what);
    at_ += n;
}

}  // namespace rwkv
