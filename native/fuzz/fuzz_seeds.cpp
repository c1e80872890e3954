// fuzz_seeds MODELS VOCABULARIES: writes small valid files into two folders, which must exist.
#include <cstdio>
#include <string>

#include "block_types.h"
#include "check.h"
#include "tiny_model.h"

namespace {

void write(const std::string& path, const void* bytes, size_t n) {
    std::FILE* file = std::fopen(path.c_str(), "wb");
    CHECK(file != nullptr);
    CHECK(std::fwrite(bytes, 1, n, file) == n);
    CHECK(std::fclose(file) == 0);
}

}  // namespace

int main(int argc, char** argv) {
    CHECK(argc == 3);
    const std::string models = argv[1];
    const std::string vocabularies = argv[2];
    tiny::Sizes small;
    small.n_layer = 1;
    small.n_head = 1;
    small.n_ffn = 32;
    small.n_vocab = 2;
    for (const char* version : tiny::kVersions) {
        for (const rwkv_type type : {RWKV_TYPE_FP16, RWKV_TYPE_Q4_0, RWKV_TYPE_Q4_1, RWKV_TYPE_Q5_0,
                                     RWKV_TYPE_Q5_1, RWKV_TYPE_Q8_0}) {
            const std::vector<uint8_t> bytes = tiny::random_model(version, type, small).bytes();
            write(models + "/" + version + "-" + rwkv::type_name(type) + ".bin", bytes.data(),
                  bytes.size());
        }
        tiny::Sizes tuned = small;
        tuned.time_state = true;
        const std::vector<uint8_t> bytes =
            tiny::random_model(version, RWKV_TYPE_Q4_0, tuned).bytes();
        write(models + "/" + version + "-time-state.bin", bytes.data(), bytes.size());
    }

    // Some lines of the World vocabulary, from its beginning and from its middle.
    std::FILE* world = std::fopen(RWKV_DATA_DIR "/rwkv_vocab_v20230424.txt", "rb");
    CHECK(world != nullptr);
    std::string text(1 << 20, '\0');
    text.resize(std::fread(text.data(), 1, text.size(), world));
    std::fclose(world);
    int number = 0;
    for (const size_t begin : {size_t{0}, text.find('\n', text.size() / 2) + 1}) {
        const std::string piece = text.substr(begin, text.find('\n', begin + 3000) + 1 - begin);
        write(vocabularies + "/world-" + std::to_string(number++) + ".txt", piece.data(),
              piece.size());
    }
    const std::string other = "1 '\\x00' 1\n2 b'\\xff' 1\n3 \"'\\n\\t\\\\\" 4\n7 '\\u4e2d' 3\n";
    write(vocabularies + "/literals.txt", other.data(), other.size());
    return 0;
}
