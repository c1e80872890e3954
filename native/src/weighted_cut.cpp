#include "weighted_cut.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <limits>

namespace rwkv {

namespace {

constexpr float kInfinity = std::numeric_limits<float>::infinity();

// A number of a kHeavy-th of all weight is not left to a sample.
constexpr double kHeavy = 64;

// By what numbers are ordered: x, or how near it is to a middle.
float key(float x, const float* middle) { return middle == nullptr ? x : -std::fabs(x - *middle); }

}  // namespace

double WeightedCut::add_between(const float* x, const float* w, size_t n, const float* middle,
                                float low, float high, Candidates& found) const {
    const size_t room = found.n + Weighted::kBlock + RWKV_LANES;
    if (found.x.size() < room || found.w.size() < room) {
        found.x.resize(2 * room);
        found.w.resize(2 * room);
    }
    float sums[2];
    found.n +=
        kernels_.split(x, w, n, middle, low, high, &found.x[found.n], &found.w[found.n], sums);
    found.weight += static_cast<double>(sums[1]);
    return static_cast<double>(sums[0]);
}

double WeightedCut::split(const Weighted& all, float low, float high, Candidates& within) const {
    double above = 0;
    within.n = 0;
    within.weight = 0;
    for (size_t i = 0; i < all.n; i += Weighted::kBlock) {
        if (all.block_sums != nullptr && all.block_sums[i / Weighted::kBlock] == 0) continue;
        above += add_between(all.x + i, all.w + i, std::min(Weighted::kBlock, all.n - i),
                             all.middle, low, high, within);
        if (low == high) within.n = 0;
    }
    for (; within.n % RWKV_LANES != 0; ++within.n) {
        within.x[within.n] = -kInfinity;
        within.w[within.n] = 0;
    }
    return above;
}

// Adds the numbers of a 64th of the weight or more to the sample, of which a sample of few tokens in
// many would miss most, and count each of the others for `stride`.
void WeightedCut::add_heavy(const Weighted& all, double weight, size_t stride) {
    heavy_.n = 0;
    const auto least = static_cast<float>(weight / kHeavy);
    for (size_t i = 0; i < all.n; i += Weighted::kBlock) {
        if (all.block_sums != nullptr &&
            all.block_sums[i / Weighted::kBlock] < static_cast<double>(least)) {
            continue;
        }
        add_between(all.w + i, all.x + i, std::min(Weighted::kBlock, all.n - i), nullptr, least,
                    kInfinity, heavy_);
    }
    for (size_t i = 0; i < heavy_.n; ++i) {
        sample_.emplace_back(key(heavy_.w[i], all.middle),
                             heavy_.x[i] / static_cast<float>(stride));
    }
}

// Sorts the sample, the largest key first. A rank is found by comparing with all others: for so few
// that is sooner done than std::sort(), of whose branches a third are mispredicted.
void WeightedCut::sort_sample() {
    const size_t n = sample_.size();
    ordinals_.resize(n);
    sorted_.resize(n);
    // Integers in the order of the floats; that -0 comes below +0 does no harm.
    for (size_t i = 0; i < n; ++i) {
        int32_t bits;
        std::memcpy(&bits, &sample_[i].first, sizeof bits);
        ordinals_[i] = bits < 0 ? bits ^ INT32_MAX : bits;
    }
    for (size_t i = 0; i < n; ++i) {
        int32_t rank = 0;  // equal ones keep their order
        for (size_t j = 0; j < i; ++j) rank += ordinals_[j] >= ordinals_[i];
        for (size_t j = i + 1; j < n; ++j) rank += ordinals_[j] > ordinals_[i];
        sorted_[static_cast<size_t>(rank)] = sample_[i];
    }
    sample_.swap(sorted_);
}

// In place of sorting all numbers (Floyd and Rivest, 1975): sort a sample of them, read off between
// which two numbers, low and high, the result probably lies, weigh those above and keep those
// within. That is repeated until few are left, which are sorted.
float WeightedCut::find(Weighted all, double weight, double target) {
    constexpr size_t kSample = 128;
    // The number of the sample's numbers above the result is within 6 of its mean two times of
    // three, as that of heads of 128 coins is; within 16 in 199 of 200.
    constexpr size_t kMargin = 16;

    double above = 0;  // weight of the numbers with a larger key than those left: less than target
    bool bisect = false;
    for (size_t round = 0;; ++round) {
        const size_t stride = (all.n + kSample - 1) / kSample;
        const float heavy = stride > 1 ? static_cast<float>(weight / kHeavy) : kInfinity;
        sample_.clear();
        for (size_t i = stride / 2; i < all.n; i += stride) {
            if (all.w[i] < heavy) sample_.emplace_back(key(all.x[i], all.middle), all.w[i]);
        }
        if (stride > 1) add_heavy(all, weight, stride);
        sort_sample();
        if (stride <= 1) break;  // the sample is all of them

        float low, high;
        if (bisect) {
            low = high = sample_[sample_.size() / 2].first;
        } else {
            // How many are above the result is told by those below: there are many of these, while
            // a sample says little about a few heavy ones.
            const double may_leave = above + weight - target;
            double below = 0;
            size_t place = sample_.size() - 1;
            while (place > 0) {
                below += static_cast<double>(sample_[place].second) * static_cast<double>(stride);
                if (below > may_leave) break;
                --place;
            }
            const size_t last = place + kMargin;
            high = place < kMargin ? kInfinity : sample_[place - kMargin].first;
            low = last < sample_.size() ? sample_[last].first : -kInfinity;
        }

        Candidates& kept = kept_[round % 2];
        const double larger = split(all, low, high, kept);
        if (above + larger >= target) {
            split(all, std::nextafter(high, kInfinity), kInfinity, kept);
        } else if (above + larger + kept.weight < target && low > -kInfinity) {
            above += larger + kept.weight;
            split(all, -kInfinity, std::nextafter(low, -kInfinity), kept);
        } else if (low == high) {
            return low;
        } else {
            above += larger;
        }
        // Rounding: all that weighs anything is at this bound or above.
        if (kept.weight == 0) return low > -kInfinity ? low : high;
        // A sample may mislead: a few heavy numbers, many equal ones. Then halve, and try again.
        bisect = !bisect && kept.n > all.n / 2;
        all = {kept.x.data(), kept.w.data(), kept.n, all.middle, nullptr};
        weight = kept.weight;
    }
    float result = -kInfinity;
    for (const auto& [number, number_weight] : sample_) {
        result = number;
        above += static_cast<double>(number_weight);
        if (above >= target) break;
    }
    return result;
}

}  // namespace rwkv
