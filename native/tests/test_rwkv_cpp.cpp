// librwkv, rwkv.cpp's interface: it gives the runtime's own numbers, to the bit; quantises as
// rwkv.cpp chooses; and has rwkv.cpp's flags for whatever is wrong with a file.
#include <unistd.h>

#include <algorithm>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <functional>
#include <iterator>
#include <string>

#include "block_types.h"
#include "check.h"
#include "containers.h"
#include "open_model.h"
#include "rwkv_cpp/rwkv.h"
#include "rwkv_cpp_checks.h"
#include "tiny_gguf.h"
#include "tiny_model.h"

namespace {

using namespace opened;
using Bytes = std::vector<uint8_t>;

constexpr uint32_t kPrompt[] = {3, 1, 2, 7, 5};
constexpr size_t kPromptTokens = std::size(kPrompt);

struct Format {
    const char* name;
    rwkv_type type;
};
constexpr Format kFormats[] = {
    {"Q4_0", RWKV_TYPE_Q4_0}, {"Q4_1", RWKV_TYPE_Q4_1}, {"Q5_0", RWKV_TYPE_Q5_0},
    {"Q5_1", RWKV_TYPE_Q5_1}, {"Q8_0", RWKV_TYPE_Q8_0},
};

// A folder of this test, with nothing in it but what the test makes.
std::filesystem::path folder() {
    static const std::filesystem::path path = [] {
        auto p = std::filesystem::path(RWKV_BINARY_DIR) / ("rwkv_cpp-" + std::to_string(getpid()));
        std::filesystem::create_directory(p);
        return p;
    }();
    return path;
}

std::string in_folder(const char* name) { return (folder() / name).string(); }

bool folder_is_empty() { return std::filesystem::is_empty(folder()); }

// The logits that the runtime's own interface gives; version 5 as rwkv.cpp computes it.
Floats native_logits(const char* path, const std::string& version) {
    rwkv_model_options options = model_options();
    if (version[0] == '5') options.ln_x_eps = 1e-5f;
    rwkv_model* opened = nullptr;
    EXPECT_OK(rwkv_model_open(path, &options, &opened));
    const Model model(opened);
    const Session session = session_of(model);
    const Tokens tokens(kPrompt, kPrompt + kPromptTokens);
    Floats logits(vocab_of(model));
    EXPECT_OK(rwkv_session_feed(session.get(), tokens.data(), tokens.size(), logits.data()));
    return logits;
}

void check_file(const char* path, const std::string& version) {
    const Floats expected = native_logits(path, version);
    check_model(path, kPrompt, kPromptTokens, expected.data(), expected.size(), 0.0);
}

void test_models() {
    for (const char* version : tiny::kVersions) {
        for (const rwkv_type type : {RWKV_TYPE_FP32, RWKV_TYPE_FP16, RWKV_TYPE_Q4_0, RWKV_TYPE_Q4_1,
                                     RWKV_TYPE_Q5_0, RWKV_TYPE_Q5_1, RWKV_TYPE_Q8_0}) {
            if (kBrief && type != RWKV_TYPE_FP32 && type != RWKV_TYPE_Q4_0) continue;
            check_file(tiny::File(tiny::random_model(version, type)).path(), version);
        }
    }
    tiny::Sizes sizes;
    sizes.head_size = 64;
    sizes.time_state = true;  // which is what NULL as state_in stands for
    for (const char* version : {"5.2", "6", "7"}) {
        check_file(tiny::File(tiny::random_model(version, RWKV_TYPE_Q4_0, sizes)).path(), version);
    }
    const tiny::Model made = tiny::random_model("7", RWKV_TYPE_FP32);
    check_file(tiny::File(tiny::gguf_of(made, "7", {}).bytes()).path(), "7");
}

// ---- buffers: one, two, or two that overlap, which the next call finds as the last one left them

void test_buffers(const char* version, size_t head_size) {
    constexpr size_t kTokens = 300;  // more than a pass reads
    tiny::Sizes sizes;
    sizes.head_size = head_size;
    const tiny::File file(tiny::random_model(version, RWKV_TYPE_FP32, sizes));
    rwkv_context* const ctx = rwkv_init_from_file(file.path(), 2, 0);
    CHECK(ctx != nullptr);
    std::vector<uint32_t> tokens;
    for (const int32_t t : random_tokens(kTokens, rwkv_get_n_vocab(ctx))) {
        tokens.push_back(static_cast<uint32_t>(t));
    }
    const size_t n = rwkv_get_state_len(ctx);
    Floats first(n), expected(n), logits(rwkv_get_logits_len(ctx));
    CHECK(rwkv_eval(ctx, 1, nullptr, first.data(), nullptr));
    for (const size_t n_tokens : {size_t{1}, kTokens}) {
        expected = first;
        CHECK(rwkv_eval_sequence(ctx, tokens.data(), n_tokens, expected.data(), expected.data(),
                                 logits.data()));
        for (const size_t apart : {size_t{1}, n - 1, n, 2 * n}) {
            for (const bool forwards : {true, false}) {
                Floats both(3 * n, 7.0f), out(logits.size());
                float* const in = both.data() + (forwards ? 0 : apart);
                float* const to = both.data() + (forwards ? apart : 0);
                std::copy(first.begin(), first.end(), in);
                CHECK(rwkv_eval_sequence(ctx, tokens.data(), n_tokens, in, to, out.data()));
                CHECK(std::equal(expected.begin(), expected.end(), to) && same_bits(out, logits));
                if (apart >= n) CHECK(std::equal(first.begin(), first.end(), in));
            }
        }
    }
    rwkv_free(ctx);
}

void test_buffers() {
    for (const char* version : tiny::kVersions) {
        if (!kBrief) test_buffers(version, tiny::Sizes().head_size);
    }
    for (const size_t head_size : {8, 12, 64, 96, 128}) {
        if (kBrief && head_size != 12) continue;  // no multiple of a vector, nor of a tile
        test_buffers("7", head_size);
    }
}

// ---- chunks: what a call for each of them gives, to the bit, at every level

void test_chunks(const char* version, rwkv_type type) {
    constexpr size_t kTokens = 70;
    const tiny::File file(tiny::random_model(version, type));
    rwkv_context* const ctx = rwkv_init_from_file(file.path(), 1, 0);
    CHECK(ctx != nullptr);
    std::vector<uint32_t> tokens;
    for (const int32_t t : random_tokens(kTokens, rwkv_get_n_vocab(ctx))) {
        tokens.push_back(static_cast<uint32_t>(t));
    }
    Floats serial(rwkv_get_state_len(ctx));
    Floats state(serial.size());
    Floats expected(serial.size());
    Floats serial_logits(rwkv_get_logits_len(ctx));
    Floats logits(serial_logits.size());
    Floats expected_logits(serial_logits.size());
    rwkv_init_state(ctx, serial.data());
    for (const uint32_t token : tokens) {
        CHECK(rwkv_eval(ctx, token, serial.data(), serial.data(), serial_logits.data()));
    }
    for (const size_t chunk : {1, 2, 8, 10, 31, 32, 33, 64, 70, 100}) {
        CHECK(rwkv_eval_sequence_in_chunks(ctx, tokens.data(), kTokens, chunk, nullptr,
                                           state.data(), logits.data()));
        if (chunk < RWKV_WIDE) CHECK(same_bits(state, serial) && same_bits(logits, serial_logits));
        rwkv_init_state(ctx, expected.data());
        for (size_t at = 0; at < kTokens; at += chunk) {
            CHECK(rwkv_eval_sequence(ctx, tokens.data() + at, std::min(chunk, kTokens - at),
                                     expected.data(), expected.data(), expected_logits.data()));
        }
        CHECK(same_bits(state, expected) && same_bits(logits, expected_logits));
    }
    rwkv_free(ctx);
}

void test_chunks() {
    for (const char* version : tiny::kVersions) {
        if (kBrief && version[0] != '7') continue;
        for (const rwkv_type type : {RWKV_TYPE_FP32, RWKV_TYPE_Q4_0}) test_chunks(version, type);
    }
}

// A rewrite of the rule: what becomes of each tensor of a file that is quantised.
rwkv_type expected_type(const tiny::Tensor& t, rwkv_type asked) {
    const std::string name =
        t.name.substr(t.name.rfind("att.") != std::string::npos ? t.name.rfind("att.") : 0);
    for (const char* kept : {"emb.weight", "head.weight", "att.w1", "att.w2", "att.a1", "att.a2",
                             "att.v1", "att.v2", "att.g1", "att.g2", "att.r_k"}) {
        if (name == kept) return rwkv::type_in_ggmf(t.type);
    }
    if (t.shape.size() != 2) return rwkv::type_in_ggmf(t.type);
    return t.shape.back() % 32 == 0 ? asked : RWKV_TYPE_FP16;
}

void test_quantising(const char* version, rwkv_type from, const tiny::Sizes& sizes,
                     const std::vector<Format>& formats) {
    const tiny::Model made = tiny::random_model(version, from, sizes);
    const tiny::File in(made);
    const std::string out = in_folder("quantised.bin");
    for (const Format& format : formats) {
        CHECK(rwkv_quantize_model_file(in.path(), out.c_str(), format.name));
        CHECK(rwkv_get_last_error(nullptr) == RWKV_ERROR_NONE);
        const auto file = rwkv::read_model_file(std::make_unique<rwkv::InputFile>(out));
        CHECK(file->data_type == format.type);
        CHECK(file->tensors().size() == made.tensors.size());
        for (const tiny::Tensor& t : made.tensors) {
            const rwkv::Tensor* const found = file->find(t.name);
            CHECK(found != nullptr && found->type == expected_type(t, format.type));
            CHECK(std::equal(found->shape.begin(), found->shape.end(), t.shape.begin(),
                             t.shape.end()));
            Bytes bytes(found->n_bytes);
            file->read(*found, 0, bytes.size(), bytes.data());
            if (found->type == rwkv::type_in_ggmf(t.type)) {
                CHECK(bytes == t.data);
                continue;
            }
            std::vector<float> values(found->n_elements());
            rwkv::dequantize_row(from, t.data.data(), values.size(), values.data());
            Bytes expected(bytes.size());
            rwkv::quantize_row(found->type, values.data(), values.size(), expected.data());
            CHECK(bytes == expected);
        }
        check_file(out.c_str(), version);
        // Once is enough.
        CHECK(!rwkv_quantize_model_file(out.c_str(), in_folder("again.bin").c_str(), "Q4_0"));
        CHECK(rwkv_get_last_error(nullptr) == RWKV_ERROR_FILE);
    }
#if !defined(_WIN32)  // where wine does not replace a file that is open
    CHECK(rwkv_quantize_model_file(in.path(), in.path(), "Q8_0"));
    check_file(in.path(), version);
#endif
    std::filesystem::remove(out);
    CHECK(folder_is_empty());
}

void test_quantising() {
    tiny::Sizes odd;  // rows that no block fits into
    odd.rank = 24;
    odd.n_ffn = 80;
    for (const char* version : tiny::kVersions) {
        test_quantising(version, RWKV_TYPE_FP32, {}, {std::begin(kFormats), std::end(kFormats)});
        test_quantising(version, RWKV_TYPE_FP16, {}, {kFormats[0]});
        test_quantising(version, RWKV_TYPE_FP16, odd, {kFormats[3]});
    }
    // Tensors of no version are left out, in any order those that are there are put into ours.
    tiny::Model made = tiny::random_model("7", RWKV_TYPE_FP32);
    const std::string expected = in_folder("expected.bin");
    CHECK(rwkv_quantize_model_file(tiny::File(made).path(), expected.c_str(), "Q5_1"));
    std::reverse(made.tensors.begin(), made.tensors.end());
    for (const char* name : {"optimizer", "blocks.00.ln1.weight", "blocks.9.ln1.weight",
                             "blocks.0.att.v1", "blocks.-1.ln1.weight", "blocks.1.att.key.weight2",
                             "blocks.", "blocks.1", "blocks.1.", "blocks.99999999999999999999.x"}) {
        made.tensors.push_back(tiny::tensor(name, RWKV_TYPE_FP32, {32, 32}, Floats(1024)));
    }
    const std::string out = in_folder("out.bin");
    CHECK(rwkv_quantize_model_file(tiny::File(made).path(), out.c_str(), "Q5_1"));
    {
        std::ifstream a(expected, std::ios::binary);
        std::ifstream b(out, std::ios::binary);
        using Each = std::istreambuf_iterator<char>;
        CHECK(std::equal(Each(a), {}, Each(b), {}));
    }  // closed, as Windows removes no file that somebody has open
    std::filesystem::remove(expected);
    std::filesystem::remove(out);
    // Where the output cannot be.
    const tiny::File in(made);
    CHECK(!rwkv_quantize_model_file(in.path(), in_folder("no/such/folder.bin").c_str(), "Q4_0"));
    CHECK(rwkv_get_last_error(nullptr) == (RWKV_ERROR_FILE | RWKV_ERROR_FILE_OPEN));
    CHECK(!rwkv_quantize_model_file(in.path(), folder().string().c_str(), "Q4_0"));
    CHECK(rwkv_get_last_error(nullptr) == (RWKV_ERROR_FILE | RWKV_ERROR_FILE_OPEN));
    CHECK(folder_is_empty());
}

// ---- flags

struct Fault {
    const char* what;
    std::function<void(tiny::Model&)> make;
    int to_open;
    int to_quantise;
};

std::vector<Fault> all_faults() {
    return {
        {"magic", [](tiny::Model& m) { m.magic = 0x12345678; },
         RWKV_ERROR_FILE | RWKV_ERROR_FILE_MAGIC, RWKV_ERROR_FILE | RWKV_ERROR_FILE_MAGIC},
        {"version", [](tiny::Model& m) { m.file_version = 102; },
         RWKV_ERROR_FILE | RWKV_ERROR_FILE_VERSION, RWKV_ERROR_FILE | RWKV_ERROR_FILE_VERSION},
        {"old version", [](tiny::Model& m) { m.file_version = 99; },
         RWKV_ERROR_FILE | RWKV_ERROR_FILE_VERSION, RWKV_ERROR_FILE | RWKV_ERROR_FILE_VERSION},
        {"retired type", [](tiny::Model& m) { m.data_type = 4; },
         RWKV_ERROR_FILE | RWKV_ERROR_DATA_TYPE, RWKV_ERROR_FILE | RWKV_ERROR_DATA_TYPE},
        {"no type", [](tiny::Model& m) { m.data_type = 99; },
         RWKV_ERROR_FILE | RWKV_ERROR_DATA_TYPE, RWKV_ERROR_FILE | RWKV_ERROR_DATA_TYPE},
        {"tensor's type", [](tiny::Model& m) { m.at("head.weight").type = 5; },
         RWKV_ERROR_MODEL_PARAMS | RWKV_ERROR_DATA_TYPE, RWKV_ERROR_FILE | RWKV_ERROR_DATA_TYPE},
        {"tensor's dimensions", [](tiny::Model& m) { m.at("head.weight").shape = {1, 1, 1, 1}; },
         RWKV_ERROR_MODEL_PARAMS | RWKV_ERROR_SHAPE, RWKV_ERROR_FILE | RWKV_ERROR_SHAPE},
        {"no name", [](tiny::Model& m) { m.at("head.weight").name = ""; },
         RWKV_ERROR_MODEL_PARAMS | RWKV_ERROR_KEY, RWKV_ERROR_FILE | RWKV_ERROR_KEY},
        {"a name twice", [](tiny::Model& m) { m.tensors.push_back(m.at("head.weight")); },
         RWKV_ERROR_MODEL_PARAMS | RWKV_ERROR_KEY, RWKV_ERROR_FILE | RWKV_ERROR_KEY},
        {"no embedding", [](tiny::Model& m) { m.erase("emb.weight"); },
         RWKV_ERROR_MODEL_PARAMS | RWKV_ERROR_PARAM_MISSING,
         RWKV_ERROR_MODEL_PARAMS | RWKV_ERROR_PARAM_MISSING},
        {"embedding's dimensions",
         [](tiny::Model& m) {
             m.at("emb.weight").shape = {static_cast<int32_t>(m.at("emb.weight").data.size() / 4)};
         },
         RWKV_ERROR_MODEL_PARAMS | RWKV_ERROR_SHAPE, RWKV_ERROR_MODEL_PARAMS | RWKV_ERROR_SHAPE},
        {"embedding's size", [](tiny::Model& m) { m.n_vocab += 1; },
         RWKV_ERROR_MODEL_PARAMS | RWKV_ERROR_DIMENSION,
         RWKV_ERROR_MODEL_PARAMS | RWKV_ERROR_DIMENSION},
        {"no matrix", [](tiny::Model& m) { m.erase("blocks.1.att.key.weight"); },
         RWKV_ERROR_MODEL_PARAMS | RWKV_ERROR_PARAM_MISSING, RWKV_ERROR_NONE},
        {"the last tensor ends early", [](tiny::Model& m) { m.tensors.back().data.resize(8); },
         RWKV_ERROR_MODEL_PARAMS | RWKV_ERROR_FILE_READ, RWKV_ERROR_MODEL_PARAMS},
    };
}

void test_flags() {
    const std::string out = in_folder("out.bin");
    for (const Fault& fault : all_faults()) {
        tiny::Model made = tiny::random_model("7", RWKV_TYPE_FP32);
        fault.make(made);
        const tiny::File file(made);
        CHECK(rwkv_init_from_file(file.path(), 1, 0) == nullptr);
        const int opening = rwkv_get_last_error(nullptr);
        const bool quantised = rwkv_quantize_model_file(file.path(), out.c_str(), "Q4_0");
        const int quantising = rwkv_get_last_error(nullptr);
        if (opening != fault.to_open || quantising != fault.to_quantise) {
            std::fprintf(stderr, "%s: flags %#x and %#x, expected %#x and %#x\n", fault.what,
                         static_cast<unsigned>(opening), static_cast<unsigned>(quantising),
                         static_cast<unsigned>(fault.to_open),
                         static_cast<unsigned>(fault.to_quantise));
            std::exit(1);
        }
        CHECK(quantised == (quantising == RWKV_ERROR_NONE));
        CHECK(quantised == std::filesystem::remove(out));
        CHECK(folder_is_empty());
    }
    // A quantised tensor in a file of version 100, whose blocks had another layout.
    tiny::Model old = tiny::random_model("4", RWKV_TYPE_Q4_0);
    old.file_version = 100;
    CHECK(rwkv_init_from_file(tiny::File(old).path(), 1, 0) == nullptr);
    CHECK(rwkv_get_last_error(nullptr) == (RWKV_ERROR_FILE | RWKV_ERROR_DATA_TYPE));
    // What is no file of the kind at all.
    CHECK(rwkv_init_from_file(folder().string().c_str(), 1, 0) == nullptr);
    CHECK(rwkv_get_last_error(nullptr) == (RWKV_ERROR_FILE | RWKV_ERROR_FILE_READ));
    CHECK(rwkv_init_from_file(tiny::File(Bytes{'f', 'm', 'g', 'g'}).path(), 1, 0) == nullptr);
    CHECK(rwkv_get_last_error(nullptr) == (RWKV_ERROR_FILE | RWKV_ERROR_FILE_READ));
    const tiny::Model made = tiny::random_model("7", RWKV_TYPE_FP32);
    const tiny::File gguf(tiny::gguf_of(made, "7", {}).bytes());
    CHECK(!rwkv_quantize_model_file(gguf.path(), out.c_str(), "Q4_0"));
    CHECK(rwkv_get_last_error(nullptr) == (RWKV_ERROR_FILE | RWKV_ERROR_FILE_MAGIC));
    CHECK(setenv("RWKV_KERNELS", "nothing", 1) == 0);
    CHECK(rwkv_init_from_file(tiny::File(made).path(), 1, 0) == nullptr);
    CHECK(rwkv_get_last_error(nullptr) == (RWKV_ERROR_CTX | RWKV_ERROR_UNSUPPORTED));
    CHECK(unsetenv("RWKV_KERNELS") == 0);
    CHECK(folder_is_empty());
}

// ---- files that are not to be trusted

// What opens computes; what fails says why and leaves nothing.
void try_file(const tiny::File& file, bool quantise) {
    rwkv_context* const ctx = rwkv_init_from_file(file.path(), 1, 0);
    CHECK((rwkv_get_last_error(nullptr) == RWKV_ERROR_NONE) == (ctx != nullptr));
    if (ctx != nullptr && rwkv_get_n_vocab(ctx) < 1000) {
        Floats state(rwkv_get_state_len(ctx));
        Floats logits(rwkv_get_logits_len(ctx));
        CHECK(rwkv_eval(ctx, 1, nullptr, state.data(), logits.data()));
    }
    rwkv_free(ctx);
    if (!quantise) return;
    const std::string out = in_folder("out.bin");
    const bool done = rwkv_quantize_model_file(file.path(), out.c_str(), "Q4_1");
    CHECK((rwkv_get_last_error(nullptr) == RWKV_ERROR_NONE) == done);
    CHECK(std::filesystem::remove(out) == done);
    CHECK(folder_is_empty());
}

void test_hostile_files() {
    tiny::Sizes sizes;
    sizes.n_layer = 1;
    sizes.n_head = 1;
    sizes.n_ffn = 32;
    sizes.n_vocab = 8;
    for (const char* version : tiny::kVersions) {
        const Bytes good = tiny::random_model(version, RWKV_TYPE_FP32, sizes).bytes();
        const tiny::File file(good);
        const size_t step = good.size() / (kBrief ? 8 : 80);
        for (size_t n = 0; n < good.size(); n += n < 200 ? (kBrief ? 9 : 1) : step) {
            file.write(good.data(), n);
            try_file(file, true);
        }
        std::mt19937 random(11);
        for (int i = 0; i < (kBrief ? 24 : 250); ++i) {
            Bytes bad = good;
            // Every other flip is in the headers at the begin.
            const size_t at = random() % (i % 2 == 0 ? 100 : bad.size());
            bad[at] = static_cast<uint8_t>(i % 3 == 0 ? random() : bad[at] ^ 1u << random() % 8);
            file.write(bad.data(), bad.size());
            try_file(file, i % 16 < 2);  // those that succeed wait for the disk
        }
    }
}

}  // namespace

int main() {
    check_arguments(tiny::File(tiny::random_model("7", RWKV_TYPE_Q4_0)).path(),
                    in_folder("missing.bin").c_str());
    rwkv_set_print_errors(nullptr, false);
    for (const char* const* level = rwkv_kernels_all(); *level != nullptr; ++level) {
        if (rwkv_kernels_supported(*level) == 0) continue;
        choose_level(*level);
        test_models();
        test_chunks();
        test_buffers();
    }
    CHECK(unsetenv("RWKV_KERNELS") == 0);
    test_quantising();
    test_flags();
    test_hostile_files();
    std::filesystem::remove(folder());
    return 0;
}
