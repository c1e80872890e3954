// Measures what the engine's thread pool costs beside the work that it shares out.
#pragma once

#include <cstddef>

namespace rwkv_bench {

// Medians, all in seconds.
struct PoolCosts {
    // A region (one for_each) with an empty piece for each thread.
    double region = 0;
    // A region in which each thread has a piece of `kPieceSeconds`: what it takes beyond that.
    double beyond_pieces = 0;
    // A run of one empty region.
    double run = 0;
    // From the call of run, all other threads asleep, until every thread has begun a piece.
    double wake = 0;
    // Processor time that the whole pool uses in a second of waiting for the next run.
    double idle = 0;

    static constexpr double kPieceSeconds = 10e-6;
};

// A pool of n_threads, each figure measured for about `seconds`.
PoolCosts pool_costs(size_t n_threads, double seconds);

}  // namespace rwkv_bench
