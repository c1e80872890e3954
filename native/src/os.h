// What the operating system does for the library. No other file of src/ knows which one it is, but
// for world_vocabulary.c, which writes assembly: os_posix.cpp has what Linux and macOS share,
// os_linux.cpp and os_macos.cpp what they do not, and os_windows.cpp all of it for Windows.
// CMakeLists.txt chooses.
#pragma once

#include <cstddef>
#include <cstdint>
#include <exception>
#include <memory>
#include <string>
#include <utility>

namespace rwkv::os {

// What the system would not do, in its words ("No such file or directory"), and what may help.
class Error : public std::exception {
  public:
    enum class Remedy { none, another_name, shorter_name, another_folder, room, close_it };
    Error(std::string text, Remedy remedy) : text_(std::move(text)), remedy_(remedy) {}
    const char* what() const noexcept override { return text_.c_str(); }
    Remedy remedy() const noexcept { return remedy_; }

  private:
    std::string text_;
    Remedy remedy_;
};

// ---- files. A path is UTF-8 on Windows, and whatever bytes it has elsewhere.

// A regular file to read from. Any number of threads may read at once.
class ReadableFile {
  public:
    explicit ReadableFile(const std::string& path);  // throws Error, and never waits for a pipe
    ~ReadableFile();
    ReadableFile(const ReadableFile&) = delete;
    ReadableFile& operator=(const ReadableFile&) = delete;

    // Bytes, when it was opened.
    size_t size() const noexcept { return size_; }

    // Reads up to n > 0 bytes from `offset` on; returns how many, 0 only at the end of the file.
    // Throws Error.
    size_t read(size_t offset, size_t n, void* out) const;

  private:
    intptr_t handle_;
    size_t size_ = 0;
};

// A file that has a temporary name, in the folder of the one that it will have, until it is
// complete; it goes with this object if it never is.
class UnfinishedFile {
  public:
    explicit UnfinishedFile(const std::string& path);  // throws Error, as the others do
    ~UnfinishedFile();
    UnfinishedFile(const UnfinishedFile&) = delete;
    UnfinishedFile& operator=(const UnfinishedFile&) = delete;

    void write(const void* bytes, size_t n);

    // Puts it on the disk, then in the place of what has its name.
    void finish();

  private:
    struct Parts;
    std::unique_ptr<Parts> parts_;
};

bool is_folder(const std::string& path) noexcept;

// ---- memory and processes

// Zeroed memory, aligned to 64 at least, in huge pages where the system has them; nullptr if it has
// no more.
void* allocate_pages(size_t n_bytes) noexcept;
void free_pages(void* pages, size_t n_bytes) noexcept;

// Of this process: another one in a child of fork(), where there is such a thing.
int64_t process_id() noexcept;

// The physical cores that this process may use, counted once however many hardware threads they
// have, and no more than its quota; 0 if the system does not tell.
size_t usable_cores();

// Instructions of which the processor itself does not tell programs whether they may be used.
enum class Instructions { x86_tiles, arm_dot_product };
bool may_use(Instructions which) noexcept;

}  // namespace rwkv::os
