// From prompts to text: the vocabulary that a model is read with, text streams, masks, the prefix
// cache and the generator.
#include <algorithm>
#include <cmath>
#include <cstring>
#include <limits>
#include <string>
#include <utility>
#include <vector>

#include "check.h"
#include "open_model.h"
#include "rwkv/rwkv.h"
#include "tiny_model.h"

namespace {

using namespace opened;

template <auto free_object>
struct FreeWith {
    template <class T>
    void operator()(T* object) const {
        free_object(object);
    }
};
using Tokenizer = std::unique_ptr<rwkv_tokenizer, FreeWith<rwkv_tokenizer_free>>;
using Stream = std::unique_ptr<rwkv_text_stream, FreeWith<rwkv_text_stream_free>>;
using Sampler = std::unique_ptr<rwkv_sampler, FreeWith<rwkv_sampler_free>>;
using Cache = std::unique_ptr<rwkv_prefix_cache, FreeWith<rwkv_prefix_cache_free>>;
using Generator = std::unique_ptr<rwkv_generator, FreeWith<rwkv_generator_free>>;

Tokenizer bytes_tokenizer() {
    rwkv_tokenizer* tokenizer = nullptr;
    EXPECT_OK(rwkv_tokenizer_create_bytes(&tokenizer));
    return Tokenizer(tokenizer);
}

Sampler sampler_of(size_t n_vocab, const rwkv_sampler_options& options) {
    rwkv_sampler* sampler = nullptr;
    EXPECT_OK(rwkv_sampler_create(n_vocab, &options, &sampler));
    return Sampler(sampler);
}

Model model_of(size_t n_vocab) {
    tiny::Sizes sizes;
    sizes.n_vocab = n_vocab;
    return open(tiny::random_model("7", RWKV_TYPE_FP32, sizes));
}

Tokens tokens_of(const std::string& bytes) {
    Tokens tokens;
    for (const char byte : bytes) tokens.push_back(static_cast<unsigned char>(byte));
    return tokens;
}

// ---- vocabularies

void test_vocabularies() {
    rwkv_tokenizer* made = nullptr;
    EXPECT_OK(rwkv_tokenizer_create_world(&made));
    const Tokenizer world(made);
    CHECK(rwkv_tokenizer_n_vocab(world.get()) == 65530);
    EXPECT_OK(rwkv_tokenizer_open(RWKV_DATA_DIR "/rwkv_vocab_v20230424.txt", &made));
    const Tokenizer file(made);
    const std::string text = "Hello, 世界! \xff\n\n";
    std::vector<int32_t> a(text.size());
    std::vector<int32_t> b(text.size());
    size_t n_a = 0;
    size_t n_b = 0;
    EXPECT_OK(
        rwkv_tokenizer_encode(world.get(), text.data(), text.size(), a.data(), a.size(), &n_a));
    EXPECT_OK(
        rwkv_tokenizer_encode(file.get(), text.data(), text.size(), b.data(), b.size(), &n_b));
    CHECK(n_a == n_b && a == b && n_a < text.size());

    for (const auto& [n_vocab, expected] :
         {std::pair{size_t{256}, size_t{256}}, {size_t{65536}, size_t{65530}}}) {
        const Model model = model_of(n_vocab);
        EXPECT_OK(rwkv_tokenizer_create_for(model.get(), &made));
        const Tokenizer own(made);
        CHECK(rwkv_tokenizer_n_vocab(own.get()) == expected);
    }
    const Model other = model_of(40);
    made = nullptr;
    EXPECT_STATUS(rwkv_tokenizer_create_for(other.get(), &made), RWKV_STATUS_MODEL_OPTION,
                  "256 tokens (bytes) or 65536");
    CHECK(made == nullptr);
}

// ---- text streams

struct Pieces {
    std::vector<std::string> pieces;
    std::string end;
    bool stopped;
};

Pieces stream(const std::string& bytes, const std::vector<std::string>& stops) {
    const Tokenizer tokenizer = bytes_tokenizer();
    rwkv_text_stream* made = nullptr;
    EXPECT_OK(rwkv_text_stream_create(tokenizer.get(), &made));
    const Stream stream(made);
    for (const std::string& stop : stops) {
        EXPECT_OK(rwkv_text_stream_stop(stream.get(), stop.data(), stop.size()));
    }
    Pieces found;
    const char* text = nullptr;
    size_t n = 0;
    for (int turn = 0; turn < 2; ++turn) {  // the second text of a stream is as the first
        found = {};
        for (const char byte : bytes) {
            EXPECT_OK(
                rwkv_text_stream_push(stream.get(), static_cast<unsigned char>(byte), &text, &n));
            found.pieces.emplace_back(text, n);
        }
        found.stopped = rwkv_text_stream_stopped(stream.get()) == 1;
        EXPECT_OK(rwkv_text_stream_finish(stream.get(), &text, &n));
        found.end.assign(text, n);
        rwkv_text_stream_reset(stream.get());
    }
    return found;
}

std::string joined(const Pieces& found) {
    std::string all;
    for (const std::string& piece : found.pieces) all += piece;
    return all + found.end;
}

void test_text_stream() {
    using Strings = std::vector<std::string>;
    CHECK((stream("n\xc3\xa9\n", {}).pieces == Strings{"n", "", "\xc3\xa9", "\n"}));
    // A stop string is held back as long as it may come.
    const Pieces held = stream("Yes.\n\nNo.", {"\n\nUser"});
    CHECK((held.pieces == Strings{"Y", "e", "s", ".", "", "", "\n\nN", "o", "."}));
    CHECK(!held.stopped && held.end.empty());
    const Pieces stopped = stream("Yes.\n\nUser: ", {"\n\nUser"});
    CHECK(joined(stopped) == "Yes." && stopped.stopped);
    // What may have become one is text in the end; the first of several counts, also if it is in another.
    CHECK(joined(stream("a\n\nUs", {"\n\nUser"})) == "a\n\nUs");
    CHECK(joined(stream("abcd", {"cd", "bc"})) == "a");
    CHECK(joined(stream("aaab", {"aab"})) == "a");
    // Half a character is never shown, not even at a stop string or at the end.
    CHECK(joined(stream("a\xe4\xb8|", {"|"})) == "a");
    CHECK(joined(stream("a\xe4\xb8", {})) == "a");
    CHECK(joined(stream("\xe4\xb8\xad|", {"\xad"})).empty());
    // What is not UTF-8: as the Unicode standard (table 3-8 and following) replaces it.
    const auto replaced = [](size_t n) {
        std::string text;
        for (size_t i = 0; i < n; ++i) text += "\xef\xbf\xbd";
        return text;
    };
    CHECK(joined(stream("\xc0\xaf\xe0\x80\xbf\xf0\x81\x82", {})) == replaced(8));
    CHECK(joined(stream("\xed\xa0\x80\xed\xbf\xbf\xed\xaf|", {"|"})) == replaced(8));
    CHECK(joined(stream("\xe1\x80\xe2\xf0\x91\x92\xf1\xbf-", {})) == replaced(4).append("-"));
    CHECK(joined(stream("\xf4\x91\x92\x93\xff-\x80\xbf", {})) ==
          replaced(5).append("-").append(replaced(2)));
    CHECK(joined(stream("\xf0\x9f\x98\x80\xf4\x8f\xbf\xbf", {})) ==
          "\xf0\x9f\x98\x80\xf4\x8f\xbf\xbf");

    const Tokenizer tokenizer = bytes_tokenizer();
    rwkv_text_stream* made = nullptr;
    EXPECT_OK(rwkv_text_stream_create(tokenizer.get(), &made));
    const Stream kept(made);
    const char* text = nullptr;
    size_t n = 0;
    EXPECT_OK(rwkv_text_stream_stop(kept.get(), "ab", 2));
    EXPECT_OK(rwkv_text_stream_push(kept.get(), 'a', &text, &n));
    EXPECT_STATUS(rwkv_text_stream_push(kept.get(), 256, &text, &n), RWKV_STATUS_TOKEN_OUT_OF_RANGE,
                  "256");
    EXPECT_OK(rwkv_text_stream_push(kept.get(), 'c', &text, &n));
    CHECK(std::string(text, n) == "ac");
    EXPECT_OK(rwkv_text_stream_push_bytes(kept.get(), "xa", 2, &text, &n));
    CHECK(std::string(text, n) == "x");
    EXPECT_OK(rwkv_text_stream_push_bytes(kept.get(), nullptr, 0, &text, &n));
    CHECK(n == 0);
    EXPECT_OK(rwkv_text_stream_create(nullptr, &made));
    const Stream plain(made);
    EXPECT_OK(rwkv_text_stream_push_bytes(plain.get(), "xa", 2, &text, &n));
    CHECK(std::string(text, n) == "xa");
    EXPECT_STATUS(rwkv_text_stream_push(plain.get(), 0, &text, &n), RWKV_STATUS_INVALID_ARGUMENT,
                  "tokenizer");
    EXPECT_STATUS(rwkv_text_stream_stop(kept.get(), "", 0), RWKV_STATUS_INVALID_ARGUMENT, "stop");
    EXPECT_STATUS(rwkv_text_stream_push(nullptr, 0, &text, &n), RWKV_STATUS_INVALID_ARGUMENT,
                  "stream");
    CHECK(rwkv_text_stream_stopped(nullptr) == 0);
    rwkv_text_stream_reset(nullptr);
}

// ---- masks

void test_mask() {
    constexpr size_t kVocab = 70;  // words of which the last is not full
    constexpr float kInfinity = std::numeric_limits<float>::infinity();
    Floats logits(kVocab);
    for (size_t i = 0; i < kVocab; ++i) logits[i] = 0.1f * static_cast<float>(i);
    rwkv_sampler_options options = sampler_options();
    options.top_p = 1;
    for (const double temperature : {0.0, 1.0}) {
        options.temperature = temperature;
        const Sampler sampler = sampler_of(kVocab, options);
        for (const std::vector<size_t>& allowed :
             {std::vector<size_t>{0}, {69}, {31, 32}, {1, 2, 40, 65}}) {
            uint32_t mask[3] = {};
            for (const size_t t : allowed) mask[t / 32] |= 1u << t % 32;
            for (int i = 0; i < 50; ++i) {
                int32_t token = -1;
                EXPECT_OK(rwkv_sampler_sample_masked(sampler.get(), logits.data(), mask, &token));
                CHECK(std::find(allowed.begin(), allowed.end(), static_cast<size_t>(token)) !=
                      allowed.end());
                if (temperature == 0) CHECK(static_cast<size_t>(token) == allowed.back());
            }
        }
        // A mask is for once; one that allows nothing is told, at once.
        const uint32_t none[3] = {};
        const uint32_t all[3] = {UINT32_MAX, UINT32_MAX, UINT32_MAX};
        int32_t token = -1;
        EXPECT_STATUS(rwkv_sampler_sample_masked(sampler.get(), logits.data(), none, &token),
                      RWKV_STATUS_INVALID_ARGUMENT, "");
        CHECK(token == -1);
        const Sampler a = sampler_of(kVocab, options);
        const Sampler b = sampler_of(kVocab, options);
        for (int i = 0; i < 20; ++i) {
            int32_t with = -1;
            int32_t without = -2;
            EXPECT_OK(rwkv_sampler_sample_masked(a.get(), logits.data(), all, &with));
            EXPECT_OK(rwkv_sampler_sample(b.get(), logits.data(), &without));
            CHECK(with == without);
        }
        // Bans stay bans, and what is refused stays refused.
        const uint32_t one[3] = {2};
        EXPECT_OK(rwkv_sampler_bias(sampler.get(), 1, -kInfinity));
        EXPECT_STATUS(rwkv_sampler_sample_masked(sampler.get(), logits.data(), one, &token),
                      RWKV_STATUS_INVALID_ARGUMENT, "");
        Floats wrong = logits;
        wrong[50] = std::nanf("");
        EXPECT_STATUS(rwkv_sampler_sample_masked(a.get(), wrong.data(), one, &token),
                      RWKV_STATUS_INVALID_ARGUMENT, "");
    }
}

// ---- the prefix cache

Floats state_after(const Model& model, const Tokens& tokens) {
    const Session session = session_of(model);
    EXPECT_OK(rwkv_session_feed(session.get(), tokens.data(), tokens.size(), nullptr));
    return state_of(model, session);
}

void test_prefix_cache() {
    const Model model = model_of(40);
    rwkv_prefix_cache* made = nullptr;
    EXPECT_OK(rwkv_prefix_cache_create(model.get(), size_t{64} << 20, &made));
    const Cache cache(made);
    const Session session = session_of(model);
    Tokens tokens = random_tokens(600, 40);
    Floats logits(40);
    size_t n_found = 99;
    const auto feed = [&](const Tokens& t) {
        EXPECT_OK(rwkv_prefix_cache_feed(cache.get(), session.get(), t.data(), t.size(),
                                         logits.data(), &n_found));
        const Session plain = session_of(model);
        Floats expected(40);
        EXPECT_OK(rwkv_session_feed(plain.get(), t.data(), t.size(), expected.data()));
        CHECK(same_bits(state_of(model, session), state_of(model, plain)));
        CHECK(same_bits(logits, expected));
    };
    feed(tokens);
    CHECK(n_found == 0 && rwkv_prefix_cache_n_bytes(cache.get()) > 0);
    feed(tokens);
    CHECK(n_found == 600);
    tokens[550] = tokens[550] == 0 ? 1 : 0;
    feed(tokens);
    CHECK(n_found == 512);  // the piece before
    tokens.push_back(3);
    feed(tokens);
    CHECK(n_found == 600);
    tokens[0] = tokens[0] == 0 ? 1 : 0;
    feed(tokens);
    CHECK(n_found == 0);

    // A conversation: what was read, and what was written after it.
    Tokens talk = random_tokens(20, 40, 3);
    feed(talk);
    for (const int32_t token : {5, 6, 7}) {
        EXPECT_OK(rwkv_session_feed(session.get(), &token, 1, nullptr));
        talk.push_back(token);
    }
    EXPECT_OK(rwkv_prefix_cache_keep(cache.get(), session.get(), talk.data(), talk.size()));
    talk.push_back(8);
    feed(talk);
    CHECK(n_found == 23);

    // Failures leave all as it was.
    const Floats before = state_of(model, session);
    const int32_t wrong[] = {1, 40};
    EXPECT_STATUS(rwkv_prefix_cache_feed(cache.get(), session.get(), wrong, 2, nullptr, nullptr),
                  RWKV_STATUS_TOKEN_OUT_OF_RANGE, "tokens[1]");
    CHECK(same_bits(state_of(model, session), before));
    const Model other = model_of(41);
    const Session foreign = session_of(other);
    EXPECT_STATUS(rwkv_prefix_cache_feed(cache.get(), foreign.get(), wrong, 1, nullptr, nullptr),
                  RWKV_STATUS_STATE_MISMATCH, "session");
    EXPECT_STATUS(rwkv_prefix_cache_keep(cache.get(), foreign.get(), wrong, 1),
                  RWKV_STATUS_STATE_MISMATCH, "session");

    // The budget holds, and what was used last stays.
    const size_t one = rwkv_prefix_cache_n_bytes(cache.get()) / 9 + 4000;
    EXPECT_OK(rwkv_prefix_cache_create(model.get(), 3 * one, &made));
    const Cache small(made);
    for (uint32_t seed = 0; seed < 10; ++seed) {
        const Tokens t = random_tokens(30, 40, 100 + seed);
        EXPECT_OK(rwkv_prefix_cache_feed(small.get(), session.get(), t.data(), t.size(), nullptr,
                                         &n_found));
        CHECK(n_found == 0 && rwkv_prefix_cache_n_bytes(small.get()) <= 3 * one);
    }
    const Tokens last = random_tokens(30, 40, 109);
    EXPECT_OK(rwkv_prefix_cache_feed(small.get(), session.get(), last.data(), last.size(), nullptr,
                                     &n_found));
    CHECK(n_found == 30);
    const Tokens gone = random_tokens(30, 40, 100);
    EXPECT_OK(rwkv_prefix_cache_feed(small.get(), session.get(), gone.data(), gone.size(), nullptr,
                                     &n_found));
    CHECK(n_found == 0);
    EXPECT_OK(rwkv_prefix_cache_feed(small.get(), session.get(), last.data(), last.size(), nullptr,
                                     &n_found));
    CHECK(n_found == 30);
    rwkv_prefix_cache_clear(small.get());
    CHECK(rwkv_prefix_cache_n_bytes(small.get()) == 0);
    CHECK(same_bits(state_after(model, last), state_of(model, session)));
    rwkv_prefix_cache_clear(nullptr);
    CHECK(rwkv_prefix_cache_n_bytes(nullptr) == 0);
}

// ---- the generator

struct Written {
    std::string text;
    rwkv_finish reason;
};

Written write(const Generator& generator, const std::string& prompt, size_t max_tokens) {
    EXPECT_OK(rwkv_generator_begin(generator.get(), prompt.data(), prompt.size(), max_tokens));
    Written found = {};
    const char* text = nullptr;
    size_t n = 0;
    for (;;) {
        EXPECT_OK(rwkv_generator_next(generator.get(), &text, &n));
        if (text == nullptr) break;
        found.text.append(text, n);
    }
    CHECK(n == 0);
    found.reason = rwkv_generator_finish_reason(generator.get());
    return found;
}

void test_generator() {
    const Model model = model_of(256);
    const Tokenizer tokenizer = bytes_tokenizer();
    rwkv_sampler_options options = sampler_options();
    options.seed = 5;
    options.frequency_penalty = 0.3;
    const auto generator_with = [&](const Session& session, const Sampler& sampler) {
        rwkv_generator* made = nullptr;
        EXPECT_OK(rwkv_generator_create(session.get(), tokenizer.get(), sampler.get(), &made));
        return Generator(made);
    };
    // What the loop by hand writes, byte by byte; random models draw bytes of all kinds.
    const std::string prompt = "Once";
    std::string bytes;
    const Session by_hand = session_of(model);
    {
        const Sampler sampler = sampler_of(256, options);
        Floats logits(256);
        Tokens tokens = tokens_of(prompt);
        for (int i = 0; i < 40; ++i) {
            EXPECT_OK(
                rwkv_session_feed(by_hand.get(), tokens.data(), tokens.size(), logits.data()));
            int32_t token = 0;
            EXPECT_OK(rwkv_sampler_sample(sampler.get(), logits.data(), &token));
            if (token == 0) break;
            EXPECT_OK(rwkv_sampler_accept(sampler.get(), token));
            bytes.push_back(static_cast<char>(token));
            tokens.assign(1, token);
        }
        CHECK(bytes.size() == 40);
        EXPECT_OK(rwkv_session_feed(by_hand.get(), tokens.data(), 1, nullptr));
    }
    const Session session = session_of(model);
    const Sampler sampler = sampler_of(256, options);
    const Generator generator = generator_with(session, sampler);
    const char* text = nullptr;
    size_t n = 0;
    EXPECT_STATUS(rwkv_generator_next(generator.get(), &text, &n), RWKV_STATUS_INVALID_ARGUMENT,
                  "rwkv_generator_begin");
    const Written whole = write(generator, prompt, 40);
    CHECK(whole.reason == RWKV_FINISH_LENGTH);
    CHECK(whole.text == joined(stream(bytes, {})));
    CHECK(same_bits(state_of(model, session), state_of(model, by_hand)));
    EXPECT_OK(rwkv_generator_next(generator.get(), &text, &n));
    CHECK(text == nullptr);

    // A stop string: the text before it; the session has read all but the token that completed it.
    const std::string stop = bytes.substr(20, 2);
    rwkv_session_reset(session.get());
    rwkv_sampler_reset(sampler.get(), options.seed);
    EXPECT_OK(rwkv_generator_stop(generator.get(), stop.data(), stop.size()));
    const Written stopped = write(generator, prompt, 40);
    CHECK(stopped.reason == RWKV_FINISH_STOP);
    const size_t place = bytes.find(stop);
    CHECK(stopped.text == joined(stream(bytes.substr(0, place) + "|", {"|"})));
    const std::string read = prompt + bytes.substr(0, place + stop.size() - 1);
    CHECK(same_bits(state_of(model, session), state_after(model, tokens_of(read))));

    // A stop token, and a prompt of nothing: a document begins with token 0.
    const Session fresh = session_of(model);
    const Sampler other = sampler_of(256, options);
    const Generator second = generator_with(fresh, other);
    const Written document = write(second, "", 30);
    CHECK(document.reason == RWKV_FINISH_LENGTH);
    CHECK(same_bits(state_of(model, fresh), state_of(model, fresh)));
    rwkv_session_reset(fresh.get());
    rwkv_sampler_reset(other.get(), options.seed);
    CHECK(write(second, std::string(1, '\0'), 30).text == document.text);
    rwkv_session_reset(fresh.get());
    rwkv_sampler_reset(other.get(), options.seed);
    EXPECT_OK(rwkv_generator_stop_token(second.get(), static_cast<unsigned char>(bytes.front())));
    CHECK(write(second, prompt, 40).reason == RWKV_FINISH_END);
    CHECK(same_bits(state_of(model, fresh), state_after(model, tokens_of(prompt))));
    CHECK(write(second, "", 0).reason == RWKV_FINISH_LENGTH);

    // Failures: a prompt that no token begins, samplers of another size, a mask of bans.
    for (int32_t token = 0; token < 256; ++token) {
        EXPECT_OK(rwkv_sampler_bias(other.get(), token, -std::numeric_limits<float>::infinity()));
    }
    EXPECT_OK(rwkv_generator_begin(second.get(), "x", 1, 5));
    EXPECT_STATUS(rwkv_generator_next(second.get(), &text, &n), RWKV_STATUS_INVALID_ARGUMENT, "");
    EXPECT_OK(rwkv_sampler_bias(other.get(), 'y', 0));
    EXPECT_OK(rwkv_generator_next(second.get(), &text, &n));
    CHECK(std::string(text, n) == "y");
    const Sampler small = sampler_of(255, options);
    rwkv_generator* made = nullptr;
    EXPECT_STATUS(rwkv_generator_create(session.get(), tokenizer.get(), small.get(), &made),
                  RWKV_STATUS_INVALID_ARGUMENT, "sampler");
    CHECK(made == nullptr && rwkv_generator_finish_reason(nullptr) == RWKV_FINISH_NONE);
}

}  // namespace

int main() {
    test_vocabularies();
    test_text_stream();
    test_mask();
    test_prefix_cache();
    test_generator();
    return 0;
}
