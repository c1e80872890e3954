#include "thread_pool.h"

#include <system_error>

#include "compiler.h"
#include "status.h"

namespace rwkv {

void Signal::pause() noexcept { rwkv::pause(); }

void Signal::wake() noexcept {
    // All accesses are sequentially consistent: either the sleeper sees the new value before it
    // sleeps, or we see the sleeper.
    if (sleepers_.load(std::memory_order_seq_cst) > 0) {
        {
            const std::lock_guard<std::mutex> lock(mutex_);
        }
        condition_.notify_all();
    }
}

ThreadPool::ThreadPool(size_t n_threads)
    : n_threads_(std::max<size_t>(1, n_threads)), parts_(n_threads_) {
    try {
        for (size_t i = 1; i < n_threads_; ++i) threads_.emplace_back([this, i] { work(i); });
    } catch (const std::system_error& error) {  // the system has no more threads for us
        const size_t started = threads_.size() + 1;
        stop();  // the destructor of a half-built object does not run
        throw Failure(RWKV_STATUS_OUT_OF_MEMORY,
                      format("threads: expected %zu, got %zu: %s. Try fewer", n_threads_, started,
                             error.what()));
    } catch (...) {
        stop();
        throw;
    }
}

ThreadPool::~ThreadPool() { stop(); }

void ThreadPool::stop() noexcept {
    stopping_ = true;
    started_.set(started_.now() + 1);
    for (std::thread& thread : threads_) thread.join();
}

// No thread works on a region now.
void ThreadPool::open_region(uint64_t region) noexcept {
    finished_.store(0, std::memory_order_relaxed);
    for (Part& part : parts_) part.claimed.store(region << 32, std::memory_order_release);
    region_.set(region);
}

void ThreadPool::run_body(void (*call)(void* body, Team&), void* body) noexcept {
    call_ = call;
    body_ = body;
    open_region(0);
    inside_.set(kOpen);
    if (n_threads_ > 1) started_.set(started_.now() + 1);
    Team team(*this, 0);
    call(body, team);
    // All work is done. Close the door, and wait for those who are still inside, on their way out.
    uint64_t inside = inside_.now();
    while (!inside_.compare_exchange(inside, inside & ~kOpen)) {
    }
    inside_.wait([](uint64_t now) { return now == 0; });
}

void ThreadPool::work(size_t thread) {
    uint64_t seen = 0;
    for (;;) {
        started_.wait([&](uint64_t now) { return now != seen; });
        seen = started_.now();
        if (stopping_) return;
        // A thread that wakes late may find the run over.
        uint64_t inside = inside_.now();
        while ((inside & kOpen) != 0 && !inside_.compare_exchange(inside, inside + 1)) {
        }
        if ((inside & kOpen) == 0) continue;
        Team team(*this, thread);
        call_(body_, team);
        inside = inside_.now();
        while (!inside_.compare_exchange(inside, inside - 1)) {
        }
        // The door is closed and this was the last: wake the caller. Not more than that, because a
        // caller that did not sleep may be in its next run already.
        if (inside == 1) inside_.wake();
    }
}

}  // namespace rwkv
