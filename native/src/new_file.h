// A file that appears under its name when it is complete, and else leaves nothing.
#pragma once

#include <cstddef>
#include <string>

namespace rwkv {

class NewFile {
  public:
    // Fails with FILE_UNWRITABLE, like the others.
    explicit NewFile(const std::string& path);
    ~NewFile();
    NewFile(const NewFile&) = delete;
    NewFile& operator=(const NewFile&) = delete;

    void write(const void* bytes, size_t n);

    // Puts it in the place of what had its name before.
    void finish();

  private:
    [[noreturn]] void fail(int error) const;

    const std::string path_;
    std::string name_;       // the last part of the path
    std::string temporary_;  // the name until it is complete, in the same folder
    int folder_ = -1;
    int file_ = -1;
};

}  // namespace rwkv
