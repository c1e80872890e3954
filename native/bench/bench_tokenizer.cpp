// bench_tokenizer: megabytes a second that one thread encodes and decodes with a vocabulary: the
// files given, and two texts made here, which no file is as bad as.
#include <algorithm>
#include <chrono>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <fstream>
#include <iterator>
#include <random>
#include <string>
#include <vector>

#include "rwkv/rwkv.h"

namespace {

constexpr const char* kUsage =
    "usage: bench_tokenizer [options] VOCABULARY [FILE ...]\n"
    "  --seconds S      time for each figure (default: 0.5)\n"
    "  --markdown       print Markdown\n";

// As much text as one measurement reads: more than the caches near a core hold.
constexpr size_t kTextBytes = size_t{8} << 20;

struct Options {
    std::string vocabulary;
    std::vector<std::string> files;
    double seconds = 0.5;
    bool markdown = false;
};

struct Text {
    std::string name;
    std::string bytes;
};

[[noreturn]] void refuse(const std::string& message) {
    std::fprintf(stderr, "bench_tokenizer: %s\n\n%s", message.c_str(), kUsage);
    std::exit(2);
}

Options parse(int argc, char** argv) {
    Options o;
    for (int i = 1; i < argc; ++i) {
        const std::string option = argv[i];
        if (option == "--seconds") {
            if (++i == argc) refuse(option + ": expected a value");
            char* end = nullptr;
            o.seconds = std::strtod(argv[i], &end);
            if (end == argv[i] || *end != '\0' || !(o.seconds > 0) || o.seconds > 1e6) {
                refuse(option + ": expected a number above 0, got '" + argv[i] + "'");
            }
        } else if (option == "--markdown") {
            o.markdown = true;
        } else if (option == "--help") {
            std::fputs(kUsage, stdout);
            std::exit(0);
        } else if (option.rfind("--", 0) == 0) {
            refuse("unknown option '" + option + "'");
        } else if (o.vocabulary.empty()) {
            o.vocabulary = option;
        } else {
            o.files.push_back(option);
        }
    }
    if (o.vocabulary.empty()) refuse("expected a vocabulary, got none");
    return o;
}

void check(rwkv_status status) {
    if (status == RWKV_STATUS_OK) return;
    std::fprintf(stderr, "bench_tokenizer: %s\n", rwkv_error_message());
    std::exit(1);
}

// ---- texts
// ---------------------------------------------------------------------------------------

// A file, again and again up to kTextBytes.
Text file_text(const std::string& path) {
    std::ifstream file(path, std::ios::binary);
    const std::string once((std::istreambuf_iterator<char>(file)), {});
    if (once.empty()) refuse(path + ": expected a file with something in it");
    Text text{path.substr(path.find_last_of('/') + 1), ""};
    while (text.bytes.size() < kTextBytes) text.bytes += once;
    return text;
}

// The vocabulary's tokens, drawn evenly: all scripts mixed, a long search for each.
Text token_text(const rwkv_tokenizer* tokenizer) {
    Text text{"tokens at random", ""};
    std::mt19937 random(1);
    const size_t n_vocab = rwkv_tokenizer_n_vocab(tokenizer);
    std::vector<char> piece(1024);
    while (text.bytes.size() < kTextBytes) {
        const auto token = static_cast<int32_t>(random() % n_vocab);
        if (rwkv_tokenizer_has(tokenizer, token) == 0) continue;
        size_t n = 0;
        check(rwkv_tokenizer_decode(tokenizer, &token, 1, piece.data(), piece.size(), &n));
        text.bytes.append(piece.data(), std::min(n, piece.size()));
    }
    return text;
}

// Every byte a token or nearly so.
Text byte_text() {
    Text text{"bytes at random", ""};
    std::mt19937 random(2);
    text.bytes.resize(kTextBytes);
    for (char& byte : text.bytes) byte = static_cast<char>(random() & 0xff);
    return text;
}

// ---- measuring
// -----------------------------------------------------------------------------------

double now() {
    using Clock = std::chrono::steady_clock;
    return std::chrono::duration<double>(Clock::now().time_since_epoch()).count();
}

// The median seconds that `work` takes: at least 3 times, after one that is not counted.
template <typename Work>
double time_of(double seconds, const Work& work) {
    work();
    std::vector<double> times;
    const double begin = now();
    while (times.size() < 3 || now() - begin < seconds) {
        const double start = now();
        work();
        times.push_back(now() - start);
    }
    const auto middle = times.begin() + static_cast<ptrdiff_t>(times.size() / 2);
    std::nth_element(times.begin(), middle, times.end());
    return *middle;
}

void run(const Options& options) {
    rwkv_tokenizer* tokenizer = nullptr;
    const double begin = now();
    check(rwkv_tokenizer_open(options.vocabulary.c_str(), &tokenizer));
    const double opening = now() - begin;
    std::vector<Text> texts;
    texts.reserve(options.files.size() + 2);
    for (const std::string& path : options.files) texts.push_back(file_text(path));
    texts.push_back(token_text(tokenizer));
    texts.push_back(byte_text());

    std::printf(options.markdown ? "| text | bytes per token | encoding, MB/s | decoding, MB/s |\n"
                                   "| --- | ---: | ---: | ---: |\n"
                                 : "%-24s %16s %16s %16s\n",
                "text", "bytes per token", "encoding, MB/s", "decoding, MB/s");
    std::vector<int32_t> tokens;
    std::string decoded;
    for (const Text& text : texts) {
        tokens.resize(text.bytes.size());
        decoded.resize(text.bytes.size());
        size_t n_tokens = 0;
        size_t n_bytes = 0;
        const double encoding = time_of(options.seconds, [&] {
            check(rwkv_tokenizer_encode(tokenizer, text.bytes.data(), text.bytes.size(),
                                        tokens.data(), tokens.size(), &n_tokens));
        });
        const double decoding = time_of(options.seconds, [&] {
            check(rwkv_tokenizer_decode(tokenizer, tokens.data(), n_tokens, decoded.data(),
                                        decoded.size(), &n_bytes));
        });
        if (n_bytes != text.bytes.size() || decoded != text.bytes) {
            std::fprintf(stderr, "bench_tokenizer: %s: does not round-trip\n", text.name.c_str());
            std::exit(1);
        }
        const auto size = static_cast<double>(text.bytes.size());
        std::printf(
            options.markdown ? "| %s | %.2f | %.0f | %.0f |\n" : "%-24s %16.2f %16.0f %16.0f\n",
            text.name.c_str(), size / static_cast<double>(n_tokens), size / encoding / 1e6,
            size / decoding / 1e6);
        std::fflush(stdout);
    }
    std::printf("\nopening the vocabulary: %.0f ms\n", opening * 1e3);
    rwkv_tokenizer_free(tokenizer);
}

}  // namespace

int main(int argc, char** argv) {
    run(parse(argc, argv));
    return 0;
}
