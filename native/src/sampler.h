// Logits -> token: the steps, and their order, are described at rwkv_sampler_options.
#pragma once

#include <cstddef>
#include <cstdint>
#include <map>
#include <vector>

#include "kernels/registry.h"
#include "rwkv/rwkv.h"
#include "weighted_cut.h"

namespace rwkv {

// The kernels of samplers, which belong to no model: those that RWKV_KERNELS allowed when the first
// sampler was made. Fails like choose_kernels().
const rwkv_kernels& sampler_kernels();

// Used by one thread at a time. The same options, seed, logits and accepted tokens give the same
// tokens on every platform and at every kernel level: all arithmetic is IEEE additions,
// multiplications and divisions in a fixed order, exp and log are written with them, and the random
// numbers are our own.
class Sampler {
  public:
    // Throws if an option is outside its range.
    Sampler(size_t n_vocab, const rwkv_sampler_options& options,
            const rwkv_kernels& kernels = sampler_kernels());

    size_t n_vocab() const noexcept { return n_vocab_; }
    void reset(uint64_t seed);
    void bias(int32_t token, float bias);
    void weigh(int32_t token, double weight);
    // `mask`: bits of the tokens that may be drawn, see rwkv_sampler_sample_masked; nullptr: all.
    int32_t sample(const float* logits, const uint32_t* mask = nullptr);
    void accept(int32_t token);

  private:
    struct Seen {
        int32_t token;
        double count;
    };
    void check(int32_t token) const;

    // The steps, in order. A step keeps tokens by raising low_ or lowering high_.
    // logits_ := logits with biases and penalties, and those that the mask bans at -infinity
    void adjust(const float* logits, const uint32_t* mask);
    void find_top();  // throws if nothing may be drawn
    int32_t first_of_top() const;
    void keep_top_p();
    void keep_top_k();
    void keep_min_p();
    void keep_typical();
    void keep_mirostat();
    int32_t draw();
    void learn_mirostat(size_t token);

    // weights_ := exp((logits_ - high_) scale) of the tokens that are kept, 0 of others.
    void weigh(double scale);

    template <class DoBlock>
    void for_blocks_from(float low, DoBlock do_block);

    float kth_largest(size_t k);
    float largest_up_to(float bound) const;
    double next_uniform();  // in [0, 1)

    size_t n_vocab_;
    rwkv_sampler_options options_;
    rwkv_kernels kernels_;
    uint64_t random_ = 0;
    double mirostat_mu_ = 0;  // bits: the largest surprise allowed

    std::map<int32_t, float> biases_;
    std::map<int32_t, double> occurrence_weights_;  // where it is not 1
    std::vector<Seen> seen_;                        // the tokens accepted, each once
    std::vector<int32_t> seen_index_;               // (n_vocab): place in seen_, or -1

    // Padded to whole blocks, by logits of -infinity.
    std::vector<float> logits_;
    std::vector<float> block_tops_;  // (n_blocks): at least the largest logit of each block
    float top_ = 0;                  // the largest logit

    // The tokens with logits from low_ to high_ are kept. high_ is the logit of one of them, or at
    // most 60 temperatures above low_.
    float low_ = 0;
    float high_ = 0;

    // A probability is a weight divided by total_.
    std::vector<float> weights_;      // 0 .. 1; likewise padded
    std::vector<double> block_sums_;  // (n_blocks): the sum of each block of weights
    double total_ = 0;
    bool weighed_ = false;  // weights_ are exp(logits_ - top_), of tokens that are left at least

    WeightedCut cut_;
    Candidates left_;          // by the filters before typical sampling
    Candidates found_;         // scratch of kth_largest()
    std::vector<float> tops_;  // likewise
};

}  // namespace rwkv
