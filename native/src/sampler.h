// Logits -> token: the steps, and their order, are described at rwkv_sampler_options.
#pragma once

#include <cstddef>
#include <cstdint>
#include <map>
#include <utility>
#include <vector>

#include "rwkv/rwkv.h"

namespace rwkv {

// Used by one thread at a time. The same options, seed, logits and accepted tokens give the same
// tokens on every platform: all arithmetic is IEEE additions, multiplications and divisions in a
// fixed order, exp and log are written with them here, and the random numbers are our own.
class Sampler {
  public:
    // Throws if an option is outside its range.
    Sampler(size_t n_vocab, const rwkv_sampler_options& options);

    void reset(uint64_t seed);
    void bias(int32_t token, float bias);
    void weigh(int32_t token, double weight);
    int32_t sample(const float* logits);
    void accept(int32_t token);

  private:
    struct Seen {
        int32_t token;
        double count;
    };
    void check(int32_t token) const;

    // The steps, in order.
    void adjust(const float* logits);  // logits_ := logits with biases and penalties
    float find_top() const;            // the largest of logits_; throws if nothing may be drawn
    void softmax(float top);           // weights_ := exp(logits_ - top)
    void keep_top_p();
    void keep_top_k();
    void keep_min_p();
    void keep_typical(float top);
    void keep_mirostat();
    void apply_temperature(float top);  // weights_ := weights_^(1 / temperature)
    int32_t draw();
    void learn_mirostat(size_t token);

    // weights_[i] := 0 where weights_[i] < cutoff.
    void drop_below(float cutoff);
    // Recomputes block_sums_ and total_, or total_ alone.
    void sum_weights();
    void sum_blocks();

    template <class Key, class Weight>
    uint32_t cut(Key key, Weight weight, uint32_t last_key, double target);

    double next_uniform();  // in [0, 1)

    size_t n_vocab_;
    rwkv_sampler_options options_;
    uint64_t random_ = 0;
    double mirostat_mu_ = 0;  // bits: the largest surprise allowed

    std::map<int32_t, float> biases_;
    std::map<int32_t, double> occurrence_weights_;  // where it is not 1
    std::vector<Seen> seen_;                        // the tokens accepted, each once
    std::vector<int32_t> seen_index_;               // (n_vocab): place in seen_, or -1

    // A probability is a weight divided by total_; a token that has left has weight 0.
    // Both are padded to whole blocks, by logits of -infinity.
    std::vector<float> logits_;
    std::vector<float> weights_;      // 0 .. 1; the most probable token has 1
    std::vector<double> block_sums_;  // (n_blocks): the sum of each block of weights
    double total_ = 0;

    // Scratch of cut().
    std::vector<uint32_t> candidates_;
    std::vector<double> buckets_;
    std::vector<std::pair<uint32_t, double>> border_;
};

}  // namespace rwkv
