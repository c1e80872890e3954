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
// draw() finds its way.
constexpr size_t kBlock = Weighted::kBlock;

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

// SplitMix64 (Steele, Lea and Flood, 2014): a counter in steps of the golden ratio, scrambled.
uint64_t next_random(uint64_t& counter) {
    uint64_t z = (counter += 0x9E3779B97F4A7C15u);
    z = (z ^ (z >> 30)) * 0xBF58476D1CE4E5B9u;
    z = (z ^ (z >> 27)) * 0x94D049BB133111EBu;
    return z ^ (z >> 31);
}

}  // namespace

// ------------------------------------------------------------------------------- settings ---

namespace {

// Bounds of settings. They are far beyond any use, and such that every number that is computed from
// a setting, from finite logits and from the counts of up to 2^53 tokens is finite: no step can make
// a NaN, for which no comparison holds and no search ends where it should.
constexpr double kMostVocab = 1 << 24;
constexpr double kMostTemperature = 1e6;
constexpr double kMostPenalty = 1e6;  // of each kind; repetition: as factor and as divisor
constexpr double kMostWeight = 1e6;   // of an accepted token
constexpr double kMostTau = 1e3;      // bits; a token of 2^24 equal ones has 24
constexpr double kMostEta = 1e3;
constexpr float kMostLogit = std::numeric_limits<float>::max();

void expect(const char* name, double value, double least, double most) {
    if (value >= least && value <= most) return;  // false for NaN
    throw Failure(RWKV_STATUS_INVALID_ARGUMENT,
                  format("%s: expected a number from %g to %g, got %g", name, least, most, value));
}

}  // namespace

const rwkv_kernels& sampler_kernels() {
    static const rwkv_kernels kernels = choose_kernels();
    return kernels;
}

Sampler::Sampler(size_t n_vocab, const rwkv_sampler_options& options, const rwkv_kernels& kernels)
    : n_vocab_(n_vocab), options_(options), kernels_(kernels), cut_(kernels) {
    expect("n_vocab", static_cast<double>(n_vocab), 1, kMostVocab);
    expect("temperature", options.temperature, 0, kMostTemperature);
    expect("top_p", options.top_p, 0, 1);
    expect("top_k", options.top_k, 0, INT32_MAX);
    expect("min_p", options.min_p, 0, 1);
    expect("typical_p", options.typical_p, 0, 1);
    expect("repetition_penalty", options.repetition_penalty, 1 / kMostPenalty, kMostPenalty);
    expect("presence_penalty", options.presence_penalty, -kMostPenalty, kMostPenalty);
    expect("frequency_penalty", options.frequency_penalty, -kMostPenalty, kMostPenalty);
    expect("penalty_decay", options.penalty_decay, 0, 1);
    expect("mirostat_tau", options.mirostat_tau, 0, kMostTau);
    expect("mirostat_eta", options.mirostat_eta, 0, kMostEta);

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
                      format("token: expected 0 to %zu, got %d", n_vocab_ - 1, token));
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
    expect("weight", weight, -kMostWeight, kMostWeight);
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

int32_t Sampler::sample(const float* logits, const uint32_t* mask) {
    adjust(logits, mask);
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

void Sampler::adjust(const float* logits, const uint32_t* mask) {
    std::memcpy(logits_.data(), logits, n_vocab_ * sizeof *logits);
    // What is finite stays finite; NaN and +infinity, which are refused, stay what they are.
    const auto change = [this](int32_t token, auto changed) {
        float& logit = logits_[static_cast<size_t>(token)];
        if (std::isfinite(logit)) logit = std::clamp(changed(logit), -kMostLogit, kMostLogit);
    };
    for (const auto& [token, bias] : biases_) {
        if (bias == -kInfinity) continue;
        change(token, [bias = bias](float logit) { return logit + bias; });
    }
    const auto repetition = static_cast<float>(options_.repetition_penalty);
    for (const Seen& seen : seen_) {
        const auto penalty =
            static_cast<float>(options_.presence_penalty + seen.count * options_.frequency_penalty);
        change(seen.token, [&](float logit) {
            logit = logit > 0 ? logit / repetition : logit * repetition;
            return std::clamp(logit, -kMostLogit, kMostLogit) - penalty;
        });
    }
    for (const auto& [token, bias] : biases_) {
        float& logit = logits_[static_cast<size_t>(token)];
        if (bias == -kInfinity && logit < kInfinity) logit = bias;  // bans, but not what is refused
    }
    if (mask == nullptr) return;
    constexpr size_t kBits = 32;
    for (size_t first = 0; first < n_vocab_; first += kBits) {
        const uint32_t allowed = mask[first / kBits];
        if (allowed == UINT32_MAX) continue;
        const size_t n = std::min(n_vocab_ - first, kBits);
        for (size_t i = 0; i < n; ++i) {
            float& logit = logits_[first + i];
            if ((allowed >> i & 1) == 0 && logit < kInfinity) logit = -kInfinity;
        }
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
            "tokens");
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
    low_ = std::max(low_, cut_.find({logits_.data(), weights_.data(), weights_.size(), nullptr,
                                     block_sums_.data()},
                                    total_, target));
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
        const float result = cut_.find(
            {logits_.data(), weights_.data(), weights_.size(), nullptr, block_sums_.data()}, total_,
            static_cast<double>(k));
        return result < low_ ? -kInfinity : result;
    }
    // k blocks have a logit as large as the k-th largest of their tops: so the result is no less.
    tops_.assign(block_tops_.begin(), block_tops_.end());
    const auto kth = static_cast<ptrdiff_t>(k) - 1;
    std::nth_element(tops_.begin(), tops_.begin() + kth, tops_.end(), std::greater<>());
    const float bound = std::max(low_, tops_[k - 1]);
    if (bound == top_) return top_;
    found_.n = 0;
    for_blocks_from(bound, [&](const float* logits) {
        cut_.add_between(logits, logits, kBlock, nullptr, bound, kInfinity, found_);
    });
    if (found_.n < k) return -kInfinity;
    const auto begin = found_.x.begin();
    std::nth_element(begin, begin + kth, begin + static_cast<ptrdiff_t>(found_.n),
                     std::greater<>());
    return found_.x[k - 1];
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
        cut_.split({x, w, n, nullptr, block_sums_.data()}, low_, kInfinity, left_);
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
    const float distance =
        -cut_.find({x, w, n, &middle, few ? nullptr : block_sums_.data()}, total_, target);

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
    // The most probable token stays, even one whose logit is below -1e38.
    low_ = static_cast<float>(std::min(std::max(low, -1e38), static_cast<double>(top_)));
}

void Sampler::learn_mirostat(size_t token) {
    const double surprise =
        log2_positive(total_) - log2_positive(static_cast<double>(weights_[token]));
    mirostat_mu_ -= options_.mirostat_eta * (surprise - options_.mirostat_tau);
}

int32_t Sampler::draw() {
    // Some token has the weight 1 or is within exp(-85) of it, whatever the settings.
    if (!(total_ > 0)) throw Failure(RWKV_STATUS_INTERNAL, "sampler: no token has any weight");
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
    // token that can be drawn is. There is one, since the weights' sum is above 0.
    while (weights_[drawn] == 0) --drawn;
    if (options_.mirostat_tau > 0) learn_mirostat(drawn);
    return static_cast<int32_t>(drawn);
}

double Sampler::next_uniform() { return static_cast<double>(next_random(random_) >> 11) * 0x1p-53; }

}  // namespace rwkv
