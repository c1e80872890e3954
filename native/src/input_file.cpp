#include "input_file.h"

#include <cstring>

#include "status.h"

namespace rwkv {

namespace {

[[noreturn]] void fail(const std::string& path, const char* what, const os::Error& error) {
    throw Failure(RWKV_STATUS_FILE_UNREADABLE,
                  format("%s: %s: %s", path.c_str(), what, error.what()));
}

}  // namespace

InputFile::InputFile(const std::string& path) : path_(path) {
    try {
        file_ = std::make_unique<os::ReadableFile>(path);
    } catch (const os::Error& error) {
        fail(path, "cannot be opened", error);
    }
    size_ = file_->size();
}

void InputFile::read(size_t offset, size_t n, void* out) const {
    if (is_memory()) {  // whose readers stay within its size, which does not change
        std::memcpy(out, bytes_ + offset, n);
        return;
    }
    auto* p = static_cast<char*>(out);
    while (n > 0) {
        size_t got = 0;
        try {
            got = file_->read(offset, n, p);
        } catch (const os::Error& error) {
            fail(path_, "cannot be read", error);
        }
        if (got == 0) {
            throw Failure(RWKV_STATUS_FILE_TRUNCATED,
                          format("%s: became shorter while it was read, expected %zu bytes at "
                                 "offset %zu, got none. Try again when nothing writes to it",
                                 path_.c_str(), n, offset));
        }
        p += got;
        offset += got;
        n -= got;
    }
}

}  // namespace rwkv
