// Of Windows 10 and later.
#define WIN32_LEAN_AND_MEAN
#include <windows.h>

#include <algorithm>
#include <atomic>
#include <vector>

#include "os.h"
#include "status.h"

namespace rwkv::os {

namespace {

// ---- errors

std::string to_utf8(const wchar_t* text, int n) {
    const int n_bytes = ::WideCharToMultiByte(CP_UTF8, 0, text, n, nullptr, 0, nullptr, nullptr);
    std::string out(static_cast<size_t>(n_bytes), '\0');
    ::WideCharToMultiByte(CP_UTF8, 0, text, n, out.data(), n_bytes, nullptr, nullptr);
    return out;
}

// What the system calls an error, in the user's language.
std::string sentence_of(DWORD error) {
    wchar_t text[512];
    DWORD n = ::FormatMessageW(FORMAT_MESSAGE_FROM_SYSTEM | FORMAT_MESSAGE_IGNORE_INSERTS, nullptr,
                               error, 0, text, sizeof text / sizeof *text, nullptr);
    while (n > 0 && (text[n - 1] <= L' ' || text[n - 1] == L'.')) --n;
    if (n == 0) return format("error %lu of Windows", error);
    return to_utf8(text, static_cast<int>(n));
}

constexpr DWORD kDiskQuotaExceeded = 1295;  // its name is not in every compiler's headers

// The usual ones have the same words on every system.
[[noreturn]] void fail(DWORD error) {
    using Remedy = Error::Remedy;
    switch (error) {
        case ERROR_FILE_NOT_FOUND:
        case ERROR_PATH_NOT_FOUND:
        case ERROR_INVALID_DRIVE:
        case ERROR_BAD_NETPATH:
        case ERROR_BAD_NET_NAME:
            throw Error("No such file or directory", Remedy::another_folder);
        case ERROR_ACCESS_DENIED:
            throw Error("Permission denied", Remedy::another_folder);
        case ERROR_WRITE_PROTECT:
            throw Error("Read-only file system", Remedy::another_folder);
        case ERROR_DISK_FULL:
        case ERROR_HANDLE_DISK_FULL:
        case kDiskQuotaExceeded:
            throw Error("No space left on device", Remedy::room);
        case ERROR_FILENAME_EXCED_RANGE:
            throw Error("File name too long", Remedy::shorter_name);
        case ERROR_INVALID_NAME:
            throw Error("Not a name that a file can have", Remedy::another_name);
        case ERROR_SHARING_VIOLATION:
        case ERROR_LOCK_VIOLATION:
        case ERROR_USER_MAPPED_FILE:
            throw Error("Another program has it open", Remedy::close_it);
        default:
            throw Error(sentence_of(error), Remedy::none);
    }
}

[[noreturn]] void fail() { fail(::GetLastError()); }

// ---- paths

std::wstring to_wide(const std::string& path) {
    const auto n = static_cast<int>(std::min<size_t>(path.size(), 1 << 20));
    const int n_wide =
        ::MultiByteToWideChar(CP_UTF8, MB_ERR_INVALID_CHARS, path.data(), n, nullptr, 0);
    if (n_wide == 0 && n > 0) {
        throw Error("expected a name in UTF-8, got other bytes", Error::Remedy::another_name);
    }
    std::wstring wide(static_cast<size_t>(n_wide), L'\0');
    ::MultiByteToWideChar(CP_UTF8, MB_ERR_INVALID_CHARS, path.data(), n, wide.data(), n_wide);
    return wide;
}

constexpr size_t kMostOfName = 255;  // characters, on every file system of Windows

// The whole path, as calls take it at any length: they take no more than 260 characters (a folder's
// less 12) of a path that does not begin with \\?\, and nothing but whole paths of one that does.
std::wstring whole(const std::string& path) {
    const std::wstring wide = to_wide(path);
    if (wide.empty()) fail(ERROR_FILE_NOT_FOUND);
    std::wstring full(MAX_PATH, L'\0');
    for (;;) {
        const DWORD n =
            ::GetFullPathNameW(wide.c_str(), static_cast<DWORD>(full.size()), full.data(), nullptr);
        if (n == 0) fail();
        const bool fits = n < full.size();
        full.resize(n);
        if (fits) break;
    }
    if (full.size() - full.find_last_of(L'\\') - 1 > kMostOfName) fail(ERROR_FILENAME_EXCED_RANGE);
    const bool is_marked =
        full.compare(0, 4, L"\\\\?\\") == 0 || full.compare(0, 4, L"\\\\.\\") == 0;
    if (full.size() < MAX_PATH - 12 || is_marked) return full;
    if (full.compare(0, 2, L"\\\\") == 0) return L"\\\\?\\UNC" + full.substr(1);  // \\server\share
    return L"\\\\?\\" + full;
}

// ---- handles

class Handle {
  public:
    explicit Handle(HANDLE handle = INVALID_HANDLE_VALUE) noexcept : handle_(handle) {}
    ~Handle() { close(); }
    Handle(const Handle&) = delete;
    Handle& operator=(const Handle&) = delete;

