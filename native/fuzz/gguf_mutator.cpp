#include "gguf_mutator.h"

#include <algorithm>
#include <cstring>
#include <iterator>
#include <random>
#include <string>

#include "block_types.h"
#include "gguf_parts.h"
#include "tiny_gguf.h"

// libFuzzer's own changes, at most `most` bytes afterwards.
extern "C" size_t LLVMFuzzerMutate(uint8_t* data, size_t size, size_t most);

namespace {

using Bytes = std::vector<uint8_t>;
using Random = std::minstd_rand;

size_t below(Random& random, size_t n) { return random() % n; }

// ---- reading, without trust

class Cursor {
  public:
    Cursor(const uint8_t* data, size_t size) : at_(data), left_(size) {}
    template <class Number>
    Number number() {
        Number x = 0;
        if (left_ < sizeof x) return ok_ = false, x;
        std::memcpy(&x, at_, sizeof x);
        skip(sizeof x);
        return x;
    }
    Bytes bytes(size_t n) {
        if (left_ < n) return ok_ = false, Bytes();
        const Bytes taken(at_, at_ + n);
        skip(n);
        return taken;
    }
    std::string text() {
        const Bytes b = bytes(number<uint64_t>());
        return {b.begin(), b.end()};
    }
    void skip(size_t n) {
        if (left_ < n) {
            ok_ = false;
            return;
        }
        at_ += n;
        left_ -= n;
    }
    const uint8_t* at() const { return at_; }
    size_t left() const { return left_; }
    bool ok() const { return ok_; }

