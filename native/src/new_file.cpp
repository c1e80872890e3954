#include "new_file.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <atomic>
#include <cerrno>
#include <cstdlib>
#include <cstring>
#include <memory>

#include "status.h"

namespace rwkv {

namespace {

// What may help against an error of the system; "" where nothing in particular does.
const char* remedy(int error) {
    switch (error) {
        case ENAMETOOLONG:
            return ". Try a shorter name";
        case ENOSPC:
        case EDQUOT:
            return ". Make room, or try another disk";
        case EACCES:
        case ENOENT:
        case ENOTDIR:
        case EPERM:
        case EROFS:
            return ". Try another folder";
        default:
            return "";
    }
}

// Where a link leads, so that it is kept and what it names is replaced.
std::string followed(const std::string& path) {
    struct stat info = {};
    if (::lstat(path.c_str(), &info) != 0 || !S_ISLNK(info.st_mode)) return path;
    const std::unique_ptr<char, decltype(&std::free)> real(::realpath(path.c_str(), nullptr),
                                                           &std::free);
    return real == nullptr ? path : real.get();  // a link to nothing is replaced itself
}

}  // namespace

NewFile::NewFile(const std::string& path) : path_(path) {
    const std::string target = followed(path);
    const size_t slash = target.rfind('/');
    name_ = slash == std::string::npos ? target : target.substr(slash + 1);
    const std::string folder = slash == std::string::npos ? "." : target.substr(0, slash + 1);
    if (name_.empty()) fail(target.empty() ? ENOENT : EISDIR);
    // What takes the name of a device takes its place, for all programs.
    struct stat info = {};
    if (::stat(target.c_str(), &info) == 0 && !S_ISREG(info.st_mode)) {
        throw Failure(
            RWKV_STATUS_FILE_UNWRITABLE,
            format("%s: cannot be written: expected the name of a file, got that of %s. "
                   "Try another name",
                   path.c_str(), S_ISDIR(info.st_mode) ? "a folder" : "a device or a pipe"));
    }
    folder_ = ::open(folder.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (folder_ < 0) fail(errno);
    // A name of its own length, not the target's and more: a folder takes names of so many bytes.
    // By the folder's descriptor, so that the path is no longer than the target's either.
    static std::atomic<unsigned> count{0};
    do {
        temporary_ =
            format(".%lx-%x.partial", static_cast<unsigned long>(::getpid()), count.fetch_add(1));
        file_ =
            ::openat(folder_, temporary_.c_str(), O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0666);
    } while (file_ < 0 && errno == EEXIST);
    if (file_ < 0) {
        const int error = errno;
        ::close(folder_);  // the destructor of an object whose constructor throws does not run
        fail(error);
    }
}

NewFile::~NewFile() {
    if (file_ >= 0) ::close(file_);
    if (!temporary_.empty()) ::unlinkat(folder_, temporary_.c_str(), 0);
    ::close(folder_);
}

void NewFile::write(const void* bytes, size_t n) {
    const auto* p = static_cast<const char*>(bytes);
    while (n > 0) {
        const ssize_t written = ::write(file_, p, n);
        if (written < 0 && errno == EINTR) continue;
        if (written < 0) fail(errno);
        p += written;
        n -= static_cast<size_t>(written);
    }
}

void NewFile::finish() {
    // On the disk before it takes the place of an older file: else a power cut could leave neither.
    if (::fsync(file_) != 0 && errno != EINVAL) fail(errno);  // EINVAL: of no disk
    const int closed = ::close(file_);
    file_ = -1;
    if (closed != 0 || ::renameat(folder_, temporary_.c_str(), folder_, name_.c_str()) != 0) {
        fail(errno);
    }
    temporary_.clear();
}

void NewFile::fail(int error) const {
    throw Failure(RWKV_STATUS_FILE_UNWRITABLE, format("%s: cannot be written: %s%s", path_.c_str(),
                                                      std::strerror(error), remedy(error)));
}

}  // namespace rwkv
