// A file to read from, by offset.
#pragma once

#include <cstddef>
#include <string>

namespace rwkv {

// Read with pread, not mapped: a mapping of a file that another process cuts short kills whoever
// looks at the missing part, while a read of it fails and can be told. Any number of threads may
// read at once.
class InputFile {
  public:
    // Fails with FILE_UNREADABLE.
    explicit InputFile(const std::string& path);
    ~InputFile();
    InputFile(const InputFile&) = delete;
    InputFile& operator=(const InputFile&) = delete;

    const std::string& path() const noexcept { return path_; }

    // Bytes, when it was opened.
    size_t size() const noexcept { return size_; }

    // Reads n bytes from `offset` on. Fails with FILE_TRUNCATED if the file has fewer by now, and
    // with FILE_UNREADABLE.
    void read(size_t offset, size_t n, void* out) const;

  private:
    std::string path_;
    int file_;
    size_t size_ = 0;
};

}  // namespace rwkv
