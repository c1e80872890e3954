// Every way a model file can lie, each with its status and the words of its sentence; then random
// damage, which must open or fail cleanly.
#include <unistd.h>
#if defined(_WIN32)
#define WIN32_LEAN_AND_MEAN
#include <windows.h>
/* after it */
#include <psapi.h>
#else
#include <sys/resource.h>
#include <sys/stat.h>
#endif

#include <algorithm>
#include <cstring>
#include <functional>
#include <limits>
#include <random>
#include <string>
#include <vector>

#include "check.h"
#include "rwkv/rwkv.h"
#include "structs.h"
#include "tiny_model.h"

namespace {

constexpr int32_t kMaxInt = std::numeric_limits<int32_t>::max();

// Opens with one thread; if that succeeds, feeds a token. The message of a failure must name the
// file and be printable.
rwkv_status try_file(const char* path) {
    rwkv_model_options options = model_options();
    options.n_threads = 1;
    rwkv_model* model = nullptr;
    const rwkv_status status = rwkv_model_open(path, &options, &model);
    if (status != RWKV_STATUS_OK) {
        const std::string message = rwkv_error_message();
        CHECK(model == nullptr);
        CHECK(message.find(path) == 0 && message.back() != '\n');
        for (const char c : message) CHECK(c >= 0x20 && c != 0x7f);
        return status;
    }
    rwkv_session* session = nullptr;
    CHECK(rwkv_session_create(model, &session) == RWKV_STATUS_OK);
    std::vector<float> logits(info_of(model).n_vocab);
    const int32_t token = 0;
    CHECK(rwkv_session_feed(session, &token, 1, logits.data()) == RWKV_STATUS_OK);
    rwkv_session_free(session);
    rwkv_model_free(model);
    return RWKV_STATUS_OK;
}

using Words = std::vector<std::string>;

void expect(const char* path, rwkv_status expected, const Words& words, const std::string& what) {
    const rwkv_status status = try_file(path);
    const std::string message = status == RWKV_STATUS_OK ? "" : rwkv_error_message();
    bool good = status == expected;
    for (const std::string& word : words) good = good && message.find(word) != std::string::npos;
    if (good) return;
    std::fprintf(stderr, "%s: status %d, expected %d; message: %s\nwords:", what.c_str(), status,
                 expected, message.c_str());
    for (const std::string& word : words) std::fprintf(stderr, " '%s'", word.c_str());
    std::fprintf(stderr, "\n");
    std::exit(1);
}

void expect(const tiny::Model& model, rwkv_status expected, const Words& words,
            const std::string& what) {
    const tiny::File file(model);
    expect(file.path(), expected, words, what);
}

void expect_bytes(const std::string& bytes, rwkv_status expected, const Words& words) {
    const tiny::File file(std::vector<uint8_t>(bytes.begin(), bytes.end()));
    expect(file.path(), expected, words, "bytes '" + bytes.substr(0, 20) + "'");
}

tiny::Sizes small_sizes() {
    tiny::Sizes sizes;
    sizes.n_layer = 1;
    sizes.n_head = 1;
    sizes.n_ffn = 32;
    sizes.n_vocab = 4;
    return sizes;
}

// ---- what is no model file at all

// The most memory that this process has had.
size_t resident_bytes() {
#if defined(_WIN32)
    PROCESS_MEMORY_COUNTERS counters = {};
    CHECK(::GetProcessMemoryInfo(::GetCurrentProcess(), &counters, sizeof counters));
    return counters.PeakWorkingSetSize;
#else
    struct rusage usage = {};
    CHECK(::getrusage(RUSAGE_SELF, &usage) == 0);
#if defined(__APPLE__)
    constexpr size_t kUnit = 1;
#else
    constexpr size_t kUnit = 1024;
#endif
    return static_cast<size_t>(usage.ru_maxrss) * kUnit;
#endif
}

void test_not_a_model_file() {
    const std::string folder = RWKV_BINARY_DIR;
    const std::string missing = folder + "/there/is/none.bin";
    expect(missing.c_str(), RWKV_STATUS_FILE_UNREADABLE, {"No such file"}, "missing");
    expect(folder.c_str(), RWKV_STATUS_FILE_UNREADABLE, {"folder"}, "folder");
#if defined(_WIN32)
    expect("NUL", RWKV_STATUS_FILE_UNREADABLE, {"a regular file"}, "device");
#else
    expect("/dev/null", RWKV_STATUS_FILE_UNREADABLE, {"a regular file"}, "device");
#endif
    expect(std::string(5000, 'x').c_str(), RWKV_STATUS_FILE_UNREADABLE, {"cannot be opened"},
           "path too long");
    expect("", RWKV_STATUS_FILE_UNREADABLE, {"cannot be opened"}, "empty path");

#if !defined(_WIN32)
    // Nobody writes to this pipe: to wait for somebody would be to hang.
    const std::string pipe = folder + "/pipe-" + std::to_string(::getpid());
    CHECK(::mkfifo(pipe.c_str(), 0600) == 0);
    expect(pipe.c_str(), RWKV_STATUS_FILE_UNREADABLE, {"a regular file"}, "named pipe");
    ::unlink(pipe.c_str());

    if (::geteuid() != 0) {  // root may read all
        const tiny::File file(tiny::random_model("4", RWKV_TYPE_Q4_0, small_sizes()));
        CHECK(::chmod(file.path(), 0) == 0);
        expect(file.path(), RWKV_STATUS_FILE_UNREADABLE, {"Permission denied"}, "unreadable");
    }
#endif

    expect_bytes("fm", RWKV_STATUS_FILE_FORMAT, {"not a model file"});
    // What it may be, and what to do about it.
    const struct {
        std::string bytes;
        const char* got;
        const char* remedy;
    } impostors[] = {
        {"", "an empty file", "Try to download it again"},
        {"PK\x03\x04 archive/data.pkl", "a checkpoint (.pth)", "rwkv-convert IN OUT.bin"},
        {"<!DOCTYPE html><html>404</html>", "a web page", "the file itself"},
        {"\xef\xbb\xbf \n<HTML>", "a web page", "the file itself"},
        {"version https://git-lfs.github.com/spec/v1\noid sha256:0", "a Git LFS pointer",
         "git lfs pull"},
        {"tjgg", "a ggml file of another program", "Try the checkpoint"},
        {std::string("\x40\0\0\0\0\0\0\0{\"emb.weight\"", 21), "a checkpoint (.safetensors)",
         "rwkv-convert IN OUT.bin"},
        {"\x80\x02}", "a pickle", "rwkv-convert IN OUT.bin"},
        {"\x1f\x8b\x08", "a compressed archive", "unpack"},
        {"rwkvstat", "a state that was saved", "Load it into one"},
        {std::string(100, '\0'), "zeros", "Try to download it again"},
        {"Hi there, model", "the bytes 48 69 20 74 68 65 72 65", "rwkv-convert"},
    };
    for (const auto& each : impostors) {
        expect_bytes(each.bytes, RWKV_STATUS_FILE_FORMAT,
                     {"not a model file, expected", each.got, each.remedy});
    }
    expect_bytes("fmgg", RWKV_STATUS_FILE_TRUNCATED, {"header"});
}

// ---- one lie at a time

struct Lie {
    const char* what;
    std::function<void(tiny::Model&)> tell;  // to a q4_0 model of version 7 with 2 layers, 64 wide
    rwkv_status status;
    Words words;
};

// Puts a tensor that no model needs at the end, so that whatever is wrong with it is found first.
tiny::Tensor& add(tiny::Model& m, const char* name, std::vector<int32_t> shape, size_t n_bytes) {
    m.tensors.push_back({name, 0, std::move(shape), std::vector<uint8_t>(n_bytes)});
    return m.tensors.back();
}

const std::vector<Lie>& lies() {
    using M = tiny::Model;
    static const std::vector<Lie> all = {
        // the header
        {"version 99", [](M& m) { m.file_version = 99; }, RWKV_STATUS_FILE_VERSION, {"99", "101"}},
        {"version 102", [](M& m) { m.file_version = 102; }, RWKV_STATUS_FILE_VERSION, {"102"}},
        {"version -1", [](M& m) { m.file_version = -1; }, RWKV_STATUS_FILE_VERSION, {"-1"}},
        {"version 100, quantised",
         [](M& m) { m.file_version = 100; },
         RWKV_STATUS_FILE_VERSION,
         {"emb.weight", "q4_0", "version 100"}},
        {"n_vocab 0", [](M& m) { m.n_vocab = 0; }, RWKV_STATUS_FILE_FORMAT, {"n_vocab 0"}},
        {"n_vocab < 0", [](M& m) { m.n_vocab = -5; }, RWKV_STATUS_FILE_FORMAT, {"n_vocab -5"}},
        {"n_embd 0", [](M& m) { m.n_embd = 0; }, RWKV_STATUS_FILE_FORMAT, {"n_embed 0"}},
        {"n_layer < 0", [](M& m) { m.n_layer = -1; }, RWKV_STATUS_FILE_FORMAT, {"n_layer -1"}},
        {"n_vocab + 1", [](M& m) { ++m.n_vocab; }, RWKV_STATUS_TENSOR_SHAPE, {"emb.weight", "41"}},
        {"n_vocab - 1", [](M& m) { --m.n_vocab; }, RWKV_STATUS_TENSOR_SHAPE, {"emb.weight", "39"}},
        {"n_vocab max",
         [](M& m) { m.n_vocab = kMaxInt; },
         RWKV_STATUS_TENSOR_SHAPE,
         {"emb.weight", "2147483647"}},
        {"n_embd + 32", [](M& m) { m.n_embd += 32; }, RWKV_STATUS_TENSOR_SHAPE, {"emb.weight"}},
        {"n_layer + 1",
         [](M& m) { ++m.n_layer; },
         RWKV_STATUS_TENSOR_MISSING,
         {"blocks.2.ln1.weight", "RWKV-7", "3 layers"}},
        {"n_layer max",
         [](M& m) { m.n_layer = kMaxInt; },
         RWKV_STATUS_TENSOR_MISSING,
         {"blocks.2147483646.ln1.weight"}},
        {"n_layer - 1",
         [](M& m) { --m.n_layer; },
         RWKV_STATUS_FILE_FORMAT,
         {"header's 1 layers", "more"}},
        {"n_layer max, whose last layer is there",
         [](M& m) {
             m.n_layer = kMaxInt;
             add(m, "blocks.2147483646.ln1.weight", {64}, 256);
         },
         RWKV_STATUS_FILE_FORMAT,
         {"header's 2147483647 layers", "fewer"}},
        {"header of a retired type",
         [](M& m) { m.data_type = 4; },
         RWKV_STATUS_TENSOR_TYPE,
         {"header", "q4_1_o", "retired"}},
        {"header of an unknown type",
         [](M& m) { m.data_type = 99; },
         RWKV_STATUS_FILE_FORMAT,
         {"header", "got 99"}},

        // the header of a tensor
        {"dimensions 0",
         [](M& m) { add(m, "t", {}, 0); },
         RWKV_STATUS_FILE_FORMAT,
         {"1 to 3 dimensions, got 0"}},
        {"dimensions 4",
         [](M& m) { add(m, "t", {1, 1, 1, 1}, 4); },
         RWKV_STATUS_FILE_FORMAT,
         {"1 to 3 dimensions, got 4"}},
        {"no name",
         [](M& m) { add(m, "", {1}, 4); },
         RWKV_STATUS_FILE_FORMAT,
         {"1 to 1024 bytes, got 0"}},
        {"name of 1025 bytes",
         [](M& m) { add(m, "t", {1}, 4).name = std::string(1025, 'n'); },
         RWKV_STATUS_FILE_FORMAT,
         {"1 to 1024 bytes, got 1025"}},
        {"dimension 0",
         [](M& m) { add(m, "t", {3, 0}, 0); },
         RWKV_STATUS_FILE_FORMAT,
         {"'t'", "a possible one, got (3, 0)"}},
        {"dimension < 0",
         [](M& m) { add(m, "t", {-2, 3}, 24); },
         RWKV_STATUS_FILE_FORMAT,
         {"'t'", "a possible one"}},
        {"two dimensions < 0, product > 0",
         [](M& m) { add(m, "t", {-2, -3}, 24); },
         RWKV_STATUS_FILE_FORMAT,
         {"a possible one"}},
        {"elements beyond 64 bits",
         [](M& m) { add(m, "t", {kMaxInt, kMaxInt, kMaxInt}, 8); },
         RWKV_STATUS_FILE_FORMAT,
         {"a possible one"}},
        {"elements that wrap around to 0",
         [](M& m) { add(m, "t", {1 << 30, 1 << 30, 16}, 0); },
         RWKV_STATUS_FILE_FORMAT,
         {"a possible one"}},
        {"bytes beyond 64 bits",
         [](M& m) { add(m, "t", {kMaxInt, kMaxInt, 2}, 8); },
         RWKV_STATUS_FILE_FORMAT,
         {"a possible one"}},
        {"more than there is",
         [](M& m) { add(m, "t", {1 << 20, 1 << 20}, 8); },
         RWKV_STATUS_FILE_TRUNCATED,
         {"tensor 't'", "4398046511104 bytes"}},
        {"one byte less",
         [](M& m) { m.tensors.back().data.pop_back(); },
         RWKV_STATUS_FILE_TRUNCATED,
         {"head.weight"}},
        {"twice",
         [](M& m) { m.tensors.push_back(m.at("ln_out.weight")); },
         RWKV_STATUS_FILE_FORMAT,
         {"ln_out.weight", "twice"}},
        {"row of 48 values",
         [](M& m) { add(m, "t", {2, 48}, 54).type = 2; },
         RWKV_STATUS_TENSOR_SHAPE,
         {"'t'", "48", "multiple of 32", "q4_0"}},
        {"a name that is not printable",
         [](M& m) { add(m, "\x1b[2J\n\xff", {-1}, 0); },
         RWKV_STATUS_FILE_FORMAT,
         {"?[2J??"}},

        // what a model of version 7 cannot be
        {"no tensors",
         [](M& m) { m.tensors.clear(); },
         RWKV_STATUS_MODEL_VERSION,
         {"got 0 others"}},
        {"heads that do not divide the width",
         [](M& m) {
             m.at("blocks.0.att.r_k") = add(m, "blocks.0.att.r_k", {3, 32}, 384);
             m.tensors.pop_back();
         },
         RWKV_STATUS_TENSOR_SHAPE,
         {"got 3", "64"}},
        {"more heads than the width",
         [](M& m) {
             m.at("blocks.0.att.r_k") = add(m, "blocks.0.att.r_k", {128, 32}, 16384);
             m.tensors.pop_back();
         },
         RWKV_STATUS_TENSOR_SHAPE,
         {"got 128", "64"}},
        {"other heads in layer 1",
         [](M& m) { m.at("blocks.1.att.r_k").shape = {4, 16}; },
         RWKV_STATUS_TENSOR_SHAPE,
         {"blocks.1.att.r_k", "(4, 16)", "(2, 32)"}},

        // an initial state
        {"an initial state of layer 0 alone",
         [](M& m) { add(m, "blocks.0.att.time_state", {2, 32, 32}, 8192); },
         RWKV_STATUS_TENSOR_MISSING,
         {"blocks.1.att.time_state"}},
        {"an initial state of layer 1 alone",
         [](M& m) { add(m, "blocks.1.att.time_state", {2, 32, 32}, 8192); },
         RWKV_STATUS_TENSOR_MISSING,
         {"blocks.0.att.time_state"}},
        {"an initial state of other heads",
         [](M& m) {
             add(m, "blocks.0.att.time_state", {2, 32, 32}, 8192);
             add(m, "blocks.1.att.time_state", {4, 16, 16}, 4096);
         },
         RWKV_STATUS_TENSOR_SHAPE,
         {"blocks.1.att.time_state", "(4, 16, 16)", "(2, 32, 32)"}},
        {"an initial state that is flat",
         [](M& m) { add(m, "blocks.0.att.time_state", {2048}, 8192); },
         RWKV_STATUS_TENSOR_SHAPE,
         {"blocks.0.att.time_state", "(2048)", "(2, 32, 32)"}},
        {"an initial state that ends early",
         [](M& m) { add(m, "blocks.0.att.time_state", {2, 32, 32}, 8191); },
         RWKV_STATUS_FILE_TRUNCATED,
         {"blocks.0.att.time_state"}},
        {"an initial state of a retired type",
         [](M& m) { add(m, "blocks.0.att.time_state", {2, 32, 32}, 8192).type = 5; },
         RWKV_STATUS_TENSOR_TYPE,
         {"blocks.0.att.time_state", "q4_2"}},
    };
    return all;
}

void test_lies() {
    const tiny::Model honest = tiny::random_model("7", RWKV_TYPE_Q4_0);
    expect(honest, RWKV_STATUS_OK, {}, "an honest file");
    for (const Lie& lie : lies()) {
        tiny::Model model = honest;
        lie.tell(model);
        expect(model, lie.status, lie.words, lie.what);
    }
}

void test_types() {
    const tiny::Model honest = tiny::random_model("4", RWKV_TYPE_FP16, small_sizes());
    const struct {
        int32_t number;
        const char* name;
    } refused[] = {{4, "q4_1_o"}, {5, "q4_2"},  {6, "q4_3"},  {10, "q8_1"}, {11, "q2_K"},
                   {12, "q3_K"},  {13, "q4_K"}, {14, "q5_K"}, {15, "q6_K"}, {16, "q8_K"}};
    for (const auto& type : refused) {
        tiny::Model model = honest;
        model.at("head.weight").type = type.number;
        expect(model, RWKV_STATUS_TENSOR_TYPE, {"head.weight", type.name, "q8_0", "rwkv-convert"},
               type.name);
    }
    for (const int32_t number : {-1, 17, 1000, kMaxInt, std::numeric_limits<int32_t>::min()}) {
        tiny::Model model = honest;
        model.at("head.weight").type = number;
        expect(model, RWKV_STATUS_FILE_FORMAT, {"head.weight", std::to_string(number), "corrupt"},
               "unknown type");
    }
}

// Files that look odd and are fine.
void test_odd_but_good() {
    for (const rwkv_type type : {RWKV_TYPE_FP32, RWKV_TYPE_FP16}) {
        tiny::Model old = tiny::random_model("6", type);
        old.file_version = 100;
        expect(old, RWKV_STATUS_OK, {}, "version 100 without quantised blocks");
    }
    for (const char* version : tiny::kVersions) {
        // Every tensor's type is its own: matrices of all types in turn, vectors in fp16.
        tiny::Sizes sizes;
        sizes.time_state = true;
        const tiny::Model mixed = tiny::mixed_model(version, sizes);
        expect(mixed, RWKV_STATUS_OK, {}, "types mixed");

        tiny::Model reversed = tiny::random_model(version, RWKV_TYPE_Q5_1);
        std::reverse(reversed.tensors.begin(), reversed.tensors.end());
        add(reversed, "something.else", {3, 5, 7}, 420);
        expect(reversed, RWKV_STATUS_OK, {}, "another order, and one tensor more");
    }
    // Some releases carry v0 v1 v2 in layer 0, where they are not used.
    tiny::Model unused = tiny::random_model("7", RWKV_TYPE_Q4_0);
    for (const char* name : {"v0", "v1", "v2"}) {
        tiny::Tensor copy = unused.at(std::string("blocks.1.att.") + name);
        copy.name[7] = '0';
        unused.tensors.insert(unused.tensors.begin() + 5, copy);
    }
    expect(unused, RWKV_STATUS_OK, {}, "v0 v1 v2 in layer 0");
    // Version 4 has no heads: to it, this is a tensor like any other that it does not use.
    tiny::Model headless = tiny::random_model("4", RWKV_TYPE_Q4_0);
    add(headless, "blocks.0.att.time_state", {2, 32, 32}, 8192);
    expect(headless, RWKV_STATUS_OK, {}, "an initial state in a model without heads");
    // Numbers are not judged: what comes out is NaN.
    tiny::Model not_a_number = tiny::random_model("7", RWKV_TYPE_Q4_0);
    for (tiny::Tensor& t : not_a_number.tensors) std::fill(t.data.begin(), t.data.end(), 0xff);
    expect(not_a_number, RWKV_STATUS_OK, {}, "NaN everywhere");
}

// ---- each tensor of each version missing, and of another shape

bool ends_with(const std::string& text, const std::string& end) {
    return text.size() >= end.size() &&
           text.compare(text.size() - end.size(), end.size(), end) == 0;
}

// Tensors by which the version is recognised: without them it is taken for another.
bool tells_version(const std::string& version, const std::string& name) {
    const auto is = [&](const char* end) { return name == std::string("blocks.0.att.") + end; };
    if (version == "4") return is("time_first") || is("time_decay");
    if (version == "5.1") return is("ln_x.weight");
    if (version == "5.2") return is("ln_x.weight") || is("gate.weight");
    return version == "6" && is("time_maa_x");
}

tiny::Sizes with_time_state(tiny::Sizes sizes = {}) {
    sizes.time_state = true;
    return sizes;
}

// A file of nothing but headers is refused before its table has grown beyond what a model needs.
void test_too_many_tensors() {
    tiny::Model model = tiny::random_model("4", RWKV_TYPE_FP32, small_sizes());
    for (int i = 0; i < 100'001; ++i) add(model, "t", {1}, 4).name += std::to_string(i);
    const size_t before = resident_bytes();
    const tiny::File file(model.bytes());
    expect(file.path(), RWKV_STATUS_FILE_FORMAT, {"expected at most 100000 tensors, got more"},
           "too many tensors");
#if defined(__SANITIZE_ADDRESS__)  // whose own memory is many times ours
    (void)before;
#else
    CHECK(resident_bytes() < before + (size_t{64} << 20));
#endif
}

void test_missing_tensors() {
    for (const std::string version : tiny::kVersions) {
        const tiny::Model honest = tiny::random_model(version, RWKV_TYPE_Q4_0, with_time_state());
        for (const tiny::Tensor& t : honest.tensors) {
            tiny::Model model = honest;
            model.erase(t.name);
            if (tells_version(version, t.name)) {
                const tiny::File file(model);
                const rwkv_status status = try_file(file.path());
                CHECK(status == RWKV_STATUS_MODEL_VERSION || status == RWKV_STATUS_TENSOR_MISSING ||
                      status == RWKV_STATUS_TENSOR_SHAPE);
            } else {
                expect(model, RWKV_STATUS_TENSOR_MISSING,
                       {"'" + t.name + "'", "RWKV-" + version, "rwkv-convert"}, "missing");
            }
        }
    }
}

// Tensors whose shape other tensors are measured by: the mistake is found at one of those.
bool gives_measure(const std::string& name) {
    for (const char* end :
         {"0.ffn.key.weight", "0.att.time_decay", "0.att.time_faaaa", "0.att.r_k", "att.w1",
          "att.a1", "att.v1", "att.g1", "att.time_decay_w1", "att.time_maa_w2"}) {
        if (ends_with(name, end)) return true;
    }
    return false;
}

void test_misshaped_tensors() {
    for (const std::string version : tiny::kVersions) {
        const tiny::Model honest = tiny::random_model(version, RWKV_TYPE_Q4_0, with_time_state());
        for (size_t i = 0; i < honest.tensors.size(); ++i) {
            const tiny::Tensor& good = honest.tensors[i];
            const auto expect_refused = [&](const tiny::Tensor& bad, const char* what) {
                tiny::Model model = honest;
                model.tensors[i] = bad;
                expect(model, RWKV_STATUS_TENSOR_SHAPE,
                       {gives_measure(good.name) ? "blocks." : "'" + good.name + "'"},
                       "version " + version + ", " + good.name + ", " + what);
            };
            tiny::Tensor bad = good;  // one row, or one value, more
            const size_t row = good.data.size() / static_cast<size_t>(good.shape[0]);
            ++bad.shape[0];
            bad.data.insert(bad.data.end(), good.data.begin(),
                            good.data.begin() + static_cast<std::ptrdiff_t>(row));
            const bool heads = good.name == "blocks.0.att.r_k" ||
                               ends_with(good.name, "0.att.time_faaaa") ||
                               (ends_with(good.name, "0.att.time_decay") && version[0] == '5');
            if (!heads) expect_refused(bad, "one row more");  // heads: see the table of lies

            bad = good;  // one row less, unless it is the only one
            if (--bad.shape[0] > 0 && !heads) {
                bad.data.resize(bad.data.size() - row);
                expect_refused(bad, "one row less");
            }
            if (good.shape.size() == 2 && good.shape[0] != good.shape[1] && !heads &&
                good.shape[0] % 32 == 0) {
                bad = good;
                std::swap(bad.shape[0], bad.shape[1]);
                expect_refused(bad, "transposed");
            }
            if (good.shape.size() == 2 && good.type != 0) {
                bad = good;
                bad.shape.insert(bad.shape.begin(), 1);
                if (!heads) expect_refused(bad, "a dimension of 1 more");
            }
        }
    }
}

// ---- damage

void test_truncated_anywhere() {
    const tiny::Model model = tiny::random_model("4", RWKV_TYPE_Q4_0, small_sizes());
    const std::vector<uint8_t> bytes = model.bytes();
    std::vector<size_t> ends = {24};  // of the header, and of each tensor
    for (const tiny::Tensor& t : model.tensors) {
        ends.push_back(ends.back() + 12 + 4 * t.shape.size() + t.name.size() + t.data.size());
    }
    CHECK(ends.back() == bytes.size());
    const tiny::File file(bytes);
    for (size_t n = 0; n <= bytes.size(); ++n) {
        file.write(bytes.data(), n);
        const bool whole_tensors = std::binary_search(ends.begin(), ends.end(), n);
        const rwkv_status status = try_file(file.path());
        if (n < 4) {
            CHECK(status == RWKV_STATUS_FILE_FORMAT);
        } else if (n == bytes.size()) {
            CHECK(status == RWKV_STATUS_OK);
        } else if (whole_tensors) {
            CHECK(status == RWKV_STATUS_TENSOR_MISSING || status == RWKV_STATUS_MODEL_VERSION);
        } else {
            CHECK(status == RWKV_STATUS_FILE_TRUNCATED);
            CHECK(std::strstr(rwkv_error_message(), "truncated") != nullptr);
        }
    }
    std::vector<uint8_t> longer = bytes;  // bytes after the end are the beginning of a tensor
    for (int i = 0; i < 11; ++i) {
        longer.push_back(1);
        file.write(longer.data(), longer.size());
        CHECK(try_file(file.path()) == RWKV_STATUS_FILE_TRUNCATED);
    }
}

// Damages a file in one of several ways, mostly where it hurts: in headers.
void damage(std::vector<uint8_t>& bytes, const std::vector<size_t>& headers, std::mt19937& random) {
    constexpr int32_t kValues[] = {0,
                                   1,
                                   -1,
                                   2,
                                   3,
                                   4,
                                   7,
                                   9,
                                   31,
                                   33,
                                   64,
                                   65,
                                   256,
                                   1 << 16,
                                   kMaxInt,
                                   kMaxInt - 1,
                                   std::numeric_limits<int32_t>::min()};
    const auto anywhere = [&] { return bytes.empty() ? 0 : random() % bytes.size(); };
    const auto in_header = [&] {
        const size_t at = headers[random() % headers.size()] + random() % 48;
        return at < bytes.size() ? at : anywhere();
    };
    if (bytes.empty()) return;
    switch (random() % 8) {
        case 0:
            bytes[anywhere()] ^= static_cast<uint8_t>(1u << random() % 8);
            break;
        case 1:
        case 2:
            bytes[in_header()] ^= static_cast<uint8_t>(1u << random() % 8);
            break;
        case 3:
        case 4:
        case 5: {  // one of a header's whole numbers
            const size_t at = headers[random() % headers.size()] + random() % 6 * 4;
            const int32_t value = kValues[random() % std::size(kValues)];
            if (at + 4 <= bytes.size()) std::memcpy(bytes.data() + at, &value, sizeof value);
            break;
        }
        case 6: {  // a piece is lost
            const size_t begin = anywhere();
            const size_t end = std::min(bytes.size(), begin + random() % 100);
            bytes.erase(bytes.begin() + static_cast<std::ptrdiff_t>(begin),
                        bytes.begin() + static_cast<std::ptrdiff_t>(end));
            break;
        }
        default: {  // a piece comes twice
            const size_t begin = anywhere();
            const std::vector<uint8_t> piece(
                bytes.begin() + static_cast<std::ptrdiff_t>(begin),
                bytes.begin() +
                    static_cast<std::ptrdiff_t>(std::min(bytes.size(), begin + random() % 100)));
            bytes.insert(bytes.begin() + static_cast<std::ptrdiff_t>(in_header()), piece.begin(),
                         piece.end());
            break;
        }
    }
}

void test_random_damage(uint32_t seed) {
    std::mt19937 random(seed);
    size_t opened = 0;
    size_t refused = 0;
    for (const char* version : tiny::kVersions) {
        for (const rwkv_type type : {RWKV_TYPE_FP32, RWKV_TYPE_Q4_0, RWKV_TYPE_Q5_1}) {
            const tiny::Model model =
                tiny::random_model(version, type, with_time_state(small_sizes()));
            const std::vector<uint8_t> whole = model.bytes();
            std::vector<size_t> headers = {0};
            size_t at = 24;
            for (const tiny::Tensor& t : model.tensors) {
                headers.push_back(at);
                at += 12 + 4 * t.shape.size() + t.name.size() + t.data.size();
            }
            const tiny::File file(whole);
            for (int i = 0; i < 300; ++i) {
                std::vector<uint8_t> bytes = whole;
                for (size_t n = 1 + random() % 3; n > 0; --n) damage(bytes, headers, random);
                file.write(bytes.data(), bytes.size());
                ++(try_file(file.path()) == RWKV_STATUS_OK ? opened : refused);
            }
        }
    }
    // Both happen, or the damage is not of the right kind.
    CHECK(opened > 100 && refused > 1000);
}

}  // namespace

int main() {
    CHECK(unsetenv("RWKV_KERNELS") == 0 && unsetenv("RWKV_THREADS") == 0);
    test_not_a_model_file();
    test_lies();
    test_types();
    test_odd_but_good();
    test_too_many_tensors();
    test_missing_tensors();
    test_misshaped_tensors();
    test_truncated_anywhere();
    test_random_damage(20240229);
    return 0;
}
