#include "mapped_file.h"

#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>

#include "status.h"

namespace rwkv {

namespace {

[[noreturn]] void fail(const std::string& path, const char* what) {
    throw Failure(RWKV_STATUS_FILE_UNREADABLE,
                  format("%s: cannot be opened: %s.", path.c_str(), what));
}

}  // namespace

MappedFile::MappedFile(const std::string& path) : path_(path) {
    // O_NONBLOCK: opening a named pipe would wait for its writer; regular files do not care.
    const int file = ::open(path.c_str(), O_RDONLY | O_CLOEXEC | O_NONBLOCK);
    if (file < 0) fail(path, std::strerror(errno));
    struct stat info = {};
    if (::fstat(file, &info) != 0) {
        const int error = errno;
        ::close(file);
        fail(path, std::strerror(error));
    }
    if (!S_ISREG(info.st_mode)) {
        ::close(file);
        fail(path, S_ISDIR(info.st_mode) ? "it is a folder, expected a file"
                                         : "it is not a regular file");
    }
    size_ = static_cast<size_t>(info.st_size);
    if (size_ > 0) {  // an empty file cannot be mapped, and needs no bytes
        void* mapped = ::mmap(nullptr, size_, PROT_READ, MAP_PRIVATE, file, 0);
        if (mapped == MAP_FAILED) {
            const int error = errno;
            ::close(file);
            fail(path, std::strerror(error));
        }
        data_ = static_cast<const uint8_t*>(mapped);
    }
    ::close(file);
}

MappedFile::~MappedFile() {
    if (data_ != nullptr) ::munmap(const_cast<uint8_t*>(data_), size_);
}

}  // namespace rwkv
