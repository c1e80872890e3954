// A file, or bytes in memory, to read from, by offset.
#pragma once

#include <cstddef>
#include <memory>
#include <string>

#include "os.h"

namespace rwkv {

// Read, not mapped: a mapping of a file that another process cuts short kills whoever
// looks at the missing part, while a read of it fails and can be told. Any number of threads may
// read at once.
class InputFile {
  public:
    // Fails with FILE_UNREADABLE.
    explicit InputFile(const std::string& path);

    // Bytes that stay valid as long as this: read like a file called "memory".
    InputFile(const void* bytes, size_t n_bytes)
        : path_("memory"), bytes_(static_cast<const char*>(bytes)), size_(n_bytes) {}

    const std::string& path() const noexcept { return path_; }

    bool is_memory() const noexcept { return bytes_ != nullptr; }

    // Bytes, when it was opened.
    size_t size() const noexcept { return size_; }

    // Reads n bytes from `offset` on. Fails with FILE_TRUNCATED if the file has fewer by now, and
    // with FILE_UNREADABLE.
    void read(size_t offset, size_t n, void* out) const;

  private:
    std::string path_;
    std::unique_ptr<os::ReadableFile> file_;
    const char* bytes_ = nullptr;
    size_t size_ = 0;
};

}  // namespace rwkv
