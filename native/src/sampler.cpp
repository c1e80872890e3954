#include "sampler.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <limits>

#include "status.h"

namespace rwkv {

namespace {

// Arrays are padded to whole blocks, and a sum is made of the sums of its blocks: they are also how
// draw() finds its way.
constexpr size_t kBlock = 64;

// Partial results of a block, in every build, so that all agree whatever the width of their
// vectors.
constexpr size_t kLanes = 8;

constexpr float kInfinity = std::numeric_limits<float>::infinity();
constexpr uint32_t kOneBits = 0x3F800000;

uint32_t bits_of(float x) {
    uint32_t bits;
    std::memcpy(&bits, &x, sizeof bits);
    return bits;
}

float float_of(uint32_t bits) {
    float x;
    std::memcpy(&x, &bits, sizeof x);
    return x;
}

// Replaces each x >= 0 of a block by exp(-x), within 3e-7 relative up to 64, within 2e-35 beyond; 0
// from 80 on.
//     -x = n ln 2 + r, |r| <= ln(2) / 2;   exp(-x) = 2^n p(r)
// p is the polynomial of degree 5, beginning 1 + r, with the least relative error: 1.1e-7. The
// loops have no branch, so that they become vector code, and every operation is elementwise, so
// that the width of vectors changes nothing.
void exp_negative(float* block) {
    constexpr float kLargest = 80.0f;
    constexpr float kExpOfLargest = 1.80485156e-35f;  // as computed here
    constexpr float kShift = 12582912.0f;             // 1.5 * 2^23: adding it rounds to an integer
    constexpr float kLn2High = 0.693359375f;          // n * kLn2High is exact
    constexpr float kLn2Low = -2.12194440e-4f;        // ln 2 - kLn2High
    for (size_t i = 0; i < kBlock; ++i) {
        const float x = block[i];
        block[i] = x < kLargest ? x : kLargest;
    }
    for (size_t i = 0; i < kBlock; ++i) {
        const float x = block[i];
        const float shifted = kShift - x * 1.44269504f;
        const float n = shifted - kShift;
        const float r = (-x - n * kLn2High) - n * kLn2Low;
        float p = 0.00831250101f;
        p = p * r + 0.0418903306f;
        p = p * r + 0.166671157f;
        p = p * r + 0.499992311f;
        p = p * r + 1.0f;
        p = p * r + 1.0f;
        // The last bits of `shifted` hold n: moved up, they are added to p's exponent. What clipped
        // values are left with is taken from all: others lose nothing by it.
        block[i] = float_of(bits_of(p) + (bits_of(shifted) << 23)) - kExpOfLargest;
    }
}

// The sum of a block. A lane adds 8 numbers in float: the sum is within 5e-7 relative.
double sum_of_block(const float* block) {
    float lanes[kLanes] = {};
    for (size_t i = 0; i < kBlock; i += kLanes) {
        for (size_t lane = 0; lane < kLanes; ++lane) lanes[lane] += block[i + lane];
    }
    double sum = 0;
    for (const float lane : lanes) sum += static_cast<double>(lane);
    return sum;
}

// log2(x) for finite x > 0, within 1e-12.
//     x = m 2^e, m in [1/2, 1);   ln m = -2 atanh(t), t = (1 - m) / (1 + m) <= 1/3
double log2_positive(double x) {
    int e = 0;
    const double m = std::frexp(x, &e);  // exact
    const double t = (1.0 - m) / (1.0 + m);
    double series = 0;
    for (int k = 25; k > 0; k -= 2) series = series * (t * t) + 1.0 / k;
    return e - 2.0 * t * series * 1.4426950408889634;
}

// 2^-x for 0 <= x, within 1e-15 relative.
//     2^-x = 2^-whole exp(r), r = -(x - whole) ln 2;   exp(r) by its Taylor series
double exp2_negative(double x) {
    if (x > 1000) return 0;
    const double whole = std::floor(x);  // exact
    const double r = (whole - x) * 0.6931471805599453;
    double y = 1;
    for (int k = 20; k > 0; --k) y = 1.0 + y * r / k;
    return std::ldexp(y, -static_cast<int>(whole));  // exact
}

// SplitMix64 (Steele, Lea and Flood, 2014): a counter in steps of the golden ratio, scrambled.
uint64_t next_random(uint64_t& counter) {
    uint64_t z = (counter += 0x9E3779B97F4A7C15u);
    z = (z ^ (z >> 30)) * 0xBF58476D1CE4E5B9u;
    z = (z ^ (z >> 27)) * 0x94D049BB133111EBu;
    return z ^ (z >> 31);
}

}  // namespace

// The smallest key such that the tokens with keys up to it weigh `target` or more together; the
// largest key up to `last_key` if they do not. Tokens whose key is above `last_key` are not looked
// at.
//
// In place of sorting all tokens: weigh them in buckets of keys with equal upper half, find the
// bucket in which the target is reached, and sort only that.
template <class Key, class Weight>
uint32_t Sampler::cut(Key key, Weight weight, uint32_t last_key, double target) {
    // Which tokens are looked at is as good as random: a branch on it would be mispredicted.
    size_t n = 0;
    for (size_t i = 0; i < n_vocab_; ++i) {
        candidates_[n] = static_cast<uint32_t>(i);
        n += key(i) <= last_key;
    }
    buckets_.assign((last_key >> 16) + 1, 0.0);
    for (size_t c = 0; c < n; ++c) buckets_[key(candidates_[c]) >> 16] += weight(candidates_[c]);
    double sum = 0;
    size_t bucket = 0;
    while (bucket + 1 < buckets_.size() && sum + buckets_[bucket] < target)
        sum += buckets_[bucket++];

    border_.clear();
    for (size_t c = 0; c < n; ++c) {
        const uint32_t k = key(candidates_[c]);
        if (k >> 16 == bucket) border_.emplace_back(k, weight(candidates_[c]));
    }
    std::sort(border_.begin(), border_.end());
    for (const auto& [k, w] : border_) {
        sum += w;
        if (sum >= target) return k;
    }
    return last_key;
}

// ------------------------------------------------------------------------------- settings ---

Sampler::Sampler(size_t n_vocab, const rwkv_sampler_options& options)
    : n_vocab_(n_vocab), options_(options) {
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
    logits_.assign(block_sums_.size() * kBlock, -kInfinity);
    weights_.assign(logits_.size(), 0);
    candidates_.resize(n_vocab + 1);
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
    const float top = find_top();
    if (options_.temperature == 0) {
        const auto first = std::find(logits_.begin(), logits_.end(), top);
        return static_cast<int32_t>(first - logits_.begin());
    }
    softmax(top);
    if (options_.mirostat_tau > 0) {
        apply_temperature(top);
        keep_mirostat();
    } else {
        keep_top_p();
        keep_top_k();
        keep_min_p();
        keep_typical(top);
        apply_temperature(top);
    }
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

float Sampler::find_top() const {
    // A column for each place in a block.
    float tops[kBlock];
    float sums[kBlock] = {};  // NaN if a logit is; scaled down, so that they do not overflow
    std::fill_n(tops, kBlock, -kInfinity);
    for (size_t block = 0; block < block_sums_.size(); ++block) {
        const float* logits = &logits_[block * kBlock];
        for (size_t i = 0; i < kBlock; ++i) {
            const float x = logits[i], top = tops[i];
            tops[i] = x > top ? x : top;
            sums[i] += x * 0x1p-40f;
        }
    }
    const auto refuse = [](const char* message) {
        throw Failure(RWKV_STATUS_INVALID_ARGUMENT, message);
    };
    const float top = *std::max_element(tops, tops + kBlock);
    if (top == kInfinity) refuse("logits: expected finite numbers or -infinity, got +infinity");
    for (const float sum : sums) {
        if (std::isnan(sum)) refuse("logits: expected numbers, got NaN");
    }
    if (top == -kInfinity) {
        refuse(
            "logits: expected a token that may be drawn, got -infinity for all. Try banning fewer "
            "tokens.");
    }
    return top;
}

void Sampler::softmax(float top) {
    for (size_t block = 0; block < block_sums_.size(); ++block) {
        const float* logits = &logits_[block * kBlock];
        float* weights = &weights_[block * kBlock];
        for (size_t i = 0; i < kBlock; ++i) weights[i] = top - logits[i];
        exp_negative(weights);
        block_sums_[block] = sum_of_block(weights);
    }
    sum_blocks();
}

void Sampler::sum_weights() {
    for (size_t block = 0; block < block_sums_.size(); ++block) {
        block_sums_[block] = sum_of_block(&weights_[block * kBlock]);
    }
    sum_blocks();
}

void Sampler::sum_blocks() {
    total_ = 0;
    for (const double sum : block_sums_) total_ += sum;
}

void Sampler::drop_below(float cutoff) {
    for (size_t block = 0; block < block_sums_.size(); ++block) {
        float* weights = &weights_[block * kBlock];
        for (size_t i = 0; i < kBlock; ++i) {
            const uint32_t dropped = (bits_of(weights[i]) - bits_of(cutoff)) >> 31;  // 0 or 1
            weights[i] = float_of(bits_of(weights[i]) & (dropped - 1));
        }
        block_sums_[block] = sum_of_block(weights);
    }
    sum_blocks();
}

void Sampler::keep_top_p() {
    if (options_.top_p == 1) return;
    // The n_vocab tokens below this floor could not weigh more than what may be left out.
    const double floor = total_ * (1 - options_.top_p) / static_cast<double>(n_vocab_);
    const uint32_t last_key = kOneBits - bits_of(static_cast<float>(floor));
    const uint32_t key = cut([this](size_t i) { return kOneBits - bits_of(weights_[i]); },
                             [this](size_t i) { return static_cast<double>(weights_[i]); },
                             last_key, total_ * options_.top_p);
    drop_below(float_of(kOneBits - key));
}

void Sampler::keep_top_k() {
    const auto k = static_cast<size_t>(options_.top_k);
    if (k == 0 || k >= n_vocab_) return;
    const uint32_t key = cut([this](size_t i) { return kOneBits - bits_of(weights_[i]); },
                             [](size_t) { return 1.0; }, kOneBits - 1, static_cast<double>(k));
    const float cutoff = float_of(kOneBits - key);
    // Of several tokens that are just as probable as the k-th, the first stay.
    size_t n_above = 0;
    for (const float weight : weights_) n_above += weight > cutoff;
    size_t n_ties_left = k - std::min(k, n_above);
    for (float& weight : weights_) {
        if (weight == cutoff && n_ties_left > 0) {
            --n_ties_left;
        } else if (weight <= cutoff) {
            weight = 0;
        }
    }
    sum_weights();
}

void Sampler::keep_min_p() {
    if (options_.min_p > 0) drop_below(static_cast<float>(options_.min_p));
}

// Locally typical sampling (Meister et al., 2022): keep the tokens whose surprise -log p is nearest
// to the mean surprise, the entropy, until they reach typical_p. With x = logit - top, log p is x
// minus a constant, so the distance is |x - mean of x|.
void Sampler::keep_typical(float top) {
    if (options_.typical_p == 1) return;
    double mean = 0;
    for (size_t i = 0; i < n_vocab_; ++i) {
        if (weights_[i] > 0) mean += weights_[i] * static_cast<double>(logits_[i] - top);
    }
    mean /= total_;
    const auto key = [&](size_t i) {
        if (weights_[i] == 0) return UINT32_MAX;
        return bits_of(static_cast<float>(std::fabs(static_cast<double>(logits_[i] - top) - mean)));
    };
    const uint32_t last = cut(
        key, [this](size_t i) { return static_cast<double>(weights_[i]); }, bits_of(128.0f),
        total_ * options_.typical_p);
    for (size_t i = 0; i < n_vocab_; ++i) {
        if (key(i) > last) weights_[i] = 0;
    }
    sum_weights();
}

// Mirostat 2 (Basu et al., 2021): tokens more surprising than mu leave, and mu follows the surprise
// of what is drawn so that it stays near tau.
void Sampler::keep_mirostat() {
    const double cutoff = total_ * exp2_negative(std::max(0.0, mirostat_mu_));
    drop_below(static_cast<float>(std::min(1.0, cutoff)));  // the most probable token stays
}

void Sampler::learn_mirostat(size_t token) {
    const double surprise = log2_positive(total_) - log2_positive(weights_[token]);
    mirostat_mu_ -= options_.mirostat_eta * (surprise - options_.mirostat_tau);
}

// p^(1 / T) is exp((logit - top) / T), up to a factor that all have.
void Sampler::apply_temperature(float top) {
    if (options_.temperature == 1) return;
    const auto inverse = static_cast<float>(1 / options_.temperature);
    for (size_t block = 0; block < block_sums_.size(); ++block) {
        if (block_sums_[block] == 0) continue;
        const float* logits = &logits_[block * kBlock];
        float* weights = &weights_[block * kBlock];
        float tempered[kBlock];
        for (size_t i = 0; i < kBlock; ++i) tempered[i] = (top - logits[i]) * inverse;
        exp_negative(tempered);
        for (size_t i = 0; i < kBlock; ++i) weights[i] = weights[i] > 0 ? tempered[i] : 0;
        block_sums_[block] = sum_of_block(weights);
    }
    sum_blocks();
}

int32_t Sampler::draw() {
    double target = next_uniform() * total_;
    size_t drawn = 0;
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
    if (weights_[drawn] == 0) {
        drawn = weights_.size() - 1;
        while (weights_[drawn] == 0) --drawn;
    }
    if (options_.mirostat_tau > 0) learn_mirostat(drawn);
    return static_cast<int32_t>(drawn);
}

double Sampler::next_uniform() { return static_cast<double>(next_random(random_) >> 11) * 0x1p-53; }

}  // namespace rwkv
