// A file as read-only memory.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>

namespace rwkv {

class MappedFile {
  public:
    // Fails with FILE_UNREADABLE.
    explicit MappedFile(const std::string& path);
    ~MappedFile();
    MappedFile(const MappedFile&) = delete;
    MappedFile& operator=(const MappedFile&) = delete;

    const uint8_t* data() const noexcept { return data_; }
    size_t size() const noexcept { return size_; }
    const std::string& path() const noexcept { return path_; }

  private:
    std::string path_;
    const uint8_t* data_ = nullptr;
    size_t size_ = 0;
};

}  // namespace rwkv
