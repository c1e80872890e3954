#include "sampler.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <functional>
#include <limits>

#include "status.h"

namespace rwkv {

namespace {

// Arrays are padded to whole blocks, and a sum is made of the sums of its blocks: they are also how
// draw() finds its way. Small, so that a sum of floats in 16 lanes is within 1e-6 relative.
constexpr size_t kBlock = 256;

// A token of a kHeavy-th of all weight is not left to a sample.
constexpr double kHeavy = 64;

constexpr float kInfinity = std::numeric_limits<float>::infinity();
constexpr double kLn2 = 0.6931471805599453;

// log2(x) for finite x > 0, within 1e-12.
//     x = m 2^e, m in [1/2, 1);   ln m = -2 atanh(t), t = (1 - m) / (1 + m) <= 1/3
double log2_positive(double x) {
    int e = 0;
    const double m = std::frexp(x, &e);  // exact
    const double t = (1.0 - m) / (1.0 + m);
    double series = 0;
    for (int k = 25; k > 0; k -= 2) series = series * (t * t) + 1.0 / k;
    return e - 2.0 * t * series / kLn2;
}

// By what cut() orders tokens: x, or how near it is to a middle.
float key(float x, const float* middle) { return middle == nullptr ? x : -std::fabs(x - *middle); }

// SplitMix64 (Steele, Lea and Flood, 2014): a counter in steps of the golden ratio, scrambled.
uint64_t next_random(uint64_t& counter) {
    uint64_t z = (counter += 0x9E3779B97F4A7C15u);
    z = (z ^ (z >> 30)) * 0xBF58476D1CE4E5B9u;
    z = (z ^ (z >> 27)) * 0x94D049BB133111EBu;
    return z ^ (z >> 31);
}

}  // namespace

// ---------------------------------------------------------------------------------------- cut ---

// Adds the pairs with low <= key <= high to `found`, n of up to kBlock. Returns the weight of those
// above. The key is x, or -|x - *middle| where a middle is given.
double Sampler::add_between(const float* x, const float* w, size_t n, const float* middle,
                            float low, float high, Candidates& found) {
    const size_t room = found.n + kBlock + RWKV_LANES;
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

// Copies the pairs with low <= key <= high to `within`; where low = high, so that their keys are
// known, only weighs them and leaves `within` empty. Returns the weight of those above.
double Sampler::split(const float* x, const float* w, size_t n, const float* middle, float low,
                      float high, Candidates& within) {
    double above = 0;
    within.n = 0;
    within.weight = 0;
    for (size_t i = 0; i < n; i += kBlock) {
        if (w == weights_.data() && block_sums_[i / kBlock] == 0) continue;
        above += add_between(x + i, w + i, std::min(kBlock, n - i), middle, low, high, within);
        if (low == high) within.n = 0;
    }
    for (; within.n % RWKV_LANES != 0; ++within.n) {
        within.x[within.n] = -kInfinity;
        within.w[within.n] = 0;
    }
    return above;
}

// Adds the tokens of a 64th of the weight or more to the sample, of which a sample of few tokens in
// many would miss most, and count each of the others for `stride`.
void Sampler::add_heavy(const float* x, const float* w, size_t n, const float* middle,
                        double weight, size_t stride) {
    heavy_.n = 0;
    const auto least = static_cast<float>(weight / kHeavy);
    for (size_t i = 0; i < n; i += kBlock) {
        if (w == weights_.data() && block_sums_[i / kBlock] < static_cast<double>(least)) continue;
        add_between(w + i, x + i, std::min(kBlock, n - i), nullptr, least, kInfinity, heavy_);
    }
    for (size_t i = 0; i < heavy_.n; ++i) {
        sample_.emplace_back(key(heavy_.w[i], middle), heavy_.x[i] / static_cast<float>(stride));
    }
}

// Sorts the sample, the largest key first. A rank is found by comparing with all others: for so few
// that is sooner done than std::sort(), of whose branches a third are mispredicted.
void Sampler::sort_sample() {
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

// The largest of the keys such that the tokens with it and above weigh `target` or more; the
// smallest of those that weigh anything, or a bound just below it, if rounding leaves all short of
// it. The weights of the n tokens are w, their sum is `weight` > 0.
//
// In place of sorting all tokens (Floyd and Rivest, 1975): sort a sample of them, read off between
// which two numbers, low and high, the result probably lies, weigh those above and keep those
// within. That is repeated until few are left, which are sorted.
float Sampler::cut(const float* x, const float* w, size_t n, const float* middle, double weight,
                   double target) {
    constexpr size_t kSample = 128;
    // The number of the sample's tokens above the result is within 6 of its mean two times of
    // three, as that of heads of 128 coins is; within 16 in 199 of 200.
    constexpr size_t kMargin = 16;

    double above = 0;  // weight of the tokens with a larger key than those left: less than target
    bool bisect = false;
    for (size_t round = 0;; ++round) {
        const size_t stride = (n + kSample - 1) / kSample;
        const float heavy = stride > 1 ? static_cast<float>(weight / kHeavy) : kInfinity;
        sample_.clear();
        for (size_t i = stride / 2; i < n; i += stride) {
            if (w[i] < heavy) sample_.emplace_back(key(x[i], middle), w[i]);
        }
        if (stride > 1) add_heavy(x, w, n, middle, weight, stride);
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

        Candidates& kept = candidates_[round % 2];
        const double larger = split(x, w, n, middle, low, high, kept);
        if (above + larger >= target) {
            split(x, w, n, middle, std::nextafter(high, kInfinity), kInfinity, kept);
        } else if (above + larger + kept.weight < target && low > -kInfinity) {
            above += larger + kept.weight;
            split(x, w, n, middle, -kInfinity, std::nextafter(low, -kInfinity), kept);
        } else if (low == high) {
            return low;
        } else {
            above += larger;
        }
        // Rounding: all that weighs anything is at this bound or above.
        if (kept.weight == 0) return low > -kInfinity ? low : high;
        // A sample may mislead: a few heavy tokens, many equal numbers. Then halve, and try again.
        bisect = !bisect && kept.n > n / 2;
        x = kept.x.data();
        w = kept.w.data();
        n = kept.n;
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

// ------------------------------------------------------------------------------- settings ---

Sampler::Sampler(size_t n_vocab, const rwkv_sampler_options& options, const rwkv_kernels& kernels)
    : n_vocab_(n_vocab), options_(options), kernels_(kernels) {
    const auto expect = [](bool holds, const char* name, const char* range, double value) {
        if (!holds) {
            throw Failure(RWKV_STATUS_INVALID_ARGUMENT,
                          format("%s: expected %s, got %g", name, range, value));
        }
    };
    const auto fraction = [&expect](const char* name, double value) {
        expect(value >= 0 && value <= 1, name, "a number from 0 to 1", value);
    };
    const auto finite = [&expect](const char* name, double value) {
        expect(std::isfinite(value), name, "a finite number", value);
    };
    const auto non_negative = [&expect](const char* name, double value) {
        expect(std::isfinite(value) && value >= 0, name, "a finite number, 0 or more", value);
    };
    expect(n_vocab > 0 && n_vocab <= INT32_MAX, "n_vocab", "1 to 2147483647",
           static_cast<double>(n_vocab));
    non_negative("temperature", options.temperature);
    fraction("top_p", options.top_p);
    expect(options.top_k >= 0, "top_k", "0 (all) or more", options.top_k);
    fraction("min_p", options.min_p);
    fraction("typical_p", options.typical_p);
    expect(std::isfinite(options.repetition_penalty) && options.repetition_penalty > 0,
           "repetition_penalty", "a finite number above 0", options.repetition_penalty);
    finite("presence_penalty", options.presence_penalty);
    finite("frequency_penalty", options.frequency_penalty);
    fraction("penalty_decay", options.penalty_decay);
    non_negative("mirostat_tau", options.mirostat_tau);
    non_negative("mirostat_eta", options.mirostat_eta);

    seen_index_.assign(n_vocab, -1);
    block_sums_.resize((n_vocab + kBlock - 1) / kBlock);
    block_tops_.resize(block_sums_.size());
    logits_.assign(block_sums_.size() * kBlock, -kInfinity);
    weights_.assign(logits_.size(), 0);
    reset(options.seed);
}

void Sampler::reset(uint64_t seed) {
    random_ = seed;
    mirostat_mu_ = 2 * options_.mirostat_tau;
    for (const Seen& seen : seen_) seen_index_[static_cast<size_t>(seen.token)] = -1;
    seen_.clear();
}

void Sampler::check(int32_t token) const {
    if (token < 0 || static_cast<size_t>(token) >= n_vocab_) {
        throw Failure(RWKV_STATUS_TOKEN_OUT_OF_RANGE,
                      format("token %d, expected 0 to %zu", token, n_vocab_ - 1));
    }
}

void Sampler::bias(int32_t token, float bias) {
    check(token);
    if (std::isnan(bias) || bias == kInfinity) {
        throw Failure(RWKV_STATUS_INVALID_ARGUMENT,
                      format("bias of token %d: expected a finite number or -infinity, got %g",
                             token, static_cast<double>(bias)));
    }
    biases_[token] = bias;
}

void Sampler::weigh(int32_t token, double weight) {
    check(token);
    if (!std::isfinite(weight)) {
        throw Failure(
            RWKV_STATUS_INVALID_ARGUMENT,
            format("weight of token %d: expected a finite number, got %g", token, weight));
    }
    occurrence_weights_[token] = weight;
}

void Sampler::accept(int32_t token) {
    check(token);
    for (Seen& seen : seen_) seen.count *= options_.penalty_decay;
    int32_t& index = seen_index_[static_cast<size_t>(token)];
    if (index < 0) {
        seen_.push_back({token, 0});
        index = static_cast<int32_t>(seen_.size()) - 1;
    }
    const auto weight = occurrence_weights_.find(token);
    seen_[static_cast<size_t>(index)].count +=
        weight == occurrence_weights_.end() ? 1 : weight->second;
}

// --------------------------------------------------------------------------- from 1 to 8 ---

int32_t Sampler::sample(const float* logits) {
    adjust(logits);
    find_top();
    if (options_.temperature == 0) return first_of_top();
    low_ = -kInfinity;
    high_ = top_;
    weighed_ = false;
    if (options_.mirostat_tau > 0) {
        keep_mirostat();
    } else {
        keep_top_p();
        keep_top_k();
        keep_min_p();
        keep_typical();
    }
    // p^(1 / T) is exp((logit - high) / T), up to a factor that all have.
    weigh(1 / options_.temperature);
    return draw();
}

void Sampler::adjust(const float* logits) {
    std::memcpy(logits_.data(), logits, n_vocab_ * sizeof *logits);
    for (const auto& [token, bias] : biases_) logits_[static_cast<size_t>(token)] += bias;
    const auto repetition = static_cast<float>(options_.repetition_penalty);
    for (const Seen& seen : seen_) {
        float& logit = logits_[static_cast<size_t>(seen.token)];
        logit = logit > 0 ? logit / repetition : logit * repetition;
        logit -=
            static_cast<float>(options_.presence_penalty + seen.count * options_.frequency_penalty);
    }
}

void Sampler::find_top() {
    top_ = -kInfinity;
    bool all_finite = true;
    for (size_t block = 0; block < block_tops_.size(); ++block) {
        const float top = kernels_.largest(&logits_[block * kBlock], kBlock);
        block_tops_[block] = top;
        all_finite &= !std::isnan(top);
        top_ = std::max(top_, top);
    }
    const auto refuse = [](const char* message) {
        throw Failure(RWKV_STATUS_INVALID_ARGUMENT, message);
    };
    if (!all_finite) {
        const bool any_nan = std::any_of(logits_.begin(), logits_.end(),
                                         [](float logit) { return std::isnan(logit); });
        refuse(any_nan ? "logits: expected numbers, got NaN"
                       : "logits: expected finite numbers or -infinity, got +infinity");
    }
    if (top_ == -kInfinity) {
        refuse(
            "logits: expected a token that may be drawn, got -infinity for all. Try banning fewer "
            "tokens.");
    }
}

int32_t Sampler::first_of_top() const {
    const auto block = std::find(block_tops_.begin(), block_tops_.end(), top_);
    const auto from = logits_.begin() + (block - block_tops_.begin()) * ptrdiff_t{kBlock};
    return static_cast<int32_t>(std::find(from, logits_.end(), top_) - logits_.begin());
}

void Sampler::weigh(double scale) {
    // Tokens of weights below exp(-80) = 1.8e-35 leave: no share of less than 1 needs them.
    constexpr float kLargest = 80.0f;
    // With bounds that keep a product with 0 or infinity from becoming NaN.
    const auto factor = static_cast<float>(std::clamp(scale, 1e-30, 1e30));
    low_ = std::max(low_, high_ - kLargest / factor);
    // Where logits are so large, or T so small, that the difference was rounded by more than the
    // kernel has room for (85), the next number is within kLargest.
    if ((low_ - high_) * factor < -85.0f) low_ = std::nextafter(low_, high_);
    total_ = 0;
    for (size_t block = 0; block < block_sums_.size(); ++block) {
        float* weights = &weights_[block * kBlock];
        if (block_tops_[block] < low_) {
            std::fill_n(weights, kBlock, 0.0f);
            block_sums_[block] = 0;
        } else {
            block_sums_[block] = static_cast<double>(kernels_.exp_sum(
                &logits_[block * kBlock], kBlock, high_, factor, low_, high_, weights));
        }
        total_ += block_sums_[block];
    }
}

void Sampler::keep_top_p() {
    if (options_.top_p == 1) return;
    weigh(1);
    weighed_ = true;
    // With top_p = 0 the most probable token stays.
    const double target = std::max(total_ * options_.top_p, std::numeric_limits<double>::min());
    low_ = std::max(low_,
                    cut(logits_.data(), weights_.data(), weights_.size(), nullptr, total_, target));
}

// Calls do_block(logits) for each block in which a logit may be `low` or more.
template <class DoBlock>
void Sampler::for_blocks_from(float low, DoBlock do_block) {
    for (size_t block = 0; block < block_tops_.size(); ++block) {
        if (block_tops_[block] >= low) do_block(&logits_[block * kBlock]);
    }
}

// The k-th largest logit of those kept, -infinity if they are fewer; k <= n_vocab_.
float Sampler::kth_largest(size_t k) {
    if (k > block_tops_.size()) {
        std::fill(weights_.begin(), weights_.end(), 1.0f);
        std::fill(block_sums_.begin(), block_sums_.end(), static_cast<double>(kBlock));
        weighed_ = false;
        total_ = static_cast<double>(weights_.size());
        const float result = cut(logits_.data(), weights_.data(), weights_.size(), nullptr, total_,
                                 static_cast<double>(k));
        return result < low_ ? -kInfinity : result;
    }
    // k blocks have a logit as large as the k-th largest of their tops: so the result is no less.
    std::vector<float>& tops = candidates_[1].x;
    tops.assign(block_tops_.begin(), block_tops_.end());
    const auto kth = static_cast<ptrdiff_t>(k) - 1;
    std::nth_element(tops.begin(), tops.begin() + kth, tops.end(), std::greater<>());
    const float bound = std::max(low_, tops[k - 1]);
    if (bound == top_) return top_;
    Candidates& found = candidates_[0];
    found.n = 0;
    for_blocks_from(bound, [&](const float* logits) {
        add_between(logits, logits, kBlock, nullptr, bound, kInfinity, found);
    });
    if (found.n < k) return -kInfinity;
    const auto begin = found.x.begin();
    std::nth_element(begin, begin + kth, begin + static_cast<ptrdiff_t>(found.n), std::greater<>());
    return found.x[k - 1];
}

void Sampler::keep_top_k() {
    const auto k = static_cast<size_t>(options_.top_k);
    if (k == 0 || k >= n_vocab_) return;
    const float last = kth_largest(k);
    if (last == -kInfinity) return;
    low_ = last;
    // Of several tokens that are just as probable as the k-th, the first stay.
    size_t n_above = 0, n_equal = 0;
    for_blocks_from(last, [&](const float* logits) {
        int32_t above = 0, equal = 0;
        for (size_t i = 0; i < kBlock; ++i) above += logits[i] > last;
        for (size_t i = 0; i < kBlock; ++i) equal += logits[i] == last;
        n_above += static_cast<size_t>(above);
        n_equal += static_cast<size_t>(equal);
    });
    if (n_above + n_equal <= k) return;
    size_t n_to_keep = k - std::min(k, n_above);
    for_blocks_from(last, [&](float* logits) {
        size_t i = 0;
        for (; i < kBlock && n_to_keep > 0; ++i) n_to_keep -= logits[i] == last;
        for (; i < kBlock; ++i) logits[i] = logits[i] == last ? -kInfinity : logits[i];
    });
}

// p >= min_p p_top where logit >= top + ln min_p.
void Sampler::keep_min_p() {
    if (options_.min_p == 0) return;
    const double low = static_cast<double>(top_) + log2_positive(options_.min_p) * kLn2;
    low_ = std::max(low_, std::min(top_, static_cast<float>(low)));  // rounded, yet not above top
}

// Locally typical sampling (Meister et al., 2022): keep the tokens whose surprise -log p is nearest
// to the mean surprise, the entropy, until they reach typical_p. With x = logit - top, log p is x
// minus a constant, so the distance is |x - mean of x|. What is kept lies between two logits.
void Sampler::keep_typical() {
    if (options_.typical_p == 1) return;
    // What the filters before have left is better copied if it is few. One logit of each block
    // tells well enough which: both ways give the same tokens.
    size_t n_left = 0;
    for (size_t i = 0; i < n_vocab_; i += kBlock) n_left += logits_[i] >= low_;
    const bool few = 2 * kBlock * n_left < n_vocab_;
    if (!weighed_) weigh(1);
    const float* x = logits_.data();
    float* w = weights_.data();
    size_t n = weights_.size();
    if (few) {
        split(x, w, n, nullptr, low_, kInfinity, left_);
        x = left_.x.data();
        w = left_.w.data();
        n = left_.n;
    }
    total_ = 0;
    double sum_of_products = 0;
    for (size_t i = 0; i < n; i += kBlock) {
        float sums[2];
        kernels_.keep_from(low_, x + i, std::min(kBlock, n - i), top_, w + i, sums);
        if (!few) block_sums_[i / kBlock] = static_cast<double>(sums[0]);
        total_ += static_cast<double>(sums[0]);
        sum_of_products += static_cast<double>(sums[1]);
    }
    const auto middle = static_cast<float>(static_cast<double>(top_) + sum_of_products / total_);
    const double target = std::max(total_ * options_.typical_p, std::numeric_limits<double>::min());
    const float distance = -cut(x, w, n, &middle, total_, target);

    // The token at this distance stays, rounding or not.
    const float reach = distance + 1e-6f * (distance + std::fabs(middle));
    low_ = std::max(low_, middle - reach);
    if (middle + reach >= top_) return;
    high_ = middle + reach;
    // Where that may be so far above all that is kept that weights come near to 0, be exact.
    if ((high_ - low_) / static_cast<float>(options_.temperature) > 60) {
        high_ = largest_up_to(high_);
    }
}

// The largest logit that is not above `bound`.
float Sampler::largest_up_to(float bound) const {
    float result = -kInfinity;
    for (size_t block = 0; block < block_tops_.size(); ++block) {
        if (block_tops_[block] <= bound) {
            result = std::max(result, block_tops_[block]);
            continue;
        }
        const float* logits = &logits_[block * kBlock];
        float kept[kBlock];
        for (size_t i = 0; i < kBlock; ++i) kept[i] = logits[i] <= bound ? logits[i] : -kInfinity;
        result = std::max(result, kernels_.largest(kept, kBlock));
    }
    return result;
}

// Mirostat 2 (Basu et al., 2021): tokens more surprising than mu leave, and mu follows the surprise
// of what is drawn so that it stays near tau. With weight = exp((logit - top) / T),
//     surprise = log2 total - log2 weight <= mu   where   logit >= top + T ln 2 (log2 total - mu)
void Sampler::keep_mirostat() {
    weigh(1 / options_.temperature);
    const double low = static_cast<double>(top_) +
                       options_.temperature * kLn2 * (log2_positive(total_) - mirostat_mu_);
    // The most probable token stays.
    low_ = static_cast<float>(std::clamp(low, -1e38, static_cast<double>(top_)));
}

void Sampler::learn_mirostat(size_t token) {
    const double surprise =
        log2_positive(total_) - log2_positive(static_cast<double>(weights_[token]));
    mirostat_mu_ -= options_.mirostat_eta * (surprise - options_.mirostat_tau);
}

int32_t Sampler::draw() {
    double target = next_uniform() * total_;
    size_t drawn = weights_.size() - 1;
    // The block in which the sum of weights exceeds the target, then the token.
    size_t block = 0;
    while (block + 1 < block_sums_.size() && target >= block_sums_[block]) {
        target -= block_sums_[block++];
    }
    for (size_t i = block * kBlock; i < weights_.size(); ++i) {
        if (weights_[i] == 0) continue;
        drawn = i;
        if (target < weights_[i]) break;
        target -= weights_[i];
    }
    // Rounding may leave the target above the last weight, or in blocks after it: then the last
    // token that can be drawn is.
    while (weights_[drawn] == 0) --drawn;
    if (options_.mirostat_tau > 0) learn_mirostat(drawn);
    return static_cast<int32_t>(drawn);
}

double Sampler::next_uniform() { return static_cast<double>(next_random(random_) >> 11) * 0x1p-53; }

}  // namespace rwkv
