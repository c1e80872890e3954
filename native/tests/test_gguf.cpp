// GGUF files: the same model as a ggmf file gives the same numbers, to the bit; what the file says
// of itself is there; and whatever is wrong with a file is a status and a sentence.
#include <unistd.h>

#include <cstring>
#include <filesystem>
#include <random>
#include <string>

#include "check.h"
#include "open_model.h"
#include "rwkv/rwkv.h"
#include "tiny_gguf.h"
#include "tiny_model.h"

namespace {

using namespace opened;
using Bytes = std::vector<uint8_t>;
using Words = std::vector<std::string>;

tiny::Sizes small_sizes() {
    tiny::Sizes sizes;
    sizes.n_layer = 2;
    sizes.n_head = 1;
    sizes.n_ffn = 32;
    sizes.n_vocab = 8;
    return sizes;
}

Floats logits_of(const Model& model) {
    const Session session = session_of(model);
    const Tokens tokens = random_tokens(40, vocab_of(model));
    Floats logits(vocab_of(model));
    EXPECT_OK(rwkv_session_feed(session.get(), tokens.data(), tokens.size(), logits.data()));
    const Floats state = state_of(model, session);
    logits.insert(logits.end(), state.begin(), state.end());
    return logits;
}

void test_same_numbers() {
    for (const char* version : {"6", "7"}) {
        for (const rwkv_type type : {RWKV_TYPE_FP32, RWKV_TYPE_FP16, RWKV_TYPE_Q4_0, RWKV_TYPE_Q4_1,
                                     RWKV_TYPE_Q5_0, RWKV_TYPE_Q5_1, RWKV_TYPE_Q8_0}) {
            const tiny::Sizes sizes;
            const tiny::Model made = tiny::random_model(version, type, sizes);
            const Floats expected = logits_of(open(made));
            tiny::Gguf gguf = tiny::gguf_of(made, version, sizes);
            for (const uint32_t alignment : {32u, 8u, 4096u}) {
                gguf.alignment = alignment;
                if (alignment != 32) gguf.set("general.alignment", alignment);
                gguf.version = alignment == 8 ? 2 : 3;
                const Model model = open(tiny::File(gguf.bytes()));
                const rwkv_model_info info = info_of(model.get());
                CHECK(info.version == std::string(version));
                CHECK(info.container == std::string("gguf"));
                CHECK(same_bits(logits_of(model), expected));
            }
        }
    }
}

// Version 6 with the residual stream halved after each layer: the same as matrices that are not
// divided, but for rounding.
void test_rescaled() {
    const tiny::Sizes sizes;
    const tiny::Model made = tiny::random_model("6", RWKV_TYPE_FP32, sizes);
    const Floats expected = logits_of(open(made));
    tiny::Gguf gguf = tiny::gguf_of(made, "6", sizes);
    gguf.set("rwkv6.rescale_every_n_layers", uint32_t{1});
    const Floats without = logits_of(open(tiny::File(gguf.bytes())));
    for (const char* name : {"blk.1.time_mix_output.weight", "blk.1.channel_mix_value.weight"}) {
        Bytes& data = gguf.at(name).data;
        for (size_t i = 0; i < data.size(); i += sizeof(float)) {
            float x;
            std::memcpy(&x, &data[i], sizeof x);
            x /= 2;
            std::memcpy(&data[i], &x, sizeof x);
        }
    }
    const Floats got = logits_of(open(tiny::File(gguf.bytes())));
    double largest = 0, largest_without = 0;
    for (size_t i = 0; i < got.size(); ++i) {
        largest = std::max(largest, std::fabs(static_cast<double>(got[i] - expected[i])));
        largest_without =
            std::max(largest_without, std::fabs(static_cast<double>(without[i] - expected[i])));
    }
    CHECK(largest < 1e-3 && largest_without > 10 * largest);
}

void test_notes() {
    const tiny::Sizes sizes = small_sizes();
    const tiny::Model made = tiny::random_model("7", RWKV_TYPE_FP32, sizes);
    tiny::Gguf gguf = tiny::gguf_of(made, "7", sizes);
    const Model model = open(tiny::File(gguf.bytes()));
    const rwkv_model_info info = info_of(model.get());
    CHECK(info.name == std::string("a tiny model"));
    CHECK(info.chat_template == std::string("{{ messages }}"));
    CHECK(info.end_of_text == 0 && info.end_of_turn == 2 && info.has_tokenizer == 1);
    rwkv_tokenizer* tokenizer = nullptr;
    EXPECT_OK(rwkv_tokenizer_create_for(model.get(), &tokenizer));
    const char text[] = "a\n\t'\"\xe4\xb8\\";
    int32_t tokens[16];
    size_t n = 0;
    EXPECT_OK(rwkv_tokenizer_encode(tokenizer, text, sizeof text - 1, tokens, 16, &n));
    CHECK(n == 5);
    for (size_t i = 0; i < n; ++i) CHECK(tokens[i] == static_cast<int32_t>(i) + 1);
    CHECK(rwkv_tokenizer_has(tokenizer, 0) == 1 && rwkv_tokenizer_has(tokenizer, 6) == 0);
    rwkv_tokenizer_free(tokenizer);

    // Files without one of its own, or with one of another kind.
    rwkv_tokenizer* none = nullptr;
    gguf.set("tokenizer.ggml.token_type", std::vector<int32_t>(8, 5));
    for (int i = 0; i < 3; ++i) {
        if (i == 1) gguf.set("tokenizer.ggml.model", std::string("gpt2"));
        if (i == 2) gguf.erase("tokenizer.ggml.tokens");
        const Model without = open(tiny::File(gguf.bytes()));
        CHECK(info_of(without.get()).has_tokenizer == 0);
        EXPECT_STATUS(rwkv_tokenizer_create_for(without.get(), &none), RWKV_STATUS_MODEL_OPTION,
                      "expected a file with a vocabulary");
    }
    const Model ggmf = open(made);
    const rwkv_model_info plain = info_of(ggmf.get());
    CHECK(plain.container == std::string("ggmf") && *plain.name == '\0' && plain.end_of_text == -1);
    EXPECT_STATUS(rwkv_tokenizer_create_for(ggmf.get(), &none), RWKV_STATUS_MODEL_OPTION, "");
    CHECK(none == nullptr);
}

// A model in three files, opened by any of their names.
void test_split() {
    const tiny::Sizes sizes = small_sizes();
    const tiny::Model made = tiny::random_model("7", RWKV_TYPE_FP32, sizes);
    const Floats expected = logits_of(open(made));
    const tiny::SplitFiles files(tiny::gguf_of(made, "7", sizes), 3);
    const auto name = [&](uint32_t i) { return files.path(i); };
    rwkv_model* opened = nullptr;
    for (uint32_t i = 0; i < 3; ++i) {
        EXPECT_OK(rwkv_model_open(name(i).c_str(), nullptr, &opened));
        const Model model(opened);
        CHECK(same_bits(logits_of(model), expected));
    }
    opened = nullptr;
    const std::string renamed = name(0) + "-renamed.gguf";
    std::filesystem::rename(name(0), renamed);
    EXPECT_STATUS(rwkv_model_open(renamed.c_str(), nullptr, &opened), RWKV_STATUS_FILE_FORMAT,
                  "-00001-of-00003.gguf");
    EXPECT_STATUS(rwkv_model_open(name(1).c_str(), nullptr, &opened), RWKV_STATUS_FILE_UNREADABLE,
                  "-00001-of-00003.gguf");
    std::filesystem::copy(name(1), name(0));
    EXPECT_STATUS(rwkv_model_open(name(1).c_str(), nullptr, &opened), RWKV_STATUS_FILE_FORMAT,
                  "split.no");
    std::filesystem::remove(renamed);
}

void expect(const Bytes& bytes, rwkv_status expected, const Words& words, const char* what) {
    const tiny::File file(bytes);
    rwkv_model* model = nullptr;
    const rwkv_status status = rwkv_model_open(file.path(), nullptr, &model);
    bool all = status == expected;
    for (const std::string& word : words) {
        all = all && std::strstr(rwkv_error_message(), word.c_str()) != nullptr;
    }
    rwkv_model_free(model);
    if (all) return;
    std::fprintf(stderr, "%s: status %d, expected %d; message: %s\n", what, status, expected,
                 rwkv_error_message());
    std::exit(1);
}

void test_lies() {
    using G = tiny::Gguf;
    const tiny::Sizes sizes = small_sizes();
    const G honest = tiny::gguf_of(tiny::random_model("7", RWKV_TYPE_Q4_0, sizes), "7", sizes);
    expect(honest.bytes(), RWKV_STATUS_OK, {}, "an honest file");
    const struct {
        const char* what;
        void (*lie)(G&);
        rwkv_status status;
        Words words;
    } lies[] = {
        {"version 1", [](G& g) { g.version = 1; }, RWKV_STATUS_FILE_VERSION, {"2 or 3, got 1"}},
        {"big-endian",
         [](G& g) { g.version = 0x03000000; },
         RWKV_STATUS_FILE_VERSION,
         {"big-endian"}},
        {"another architecture",
         [](G& g) { g.set("general.architecture", std::string("llama")); },
         RWKV_STATUS_MODEL_VERSION,
         {"rwkv6 or rwkv7", "'llama'"}},
        {"no architecture",
         [](G& g) { g.erase("general.architecture"); },
         RWKV_STATUS_MODEL_VERSION,
         {"''"}},
        {"width as a text",
         [](G& g) { g.set("rwkv7.embedding_length", std::string("32")); },
         RWKV_STATUS_FILE_FORMAT,
         {"rwkv7.embedding_length", "whole number"}},
        {"no layers",
         [](G& g) { g.erase("rwkv7.block_count"); },
         RWKV_STATUS_FILE_FORMAT,
         {"block_count"}},
        {"a layer more",
         [](G& g) { g.set("rwkv7.block_count", uint32_t{3}); },
         RWKV_STATUS_TENSOR_MISSING,
         {"blocks.2.ln1.weight"}},
        {"a layer less",
         [](G& g) { g.set("rwkv7.block_count", uint32_t{1}); },
         RWKV_STATUS_FILE_FORMAT,
         {"1 layers"}},
        {"heads that do not divide",
         [](G& g) { g.set("rwkv7.wkv.head_size", uint32_t{33}); },
         RWKV_STATUS_FILE_FORMAT,
         {"head_size"}},
        {"another eps",
         [](G& g) { g.set("rwkv7.attention.layer_norm_epsilon", 1e-6f); },
         RWKV_STATUS_FILE_FORMAT,
         {"layer_norm_epsilon", "1e-06"}},
        {"alignment 0",
         [](G& g) { g.set("general.alignment", uint32_t{0}); },
         RWKV_STATUS_FILE_FORMAT,
         {"general.alignment"}},
        {"alignment 24",
         [](G& g) { g.set("general.alignment", uint32_t{24}); },
         RWKV_STATUS_FILE_FORMAT,
         {"power of 2", "24"}},
        {"tokens missing",
         [](G& g) { g.set("tokenizer.ggml.tokens", std::vector<std::string>{"<s>", "a"}); },
         RWKV_STATUS_FILE_FORMAT,
         {"expected 8 tokens, got 2"}},
        {"two tokens of the same bytes",
         [](G& g) {
             g.set("tokenizer.ggml.tokens", std::vector<std::string>(8, "a"));
             g.set("tokenizer.ggml.token_type", std::vector<int32_t>(8, 1));
         },
         RWKV_STATUS_OK,
         {}},  // told when the tokenizer is asked for
        {"tokens as numbers",
         [](G& g) { g.set("tokenizer.ggml.tokens", std::vector<int32_t>{1}); },
         RWKV_STATUS_FILE_FORMAT,
         {"tokenizer.ggml.tokens"}},
        {"a key twice",
         [](G& g) { g.keys.push_back(g.keys.front()); },
         RWKV_STATUS_FILE_FORMAT,
         {"twice"}},
        {"a tensor twice",
         [](G& g) { g.tensors.push_back(g.tensors.front()); },
         RWKV_STATUS_FILE_FORMAT,
         {"twice"}},
        {"q2_K",
         [](G& g) { g.at("output.weight").type = 10; },
         RWKV_STATUS_TENSOR_TYPE,
         {"output.weight", "q2_K", "Q4_K_M", "rwkv-convert"}},
        {"iq4_xs",
         [](G& g) { g.at("output.weight").type = 23; },
         RWKV_STATUS_TENSOR_TYPE,
         {"iq4_xs"}},
        {"an unknown type",
         [](G& g) { g.at("output.weight").type = 99; },
         RWKV_STATUS_FILE_FORMAT,
         {"number 99"}},
        {"rows of 48",
         [](G& g) { g.at("output.weight").shape = {4, 48}; },
         RWKV_STATUS_TENSOR_SHAPE,
         {"multiple of 32", "48"}},
        {"dimensions 0",
         [](G& g) { g.at("output.weight").shape = {}; },
         RWKV_STATUS_FILE_FORMAT,
         {"1 to 4 dimensions"}},
        {"dimensions beyond 64 bits",
         [](G& g) { g.at("output.weight").shape = {uint64_t{1} << 40, uint64_t{1} << 40}; },
         RWKV_STATUS_FILE_FORMAT,
         {"a possible one"}},
        {"more than there is",
         [](G& g) { g.at("output.weight").shape = {1 << 20, 1 << 20}; },
         RWKV_STATUS_FILE_TRUNCATED,
         {"output.weight"}},
        {"no name",
         [](G& g) { g.at("output.weight").name = ""; },
         RWKV_STATUS_FILE_FORMAT,
         {"name of 1 to"}},
        {"no head",
         [](G& g) { g.at("output.weight").name = "other"; },
         RWKV_STATUS_TENSOR_MISSING,
         {"head.weight"}},
    };
    for (const auto& each : lies) {
        G liar = honest;
        each.lie(liar);
        expect(liar.bytes(), each.status, each.words, each.what);
    }
}

// Every truncation, and every flip of a bit of the first 4 KiB: a status and a sentence, or a model
// that can be used. Where programs are slow, some of them.
void test_damage() {
    tiny::Sizes sizes = small_sizes();
    sizes.n_layer = 1;
    const tiny::Gguf gguf =
        tiny::gguf_of(tiny::random_model("6", RWKV_TYPE_Q8_0, sizes), "6", sizes);
    const Bytes good = gguf.bytes();
    const tiny::File file(good);
    rwkv_model_options options = model_options();
    options.n_threads = 1;
    rwkv_model* model = nullptr;
    const size_t step = kBrief ? 7 : 1;
    for (size_t n = 0; n < good.size(); n += step) {
        file.write(good.data(), n);
        CHECK(rwkv_model_open(file.path(), &options, &model) != RWKV_STATUS_OK);
        CHECK(*rwkv_error_message() != '\0');
    }
    const Tokens tokens = {1, 2, 3};
    for (size_t bit = 0; bit < 8 * std::min<size_t>(good.size(), 4096); bit += step) {
        Bytes bad = good;
        bad[bit / 8] = static_cast<uint8_t>(bad[bit / 8] ^ (1u << bit % 8));
        file.write(bad.data(), bad.size());
        const rwkv_status status = rwkv_model_open(file.path(), &options, &model);
        if (status != RWKV_STATUS_OK) {
            CHECK(*rwkv_error_message() != '\0');
            continue;
        }
        const Model opened(model);
        const Session session = session_of(opened);
        EXPECT_OK(rwkv_session_feed(session.get(), tokens.data(), tokens.size(), nullptr));
    }
}

}  // namespace

int main() {
    CHECK(unsetenv("RWKV_KERNELS") == 0 && unsetenv("RWKV_THREADS") == 0);
    test_same_numbers();
    test_rescaled();
    test_notes();
    test_split();
    test_lies();
    test_damage();
    return 0;
}
