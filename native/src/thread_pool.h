// The threads of a model. A step runs the same function on all of them ("a team"); inside it, work
// is shared out by for_each.
//
// Nobody waits for a thread, only for work: a region ends when all its pieces are done, whoever did
// them. So a thread that the operating system has taken off its core (because a neighbour runs
// there) delays the others by the piece it holds at most; when it comes back it skips what was done
// without it.
#pragma once

#include <algorithm>
#include <atomic>
#include <condition_variable>
#include <cstddef>
#include <cstdint>
#include <mutex>
#include <thread>
#include <type_traits>
#include <vector>

namespace rwkv {

// A number that only grows, to wait for. Waiting threads spin for a short while, since most waits
// last about a microsecond, then sleep.
class Signal {
  public:
    uint64_t now() const noexcept { return value_.load(std::memory_order_acquire); }

    // Changes the value and wakes who waits for it.
    void set(uint64_t value) noexcept {
        value_.store(value, std::memory_order_seq_cst);
        wake();
    }

    // Changes the value if it is still `expected`, else updates `expected`. Wakes nobody: call
    // wake() if somebody may wait for this change.
    bool compare_exchange(uint64_t& expected, uint64_t value) noexcept {
        return value_.compare_exchange_weak(expected, value, std::memory_order_seq_cst);
    }

    void wake() noexcept;

    // Returns when done(value) is true.
    template <class Done>
    void wait(Done&& done) noexcept {
        for (int i = 0; i < kSpins; ++i) {
            if (done(now())) return;
            pause();
        }
        std::unique_lock<std::mutex> lock(mutex_);
        sleepers_.fetch_add(1, std::memory_order_seq_cst);
        condition_.wait(lock, [&] { return done(value_.load(std::memory_order_seq_cst)); });
        sleepers_.fetch_sub(1, std::memory_order_seq_cst);
    }

  private:
    // Some tens of microseconds: longer than most waits inside a step, shorter than what a
    // neighbour on the same core would notice.
    static constexpr int kSpins = 2000;
    static void pause() noexcept;

    alignas(64) std::atomic<uint64_t> value_{0};
    std::atomic<uint32_t> sleepers_{0};
    std::mutex mutex_;
    std::condition_variable condition_;
};

class ThreadPool;

// One thread's view of the pool while a function runs on all threads.
class Team {
  public:
    // Calls body(begin, end) for pieces of [0, n), each on one thread; returns when all pieces are
    // done. Pieces begin at multiples of `grain` and are that long, but for the last, whatever the
    // number of threads. A thread takes the pieces of its own part of [0, n) in order, so that it
    // reads memory in order, then helps with what is left of the others' parts. Every thread must
    // make the same calls in the same order; n < 2^32. body must not throw.
    template <class Body>
    void for_each(size_t n, size_t grain, Body&& body);

    // Which of the pool's threads this is, from 0 on.
    size_t thread() const noexcept { return thread_; }

  private:
    friend class ThreadPool;
    Team(ThreadPool& pool, size_t thread) : pool_(pool), thread_(thread) {}
    ThreadPool& pool_;
    size_t thread_;
    uint64_t region_ = 0;  // calls of for_each so far
};

class ThreadPool {
  public:
    // `n_threads` counts the calling thread, which works too.
    explicit ThreadPool(size_t n_threads);
    ~ThreadPool();
    ThreadPool(const ThreadPool&) = delete;
    ThreadPool& operator=(const ThreadPool&) = delete;

    size_t size() const noexcept { return n_threads_; }

    // Runs `body`, a function of a Team&, on all threads and returns when its work is done. One
    // caller at a time. `body` must not throw. No memory is asked for.
    template <class Body>
    void run(Body&& body) noexcept {
        using Plain = std::remove_reference_t<Body>;
        run_body([](void* b, Team& team) { (*static_cast<Plain*>(b))(team); },
                 const_cast<void*>(static_cast<const void*>(&body)));
    }

  private:
    friend class Team;

    // The first piece of a thread's part that nobody has taken (lower half), and the region that
    // this speaks of (upper half), so that a thread that comes late takes nothing of another
    // region.
    struct alignas(64) Part {
        std::atomic<uint64_t> claimed{0};
    };

    // In `inside_`: a run is open to threads that come to help; below it, how many are inside.
    static constexpr uint64_t kOpen = uint64_t{1} << 32;

    void run_body(void (*call)(void* body, Team&), void* body) noexcept;
    void work(size_t thread);
    void open_region(uint64_t region) noexcept;
    void stop() noexcept;

    const size_t n_threads_;
    std::vector<Part> parts_;
    std::vector<std::thread> threads_;
    void (*call_)(void* body, Team&) = nullptr;
    void* body_ = nullptr;
    std::atomic<bool> stopping_{false};

    Signal started_;  // counts runs
    Signal inside_;
    Signal region_;                                // the region being worked on
    alignas(64) std::atomic<size_t> finished_{0};  // its pieces that threads have told are done
};

template <class Body>
void Team::for_each(size_t n, size_t grain, Body&& body) {
    if (n == 0) return;
    const uint64_t region = region_++;
    const size_t n_pieces = (n + grain - 1) / grain;
    const size_t n_parts = pool_.n_threads_;
    size_t done = 0;  // by this thread; told once, since the counter is every thread's
    for (size_t i = 0; i < n_parts; ++i) {
        const size_t part = (thread_ + i) % n_parts;
        const size_t first = n_pieces * part / n_parts;
        const size_t last = n_pieces * (part + 1) / n_parts;
        std::atomic<uint64_t>& claimed = pool_.parts_[part].claimed;
        uint64_t now = claimed.load(std::memory_order_acquire);
        while (now >> 32 == region && first + (now & 0xffffffff) < last) {
            if (!claimed.compare_exchange_weak(now, now + 1, std::memory_order_acq_rel)) continue;
            const size_t begin = (first + (now & 0xffffffff)) * grain;
            body(begin, std::min(begin + grain, n));
            ++done;
            now = claimed.load(std::memory_order_acquire);
        }
    }
    if (done > 0 && pool_.finished_.fetch_add(done, std::memory_order_acq_rel) + done == n_pieces) {
        pool_.open_region(region + 1);
        return;
    }
    pool_.region_.wait([&](uint64_t now) { return now != region; });
}

}  // namespace rwkv
