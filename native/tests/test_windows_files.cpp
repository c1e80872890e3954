// Files on Windows: names of any letters, folders of any depth, files that somebody has open.
#define WIN32_LEAN_AND_MEAN
#include <windows.h>

#include <cstring>
#include <string>
#include <vector>

#include "check.h"
#include "open_model.h"
#include "rwkv/rwkv.h"
#include "tiny_model.h"

namespace {

using namespace opened;

std::string utf8(const std::wstring& wide) {
    std::string text(4 * wide.size(), '\0');
    const int n =
        ::WideCharToMultiByte(CP_UTF8, 0, wide.data(), static_cast<int>(wide.size()), text.data(),
                              static_cast<int>(text.size()), nullptr, nullptr);
    text.resize(static_cast<size_t>(n));
    return text;
}

// As Windows itself takes a path of any length.
std::wstring marked(const std::wstring& path) { return L"\\\\?\\" + path; }

// Folders inside each other, the last with a path of more than `length` characters.
class Folders {
  public:
    explicit Folders(size_t length) {
        std::wstring path(MAX_PATH, L'\0');
        path.resize(::GetTempPathW(MAX_PATH, path.data()));
        path += L"rwkv-" + std::to_wstring(::GetCurrentProcessId()) + L"-" +
                std::to_wstring(::GetTickCount64());
        for (;;) {
            CHECK(::CreateDirectoryW(marked(path).c_str(), nullptr));
            made_.push_back(path);
            if (path.size() > length) break;
            path += L"\\глубже-深い-é";
        }
    }
    ~Folders() {
        while (!made_.empty()) {
            CHECK(::RemoveDirectoryW(marked(made_.back()).c_str()));  // so it is empty
            made_.pop_back();
        }
    }
    const std::wstring& path() const { return made_.back(); }

  private:
    std::vector<std::wstring> made_;
};

struct Handle {
    HANDLE handle;
    ~Handle() { ::CloseHandle(handle); }
};

std::vector<char> bytes_of(HANDLE file) {
    std::vector<char> bytes(1 << 20);
    DWORD n = 0;
    CHECK(::SetFilePointer(file, 0, nullptr, FILE_BEGIN) == 0);
    CHECK(::ReadFile(file, bytes.data(), static_cast<DWORD>(bytes.size()), &n, nullptr));
    bytes.resize(n);
    return bytes;
}

// A model copied there, and states saved and loaded beside it.
void test_names(const tiny::File& file, size_t length) {
    const Folders folders(length);
    const std::wstring model_path = folders.path() + L"\\модель.bin";
    const std::string here = file.path();
    CHECK(::CopyFileW(std::wstring(here.begin(), here.end()).c_str(), marked(model_path).c_str(),
                      TRUE));
    {
        rwkv_model_options options = model_options();
        options.n_threads = 1;
        rwkv_model* opened = nullptr;
        EXPECT_OK(rwkv_model_open(utf8(model_path).c_str(), &options, &opened));
        const Model model(opened);
        const Session session = session_of(model);
        const Tokens tokens = random_tokens(5, vocab_of(model));
        EXPECT_OK(rwkv_session_feed(session.get(), tokens.data(), tokens.size(), nullptr));
        const Floats state = state_of(model, session);
        const std::wstring names[] = {L"état 状態.state", std::wstring(255, L'n')};
        for (const std::wstring& name : names) {
            const std::wstring path = folders.path() + L"\\" + name;
            for (int i = 0; i < 2; ++i) {  // new, then in the place of the older
                EXPECT_OK(rwkv_state_save(session.get(), utf8(path).c_str(), RWKV_STATE_FP32));
            }
            const Session other = session_of(model);
            EXPECT_OK(rwkv_state_load(other.get(), utf8(path).c_str()));
            CHECK(same_bits(state_of(model, other), state));
            CHECK(::DeleteFileW(marked(path).c_str()));
        }
        const std::wstring too_long = folders.path() + L"\\" + std::wstring(256, L'n');
        EXPECT_STATUS(rwkv_state_save(session.get(), utf8(too_long).c_str(), RWKV_STATE_FP32),
                      RWKV_STATUS_FILE_UNWRITABLE, "Try a shorter name");
        EXPECT_STATUS(rwkv_state_load(session.get(), "\xff.state"), RWKV_STATUS_FILE_UNREADABLE,
                      "UTF-8");
    }
    CHECK(::DeleteFileW(marked(model_path).c_str()));
}

// Who has the older file open goes on reading it, and a program that shares it with nobody is told of.
void test_open_files(const tiny::File& file) {
    const Folders folders(0);
    const Model model = open(file);
    const Session session = session_of(model);
    const std::wstring path = folders.path() + L"\\a.state";
    const auto save = [&] {
        return rwkv_state_save(session.get(), utf8(path).c_str(), RWKV_STATE_FP32);
    };
    EXPECT_OK(save());
    {
        const Handle reader{::CreateFileW(path.c_str(), GENERIC_READ,
                                          FILE_SHARE_READ | FILE_SHARE_WRITE | FILE_SHARE_DELETE,
                                          nullptr, OPEN_EXISTING, 0, nullptr)};
        const std::vector<char> before = bytes_of(reader.handle);
        const int32_t token = 1;
        EXPECT_OK(rwkv_session_feed(session.get(), &token, 1, nullptr));
        // Wine knows nothing of this way to rename, and must say so.
        if (save() != RWKV_STATUS_OK) {
            CHECK(std::strstr(rwkv_error_message(), "another program has it open") != nullptr);
        }
        CHECK(bytes_of(reader.handle) == before);
    }
    EXPECT_OK(save());
    const Floats saved = state_of(model, session);
    {
        const Handle owner{
            ::CreateFileW(path.c_str(), GENERIC_READ, 0, nullptr, OPEN_EXISTING, 0, nullptr)};
        EXPECT_STATUS(rwkv_state_load(session.get(), utf8(path).c_str()),
                      RWKV_STATUS_FILE_UNREADABLE, "Another program has it open");
        rwkv_session_reset(session.get());
        CHECK(save() == RWKV_STATUS_FILE_UNWRITABLE);
    }
    EXPECT_OK(rwkv_state_load(session.get(), utf8(path).c_str()));
    CHECK(same_bits(state_of(model, session), saved));
    CHECK(::DeleteFileW(path.c_str()));
}

}  // namespace

int main() {
    const tiny::File file(tiny::random_model("7", RWKV_TYPE_Q4_0));
    test_names(file, 0);
    test_names(file, 700);
    test_open_files(file);
    return 0;
}
