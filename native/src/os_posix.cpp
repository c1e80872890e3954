#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <cerrno>
#include <cstdlib>
#include <cstring>

#include "os.h"
#include "status.h"

namespace rwkv::os {

namespace {

[[noreturn]] void fail(int error) {
    using Remedy = Error::Remedy;
    auto remedy = Remedy::none;
    switch (error) {
        case ENAMETOOLONG:
            remedy = Remedy::shorter_name;
            break;
        case ENOSPC:
        case EDQUOT:
            remedy = Remedy::room;
            break;
        case EACCES:
        case ENOENT:
        case ENOTDIR:
        case EPERM:
        case EROFS:
            remedy = Remedy::another_folder;
            break;
        default:
            break;
    }
    throw Error(std::strerror(error), remedy);
}

// Where a link leads, so that it is kept and what it names is replaced.
std::string followed(const std::string& path) {
    struct stat info = {};
    if (::lstat(path.c_str(), &info) != 0 || !S_ISLNK(info.st_mode)) return path;
    const std::unique_ptr<char, decltype(&std::free)> real(::realpath(path.c_str(), nullptr),
                                                           &std::free);
    return real == nullptr ? path : real.get();  // a link to nothing is replaced itself
}

// More than this at once is more than some systems read or write.
constexpr size_t kMostBytes = size_t{1} << 30;

}  // namespace

// O_NONBLOCK: opening a named pipe would wait for its writer; regular files do not care.
ReadableFile::ReadableFile(const std::string& path)
    : handle_(::open(path.c_str(), O_RDONLY | O_CLOEXEC | O_NONBLOCK)) {
    if (handle_ < 0) fail(errno);
    const int file = static_cast<int>(handle_);
    struct stat info = {};
    const int error = ::fstat(file, &info) == 0 ? 0 : errno;
    if (error == 0 && S_ISREG(info.st_mode)) {
        size_ = static_cast<size_t>(info.st_size);
        return;
    }
    ::close(file);  // the destructor of an object whose constructor throws does not run
    if (error != 0) fail(error);
    throw Error(S_ISDIR(info.st_mode) ? "expected a file, got a folder"
                                      : "expected a regular file, got a device or a pipe",
                Error::Remedy::another_name);
}

ReadableFile::~ReadableFile() { ::close(static_cast<int>(handle_)); }

size_t ReadableFile::read(size_t offset, size_t n, void* out) const {
    for (;;) {
        const ssize_t got = ::pread(static_cast<int>(handle_), out, std::min(n, kMostBytes),
                                    static_cast<off_t>(offset));
        if (got >= 0) return static_cast<size_t>(got);
        if (errno != EINTR) fail(errno);
    }
}

struct UnfinishedFile::Parts {
    int folder = -1;
    int file = -1;
    std::string temporary;  // both are names in the folder
    std::string name;

    ~Parts() {
        if (file >= 0) ::close(file);
        if (!temporary.empty()) ::unlinkat(folder, temporary.c_str(), 0);
        if (folder >= 0) ::close(folder);
    }
};

UnfinishedFile::UnfinishedFile(const std::string& path) : parts_(std::make_unique<Parts>()) {
    const std::string target = followed(path);
    const size_t slash = target.rfind('/');
    parts_->name = slash == std::string::npos ? target : target.substr(slash + 1);
    const std::string folder = slash == std::string::npos ? "." : target.substr(0, slash + 1);
    if (parts_->name.empty()) fail(target.empty() ? ENOENT : EISDIR);
    // What takes the name of a device takes its place, for all programs.
    struct stat info = {};
    if (::stat(target.c_str(), &info) == 0 && !S_ISREG(info.st_mode)) {
        throw Error(S_ISDIR(info.st_mode)
                        ? "expected the name of a file, got that of a folder"
                        : "expected the name of a file, got that of a device or a pipe",
                    Error::Remedy::another_name);
    }
    parts_->folder = ::open(folder.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (parts_->folder < 0) fail(errno);
    // A name of its own length, not the target's and more: a folder takes names of so many bytes.
    // By the folder's descriptor, so that the path is no longer than the target's either.
    static std::atomic<unsigned> count{0};
    std::string temporary;
    do {
        temporary =
            format(".%lx-%x.partial", static_cast<unsigned long>(::getpid()), count.fetch_add(1));
        parts_->file = ::openat(parts_->folder, temporary.c_str(),
                                O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0666);
    } while (parts_->file < 0 && errno == EEXIST);
    if (parts_->file < 0) fail(errno);
    parts_->temporary = std::move(temporary);  // from now on there is something to remove
}

UnfinishedFile::~UnfinishedFile() = default;

void UnfinishedFile::write(const void* bytes, size_t n) {
    const auto* p = static_cast<const char*>(bytes);
    while (n > 0) {
        const ssize_t written = ::write(parts_->file, p, std::min(n, kMostBytes));
        if (written < 0 && errno == EINTR) continue;
        if (written < 0) fail(errno);
        p += written;
        n -= static_cast<size_t>(written);
    }
}

void UnfinishedFile::finish() {
    // On the disk before it takes the place of an older file: else a power cut could leave neither.
    if (::fsync(parts_->file) != 0 && errno != EINVAL) fail(errno);  // EINVAL: of no disk
    const int closed = ::close(parts_->file);
    parts_->file = -1;
    if (closed != 0 || ::renameat(parts_->folder, parts_->temporary.c_str(), parts_->folder,
                                  parts_->name.c_str()) != 0) {
        fail(errno);
    }
    parts_->temporary.clear();
}

bool is_folder(const std::string& path) noexcept {
    struct stat info = {};
    return ::stat(path.c_str(), &info) == 0 && S_ISDIR(info.st_mode);
}

void* allocate_pages(size_t n_bytes) noexcept {
    void* p = ::mmap(nullptr, n_bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (p == MAP_FAILED) return nullptr;
#if defined(MADV_HUGEPAGE)
    if (n_bytes >= (size_t{4} << 20)) ::madvise(p, n_bytes, MADV_HUGEPAGE);
#endif
    return p;
}

void free_pages(void* pages, size_t n_bytes) noexcept { ::munmap(pages, n_bytes); }

int64_t process_id() noexcept { return ::getpid(); }

}  // namespace rwkv::os
