// Every allocation and every system call of the library fails once: each call then fails with a
// status and a sentence, changes nothing, and leaves no memory, file or half a file behind; and the
// next succeeds as if nothing had been.
#include <sys/stat.h>
#include <unistd.h>

#include <cstring>
#include <filesystem>
#include <functional>
#include <set>
#include <string>

#include "check.h"
#include "failing_calls.h"
#include "open_model.h"
#include "rwkv/rwkv.h"
#include "tiny_gguf.h"
#include "tiny_model.h"

namespace {

using namespace opened;
using Statuses = std::set<rwkv_status>;

// Lets the first of `calls` fail, then the second ... until all succeed; each failure is one of
// `expected`. `after` looks at what there is after each failure.
void fail_each(const char* what, unsigned calls, const Statuses& expected,
               const std::function<rwkv_status()>& call, const std::function<void()>& after) {
    for (size_t n = 1;; ++n) {
        failing::arm(calls, n);
        const rwkv_status status = call();
        const size_t seen = failing::disarm();
        if (status == RWKV_STATUS_OK) {
            if (n > 1 && n > seen) return;  // there were some, and each has failed
            std::fprintf(stderr, "%s: call %zu of %zu failed and nothing came of it\n", what, n,
                         seen);
            std::exit(1);
        }
        if (expected.count(status) == 0 || *rwkv_error_message() == '\0' || seen < n) {
            std::fprintf(stderr, "%s, call %zu of %zu: status %d: %s\n", what, n, seen, status,
                         rwkv_error_message());
            std::exit(1);
        }
        after();
    }
}

void test_open(const char* path) {
    const size_t mapped = failing::mapped_bytes();
    const size_t files = failing::open_files();
    rwkv_model_options options = model_options();
    options.n_threads = 2;
    rwkv_model* model = nullptr;
    const auto open = [&] { return rwkv_model_open(path, &options, &model); };
    const auto nothing_left = [&] {
        CHECK(model == nullptr);
        CHECK(failing::mapped_bytes() == mapped && failing::open_files() == files);
    };
    const struct {
        const char* what;
        unsigned calls;
        rwkv_status status;
    } kinds[] = {{"memory", failing::kMemory, RWKV_STATUS_OUT_OF_MEMORY},
                 {"reading", failing::kReading, RWKV_STATUS_FILE_UNREADABLE},
                 {"shrinking", failing::kShrinking, RWKV_STATUS_FILE_TRUNCATED}};
    for (const auto& kind : kinds) {
        fail_each(kind.what, kind.calls, {kind.status}, open, nothing_left);
        CHECK(failing::mapped_bytes() > mapped && failing::open_files() == files);
        rwkv_model_free(model);
        model = nullptr;
        nothing_left();
    }
}

// Somebody writes into the file: what one read finds is not what was there. A model of other numbers, or
// a status; and nothing is left of one that did not open.
void test_changing(const char* path) {
    const size_t mapped = failing::mapped_bytes();
    const size_t files = failing::open_files();
    rwkv_model_options options = model_options();
    options.n_threads = 2;
    size_t n_failed = 0;
    for (size_t n = 1;; ++n) {
        rwkv_model* model = nullptr;
        failing::arm(failing::kChanging, n);
        const rwkv_status status = rwkv_model_open(path, &options, &model);
        const size_t seen = failing::disarm();
        CHECK((model != nullptr) == (status == RWKV_STATUS_OK));
        CHECK(status != RWKV_STATUS_INTERNAL && status != RWKV_STATUS_OUT_OF_MEMORY);
        if (model == nullptr) CHECK(*rwkv_error_message() != '\0');
        n_failed += model == nullptr;
        rwkv_model_free(model);
        CHECK(failing::mapped_bytes() == mapped && failing::open_files() == files);
        if (n > seen) break;
    }
    CHECK(n_failed > 0);
}

// A prompt of several passes, by a session that has never read, and so in a model whose memory for
// activations has to grow.
void test_feed(const tiny::File& file) {
    const Model judge = open(file);
    const Tokens tokens = random_tokens(300, vocab_of(judge));
    Floats expected(vocab_of(judge));
    const Session read = session_of(judge);
    EXPECT_OK(rwkv_session_feed(read.get(), tokens.data(), tokens.size(), expected.data()));

    const Model model = open(file, 2);
    const Session session = session_of(model);
    const Floats before = state_of(model, session);
    Floats logits(expected.size());
    fail_each(
        "feed", failing::kMemory, {RWKV_STATUS_OUT_OF_MEMORY},
        [&] {
            return rwkv_session_feed(session.get(), tokens.data(), tokens.size(), logits.data());
        },
        [&] { CHECK(same_bits(state_of(model, session), before)); });
    CHECK(same_bits(logits, expected));
    CHECK(same_bits(state_of(model, session), state_of(judge, read)));
}

// A batch that failed is as it was, and gives the right results when it is run again.
void test_batch(const tiny::File& file) {
    const Model judge = open(file);
    const Tokens longer = random_tokens(300, vocab_of(judge));
    const Tokens shorter = random_tokens(40, vocab_of(judge), 8);
    const Session read_longer = session_of(judge);
    const Session read_shorter = session_of(judge);
    EXPECT_OK(rwkv_session_feed(read_longer.get(), longer.data(), longer.size(), nullptr));
    EXPECT_OK(rwkv_session_feed(read_shorter.get(), shorter.data(), shorter.size(), nullptr));

    const Model model = open(file);
    const Session a = session_of(model);
    const Session b = session_of(model);
    const Floats before = state_of(model, a);
    const Batch batch = batch_of(model);
    const auto add = [&](const Session& s, const Tokens& tokens) {
        return rwkv_batch_add(batch.get(), s.get(), tokens.data(), tokens.size(), RWKV_LOGITS_NONE,
                              nullptr);
    };
    const auto unchanged = [&] {
        CHECK(same_bits(state_of(model, a), before) && same_bits(state_of(model, b), before));
    };
    fail_each(
        "add", failing::kMemory, {RWKV_STATUS_OUT_OF_MEMORY}, [&] { return add(a, longer); },
        unchanged);
    EXPECT_OK(add(b, shorter));
    fail_each(
        "run", failing::kMemory, {RWKV_STATUS_OUT_OF_MEMORY},
        [&] { return rwkv_batch_run(batch.get()); }, unchanged);
    CHECK(same_bits(state_of(model, a), state_of(judge, read_longer)));
    CHECK(same_bits(state_of(model, b), state_of(judge, read_shorter)));
}

// Taking rows back: what fails leaves it to be decided what is kept. To decide needs no memory, nor does
// looking at a state of which something is pending.
void test_taking_back(const tiny::File& file) {
    const Model model = open(file);
    const Session session = session_of(model);
    const Session other = session_of(model);
    const Session judge = session_of(model);
    const Tokens tokens = random_tokens(9, vocab_of(model));
    const Statuses memory = {RWKV_STATUS_OUT_OF_MEMORY};
    const auto feed = [&](const Session& s, size_t n) {
        return rwkv_session_feed(s.get(), tokens.data(), n, nullptr);
    };
    const auto needs_none = [](rwkv_status status) {
        CHECK(status == RWKV_STATUS_OK && failing::disarm() == 0);
    };
    EXPECT_OK(feed(session, 4));
    EXPECT_OK(feed(judge, 4));
    fail_each(
        "allow", failing::kMemory, memory,
        [&] { return rwkv_session_allow_take_back(session.get(), 9); }, [] {});
    EXPECT_OK(feed(session, 9));
    const Floats all = state_of(model, session);
    rwkv_session* fork = nullptr;
    fail_each(
        "fork", failing::kMemory, memory, [&] { return rwkv_session_fork(session.get(), &fork); },
        [&] { CHECK(same_bits(state_of(model, session), all)); });
    const Session forked(fork);
    fail_each(
        "allow another number", failing::kMemory, memory,
        [&] { return rwkv_session_allow_take_back(forked.get(), 3); },
        [&] { CHECK(same_bits(state_of(model, forked), all)); });
    CHECK(same_bits(state_of(model, forked), all));
    failing::arm(failing::kMemory, 1);
    CHECK(feed(session, 9) == RWKV_STATUS_OUT_OF_MEMORY);
    failing::disarm();
    failing::arm(failing::kMemory, 1);
    needs_none(rwkv_session_keep(session.get(), 5));
    failing::arm(failing::kMemory, 1);
    needs_none(rwkv_state_copy(other.get(), session.get()));
    failing::arm(failing::kMemory, 1);
    needs_none(rwkv_session_allow_take_back(session.get(), 0));
    EXPECT_OK(feed(judge, 5));
    CHECK(same_bits(state_of(model, other), state_of(model, judge)));
    CHECK(same_bits(state_of(model, session), state_of(model, judge)));
}

void test_state_file(const tiny::File& file) {
    const Model model = open(file);
    const Session session = session_of(model);
    const Session other = session_of(model);
    const Tokens tokens = random_tokens(9, vocab_of(model));
    EXPECT_OK(rwkv_session_feed(session.get(), tokens.data(), tokens.size(), nullptr));

    const std::string folder =
        std::string(RWKV_BINARY_DIR) + "/failing-" + std::to_string(::getpid());
    CHECK(::mkdir(folder.c_str(), 0755) == 0);
    const std::string path = folder + "/a.state";
    const size_t files = failing::open_files();
    const auto n_files = [&] {
        size_t n = 0;
        for (const auto& entry : std::filesystem::directory_iterator(folder)) {
            (void)entry;
            ++n;
        }
        return n;
    };
    const auto save = [&] { return rwkv_state_save(session.get(), path.c_str(), RWKV_STATE_FP32); };
    fail_each("save", failing::kWriting, {RWKV_STATUS_FILE_UNWRITABLE}, save, [&] {
        CHECK(n_files() == 0 && failing::open_files() == files);
        CHECK(std::strstr(rwkv_error_message(), path.c_str()) != nullptr);
    });
    CHECK(n_files() == 1 && failing::open_files() == files);
    fail_each("save, memory", failing::kMemory, {RWKV_STATUS_OUT_OF_MEMORY}, save,
              [&] { CHECK(n_files() == 1 && failing::open_files() == files); });

    // On the disk before it takes the name: else a power cut could leave a name with nothing in it.
    failing::arm(failing::kWriting, 0);
    EXPECT_OK(save());
    failing::disarm();
    CHECK(std::strcmp(failing::order_of_writes(), "sr") == 0);

    const Floats before = state_of(model, other);
    const struct {
        unsigned calls;
        rwkv_status status;
    } kinds[] = {{failing::kMemory, RWKV_STATUS_OUT_OF_MEMORY},
                 {failing::kReading, RWKV_STATUS_FILE_UNREADABLE},
                 {failing::kShrinking, RWKV_STATUS_FILE_TRUNCATED}};
    for (const auto& kind : kinds) {
        rwkv_session_reset(other.get());
        fail_each(
            "load", kind.calls, {kind.status},
            [&] { return rwkv_state_load(other.get(), path.c_str()); },
            [&] {
                CHECK(same_bits(state_of(model, other), before));
                CHECK(failing::open_files() == files);
            });
        CHECK(same_bits(state_of(model, other), state_of(model, session)));
    }
    CHECK(::unlink(path.c_str()) == 0 && ::rmdir(folder.c_str()) == 0);
}

void test_others(const tiny::File& file) {
    const Model model = open(file);
    const size_t mapped = failing::mapped_bytes();
    const auto nothing_left = [&] { CHECK(failing::mapped_bytes() == mapped); };
    const Statuses memory = {RWKV_STATUS_OUT_OF_MEMORY};

    rwkv_session* session = nullptr;
    fail_each(
        "create", failing::kMemory, memory,
        [&] { return rwkv_session_create(model.get(), &session); }, nothing_left);
    rwkv_session* fork = nullptr;
    const size_t with_session = failing::mapped_bytes();
    fail_each(
        "fork", failing::kMemory, memory, [&] { return rwkv_session_fork(session, &fork); },
        [&] { CHECK(failing::mapped_bytes() == with_session); });
    rwkv_session_free(fork);
    rwkv_session_free(session);
    nothing_left();

    rwkv_sampler* sampler = nullptr;
    fail_each(
        "sampler", failing::kMemory, memory,
        [&] { return rwkv_sampler_create(300, nullptr, &sampler); }, nothing_left);
    const Floats logits(300, 0.5f);
    int32_t token = -1;
    fail_each(
        "sample", failing::kMemory, memory,
        [&] { return rwkv_sampler_sample(sampler, logits.data(), &token); }, nothing_left);
    CHECK(token >= 0 && token < 300);
    fail_each(
        "accept", failing::kMemory, memory, [&] { return rwkv_sampler_accept(sampler, token); },
        nothing_left);
    rwkv_sampler_free(sampler);

    const std::string text = "1 'a' 1\n2 'ab' 2\n";
    const tiny::File vocabulary(std::vector<uint8_t>(text.begin(), text.end()));
    rwkv_tokenizer* tokenizer = nullptr;
    const auto open_vocabulary = [&] { return rwkv_tokenizer_open(vocabulary.path(), &tokenizer); };
    const size_t files = failing::open_files();
    const auto closed = [&] { CHECK(failing::open_files() == files && tokenizer == nullptr); };
    fail_each("vocabulary", failing::kMemory, memory, open_vocabulary, closed);
    rwkv_tokenizer_free(tokenizer);
    tokenizer = nullptr;
    fail_each("vocabulary, reading", failing::kReading, {RWKV_STATUS_FILE_UNREADABLE},
              open_vocabulary, closed);
    const int32_t tokens[] = {2, 1};
    char bytes[3];
    size_t n_bytes = 0;
    fail_each(
        "decode", failing::kMemory, memory,
        [&] { return rwkv_tokenizer_decode(tokenizer, tokens, 2, bytes, 3, &n_bytes); },
        [&] { CHECK(n_bytes == 0); });
    CHECK(n_bytes == 3 && std::memcmp(bytes, "aba", 3) == 0);
    rwkv_tokenizer_free(tokenizer);
}

// A GGUF file, its tokenizer, and the same model in two files.
void test_gguf() {
    tiny::Sizes sizes;
    sizes.n_layer = 1;
    for (const char* version : {"6", "7"}) {
        const tiny::Gguf whole =
            tiny::gguf_of(tiny::random_model(version, RWKV_TYPE_Q4_0, sizes), version, sizes);
        const tiny::File file(whole.bytes());
        test_open(file.path());
        test_changing(file.path());

        const Model model = open(file);
        rwkv_tokenizer* tokenizer = nullptr;
        fail_each(
            "tokenizer of a model", failing::kMemory, {RWKV_STATUS_OUT_OF_MEMORY},
            [&] { return rwkv_tokenizer_create_for(model.get(), &tokenizer); },
            [&] { CHECK(tokenizer == nullptr); });
        CHECK(rwkv_tokenizer_has(tokenizer, 1) == 1);
        rwkv_tokenizer_free(tokenizer);

        const tiny::SplitFiles split(whole, 2);
        test_open(split.path(0).c_str());
        test_open(split.path(1).c_str());
        test_changing(split.path(1).c_str());
    }
}

}  // namespace

int main() {
    CHECK(unsetenv("RWKV_KERNELS") == 0 && unsetenv("RWKV_THREADS") == 0);
    for (const char* version : tiny::kVersions) {
        tiny::Sizes sizes;
        sizes.n_layer = 1;
        sizes.time_state = std::strcmp(version, "4") != 0;
        const tiny::File file(tiny::random_model(version, RWKV_TYPE_Q4_0, sizes));
        test_open(file.path());
        test_changing(file.path());
        test_feed(file);
        test_batch(file);
        test_taking_back(file);
        if (std::strcmp(version, "7") != 0) continue;
        test_state_file(file);
        test_others(file);
    }
    test_gguf();
    return 0;
}
