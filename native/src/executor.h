// What the steps on a model take turns to use: the threads, and memory for activations.
#pragma once

#include <cstddef>
#include <cstdint>

#include "fair_mutex.h"
#include "os.h"
#include "scratch.h"
#include "thread_pool.h"

namespace rwkv {

struct Executor {
    explicit Executor(size_t n_threads) : pid(os::process_id()), pool(n_threads) {}

    // Of the process that made it. After fork() the child has a copy of this memory but none of
    // the threads, and locks may be held by threads that it does not have: there an executor can
    // neither be used nor destroyed.
    bool is_of_this_process() const noexcept { return pid == os::process_id(); }

    const int64_t pid;
    FairMutex turn;  // held by the step that runs; first come, first served
    ThreadPool pool;
    Scratch scratch;
};

}  // namespace rwkv
