// The threads of a model. A step runs the same function on all of them ("a team"); inside it, work
// is shared out by for_each, after which all threads wait for each other.
#pragma once

#include <algorithm>
#include <atomic>
#include <condition_variable>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <mutex>
#include <thread>
#include <vector>

namespace rwkv {

// The number of physical cores that this process may use, at least 1: those in its affinity mask,
// counted once for each core however many hardware threads it has, and at most its cgroup's quota.
size_t usable_cores() noexcept;

class ThreadPool;

// One thread's view of the pool while a function runs on all threads.
class Team {
  public:
    // Calls body(begin, end) for pieces of [0, n) of at most `grain`, each on one thread; returns
    // when all threads are done with all pieces. Every thread must make the same calls in the same
    // order. Pieces begin at multiples of grain, whatever the number of threads. body must not
    // throw.
    template <class Body>
    void for_each(size_t n, size_t grain, Body&& body);

  private:
    friend class ThreadPool;
    explicit Team(ThreadPool& pool) : pool_(pool) {}
    ThreadPool& pool_;
};

class ThreadPool {
  public:
    // `n_threads` counts the calling thread, which works too.
    explicit ThreadPool(size_t n_threads);
    ~ThreadPool();
    ThreadPool(const ThreadPool&) = delete;
    ThreadPool& operator=(const ThreadPool&) = delete;

    size_t size() const noexcept { return n_threads_; }

    // Runs `body` on all threads and returns when all are done. One caller at a time. `body` must
    // not throw.
    void run(const std::function<void(Team&)>& body);

  private:
    friend class Team;

    // A number that only grows; threads wait until it has moved on. They spin for a short while,
    // since most waits last about a microsecond, then sleep.
    class Signal {
      public:
        uint32_t now() const noexcept { return value_.load(std::memory_order_acquire); }
        void advance() noexcept;
        void wait_past(uint32_t value) noexcept;

      private:
        std::atomic<uint32_t> value_{0};
        std::atomic<uint32_t> sleepers_{0};
        std::mutex mutex_;
        std::condition_variable condition_;
    };

    void work();
    void barrier() noexcept;

    const size_t n_threads_;
    std::vector<std::thread> threads_;
    const std::function<void(Team&)>* body_ = nullptr;
    bool stopping_ = false;

    alignas(64) std::atomic<size_t> next_{0};     // the first piece that nobody has taken yet
    alignas(64) std::atomic<size_t> arrived_{0};  // threads at the barrier
    alignas(64) Signal passed_;                   // advances when all have arrived
    alignas(64) Signal started_;                  // advances when there is a body to run
};

template <class Body>
void Team::for_each(size_t n, size_t grain, Body&& body) {
    for (;;) {
        const size_t begin = pool_.next_.fetch_add(grain, std::memory_order_relaxed);
        if (begin >= n) break;
        body(begin, std::min(begin + grain, n));
    }
    pool_.barrier();
}

}  // namespace rwkv
