// Text <-> tokens of a fixed vocabulary. Encoding is greedy: at each place the longest token.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

namespace rwkv {

// Immutable, hence usable from any thread.
class Tokenizer {
  public:
    // Reads a vocabulary in the text format described at rwkv_tokenizer_open.
    static Tokenizer open(const char* path);

    // The World vocabulary, which is built into the library.
    static Tokenizer world();

    // One token for each byte.
    static Tokenizer bytes();

    // `tokens[id]` is what id stands for; empty: there is no such token. Fails with VOCABULARY if
    // two stand for the same bytes.
    static Tokenizer of_tokens(const std::vector<std::string>& tokens) { return Tokenizer(tokens); }

    // The largest token id plus one.
    size_t n_vocab() const noexcept { return starts_.size() - 1; }

    // Whether `token` is of this vocabulary; ids may have gaps.
    bool has(int32_t token) const noexcept;

    // The number of tokens of `text`. Throws if a byte begins no token.
    size_t count(std::string_view text) const;

    // Writes the tokens of `text`, count(text) of them, and returns their number. Throws as
    // count(), but never if the vocabulary has all single bytes, which is_complete() tells.
    size_t encode(std::string_view text, int32_t* tokens) const;
    bool is_complete() const noexcept { return complete_; }

    // The bytes that `token` stands for. Throws if the vocabulary lacks it.
    std::string_view decode(int32_t token) const;

  private:
    // A trie as a double array. A node is a slot; its child by byte b is the slot `base` + b, if
    // that slot's `parent` is the node: one step of a search is one addition, one load, one
    // comparison.
    struct Slot {
        uint32_t base;    // 0 in a leaf
        uint32_t parent;  // kNoSlot in the root and where the slot is free
        int32_t token;    // kNoToken where no token ends
    };
    struct Builder;

    struct Match {
        int32_t token;
        size_t end;
    };

    // Reads the text format; `name` is for messages.
    static Tokenizer parse(std::string_view content, const char* name);

    // `tokens[id]` is what id stands for; empty: there is no such token.
    explicit Tokenizer(const std::vector<std::string>& tokens);

    // The longest token of text that begins at `begin`; its token is kNoToken if there is none.
    Match longest(std::string_view text, size_t begin) const noexcept;

    std::vector<Slot> slots_;  // slots_[0] is the root; every base + 255 is inside
    std::vector<uint32_t>
        starts_;  // (n_vocab + 1): token id is text_[starts_[id] .. starts_[id + 1])
    std::string text_;
    bool complete_ = false;
};

}  // namespace rwkv
