// fuzz_seeds FOLDER: writes small valid inputs for every harness into folders of their names.
#include <filesystem>
#include <fstream>
#include <string>
#include <vector>

#include "block_types.h"
#include "check.h"
#include "tiny_models.h"

namespace {

using Bytes = std::vector<uint8_t>;

std::string root;

void write(const std::string& harness, const std::string& name, const void* bytes, size_t n) {
    const std::string folder = root + "/" + harness;
    std::filesystem::create_directories(folder);
    std::ofstream file(folder + "/" + name, std::ios::binary);
    file.write(static_cast<const char*>(bytes), static_cast<std::streamsize>(n));
    CHECK(file.good());
}

void write(const std::string& harness, const std::string& name, const Bytes& bytes) {
    write(harness, name, bytes.data(), bytes.size());
}

constexpr rwkv_type kTypes[] = {RWKV_TYPE_FP16, RWKV_TYPE_Q4_0, RWKV_TYPE_Q4_1,
                                RWKV_TYPE_Q5_0, RWKV_TYPE_Q5_1, RWKV_TYPE_Q8_0};

void write_models() {
    for (const std::string version : tiny::kVersions) {
        for (const rwkv_type type : kTypes) {
            const std::string name = version + "-" + rwkv::type_name(type);
            write("ggmf", name + ".bin", ggmf_bytes(version.c_str(), type, fuzz_sizes()));
            if (version == "6" || version == "7")
                write("gguf", name + ".gguf", gguf_bytes(version.c_str(), type, fuzz_sizes()));
        }
        tiny::Sizes tuned = fuzz_sizes();
        tuned.time_state = true;
        write("ggmf", version + "-time-state.bin",
              tiny::random_model(version, RWKV_TYPE_Q4_0, tuned).bytes());
    }
}

void write_smallest() {
    for (const char* version : tiny::kVersions) {
        const std::string name = std::string(version) + "-smallest";
        write("ggmf", name + ".bin", ggmf_bytes(version, RWKV_TYPE_FP32, smallest_sizes()));
        if (*version >= '6')
            write("gguf", name + ".gguf", gguf_bytes(version, RWKV_TYPE_FP32, smallest_sizes()));
    }
}

// The types of super-blocks, for the matrix whose rows are long enough; and types that files mix.
void write_long_rows() {
    tiny::Sizes sizes = fuzz_sizes();
    sizes.n_ffn = 256;
    for (const char* version : {"6", "7"}) {
        const tiny::Model model = tiny::random_model(version, RWKV_TYPE_Q4_0, sizes);
        tiny::Gguf gguf = tiny::gguf_of(model, version, sizes);
        tiny::Gguf::Tensor& t = gguf.at("blk.0.channel_mix_value.weight");
        for (const rwkv_type type :
             {RWKV_TYPE_BF16, RWKV_TYPE_IQ4_NL, RWKV_TYPE_Q4_K, RWKV_TYPE_Q5_K, RWKV_TYPE_Q6_K}) {
            for (uint32_t number = 0; number < 40; ++number) {
                if (rwkv::type_in_gguf(static_cast<int32_t>(number)) == type) t.type = number;
            }
            t.data.assign(32 * rwkv_row_bytes(type, 256), 0x11);
            write("gguf", std::string(version) + "-" + rwkv::type_name(type) + ".gguf",
                  gguf.bytes());
        }
    }
}

void write_split() {
    for (const char* version : {"6", "7"}) {
        const tiny::Sizes sizes = smallest_sizes();
        const tiny::Gguf whole =
            tiny::gguf_of(tiny::random_model(version, RWKV_TYPE_FP32, sizes), version, sizes);
        Bytes all = {0};
        for (uint32_t i = 0; i < 2; ++i) {
            tiny::Gguf part;
            if (i == 0) part.keys = whole.keys;
            part.set("split.no", i);
            part.set("split.count", uint32_t{2});
            for (size_t t = i; t < whole.tensors.size(); t += 2)
                part.tensors.push_back(whole.tensors[t]);
            const Bytes bytes = part.bytes();
            all.insert(all.end(), bytes.begin(), bytes.end());
        }
        for (uint8_t opened = 0; opened < 2; ++opened) {
            all[0] = opened;
            write("gguf_split", std::string(version) + "-" + std::to_string(opened), all);
        }
    }
}

void write_states() {
    for (const char* version : {"4", "7"}) {
        rwkv_model* model = open_tiny(version);
        rwkv_session* session = nullptr;
        CHECK(rwkv_session_create(model, &session) == RWKV_STATUS_OK);
        const int32_t tokens[] = {1, 2, 3};
        CHECK(rwkv_session_feed(session, tokens, 3, nullptr) == RWKV_STATUS_OK);
        std::filesystem::create_directories(root + "/state");
        for (const rwkv_state_type type : {RWKV_STATE_FP32, RWKV_STATE_FP16}) {
            const std::string name = type == RWKV_STATE_FP32 ? "-fp32" : "-fp16";
            const std::string path = root + "/state/" + version + name;
            CHECK(rwkv_state_save(session, path.c_str(), type) == RWKV_STATUS_OK);
        }
        rwkv_session_free(session);
        rwkv_model_free(model);
    }
}

// Some lines of the World vocabulary, from its beginning and from its middle, and odd ones.
void write_vocabularies() {
    std::ifstream file(RWKV_DATA_DIR "/rwkv_vocab_v20230424.txt", std::ios::binary);
    const std::string text{std::istreambuf_iterator<char>(file), {}};
    CHECK(!text.empty());
    int number = 0;
    for (const size_t begin : {size_t{0}, text.find('\n', text.size() / 2) + 1}) {
        const std::string piece = text.substr(begin, text.find('\n', begin + 3000) + 1 - begin);
        write("vocabulary", "world-" + std::to_string(number++) + ".txt", piece.data(),
              piece.size());
    }
    const std::string other = "1 '\\x00' 1\n2 b'\\xff' 1\n3 \"'\\n\\t\\\\\" 4\n7 '\\u4e2d' 3\n";
    write("vocabulary", "literals.txt", other.data(), other.size());
}

// Programs: each byte a call or its argument, as fuzz_api.cpp reads them.
void write_programs() {
    for (uint8_t model = 0; model < 4; ++model) {
        const Bytes program = {
            0,  0, model,                          // open model 0
            3,  0, 0,     5,  0, 1,                // session 0 of it; session 1, its fork
            6,  0, 3,     1,  2, 3, 0, 1,          // feed three tokens
            9,  0, 0,     12, 0, 0, 0, 13, 1,  1,  // read its state, save it, load it into the other
            14, 0, 0,     16, 0, 0, 2, 1,  2,  1, 1,  // a batch of it with two tokens
            18, 0, 21,    0,  1, 0,                   // run it; the model's tokenizer
            25, 0, 0,     5,  1, 0, 0, 1,  26, 0, 0,  // a sampler, a token
        };
        write("api", "program-" + std::to_string(model), program);
    }
}

}  // namespace

int main(int argc, char** argv) {
    CHECK(argc == 2);
    root = argv[1];
    write_models();
    write_smallest();
    write_long_rows();
    write_split();
    write_states();
    write_vocabularies();
    write_programs();
    return 0;
}