    bool is_open() const noexcept { return handle_ != INVALID_HANDLE_VALUE; }
    HANDLE get() const noexcept { return handle_; }
    void reset(HANDLE handle) noexcept {
        close();
        handle_ = handle;
    }
    void close() noexcept {
        if (is_open()) ::CloseHandle(handle_);
        handle_ = INVALID_HANDLE_VALUE;
    }
    HANDLE release() noexcept { return std::exchange(handle_, INVALID_HANDLE_VALUE); }

  private:
    HANDLE handle_;
};

// As on other systems, a file that is open may be replaced, renamed and removed.
constexpr DWORD kShareAll = FILE_SHARE_READ | FILE_SHARE_WRITE | FILE_SHARE_DELETE;

HANDLE open_to_read(const std::wstring& path) noexcept {
    return ::CreateFileW(path.c_str(), GENERIC_READ, kShareAll, nullptr, OPEN_EXISTING,
                         FILE_ATTRIBUTE_NORMAL, nullptr);
}

bool has_attribute(const std::wstring& path, DWORD attribute) noexcept {
    const DWORD all = ::GetFileAttributesW(path.c_str());
    return all != INVALID_FILE_ATTRIBUTES && (all & attribute) != 0;
}

// Where a link leads, so that it is kept and what it names is replaced.
std::wstring followed(const std::wstring& path) {
    if (!has_attribute(path, FILE_ATTRIBUTE_REPARSE_POINT)) return path;
    const Handle file(open_to_read(path));
    if (!file.is_open()) return path;  // a link to nothing is replaced itself
    std::wstring real(size_t{1} << 15, L'\0');
    const DWORD n =
        ::GetFinalPathNameByHandleW(file.get(), real.data(), static_cast<DWORD>(real.size()), 0);
    if (n == 0 || n >= real.size()) return path;
    real.resize(n);
    return real;
}

bool is_device(const std::wstring& path) noexcept { return path.compare(0, 4, L"\\\\.\\") == 0; }

// More than this at once is more than a call takes.
constexpr size_t kMostBytes = size_t{1} << 30;

}  // namespace

ReadableFile::ReadableFile(const std::string& path) : handle_(0) {
    const std::wstring name = whole(path);
    if (has_attribute(name, FILE_ATTRIBUTE_DIRECTORY)) {  // which opening would only call forbidden
        throw Error("expected a file, got a folder", Error::Remedy::another_name);
    }
    Handle file(is_device(name) ? INVALID_HANDLE_VALUE : open_to_read(name));
    if (!is_device(name) && !file.is_open()) fail();
    if (is_device(name) || ::GetFileType(file.get()) != FILE_TYPE_DISK) {
        throw Error("expected a regular file, got a device or a pipe", Error::Remedy::another_name);
    }
    LARGE_INTEGER size;
    if (!::GetFileSizeEx(file.get(), &size)) fail();
    size_ = static_cast<size_t>(size.QuadPart);
    handle_ = reinterpret_cast<intptr_t>(file.release());
}

ReadableFile::~ReadableFile() { ::CloseHandle(reinterpret_cast<HANDLE>(handle_)); }

size_t ReadableFile::read(size_t offset, size_t n, void* out) const {
    OVERLAPPED at = {};  // the file has a position of its own, but no call uses it
    at.Offset = static_cast<DWORD>(offset);
    at.OffsetHigh = static_cast<DWORD>(offset >> 32);
    DWORD got = 0;
    if (!::ReadFile(reinterpret_cast<HANDLE>(handle_), out,
                    static_cast<DWORD>(std::min(n, kMostBytes)), &got, &at)) {
        if (::GetLastError() == ERROR_HANDLE_EOF) return 0;
        fail();
    }
    return got;
}

struct UnfinishedFile::Parts {
    std::wstring target;
    std::wstring temporary;
    Handle file;

