// A file that appears under its name when it is complete, and else leaves nothing.
#pragma once

#include <cstddef>
#include <memory>
#include <string>

#include "os.h"

namespace rwkv {

class NewFile {
  public:
    // Fails with FILE_UNWRITABLE, like the others.
    explicit NewFile(const std::string& path);

    void write(const void* bytes, size_t n);

    // Puts it in the place of what had its name before.
    void finish();

  private:
    const std::string path_;
    std::unique_ptr<os::UnfinishedFile> file_;
};

}  // namespace rwkv
