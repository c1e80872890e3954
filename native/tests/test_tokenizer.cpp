// Parsing vocabularies, encoding and decoding, through the C++ class and through the C API.
#include <cstdio>
#include <filesystem>
#include <fstream>
#include <random>
#include <string>
#include <vector>

#include "check.h"
#include "status.h"
#include "tokenizer.h"

using rwkv::Failure;
using rwkv::Tokenizer;

namespace {

// A file with the given content, removed at the end.
class TemporaryFile {
  public:
    explicit TemporaryFile(const std::string& content) {
        std::FILE* file = std::fopen(path(), "wb");
        CHECK(file != nullptr);
        CHECK(std::fwrite(content.data(), 1, content.size(), file) == content.size());
        CHECK(std::fclose(file) == 0);
    }
    TemporaryFile(const TemporaryFile&) = delete;
    TemporaryFile& operator=(const TemporaryFile&) = delete;
    ~TemporaryFile() { std::remove(path()); }
    const char* path() const { return "test_tokenizer_vocabulary.txt"; }
};

// The same numbers in every run.
std::mt19937 seeded(unsigned seed) { return std::mt19937(seed); }

Tokenizer parse(const std::string& content) {
    const TemporaryFile file(content);
    return Tokenizer::open(file.path());
}

std::vector<int32_t> encode(const Tokenizer& tokenizer, const std::string& text) {
    std::vector<int32_t> tokens(text.size() + 1);
    tokens.resize(tokenizer.encode(text, tokens.data()));
    CHECK(tokenizer.count(text) == tokens.size());
    return tokens;
}

std::string decode(const Tokenizer& tokenizer, const std::vector<int32_t>& tokens) {
    std::string text;
    for (const int32_t token : tokens) text += tokenizer.decode(token);
    return text;
}

void check_refused(const std::string& content, const std::string& reason) {
    try {
        parse(content);
    } catch (const Failure& failure) {
        CHECK(failure.status() == RWKV_STATUS_VOCABULARY);
        if (std::string(failure.what()).find(reason) == std::string::npos) {
            std::fprintf(stderr, "expected '%s' in: %s\n", reason.c_str(), failure.what());
            CHECK(false);
        }
        return;
    }
    std::fprintf(stderr, "not refused: %s\n", content.c_str());
    CHECK(false);
}

void test_literals() {
    const Tokenizer t = parse(
        "1 'a' 1\n"
        "2 \"it's\" 4\r\n"
        "3 '\\'\"' 2\n"
        "4 '\\\\\\n\\r\\t' 4\n"
        "5 '\\x00' 1\n"
        "6 '\\xe9' 2\n"
        "7 b'\\xe9' 1\n"
        "8 '\\u20ac' 3\n"
        "9 '\\U0001F600' 4\n"
        "10 '\xe2\x82\xac\xe2\x82\xac' 6\n"
        "11 ' a b ' 5\n"
        "20 b\"\\xff'\" 2");  // the last line may lack its end
    CHECK(t.decode(1) == "a");
    CHECK(t.decode(2) == "it's");
    CHECK(t.decode(3) == "'\"");
    CHECK(t.decode(4) == "\\\n\r\t");
    CHECK(t.decode(5) == std::string(1, '\0'));
    CHECK(t.decode(6) == "\xc3\xa9");
    CHECK(t.decode(7) == "\xe9");
    CHECK(t.decode(8) == "\xe2\x82\xac");
    CHECK(t.decode(9) == "\xf0\x9f\x98\x80");
    CHECK(t.decode(10) == "\xe2\x82\xac\xe2\x82\xac");
    CHECK(t.decode(11) == " a b ");
    CHECK(t.decode(20) == "\xff'");
    CHECK(t.decode(0).empty());
    CHECK(t.n_vocab() == 21);
    CHECK(t.has(0) && t.has(20) && !t.has(12) && !t.has(21) && !t.has(-1));
    CHECK(!t.is_complete());
}

void test_refusals() {
    check_refused("", "an empty file");
    check_refused("1 'a' 1\n\n", "line 2: expected ID LITERAL LENGTH");
    check_refused("1 'a'", "line 1: expected ID LITERAL LENGTH");
    check_refused("x 'a' 1", "line 1: the token id, expected a number, got 'x'");
    check_refused("-1 'a' 1", "the token id");
    check_refused("0 'a' 1", "the token id, expected 1 to");
    check_refused("99999999999999999999999 'a' 1", "the token id, expected a number");
    check_refused("2000000 'a' 1", "the token id, expected 1 to");
    check_refused("1 'a' 2", "the literal has 1 bytes");
    check_refused("1 '' 0", "at least 1");
    check_refused("1 'a' y", "the length, expected a number");
    check_refused("1 a 1", "expected a quoted Python string");
    check_refused("1 'a\" 1", "expected a quoted Python string");
    check_refused("1 ' 1", "expected a quoted Python string");
    check_refused("1 u'a' 1", "expected a quoted Python string");
    check_refused("1 'a'b' 3", "a quote inside the literal");
    check_refused("1 'a\\' 2", "an unknown escape");
    check_refused("1 '\\q' 1", "an unknown escape");
    check_refused("1 b'\\u20ac' 3", "an unknown escape");
    check_refused("1 '\\x4' 1", "expected 2 hexadecimal digits");
    check_refused("1 '\\u12g4' 3", "expected 4 hexadecimal digits");
    check_refused("1 '\\ud800' 3", "a surrogate");
    check_refused("1 '\\U00110000' 4", "a surrogate or a larger number");
    check_refused("1 b'\xc3\xa9' 2", "expected ASCII");
    check_refused("1 'a' 1\n1 'b' 1", "line 2: token id 1, expected each id once");
    check_refused("1 'a' 1\n2 b'a' 1", "tokens 1 and 2, expected different bytes");
    check_refused("1 'a' 1\n2 __import__('os') 1", "line 2: expected a quoted Python string");
}

void test_unreadable() {
    for (const char* path : {"no/such/file", "."}) {
        try {
            Tokenizer::open(path);
            CHECK(false);
        } catch (const Failure& failure) {
            CHECK(failure.status() == RWKV_STATUS_FILE_UNREADABLE);
        }
    }
}

// A file that is too large to be one is refused before it is read, and so is one that would never
// end.
void test_size() {
    const std::string path = "test_tokenizer_large.txt";
    std::ofstream(path) << "1 'a' 1\n";
    std::filesystem::resize_file(path, (size_t{1} << 26) + 1);  // sparse: it takes no disk
    for (const std::string& large : {path, std::string("/dev/zero")}) {
        try {
            Tokenizer::open(large.c_str());
            CHECK(false);
        } catch (const Failure& failure) {
            const std::string what = failure.what();
            CHECK(what.find("at most 67108864 bytes, got 67108865") != std::string::npos ||
                  what.find("expected a regular file") != std::string::npos);
        }
    }
    std::filesystem::remove(path);
}

void test_greedy() {
    const Tokenizer t = parse("1 'a' 1\n2 'ab' 2\n3 'abcd' 4\n4 'b' 1\n5 'c' 1\n6 'cdx' 3\n");
    CHECK((encode(t, "abcd") == std::vector<int32_t>{3}));
    CHECK((encode(t, "abc") == std::vector<int32_t>{2, 5}));
    CHECK((encode(t, "abcab") == std::vector<int32_t>{2, 5, 2}));
    CHECK((encode(t, "bcdxa") == std::vector<int32_t>{4, 6, 1}));
    CHECK(encode(t, "").empty());
    int32_t tokens[8] = {-7};
    try {
        t.encode("abd", tokens);
        CHECK(false);
    } catch (const Failure& failure) {
        CHECK(failure.status() == RWKV_STATUS_INVALID_ARGUMENT);
        CHECK(std::string(failure.what())
                  .find("byte 2, expected one that begins a token of the vocabulary, got 0x64") !=
              std::string::npos);
        CHECK(tokens[0] == -7);
    }
}

// The longest token by trying every length, longest first.
std::vector<int32_t> encode_slowly(const std::vector<std::string>& vocabulary,
                                   const std::string& text) {
    std::vector<int32_t> tokens;
    for (size_t i = 0; i < text.size();) {
        int32_t best = -1;
        size_t length = 0;
        for (size_t id = 1; id < vocabulary.size(); ++id) {
            const std::string& token = vocabulary[id];
            if (token.size() > length && text.compare(i, token.size(), token) == 0) {
                best = static_cast<int32_t>(id);
                length = token.size();
            }
        }
        CHECK(best > 0);
        tokens.push_back(best);
        i += length;
    }
    return tokens;
}

// Random vocabularies over few letters, where tokens are often each other's prefixes.
void test_random_vocabularies() {
    std::mt19937 random = seeded(7);
    for (int round = 0; round < 200; ++round) {
        const unsigned n_letters = 1 + static_cast<unsigned>(random() % 5);
        const auto word = [&](size_t longest) {
            std::string text(1 + random() % longest, '\0');
            for (char& c : text) c = static_cast<char>(0x80 + 31 * (random() % n_letters));
            return text;
        };
        std::vector<std::string> vocabulary{""};
        std::string content;
        const auto add = [&](const std::string& token) {
            for (const std::string& old : vocabulary) {
                if (old == token) return;
            }
            content += std::to_string(vocabulary.size()) + " b'";
            for (const char c : token) {
                char escape[8];
                std::snprintf(escape, sizeof escape, "\\x%02x", static_cast<unsigned char>(c));
                content += escape;
            }
            content += "' " + std::to_string(token.size()) + "\n";
            vocabulary.push_back(token);
        };
        for (unsigned letter = 0; letter < n_letters; ++letter) {
            add(std::string(1, static_cast<char>(0x80 + 31 * letter)));
        }
        for (unsigned i = 0; i < random() % 60; ++i) add(word(6));
        const Tokenizer t = parse(content);
        for (int i = 0; i < 20; ++i) {
            const std::string text = word(40);
            CHECK(encode(t, text) == encode_slowly(vocabulary, text));
            CHECK(decode(t, encode(t, text)) == text);
        }
    }
}

void test_bytes() {
    const Tokenizer t = Tokenizer::bytes();
    CHECK(t.n_vocab() == 256 && t.is_complete());
    std::string all;
    std::vector<int32_t> ids;
    for (int32_t i = 0; i < 256; ++i) {
        all.push_back(static_cast<char>(i));
        ids.push_back(i);
    }
    CHECK(encode(t, all) == ids);
    CHECK(decode(t, ids) == all);
}

void test_world(const char* path) {
    const Tokenizer t = Tokenizer::open(path);
    CHECK(t.n_vocab() == 65530 && t.is_complete());
    for (int32_t id = 1; id < 65530; ++id) {
        CHECK(t.has(id));
        CHECK((encode(t, std::string(t.decode(id))) == std::vector<int32_t>{id}));
    }
    CHECK((encode(t, "\n\n") == std::vector<int32_t>{261}));
    std::mt19937 random = seeded(1);
    for (int round = 0; round < 2000; ++round) {
        std::string text(random() % 200, '\0');
        for (char& c : text) c = static_cast<char>(random());
        CHECK(decode(t, encode(t, text)) == text);
    }
    for (const int32_t unknown : {-1, 65530, 65535, INT32_MAX, INT32_MIN}) {
        try {
            t.decode(unknown);
            CHECK(false);
        } catch (const Failure& failure) {
            CHECK(failure.status() == RWKV_STATUS_TOKEN_OUT_OF_RANGE);
        }
    }
}

void test_c_api(const char* path) {
    rwkv_tokenizer* t = nullptr;
    CHECK(rwkv_tokenizer_open("no/such/file", &t) == RWKV_STATUS_FILE_UNREADABLE);
    CHECK(t == nullptr);
    CHECK(std::string(rwkv_error_message()).find("no/such/file") == 0);
    CHECK(rwkv_tokenizer_open(nullptr, &t) == RWKV_STATUS_INVALID_ARGUMENT);
    CHECK(rwkv_tokenizer_open(path, nullptr) == RWKV_STATUS_INVALID_ARGUMENT);
    CHECK(rwkv_tokenizer_open(path, &t) == RWKV_STATUS_OK);
    CHECK(rwkv_tokenizer_n_vocab(t) == 65530);
    CHECK(rwkv_tokenizer_has(t, 5) == 1 && rwkv_tokenizer_has(t, 65530) == 0);

    const std::string text = "Hello, world! Hello, world!";
    int32_t tokens[64] = {-7};
    size_t n = 0;
    CHECK(rwkv_tokenizer_encode(t, text.data(), text.size(), tokens, 1, &n) ==
          RWKV_STATUS_BUFFER_TOO_SMALL);
    CHECK(n > 1 && n < text.size() && tokens[0] == -7);
    const size_t needed = n;
    CHECK(rwkv_tokenizer_encode(t, text.data(), text.size(), tokens, needed, &n) == RWKV_STATUS_OK);
    CHECK(n == needed);

    char bytes[64] = {'?'};
    size_t n_bytes = 0;
    CHECK(rwkv_tokenizer_decode(t, tokens, n, bytes, 3, &n_bytes) == RWKV_STATUS_BUFFER_TOO_SMALL);
    CHECK(n_bytes == text.size() && bytes[0] == '?');
    CHECK(rwkv_tokenizer_decode(t, tokens, n, bytes, sizeof bytes, &n_bytes) == RWKV_STATUS_OK);
    CHECK(std::string(bytes, n_bytes) == text);
    tokens[1] = 65535;
    n_bytes = 99;
    CHECK(rwkv_tokenizer_decode(t, tokens, n, bytes, sizeof bytes, &n_bytes) ==
          RWKV_STATUS_TOKEN_OUT_OF_RANGE);
    CHECK(n_bytes == 99);
    CHECK(rwkv_tokenizer_encode(t, nullptr, 0, nullptr, 0, &n) == RWKV_STATUS_OK && n == 0);
    CHECK(rwkv_tokenizer_encode(t, nullptr, 1, tokens, 1, &n) == RWKV_STATUS_INVALID_ARGUMENT);
    rwkv_tokenizer_free(t);
    rwkv_tokenizer_free(nullptr);
    CHECK(rwkv_tokenizer_n_vocab(nullptr) == 0 && rwkv_tokenizer_has(nullptr, 1) == 0);
    CHECK(rwkv_tokenizer_encode(nullptr, "a", 1, tokens, 1, &n) == RWKV_STATUS_INVALID_ARGUMENT);
    CHECK(rwkv_tokenizer_decode(nullptr, tokens, 1, bytes, 1, &n) == RWKV_STATUS_INVALID_ARGUMENT);
    CHECK(rwkv_tokenizer_open(nullptr, &t) == RWKV_STATUS_INVALID_ARGUMENT);
    CHECK(rwkv_tokenizer_create_bytes(nullptr) == RWKV_STATUS_INVALID_ARGUMENT);
    CHECK(rwkv_tokenizer_create_bytes(&t) == RWKV_STATUS_OK);
    rwkv_tokenizer_free(t);
}

}  // namespace

int main() {
    test_literals();
    test_refusals();
    test_unreadable();
    test_size();
    test_greedy();
    test_random_vocabularies();
    test_bytes();
    const char* world = RWKV_DATA_DIR "/rwkv_vocab_v20230424.txt";
    test_world(world);
    test_c_api(world);
    return 0;
}