    ~Parts() {
        file.close();
        if (!temporary.empty()) ::DeleteFileW(temporary.c_str());
    }
};

UnfinishedFile::UnfinishedFile(const std::string& path) : parts_(std::make_unique<Parts>()) {
    const std::wstring target = followed(whole(path));
    if (has_attribute(target, FILE_ATTRIBUTE_DIRECTORY) || target.back() == L'\\') {
        throw Error("expected the name of a file, got that of a folder",
                    Error::Remedy::another_name);
    }
    if (is_device(target)) {
        throw Error("expected the name of a file, got that of a device or a pipe",
                    Error::Remedy::another_name);
    }
    parts_->target = target;
    const std::string folder = [&] {
        const size_t slash = target.rfind(L'\\');
        return to_utf8(target.data(), static_cast<int>(slash + 1));
    }();
    static std::atomic<unsigned> count{0};
    std::wstring temporary;
    do {
        temporary =
            whole(folder + format(".%lx-%x.partial", ::GetCurrentProcessId(), count.fetch_add(1)));
        // DELETE: to rename it.
        parts_->file.reset(::CreateFileW(temporary.c_str(), GENERIC_WRITE | DELETE, kShareAll,
                                         nullptr, CREATE_NEW, FILE_ATTRIBUTE_NORMAL, nullptr));
    } while (!parts_->file.is_open() && ::GetLastError() == ERROR_FILE_EXISTS);
    if (!parts_->file.is_open()) fail();
    parts_->temporary = std::move(temporary);  // from now on there is something to remove
}

UnfinishedFile::~UnfinishedFile() = default;

void UnfinishedFile::write(const void* bytes, size_t n) {
    const auto* p = static_cast<const char*>(bytes);
    while (n > 0) {
        DWORD written = 0;
        if (!::WriteFile(parts_->file.get(), p, static_cast<DWORD>(std::min(n, kMostBytes)),
                         &written, nullptr)) {
            fail();
        }
        p += written;
        n -= written;
    }
}

void UnfinishedFile::finish() {
    // On the disk before it takes the place of an older file: else a power cut could leave neither.
    if (!::FlushFileBuffers(parts_->file.get())) fail();
    // As on other systems: whoever reads the older file goes on reading it. File systems that know
    // nothing of it are asked the old way, which needs a file that nobody has open.
    const size_t n_bytes = parts_->target.size() * sizeof(wchar_t);
    std::vector<uint64_t> memory((sizeof(FILE_RENAME_INFO) + n_bytes) / sizeof(uint64_t) + 1);
    auto* const rename = reinterpret_cast<FILE_RENAME_INFO*>(memory.data());
    constexpr DWORD kReplace = 1;  // FILE_RENAME_FLAG_REPLACE_IF_EXISTS
    constexpr DWORD kPosix = 2;    // FILE_RENAME_FLAG_POSIX_SEMANTICS
    rename->Flags = kReplace | kPosix;
    rename->FileNameLength = static_cast<DWORD>(n_bytes);
    std::copy(parts_->target.begin(), parts_->target.end(), rename->FileName);
    constexpr auto kRenameInfoEx = static_cast<FILE_INFO_BY_HANDLE_CLASS>(22);
    const bool renamed =
        ::SetFileInformationByHandle(parts_->file.get(), kRenameInfoEx, rename,
                                     static_cast<DWORD>(memory.size() * sizeof(uint64_t)));
    parts_->file.close();
    if (!renamed && !::MoveFileExW(parts_->temporary.c_str(), parts_->target.c_str(),
                                   MOVEFILE_REPLACE_EXISTING | MOVEFILE_WRITE_THROUGH)) {
        const DWORD error = ::GetLastError();
        if (error != ERROR_ACCESS_DENIED) fail(error);
        throw Error("It is read-only, or another program has it open", Error::Remedy::close_it);
    }
    parts_->temporary.clear();
}

bool is_folder(const std::string& path) noexcept {
    try {
        return has_attribute(whole(path), FILE_ATTRIBUTE_DIRECTORY);
    } catch (const std::exception&) {
        return false;
    }
}

void* allocate_pages(size_t n_bytes) noexcept {
    return ::VirtualAlloc(nullptr, n_bytes, MEM_RESERVE | MEM_COMMIT, PAGE_READWRITE);
}

void free_pages(void* pages, size_t) noexcept { ::VirtualFree(pages, 0, MEM_RELEASE); }

int64_t process_id() noexcept { return ::GetCurrentProcessId(); }

size_t usable_cores() {
    DWORD n_bytes = 0;
    ::GetLogicalProcessorInformationEx(RelationProcessorCore, nullptr, &n_bytes);
    std::vector<uint64_t> memory(n_bytes / sizeof(uint64_t) + 1);
    using Core = SYSTEM_LOGICAL_PROCESSOR_INFORMATION_EX;
    auto* const first = reinterpret_cast<char*>(memory.data());
    if (!::GetLogicalProcessorInformationEx(RelationProcessorCore, reinterpret_cast<Core*>(first),
                                            &n_bytes)) {
        return 0;
    }
    // Of the group of up to 64 processors that the process is in; 0 where it is in several, all of
    // which it may use then.
    DWORD_PTR allowed = 0;
    DWORD_PTR present = 0;
    ::GetProcessAffinityMask(::GetCurrentProcess(), &allowed, &present);
    GROUP_AFFINITY own = {};
    ::GetThreadGroupAffinity(::GetCurrentThread(), &own);
    size_t n = 0;
    for (const char* p = first; p < first + n_bytes; p += reinterpret_cast<const Core*>(p)->Size) {
        const GROUP_AFFINITY& core = reinterpret_cast<const Core*>(p)->Processor.GroupMask[0];
        n += allowed == 0 || (core.Group == own.Group && (core.Mask & allowed) != 0);
    }
    return n;
}

bool may_use(Instructions which) noexcept {
    switch (which) {
        case Instructions::x86_tiles:
            return false;  // which wants a call that not every Windows has
        case Instructions::arm_dot_product:
            constexpr DWORD kDotProduct = 43;  // PF_ARM_V82_DP_INSTRUCTIONS_AVAILABLE
            return ::IsProcessorFeaturePresent(kDotProduct) != 0;
    }
    return false;
}

}  // namespace rwkv::os
