#include "tokenizer.h"

#include <algorithm>
#include <utility>

#include "input_file.h"
#include "status.h"
#include "world_vocabulary.h"

namespace rwkv {

namespace {

constexpr uint32_t kNoSlot = UINT32_MAX;
constexpr int32_t kNoToken = -1;

// Bounds on what a vocabulary file may ask for: far above any real one, far below what would hurt.
constexpr size_t kMaxFileBytes = size_t{1} << 26;
constexpr uint64_t kMaxToken = (uint64_t{1} << 20) - 1;

// ------------------------------------------------------------------- the vocabulary's text ---

std::string read_file(const char* path) {
    const InputFile file(path);
    if (file.size() > kMaxFileBytes) {
        throw Failure(RWKV_STATUS_VOCABULARY,
                      format("%s: size of a vocabulary, expected at most %zu bytes, got %zu", path,
                             kMaxFileBytes, file.size()));
    }
    std::string content(file.size(), '\0');
    file.read(0, content.size(), content.data());
    return content;
}

// One line of a vocabulary file: what is read from it, and where it is when it cannot be.
struct Line {
    const char* path;
    size_t number;
    std::string_view text;

    [[noreturn]] void fail(const std::string& what) const {
        throw Failure(RWKV_STATUS_VOCABULARY,
                      format("%s: line %zu: %s. Try the file rwkv_vocab_v20230424.txt "
                             "of the RWKV project",
                             path, number, what.c_str()));
    }
};

uint64_t parse_number(const Line& line, std::string_view digits, const char* what) {
    uint64_t value = 0;
    for (const char c : digits) {
        if (c < '0' || c > '9' || value > kMaxFileBytes) {
            value = UINT64_MAX;
            break;
        }
        value = value * 10 + static_cast<uint64_t>(c - '0');
    }
    if (digits.empty() || value == UINT64_MAX) {
        const std::string got = printable(std::string(digits.substr(0, 40)));
        line.fail(format("%s, expected a number, got '%s'", what, got.c_str()));
    }
    return value;
}

void append_utf8(std::string& out, uint32_t c) {
    const auto put = [&out](uint32_t byte) { out.push_back(static_cast<char>(byte)); };
    if (c < 0x80) {
        put(c);
    } else if (c < 0x800) {
        put(0xC0 | c >> 6);
        put(0x80 | (c & 0x3F));
    } else if (c < 0x10000) {
        put(0xE0 | c >> 12);
        put(0x80 | (c >> 6 & 0x3F));
        put(0x80 | (c & 0x3F));
    } else {
        put(0xF0 | c >> 18);
        put(0x80 | (c >> 12 & 0x3F));
        put(0x80 | (c >> 6 & 0x3F));
        put(0x80 | (c & 0x3F));
    }
}

// The bytes of a Python literal as repr() writes it: '...', "...", b'...' or b"..." with the
// escapes
// \\ \' \" \n \r \t \xNN, and in strings \uNNNN \UNNNNNNNN. A string stands for its UTF-8.
std::string parse_literal(const Line& line, std::string_view literal) {
    const bool is_bytes = !literal.empty() && literal[0] == 'b';
    const std::string_view quoted = literal.substr(is_bytes ? 1 : 0);
    if (quoted.size() < 2 || (quoted[0] != '\'' && quoted[0] != '"') ||
        quoted.back() != quoted[0]) {
        line.fail("expected a quoted Python string or bytes literal between the id and the length");
    }
    const std::string_view body = quoted.substr(1, quoted.size() - 2);
    std::string out;
    for (size_t i = 0; i < body.size();) {
        const char c = body[i++];
        if (c == quoted[0]) line.fail("a quote inside the literal, expected it to be escaped");
        if (c != '\\') {
            if (is_bytes && static_cast<unsigned char>(c) >= 0x80) {
                line.fail("a bytes literal, expected ASCII characters only");
            }
            out.push_back(c);
            continue;
        }
        const char kind = i < body.size() ? body[i++] : '\0';
        size_t n_digits = 0;
        switch (kind) {
            case '\\':
            case '\'':
            case '"':
                out.push_back(kind);
                continue;
            case 'n':
                out.push_back('\n');
                continue;
            case 'r':
                out.push_back('\r');
                continue;
            case 't':
                out.push_back('\t');
                continue;
            case 'x':
                n_digits = 2;
                break;
            case 'u':
                n_digits = is_bytes ? 0 : 4;
                break;
            case 'U':
                n_digits = is_bytes ? 0 : 8;
                break;
            default:
                break;
        }
        if (n_digits == 0) {
            line.fail("an unknown escape, expected one that Python's repr() writes");
        }
        uint32_t code = 0;
        for (const size_t end = i + n_digits; i < end; ++i) {
            const char digit = i < body.size() ? body[i] : '\0';
            const bool decimal = digit >= '0' && digit <= '9';
            const char lower = static_cast<char>(digit | 0x20);
            if (!decimal && !(lower >= 'a' && lower <= 'f')) {
                line.fail(
                    format("an escape \\%c, expected %zu hexadecimal digits", kind, n_digits));
            }
            code = code << 4 | static_cast<uint32_t>(decimal ? digit - '0' : lower - 'a' + 10);
        }
        if (is_bytes) {
            out.push_back(static_cast<char>(code));
        } else if (code > 0x10FFFF || (code >= 0xD800 && code < 0xE000)) {
            line.fail(
                "an escape, expected a Unicode character, got a surrogate or a larger number");
        } else {
            append_utf8(out, code);
        }
    }
    return out;
}

// Adds the token of `ID LITERAL LENGTH` to `tokens`, tokens[id] being what id stands for.
void parse_line(const Line& line, std::vector<std::string>& tokens) {
    const size_t first = line.text.find(' '), last = line.text.rfind(' ');
    if (first == std::string_view::npos || first == last) {
        line.fail("expected ID LITERAL LENGTH, separated by a space each");
    }
    const uint64_t id = parse_number(line, line.text.substr(0, first), "the token id");
    std::string token = parse_literal(line, line.text.substr(first + 1, last - first - 1));
    const uint64_t length = parse_number(line, line.text.substr(last + 1), "the length");
    if (id == 0 || id > kMaxToken) {
        line.fail(format("the token id, expected 1 to %llu, got %llu",
                         static_cast<unsigned long long>(kMaxToken),
                         static_cast<unsigned long long>(id)));
    }
    if (token.size() != length || length == 0) {
        line.fail(
            format("the literal has %zu bytes, expected the length at the end of the line and "
                   "at least 1, got %llu",
                   token.size(), static_cast<unsigned long long>(length)));
    }
    if (tokens.size() <= id) tokens.resize(id + 1);
    if (!tokens[id].empty()) {
        line.fail(
            format("token id %llu, expected each id once", static_cast<unsigned long long>(id)));
    }
    tokens[id] = std::move(token);
}

}  // namespace

Tokenizer Tokenizer::open(const char* path) { return parse(read_file(path), path); }

Tokenizer Tokenizer::world() {
    return parse({rwkv_world_vocabulary, rwkv_world_vocabulary_size()}, "the World vocabulary");
}

Tokenizer Tokenizer::parse(std::string_view content, const char* path) {
    std::vector<std::string> tokens;
    std::string_view rest = content;
    for (size_t number = 1; !rest.empty(); ++number) {
        std::string_view text = rest.substr(0, rest.find('\n'));
        rest.remove_prefix(std::min(rest.size(), text.size() + 1));
        if (!text.empty() && text.back() == '\r') text.remove_suffix(1);
        parse_line({path, number, text}, tokens);
    }
    if (tokens.empty()) {
        throw Failure(RWKV_STATUS_VOCABULARY,
                      format("%s: expected a vocabulary, got an empty file", path));
    }
    try {
        return Tokenizer(tokens);
    } catch (const Failure& failure) {
        throw Failure(failure.status(), format("%s: %s", path, failure.what()));
    }
}

Tokenizer Tokenizer::bytes() {
    std::vector<std::string> tokens(256);
    for (size_t byte = 0; byte < 256; ++byte) tokens[byte] = static_cast<char>(byte);
    return Tokenizer(tokens);
}

// -------------------------------------------------------------------------------- the trie ---

// Makes the double array. First a trie of linked nodes, then a base for each node, such that the
// slots of all children are different.
struct Tokenizer::Builder {
    struct Node {
        uint32_t first_child = 0;  // 0: none; the root is nobody's child
        uint32_t next_sibling = 0;
        uint32_t base = 0;
        int32_t token = kNoToken;
        uint16_t n_children = 0;
        uint8_t byte = 0;
    };
    std::vector<Node> nodes{1};
    std::vector<uint8_t> used{1};  // which slots are taken; slot 0 by the root

