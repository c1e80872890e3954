#include "containers.h"

#include <algorithm>
#include <cctype>
#include <string_view>
#include <utility>

#include "read_ggmf.h"
#include "read_gguf.h"
#include "status.h"

namespace rwkv {

namespace {

// THE list of containers: what a file begins with, and who reads the rest.
struct Container {
    std::string_view magic;
    void (*read)(ModelFile&);
};
constexpr Container kContainers[] = {
    {kGgmfMagic, read_ggmf},
    {kGgufMagic, read_gguf},
};

// What a file that is no model may be, by its first bytes, and what to do about it.
struct Impostor {
    std::string_view magic;
    const char* what;
};
constexpr const char* kPacked = "a compressed archive. Try to unpack it first";
constexpr const char* kGgml =
    "a ggml file of another program. Try the checkpoint that it was made from";
constexpr Impostor kImpostors[] = {
    {std::string_view("PK\x03\x04"),
     "a checkpoint (.pth) or another zip archive. Convert it with "
     "rwkv-convert IN OUT.bin"},
    {"version https://git-lfs", "a Git LFS pointer. Try `git lfs pull`"},
    {"tjgg", kGgml},
    {"lmgg", kGgml},
    {"algg", kGgml},
    {"rwkvstat", "a state that was saved from a session. Load it into one"},
    {"\x1f\x8b", kPacked},
    {"7z\xbc\xaf", kPacked},
    {"Rar!", kPacked},
    {"\xfd"
     "7zXZ",
     kPacked},
    {"\x28\xb5\x2f\xfd", kPacked},
    {"\x80", "a pickle, perhaps a checkpoint (.pth). Convert it with rwkv-convert IN OUT.bin"},
};
constexpr std::string_view kWebPages[] = {"<!doctype", "<html", "<?xml", "<head", "<!--"};

bool begins_with(std::string_view text, std::string_view with) {
    return text.substr(0, with.size()) == with;
}

// The sentence's end about a file that is no model, from its first bytes.
std::string guess(std::string_view head) {
    if (head.empty()) return "an empty file. Try to download it again";
    for (const Impostor& i : kImpostors) {
        if (begins_with(head, i.magic)) return i.what;
    }
    std::string text;
    for (const char c : head) {
        const auto byte = static_cast<unsigned char>(c);
        if (text.empty() && (std::isspace(byte) || byte == 0xef || byte == 0xbb || byte == 0xbf)) {
            continue;  // before a page may stand white space and a byte-order mark
        }
        text += static_cast<char>(std::tolower(byte));
    }
    for (const std::string_view page : kWebPages) {
        if (begins_with(text, page)) {
            return "a web page. Try the link that downloads the file itself";
        }
    }
    // Its first 8 bytes are the length of the JSON text that follows.
    if (head.size() > 8 && head[8] == '{') {
        return "a checkpoint (.safetensors). Convert it with rwkv-convert IN OUT.bin";
    }
    if (std::all_of(head.begin(), head.end(), [](char c) { return c == '\0'; })) {
        return "zeros. Try to download it again";
    }
    std::string bytes;
    for (const char c : head.substr(0, 8)) {
        bytes += format("%s%02x", bytes.empty() ? "" : " ", static_cast<unsigned char>(c));
    }
    return "one that begins with the bytes " + bytes + ". A checkpoint is converted with " +
           "rwkv-convert IN OUT.bin";
}

}  // namespace

std::unique_ptr<ModelFile> read_model_file(std::unique_ptr<InputFile> input) {
    auto file = std::make_unique<ModelFile>(std::move(input));
    char head[64] = {};
    const size_t n = std::min(sizeof head, file->input().size());
    file->input().read(0, n, head);
    const std::string_view begin(head, n);
    for (const Container& c : kContainers) {
        if (!begins_with(begin, c.magic)) continue;
        c.read(*file);
        return file;
    }
    throw Failure(RWKV_STATUS_FILE_FORMAT,
                  format("%s: not a model file, expected a .gguf file or a ggmf .bin file, got %s",
                         file->path().c_str(), guess(begin).c_str()));
}

}  // namespace rwkv
