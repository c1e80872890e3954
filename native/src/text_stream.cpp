#include "text_stream.h"

#include <algorithm>

#include "status.h"

namespace rwkv {

namespace {

constexpr std::string_view kReplacement = "\xEF\xBF\xBD";  // U+FFFD

// What stands at the beginning of some bytes.
struct Character {
    enum Kind { kWhole, kUnfinished, kWrong } kind;
    size_t n_bytes;  // kWrong: what one U+FFFD stands for
};

// By the table of well-formed byte sequences of the Unicode standard (3.9, D92): of bytes that are
// not well-formed, the longest part that begins a character is replaced as one.
Character character_at(std::string_view bytes) noexcept {
    const auto at = [&](size_t i) { return static_cast<unsigned char>(bytes[i]); };
    const unsigned first = at(0);
    if (first < 0x80) return {Character::kWhole, 1};
    const size_t n = first < 0xC2 ? 0 : first < 0xE0 ? 2 : first < 0xF0 ? 3 : first < 0xF5 ? 4 : 0;
    if (n == 0) return {Character::kWrong, 1};
    for (size_t i = 1; i < n; ++i) {
        if (i == bytes.size()) return {Character::kUnfinished, i};
        // The second byte excludes overlong forms, surrogates, and what is above U+10FFFF.
        unsigned low = 0x80;
        unsigned high = 0xBF;
        if (i == 1) {
            if (first == 0xE0) low = 0xA0;
            if (first == 0xED) high = 0x9F;
            if (first == 0xF0) low = 0x90;
            if (first == 0xF4) high = 0x8F;
        }
        if (at(i) < low || at(i) > high) return {Character::kWrong, i};
    }
    return {Character::kWhole, n};
}

// The length of the longest end of `text` with which `stop` begins but does not end.
size_t overlap(std::string_view text, std::string_view stop) noexcept {
    for (size_t n = std::min(text.size(), stop.size() - 1); n > 0; --n) {
        if (text.substr(text.size() - n) == stop.substr(0, n)) return n;
    }
    return 0;
}

}  // namespace

std::string TextStream::push(int32_t token) {
    if (tokenizer_ == nullptr) {
        throw Failure(RWKV_STATUS_INVALID_ARGUMENT,
                      "stream: expected one with a tokenizer, got one without, which takes bytes");
    }
    return push(tokenizer_->decode(token));
}

std::string TextStream::push(std::string_view piece) {
    if (stopped_) return {};
    std::string text = held_;
    text += piece;
    size_t end = std::string::npos;
    size_t n_held = 0;
    for (const std::string& stop : stops_) {
        end = std::min(end, text.find(stop));
        n_held = std::max(n_held, overlap(text, stop));
    }
    stopped_ = end != std::string::npos;
    if (!stopped_) end = text.size() - n_held;
    held_ = stopped_ ? std::string() : text.substr(end);
    return decode(std::string_view(text).substr(0, end));
}

std::string TextStream::finish() {
    std::string held;
    held.swap(held_);
    return decode(held);
}

void TextStream::reset() noexcept {
    stopped_ = false;
    held_.clear();
    pending_.clear();
}

std::string TextStream::decode(std::string_view bytes) {
    const std::string all = pending_.append(bytes);
    pending_.clear();
    std::string text;
    for (std::string_view rest = all; !rest.empty();) {
        const Character c = character_at(rest);
        if (c.kind == Character::kUnfinished) {
            pending_ = rest;
            break;
        }
        text += c.kind == Character::kWhole ? rest.substr(0, c.n_bytes) : kReplacement;
        rest.remove_prefix(c.n_bytes);
    }
    return text;
}

}  // namespace rwkv
