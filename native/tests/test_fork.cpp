// After fork(): a child may read, step, save and free what its parent opened, before, during and
// after work, and never hangs. A session that was half-way through a step is refused until it is
// given a state.
#include <sys/wait.h>
#include <unistd.h>

#include <atomic>
#include <string>
#include <thread>

#include "check.h"
#include "open_model.h"
#include "rwkv/rwkv.h"
#include "tiny_model.h"

namespace {

using namespace opened;

// Runs `body` in a child, which must end by itself within half a minute, and well.
template <class Body>
void in_child(const char* what, Body&& body) {
    std::fflush(nullptr);
    const pid_t child = ::fork();
    CHECK(child >= 0);
    if (child == 0) {
        ::alarm(30);
        body();
        ::_exit(0);
    }
    int status = 0;
    CHECK(::waitpid(child, &status, 0) == child);
    if (WIFEXITED(status) && WEXITSTATUS(status) == 0) return;
    std::fprintf(stderr, "%s: the child ended with wait status 0x%x\n", what, status);
    std::exit(1);
}

Floats logits_after(const Session& session, const Model& model, const Tokens& tokens) {
    Floats logits(vocab_of(model));
    EXPECT_OK(rwkv_session_feed(session.get(), tokens.data(), tokens.size(), logits.data()));
    return logits;
}

void test_idle_parent(const tiny::File& file, size_t n_threads, bool worked) {
    Model model = open(file, n_threads);
    Session session = session_of(model);
    const Tokens tokens = random_tokens(40, vocab_of(model));
    if (worked) logits_after(session_of(model), model, tokens);
    const Floats expected = logits_after(session_of(open(file)), open(file), tokens);
    in_child("frees", [&] {
        session.reset();
        model.reset();
    });
    in_child("steps, then frees", [&] {
        CHECK(same_bits(logits_after(session, model, tokens), expected));
        in_child("a grandchild", [&] {
            CHECK(same_bits(logits_after(session_of(model), model, tokens), expected));
            session.reset();
            model.reset();
        });
        session.reset();
        model.reset();
    });
    CHECK(same_bits(logits_after(session, model, tokens), expected));
}

// Forks again and again while another thread steps, so that the fork falls into every part of it.
[[maybe_unused]] void test_busy_parent(const tiny::File& file) {
    Model model = open(file, 3);
    Session busy = session_of(model);
    EXPECT_OK(rwkv_session_allow_take_back(busy.get(), 5));
    const Session idle = session_of(model);
    const Tokens tokens = random_tokens(40, vocab_of(model));
    const Tokens many = random_tokens(600, vocab_of(model));
    const Floats expected = logits_after(session_of(model), model, tokens);
    std::atomic<bool> done{false};
    std::thread worker([&] {
        for (bool few = false; !done; few = !few) {  // some of which can be taken back
            EXPECT_OK(rwkv_session_feed(busy.get(), many.data(), few ? 5 : many.size(), nullptr));
        }
    });
    size_t n_refused = 0;
    for (int i = 0; i < 40; ++i) {
        int seen[2];
        CHECK(::pipe(seen) == 0);
        in_child("forked from work", [&] {
            // The session of the other thread: whole, or refused with a sentence; never half.
            Floats state(state_size_of(model));
            const rwkv_status status = rwkv_state_read(busy.get(), state.data(), state.size());
            if (status != RWKV_STATUS_OK) {
                EXPECT_STATUS(status, RWKV_STATUS_INVALID_ARGUMENT, "half-way through a step");
                EXPECT_STATUS(rwkv_session_feed(busy.get(), tokens.data(), 1, nullptr),
                              RWKV_STATUS_INVALID_ARGUMENT, "half-way");
                rwkv_session* copy = nullptr;
                EXPECT_STATUS(rwkv_session_fork(busy.get(), &copy), RWKV_STATUS_INVALID_ARGUMENT,
                              "half-way");
                EXPECT_STATUS(rwkv_session_keep(busy.get(), 0), RWKV_STATUS_INVALID_ARGUMENT,
                              "half-way");
                EXPECT_STATUS(rwkv_session_allow_take_back(busy.get(), 0),
                              RWKV_STATUS_INVALID_ARGUMENT, "half-way");
                CHECK(::write(seen[1], "x", 1) == 1);
                rwkv_session_reset(busy.get());
                CHECK(same_bits(logits_after(busy, model, tokens), expected));
            }
            CHECK(same_bits(logits_after(idle, model, tokens), expected));
            busy.reset();
            model.reset();
        });
        ::close(seen[1]);
        char c;
        n_refused += ::read(seen[0], &c, 1) == 1;
        ::close(seen[0]);
    }
    done = true;
    worker.join();
    CHECK(n_refused > 0);  // or no fork met a step
}

}  // namespace

// The address sanitizer's allocator (GCC 12, Clang 14) does not take its locks over a fork: forked while
// another thread allocates, be it a thread that is just starting, the child waits for ever at its next
// allocation. Its child has no thread beside it.
#if defined(__SANITIZE_ADDRESS__)
#define FORK_WITH_THREADS 0
#elif defined(__has_feature)
#if __has_feature(address_sanitizer)
#define FORK_WITH_THREADS 0
#endif
#endif
#ifndef FORK_WITH_THREADS
#define FORK_WITH_THREADS 1
#endif

int main() {
    CHECK(unsetenv("RWKV_KERNELS") == 0 && unsetenv("RWKV_THREADS") == 0);
    const tiny::File file(tiny::random_model("7", RWKV_TYPE_Q4_0));
    for (const bool worked : {false, true}) test_idle_parent(file, 1, worked);
#if FORK_WITH_THREADS
    for (const size_t n_threads : {2, 4}) {
        for (const bool worked : {false, true}) test_idle_parent(file, n_threads, worked);
    }
    test_busy_parent(file);
#endif
    return 0;
}
