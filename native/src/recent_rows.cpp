#include "recent_rows.h"

#include <cstring>

namespace rwkv {

namespace {

constexpr size_t kChannels = 64;  // of version 4 that are worked on together

// How many vectors of a head's channels a row changes the state by: all that the recurrence reads but r.
size_t n_inputs(Version version) noexcept {
    switch (version) {
        case Version::v4:
        case Version::v5_1:
        case Version::v5_2:
            return 2;  // k, v
        case Version::v6:
            return 3;  // and w
        case Version::v7:
            break;
    }
    return 5;  // and -kappa, a kappa
}

// The decay in each layer, (C), where it does not depend on the token; else none.
std::vector<Vector> decays_of(const Model& model) {
    std::vector<Vector> decays;
    const auto add = [&](const auto& layers) {
        for (const auto& layer : layers) decays.push_back(layer.time_decay);
    };
    if (const auto* v4 = std::get_if<std::vector<LayerV4>>(&model.layers)) add(*v4);
    if (const auto* v5 = std::get_if<std::vector<LayerV5>>(&model.layers)) add(*v5);
    return decays;
}

}  // namespace

Heads::Heads(const Config& c) noexcept
    : n_embd(c.n_embd), n(c.n_head), width(c.head_size), n_parts(1), part(width * width) {
    if (c.version != Version::v4) return;
    n = (n_embd + kChannels - 1) / kChannels;
    width = part = kChannels;
    n_parts = 3;
}

RecentRows::RecentRows(const Model& model, size_t most)
    : model_(model),
      heads_(model.config),
      decays_(decays_of(model)),
      most_(most),
      heads_size_(model.config.layer_state_size() - 2 * model.config.n_embd),
      head_inputs_(n_inputs(model.config.version) * heads_.width),
      ld_(model.config.n_layer * heads_.n * head_inputs_) {
    const Config& c = model.config;
    const size_t of_inputs = most * ld_;
    const size_t of_shifts = (most + 1) * c.n_layer * 2 * c.n_embd;
    const size_t of_heads = c.n_layer * heads_size_;
    memory_ = Memory((of_heads + of_inputs + of_shifts + (most + 1) * c.n_embd) * sizeof(float));
    heads_here_ = reinterpret_cast<float*>(memory_.data());
    inputs_ = heads_here_ + of_heads;
    shifts_ = inputs_ + of_inputs;
    hidden_ = shifts_ + of_shifts;
}

void RecentRows::take(size_t layer, size_t head, size_t row, size_t n_rows, size_t ld,
                      std::initializer_list<const float*> inputs) noexcept {
    float* const rows = inputs_of(layer, head) + row * ld_;
    const size_t n = heads_.width_of(head);
    for (size_t i = 0; i < n_rows; ++i) {
        float* to = rows + i * ld_;
        for (const float* input : inputs) {
            model_.kernels.stream(input + i * ld, to, n);
            to += heads_.width;
        }
    }
}

void RecentRows::leave_head(size_t layer, size_t head, const float* S, float* own) noexcept {
    if (!leaves_) return;
    float* const to = (are_here_ ? own : heads_at(layer)) + head * heads_.part;
    // Of version 4 the last head's parts may be shorter than their room.
    const size_t n = heads_.n_parts == 1 ? heads_.part : heads_.width_of(head);
    for (size_t i = 0; i < heads_.n_parts; ++i) {
        model_.kernels.stream(S + i * heads_.part, to + i * heads_.n_embd, n);
    }
}

void RecentRows::end_pass(size_t n_rows) noexcept {
    has_before_ = has_last();
    before_ = slot_after(0);
    n_pending_ = n_undecided_ = n_rows;
    left_ = leaves_;
}

void RecentRows::apply(size_t layer, size_t head, float* S) const noexcept {
    if (n_pending_ == 0) return;
    const rwkv_kernels& kernels = model_.kernels;
    const size_t n = n_pending_;
    const size_t C = heads_.n_embd;
    const size_t N = heads_.width;
    const float* const k = inputs_of(layer, head);
    const float* const v = k + N;
    const float* const w = v + N;
    // Without r and u, which only y depends on; and y is not wanted.
    switch (model_.config.version) {
        case Version::v4:
            kernels.wkv4(n, ld_, heads_.width_of(head), nullptr, decays_[layer] + head * N, k, v, S,
                         C, S, C, nullptr);
            break;
        case Version::v5_1:
        case Version::v5_2:
            kernels.wkv5(n, ld_, N, nullptr, k, v, nullptr, decays_[layer] + head * N, 0, S, S,
                         nullptr);
            break;
        case Version::v6:
            kernels.wkv5(n, ld_, N, nullptr, k, v, nullptr, w, ld_, S, S, nullptr);
            break;
        case Version::v7:
            kernels.wkv7(n, ld_, N, nullptr, w, k, v, w + N, w + 2 * N, S, S, nullptr);
            break;
    }
}

void RecentRows::clear() noexcept {
    has_before_ = false;
    n_pending_ = n_undecided_ = 0;
    left_ = false;
}

void RecentRows::reset() noexcept {
    clear();
    are_here_ = false;
}

void RecentRows::keep(size_t n) noexcept {
    const bool all = n == n_undecided_;
    leaves_ = all && n > 1;
    n_pending_ = n;
    n_undecided_ = 0;
    if (left_ && all) {
        are_here_ = !are_here_;
        has_before_ = has_last();
        before_ = slot_after(0);
        n_pending_ = 0;
    }
    left_ = false;
}

}  // namespace rwkv