  private:
    const uint8_t* at_;
    size_t left_;
    bool ok_ = true;
};

enum : uint32_t { kString = 8, kArray = 9 };

size_t bytes_of(uint32_t type) {
    constexpr size_t sizes[] = {1, 1, 2, 2, 4, 4, 4, 1, 0, 0, 8, 8, 8};
    return type < std::size(sizes) ? sizes[type] : 0;
}

void skip_value(Cursor& c, uint32_t type, int depth) {
    if (type == kString) {
        c.skip(c.number<uint64_t>());
    } else if (type == kArray && depth < 3) {
        const auto each = c.number<uint32_t>();
        const auto n = c.number<uint64_t>();
        for (uint64_t i = 0; i < n && c.ok(); ++i) skip_value(c, each, depth + 1);
    } else {
        c.skip(std::max<size_t>(1, bytes_of(type)));
    }
}

// The file's parts; false if it is too broken for that.
bool parse(const uint8_t* data, size_t size, tiny::Gguf& gguf) {
    Cursor c(data, size);
    c.skip(4);
    gguf.version = c.number<uint32_t>();
    const auto n_tensors = c.number<uint64_t>();
    const auto n_keys = c.number<uint64_t>();
    for (uint64_t i = 0; i < n_keys && c.ok(); ++i) {
        const std::string key = c.text();
        const uint8_t* begin = c.at();
        skip_value(c, c.number<uint32_t>(), 0);
        gguf.keys.emplace_back(key, Bytes(begin, c.at()));
    }
    std::vector<uint64_t> offsets;
    for (uint64_t i = 0; i < n_tensors && c.ok(); ++i) {
        tiny::Gguf::Tensor t;
        t.name = c.text();
        const auto n_dims = c.number<uint32_t>();
        if (n_dims > 8) return false;
        for (uint32_t d = 0; d < n_dims; ++d) t.shape.insert(t.shape.begin(), c.number<uint64_t>());
        t.type = c.number<uint32_t>();
        offsets.push_back(c.number<uint64_t>());
        gguf.tensors.push_back(std::move(t));
    }
    if (!c.ok()) return false;
    const size_t at = static_cast<size_t>(c.at() - data);
    const size_t begin = (at + gguf.alignment - 1) / gguf.alignment * gguf.alignment;
    for (size_t i = 0; i < offsets.size(); ++i) {
        if (begin > size || offsets[i] > size - begin) continue;
        size_t end = i + 1 < offsets.size() ? offsets[i + 1] : size - begin;
        end = std::min(std::max<size_t>(end, offsets[i]), size - begin);
        gguf.tensors[i].data.assign(data + begin + offsets[i], data + begin + end);
    }
    return true;
}

// ---- changing

void mutate_bytes(Bytes& bytes, size_t more) {
    const size_t n = bytes.size();
    bytes.resize(n + more);
    bytes.resize(bytes.empty() ? 0 : LLVMFuzzerMutate(bytes.data(), n, bytes.size()));
}

template <class T>
void put(Bytes& out, T x) {
    const auto* p = reinterpret_cast<const uint8_t*>(&x);
    out.insert(out.end(), p, p + sizeof x);
}

uint64_t odd_number(Random& random) {
    constexpr uint64_t kOdd[] = {0,
                                 1,
                                 2,
                                 3,
                                 7,
                                 8,
                                 31,
                                 32,
                                 33,
                                 64,
                                 255,
                                 256,
                                 4096,
                                 65536,
                                 uint64_t{1} << 20,
                                 INT32_MAX,
                                 UINT32_MAX,
                                 uint64_t{1} << 40,
                                 INT64_MAX,
                                 UINT64_MAX - 31,
                                 UINT64_MAX};
    return below(random, 4) == 0 ? random() : kOdd[below(random, std::size(kOdd))];
}

// A value of a type, of few bytes.
void put_value(Bytes& out, uint32_t type, Random& random, int depth) {
    if (type == kString) {
        const std::string texts[] = {"",    "rwkv",       "rwkv7", "rwkv6", "gpt2",
                                     "\\x", "\\xe4\\xb8", "a",     "[PAD1]"};
        const std::string& text = texts[below(random, std::size(texts))];
        put(out, static_cast<uint64_t>(text.size()));
        out.insert(out.end(), text.begin(), text.end());
    } else if (type == kArray && depth < 3) {
        const auto each = static_cast<uint32_t>(below(random, 14));
        const size_t n = below(random, 12);
        put(out, each);
        put(out, static_cast<uint64_t>(n));
        for (size_t i = 0; i < n; ++i) put_value(out, each, random, depth + 1);
    } else {
        const uint64_t number = odd_number(random);
        const auto* p = reinterpret_cast<const uint8_t*>(&number);
        out.insert(out.end(), p, p + std::min(sizeof number, std::max<size_t>(1, bytes_of(type))));
    }
}

const char* const kKeys[] = {
    "general.architecture",
    "general.alignment",
    "general.name",
    "split.no",
    "split.count",
    "split.tensors.count",
    "rwkv7.embedding_length",
    "rwkv7.block_count",
    "rwkv7.wkv.head_size",
    "rwkv7.attention.layer_norm_epsilon",
    "rwkv6.embedding_length",
    "rwkv6.block_count",
    "rwkv6.wkv.head_size",
    "rwkv6.rescale_every_n_layers",
    "tokenizer.ggml.model",
    "tokenizer.ggml.tokens",
    "tokenizer.ggml.token_type",
    "tokenizer.ggml.eos_token_id",
    "tokenizer.ggml.eot_token_id",
    "tokenizer.chat_template",
};

void change_keys(tiny::Gguf& g, Random& random) {
    const auto any = [&] {
        return g.keys.begin() + static_cast<ptrdiff_t>(below(random, g.keys.size()));
    };
    const size_t what = g.keys.empty() ? 0 : below(random, 6);
    if (what <= 1) {  // a key that is known, with a value of any type
        const std::string key = kKeys[below(random, std::size(kKeys))];
        Bytes value;
        const auto type = static_cast<uint32_t>(below(random, 14));
        put(value, type);
        put_value(value, type, random, 0);
        g.erase(key);
        g.keys.emplace_back(key, value);
    } else if (what == 2) {
        g.keys.erase(any());
    } else if (what == 3) {
        const auto copy = *any();
        g.keys.push_back(copy);
    } else if (what == 4) {
        std::swap(any()->second, any()->second);
    } else {
        mutate_bytes(any()->second, 16);
    }
}

void change_tensors(tiny::Gguf& g, Random& random) {
    if (g.tensors.empty()) return;
    const size_t i = below(random, g.tensors.size());
    tiny::Gguf::Tensor& t = g.tensors[i];
    switch (below(random, 8)) {
        case 0:  // another type, and data for it: such files open
        case 1: {
            const int32_t number = static_cast<int32_t>(below(random, 40));
            t.type = static_cast<uint32_t>(number);
            const rwkv_type type = rwkv::type_in_gguf(number);
            if (type == RWKV_TYPE_COUNT) break;
            uint64_t n = 1;
            for (const uint64_t d : t.shape) n = d > 4096 ? 0 : n * d;
            if (n > 1 << 16) break;
            const size_t values = rwkv_block_values(type);
            t.data.resize(n / values * rwkv_block_bytes(type));
            break;
        }
        case 2:
            if (!t.shape.empty()) t.shape[below(random, t.shape.size())] = odd_number(random);
            break;
        case 3:
            if (t.shape.size() < 5) t.shape.insert(t.shape.begin(), 1);
            break;
        case 4:
            std::swap(t.shape, g.tensors[below(random, g.tensors.size())].shape);
            break;
        case 5:
            std::swap(t.name, g.tensors[below(random, g.tensors.size())].name);
            break;
        case 6:
            g.tensors.erase(g.tensors.begin() + static_cast<ptrdiff_t>(i));
            break;
        default:
            mutate_bytes(t.data, 0);
    }
}

size_t put_back(const Bytes& bytes, uint8_t* data, size_t most) {
    const size_t n = std::min(bytes.size(), most);
    std::memcpy(data, bytes.data(), n);
    return n;
}

}  // namespace

size_t mutate_gguf(uint8_t* data, size_t size, size_t most, unsigned seed) {
    Random random(seed);
    tiny::Gguf gguf;
    if (below(random, 3) == 0 || !parse(data, size, gguf))
        return LLVMFuzzerMutate(data, size, most);
    for (size_t n = 1 + below(random, 3); n-- > 0;) {
        if (below(random, 2) == 0) {
            change_keys(gguf, random);
        } else {
            change_tensors(gguf, random);
        }
    }
    return put_back(gguf.bytes(), data, most);
}

size_t mutate_gguf_parts(uint8_t* data, size_t size, size_t most, unsigned seed) {
    Random random(seed);
    if (size == 0 || below(random, 8) == 0) return LLVMFuzzerMutate(data, size, most);
    const std::string bytes(reinterpret_cast<const char*>(data), size);
    std::vector<std::string_view> parts = gguf_parts(std::string_view(bytes).substr(1), 4);
    const size_t chosen = below(random, parts.size());
    Bytes out(data, data + 1);
    for (size_t i = 0; i < parts.size(); ++i) {
        Bytes part(parts[i].begin(), parts[i].end());
        if (i == chosen) {
            const size_t n = part.size();
            part.resize(n + 64);
            part.resize(mutate_gguf(part.data(), n, part.size(), random()));
        }
        out.insert(out.end(), part.begin(), part.end());
    }
    return put_back(out, data, most);
}
