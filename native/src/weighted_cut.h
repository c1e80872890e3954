// Where to cut numbers, ordered by size or by nearness, so that those kept have a given share of a
// weight: what top-p, top-k and typical sampling are made of.
#pragma once

#include <cstddef>
#include <utility>
#include <vector>

#include "kernels/kernels.h"

namespace rwkv {

// Numbers x, each with a weight w >= 0. They are ordered by a key: x or, where a middle is given,
// -|x - *middle|.
struct Weighted {
    // Weights are also known by sums of so many. Small, so that a sum of floats in 16 lanes is
    // within 1e-6 relative.
    static constexpr size_t kBlock = 256;

    const float* x;
    const float* w;
    size_t n;  // a multiple of RWKV_LANES
    const float* middle = nullptr;
    const double* block_sums = nullptr;  // (n / kBlock, rounded up): of w; NULL if not known
};

// Some of them. What split() makes is padded to a multiple of RWKV_LANES.
struct Candidates {
    std::vector<float> x, w;
    size_t n = 0;
    double weight = 0;  // the sum of w that split() copied or weighed
};

class WeightedCut {
  public:
    explicit WeightedCut(const rwkv_kernels& kernels) : kernels_(kernels) {}

    // The largest of the keys such that those with it and above weigh `target` or more; the
    // smallest of those that weigh anything, or a bound just below it, if rounding leaves all short
    // of it. `weight` > 0 is the sum of all weights.
    float find(Weighted all, double weight, double target);

    // Copies those with low <= key <= high to `within`; where low = high, so that their keys are
    // known, only weighs them and leaves `within` empty. Returns the weight of those above.
    double split(const Weighted& all, float low, float high, Candidates& within) const;

    // Adds those of a block, n of up to kBlock, with low <= key <= high to `found`. Returns the
    // weight of those above.
    double add_between(const float* x, const float* w, size_t n, const float* middle, float low,
                       float high, Candidates& found) const;

  private:
    void add_heavy(const Weighted& all, double weight, size_t stride);
    void sort_sample();

    const rwkv_kernels kernels_;
    std::vector<std::pair<float, float>> sample_;  // keys and weights
    std::vector<std::pair<float, float>> sorted_;
    std::vector<int32_t> ordinals_;
    Candidates kept_[2];
    Candidates heavy_;  // its x are weights, its w numbers
};

}  // namespace rwkv
