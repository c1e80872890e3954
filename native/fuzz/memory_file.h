// Bytes under a path, without a disk.
#pragma once

#include <sys/mman.h>
#include <unistd.h>

#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <string>

class MemoryFile {
  public:
    MemoryFile(const uint8_t* bytes, size_t n) : file_(::memfd_create("fuzz", MFD_CLOEXEC)) {
        size_t done = 0;
        while (file_ >= 0 && done < n) {
            const ssize_t written = ::write(file_, bytes + done, n - done);
            if (written <= 0) std::abort();
            done += static_cast<size_t>(written);
        }
        if (file_ < 0) std::abort();
        path_ = "/proc/self/fd/" + std::to_string(file_);
    }
    ~MemoryFile() { ::close(file_); }
    MemoryFile(const MemoryFile&) = delete;
    MemoryFile& operator=(const MemoryFile&) = delete;

    const char* path() const { return path_.c_str(); }

  private:
    int file_;
    std::string path_;
};
