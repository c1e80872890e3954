// A mutex whose waiters get it in the order in which they came.
#pragma once

#include <condition_variable>
#include <cstddef>
#include <mutex>

namespace rwkv {

// std::mutex lets whoever runs take it: a thread that unlocks and locks again keeps out those that
// have to be woken first, so that one user of a model could starve another. Here unlock() hands it
// to the next in line. Waiters lie on their threads' stacks: nothing is allocated.
class FairMutex {
  public:
    void lock() {
        std::unique_lock<std::mutex> guard(mutex_);
        if (!locked_) {
            locked_ = true;
            return;
        }
        Waiter self;
        *(first_ == nullptr ? &first_ : &last_->next) = &self;
        last_ = &self;
        self.wake.wait(guard, [&] { return self.has_turn; });
        first_ = self.next;
        if (first_ == nullptr) last_ = nullptr;
    }

    void unlock() {
        const std::lock_guard<std::mutex> guard(mutex_);
        if (first_ == nullptr) {
            locked_ = false;
            return;
        }
        // It stays locked, for the first in line, who leaves the line when it wakes: not before this
        // guard is gone.
        first_->has_turn = true;
        first_->wake.notify_one();
    }

    // How many wait for it now, one that was just given it and has yet to wake included.
    size_t n_waiting() const {
        const std::lock_guard<std::mutex> guard(mutex_);
        size_t n = 0;
        for (const Waiter* w = first_; w != nullptr; w = w->next) ++n;
        return n;
    }

  private:
    struct Waiter {
        std::condition_variable wake;
        bool has_turn = false;
        Waiter* next = nullptr;
    };
    mutable std::mutex mutex_;
    bool locked_ = false;
    Waiter* first_ = nullptr;
    Waiter* last_ = nullptr;
};

}  // namespace rwkv