    uint32_t child(uint32_t node, uint8_t byte) {
        for (uint32_t c = nodes[node].first_child; c != 0; c = nodes[c].next_sibling) {
            if (nodes[c].byte == byte) return c;
        }
        const auto added = static_cast<uint32_t>(nodes.size());
        nodes.emplace_back();
        nodes[added].byte = byte;
        nodes[added].next_sibling = nodes[node].first_child;
        nodes[node].first_child = added;
        ++nodes[node].n_children;
        return added;
    }

    void add(std::string_view token, int32_t id) {
        uint32_t node = 0;
        for (const char c : token) node = child(node, static_cast<uint8_t>(c));
        if (nodes[node].token != kNoToken) {
            throw Failure(RWKV_STATUS_VOCABULARY,
                          format("tokens %d and %d, expected different bytes, got the same",
                                 nodes[node].token, id));
        }
        nodes[node].token = id;
    }

    bool fits(const Node& node, uint32_t base) const {
        for (uint32_t c = node.first_child; c != 0; c = nodes[c].next_sibling) {
            const size_t slot = size_t{base} + nodes[c].byte;
            if (slot < used.size() && used[slot]) return false;
        }
        return true;
    }

    // Places the children of one node at the first place at or after `slot` where they fit, and
    // returns the slot where its first child went.
    uint32_t place(Node& node, uint32_t slot) {
        const uint8_t first = nodes[node.first_child].byte;
        slot = std::max<uint32_t>(slot, first);
        while ((slot < used.size() && used[slot]) || !fits(node, slot - first)) ++slot;
        node.base = slot - first;
        used.resize(std::max(used.size(), size_t{node.base} + 256));
        for (uint32_t c = node.first_child; c != 0; c = nodes[c].next_sibling) {
            used[node.base + nodes[c].byte] = 1;
        }
        return slot;
    }

