#include "input_file.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>

#include "status.h"

namespace rwkv {

namespace {

[[noreturn]] void fail(const std::string& path, const char* what, const char* got) {
    throw Failure(RWKV_STATUS_FILE_UNREADABLE, format("%s: %s: %s", path.c_str(), what, got));
}

}  // namespace

InputFile::InputFile(const std::string& path) : path_(path) {
    // O_NONBLOCK: opening a named pipe would wait for its writer; regular files do not care.
    file_ = ::open(path.c_str(), O_RDONLY | O_CLOEXEC | O_NONBLOCK);
    if (file_ < 0) fail(path, "cannot be opened", std::strerror(errno));
    struct stat info = {};
    const char* problem = nullptr;
    if (::fstat(file_, &info) != 0) {
        problem = std::strerror(errno);
    } else if (!S_ISREG(info.st_mode)) {
        problem = S_ISDIR(info.st_mode) ? "expected a file, got a folder"
                                        : "expected a regular file, got a device or a pipe";
    }
    if (problem != nullptr) {
        ::close(file_);  // the destructor of an object whose constructor throws does not run
        fail(path, "cannot be opened", problem);
    }
    size_ = static_cast<size_t>(info.st_size);
}

InputFile::~InputFile() {
    if (file_ >= 0) ::close(file_);
}

void InputFile::read(size_t offset, size_t n, void* out) const {
    if (is_memory()) {  // whose readers stay within its size, which does not change
        std::memcpy(out, bytes_ + offset, n);
        return;
    }
    // More than this at once is more than some systems read.
    constexpr size_t kMost = size_t{1} << 30;
    auto* p = static_cast<char*>(out);
    while (n > 0) {
        const ssize_t got = ::pread(file_, p, std::min(n, kMost), static_cast<off_t>(offset));
        if (got < 0 && errno == EINTR) continue;
        if (got < 0) fail(path_, "cannot be read", std::strerror(errno));
        if (got == 0) {
            throw Failure(RWKV_STATUS_FILE_TRUNCATED,
                          format("%s: became shorter while it was read, expected %zu bytes at "
                                 "offset %zu, got none. Try again when nothing writes to it",
                                 path_.c_str(), n, offset));
        }
        p += got;
        offset += static_cast<size_t>(got);
        n -= static_cast<size_t>(got);
    }
}

}  // namespace rwkv
