// Any bytes as a model in several GGUF files: each begins at a "GGUF" of the input. The first byte
// chooses which of them is opened, and how many their names say there are.
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cstring>
#include <fstream>
#include <string>
#include <string_view>
#include <vector>

#include "gguf_parts.h"
#include "open_bytes.h"

namespace {

constexpr size_t kMostFiles = 4;

class Folder {
  public:
    Folder() : path_("/dev/shm/fuzz-split-XXXXXX") { REQUIRE(::mkdtemp(path_.data()) != nullptr); }
    ~Folder() { ::rmdir(path_.c_str()); }
    Folder(const Folder&) = delete;
    Folder& operator=(const Folder&) = delete;
    std::string file(size_t i, size_t n) const {
        return path_ + "/m-0000" + std::to_string(i + 1) + "-of-0000" + std::to_string(n) + ".gguf";
    }

  private:
    std::string path_;
};

}  // namespace

void run_input(const uint8_t* data, size_t size) {
    if (size == 0) return;
    static const Folder folder;
    const std::vector<std::string_view> parts =
        gguf_parts({reinterpret_cast<const char*>(data) + 1, size - 1}, kMostFiles);
    const size_t named =
        (data[0] & 4) != 0 ? 1 + data[0] / 8 % 9 : std::max<size_t>(parts.size(), 1);
    for (size_t i = 0; i < parts.size(); ++i) {
        std::ofstream(folder.file(i, named), std::ios::binary)
            .write(parts[i].data(), static_cast<std::streamsize>(parts[i].size()));
    }
    open_and_use(folder.file(data[0] % 4, named).c_str());
    for (size_t i = 0; i < parts.size(); ++i) ::unlink(folder.file(i, named).c_str());
}