    // Nodes with many children go first, while there is room; those with one fill the holes. Where
    // one node of some number of children did not fit, the next of as many is not tried: that costs
    // a few holes and makes the time linear.
    void place_all() {
        std::vector<std::vector<uint32_t>> by_size(257);
        for (uint32_t n = 0; n < nodes.size(); ++n) by_size[nodes[n].n_children].push_back(n);
        for (size_t size = 256; size > 0; --size) {
            uint32_t slot = 0;
            for (const uint32_t n : by_size[size]) slot = place(nodes[n], slot);
        }
    }

    std::vector<Slot> slots() {
        place_all();
        std::vector<Slot> slots(used.size() + 256, Slot{0, kNoSlot, kNoToken});
        std::vector<uint32_t> slot_of(nodes.size());
        // A node is added after its parent, so its slot is known when its children's are filled.
        for (uint32_t n = 0; n < nodes.size(); ++n) {
            const Node& node = nodes[n];
            slots[slot_of[n]].base = node.base;
            slots[slot_of[n]].token = node.token;
            for (uint32_t c = node.first_child; c != 0; c = nodes[c].next_sibling) {
                slot_of[c] = node.base + nodes[c].byte;
                slots[slot_of[c]].parent = slot_of[n];
            }
        }
        return slots;
    }
};

Tokenizer::Tokenizer(const std::vector<std::string>& tokens) {
    Builder builder;
    starts_.reserve(tokens.size() + 1);
    starts_.push_back(0);
    for (size_t id = 0; id < tokens.size(); ++id) {
        if (!tokens[id].empty()) builder.add(tokens[id], static_cast<int32_t>(id));
        text_ += tokens[id];
        starts_.push_back(static_cast<uint32_t>(text_.size()));
    }
    slots_ = builder.slots();
    complete_ = true;
    for (int byte = 0; byte < 256; ++byte) {
        const char c = static_cast<char>(byte);
        if (longest({&c, 1}, 0).token == kNoToken) complete_ = false;
    }
}

// ------------------------------------------------------------------- encoding and decoding ---

Tokenizer::Match Tokenizer::longest(std::string_view text, size_t begin) const noexcept {
    Match match{kNoToken, begin};
    uint32_t node = 0;
    for (size_t i = begin; i < text.size(); ++i) {
        const uint32_t child = slots_[node].base + static_cast<uint8_t>(text[i]);
        if (slots_[child].parent != node) break;
        node = child;
        if (slots_[node].token != kNoToken) match = {slots_[node].token, i + 1};
    }
    return match;
}

size_t Tokenizer::count(std::string_view text) const {
    size_t n = 0;
    for (size_t i = 0; i < text.size(); ++n) {
        const Match match = longest(text, i);
        if (match.token == kNoToken) {
            throw Failure(
                RWKV_STATUS_INVALID_ARGUMENT,
                format("text: byte %zu, expected one that begins a token of the vocabulary, got "
                       "0x%02x. Try the vocabulary that the model was trained with",
                       i, static_cast<uint8_t>(text[i])));
        }
        i = match.end;
    }
    return n;
}

size_t Tokenizer::encode(std::string_view text, int32_t* tokens) const {
    if (!complete_) count(text);  // for what it throws
    size_t n = 0;
    for (size_t i = 0; i < text.size(); ++n) {
        const Match match = longest(text, i);
        tokens[n] = match.token;
        i = match.end;
    }
    return n;
}

bool Tokenizer::has(int32_t token) const noexcept {
    if (token < 0 || static_cast<size_t>(token) >= n_vocab()) return false;
    // Token 0 may stand for no bytes: the end of a document.
    return token == 0 ||
           starts_[static_cast<size_t>(token)] != starts_[static_cast<size_t>(token) + 1];
}

std::string_view Tokenizer::decode(int32_t token) const {
    if (!has(token)) {
        throw Failure(RWKV_STATUS_TOKEN_OUT_OF_RANGE,
                      format("token: expected one of the vocabulary, 0 to %zu with gaps, got %d",
                             n_vocab() - 1, token));
    }
    const auto id = static_cast<size_t>(token);
    return std::string_view(text_).substr(starts_[id], starts_[id + 1] - starts_[id]);
}

}  // namespace rwkv
