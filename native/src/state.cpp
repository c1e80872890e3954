#include "state.h"

#include <algorithm>
#include <cstring>
#include <utility>

#include "status.h"

namespace rwkv {

namespace {

// pp of version 4 is the logarithm of a maximum over nothing yet.
constexpr float kFreshPp = -1e30f;

}  // namespace

State::State(const Model& model)
    : config_(model.config),
      transpose_(model.kernels.transpose),
      memory_((config_.state_size() + config_.n_embd) * sizeof(float)),
      values_(reinterpret_cast<float*>(memory_.data())),
      hidden_(values_ + config_.state_size()) {
    reset();
}

State::State(const Model& model, OfCaller)
    : config_(model.config),
      transpose_(model.kernels.transpose),
      memory_(config_.n_embd * sizeof(float)),
      values_(nullptr),
      hidden_(reinterpret_cast<float*>(memory_.data())),
      is_callers_(true) {}

State::State(const State& other)
    : config_(other.config_),
      transpose_(other.transpose_),
      memory_(other.memory_.size()),
      values_(reinterpret_cast<float*>(memory_.data())),
      hidden_(values_ + config_.state_size()) {
    *this = other;
}

State& State::operator=(const State& other) {
    other.require_whole();
    if (this != &other) become(other);
    keep_all();
    return *this;
}

// Becomes the other, or itself, with all that is pending applied.
void State::become(const State& other) noexcept {
    begin_change();
    for (size_t i = 0; i < config_.n_layer; ++i) other.copy_layer(i, layer_begin(i));
    if (hidden_ != other.hidden()) {
        std::memcpy(hidden_, other.hidden(), config_.n_embd * sizeof *hidden_);
    }
    has_hidden_ = other.has_hidden();
    if (recent_ != nullptr) recent_->reset();
    end_change();
}

// The floats of a layer, with all that is pending applied.
void State::copy_layer(size_t layer, float* to) const noexcept {
    const float* const from = layer_begin(layer);
    const size_t C = config_.n_embd;
    const size_t heads_size = config_.layer_state_size() - 2 * C;
    if (to != from) std::memcpy(to, from, 2 * C * sizeof *to);
    float* const to_heads = to + 2 * C;
    if (to_heads != wkv(layer)) std::memcpy(to_heads, wkv(layer), heads_size * sizeof *to);
    if (recent_ == nullptr) return;
    for (const Shift shift : {Shift::ffn, Shift::att}) {
        const float* const last = recent_->last_shift(shift, layer);
        if (last != nullptr) std::memcpy(to + static_cast<size_t>(shift) * C, last, C * sizeof *to);
    }
    const Heads heads(config_);
    for (size_t head = 0; head < heads.n; ++head) {
        recent_->apply(layer, head, to_heads + head * heads.part);
    }
}

void State::require_whole() const {
    if (!changing_.load(std::memory_order_relaxed)) return;
    throw Failure(RWKV_STATUS_INVALID_ARGUMENT,
                  "session: expected one that no step is computing, got one that is half-way "
                  "through a step of another thread, or was when this process was forked. Use a "
                  "session for each thread; after a fork, reset it or give it a state");
}

void State::reset() noexcept {
    end_change();
    has_hidden_ = false;
    if (recent_ != nullptr) recent_->reset();
    std::memset(memory_.data(), 0, memory_.size());
    const size_t C = config_.n_embd;
    if (config_.version == Version::v4) {
        for (size_t i = 0; i < config_.n_layer; ++i) std::fill_n(wkv(i) + 2 * C, C, kFreshPp);
    }
}

void State::set_heads(size_t layer, const float* heads) noexcept {
    std::memcpy(wkv(layer), heads, config_.n_embd * config_.head_size * sizeof *heads);
}

void State::read(float* out) const {
    require_whole();
    for (size_t i = 0; i < config_.n_layer; ++i, out += config_.layer_state_size()) {
        copy_layer(i, out);
        transpose_heads(out);
    }
}

void State::write(const float* in, const float* hidden) noexcept {
    end_change();
    if (recent_ != nullptr) recent_->reset();
    std::memcpy(values_, in, config_.state_size() * sizeof *in);
    for (size_t i = 0; i < config_.n_layer; ++i) transpose_heads(layer_begin(i));
    has_hidden_ = hidden != nullptr;
    if (has_hidden_) std::memmove(hidden_, hidden, config_.n_embd * sizeof *hidden);
}

// From the public layout to ours, and back.
void State::transpose_heads(float* layer) const noexcept {
    if (config_.version != Version::v7) return;
    const size_t N = config_.head_size;
    float* head = layer + 2 * config_.n_embd;
    for (size_t i = 0; i < config_.n_head; ++i, head += N * N) transpose_(head, head, N);
}

void State::lie_at(const float* from, float* to) noexcept {
    values_ = to;
    from_ = to;
    if (from == to) return;
    const size_t n = config_.state_size();
    const bool apart = from + n <= to || to + n <= from;
    if (config_.version != Version::v7 || !apart) {
        std::memmove(to, from, n * sizeof *to);
        return;
    }
    from_ = from;  // heads come from there when they are wanted
    for (size_t i = 0; i < config_.n_layer; ++i) {
        const size_t at = i * config_.layer_state_size();
        std::memcpy(to + at, from + at, 2 * config_.n_embd * sizeof *to);
    }
}

// ---- taking rows back

void State::allow_take_back(const Model& model, size_t most) {
    require_whole();
    auto rows = most == 0 ? nullptr : std::make_unique<RecentRows>(model, most);
    become(*this);
    recent_ = std::move(rows);
}

const float* State::shift(Shift shift, size_t layer) const noexcept {
    const float* const last = recent_ == nullptr ? nullptr : recent_->last_shift(shift, layer);
    return last != nullptr ? last : own_shift(shift, layer);
}

void State::end_pass(RecentRows* recent, size_t n_rows) noexcept {
    if (recent != nullptr) return recent->end_pass(n_rows);
    if (recent_ != nullptr) recent_->clear();
    has_hidden_ = true;
}

}  // namespace rwkv
