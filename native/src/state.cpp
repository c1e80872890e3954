#include "state.h"

#include <algorithm>
#include <cstring>

#include "status.h"

namespace rwkv {

namespace {

// pp of version 4 is the logarithm of a maximum over nothing yet.
constexpr float kFreshPp = -1e30f;

// Copies all layers; transposes the heads of version 7 (which is its own inverse).
void convert(const Config& c, Transpose transpose, const float* from, float* to) noexcept {
    if (c.version != Version::v7) {
        std::memcpy(to, from, c.state_size() * sizeof *to);
        return;
    }
    const size_t N = c.head_size;
    for (size_t layer = 0; layer < c.n_layer; ++layer) {
        std::memcpy(to, from, 2 * c.n_embd * sizeof *to);
        from += 2 * c.n_embd;
        to += 2 * c.n_embd;
        for (size_t head = 0; head < c.n_head; ++head, from += N * N, to += N * N) {
            transpose(from, to, N);
        }
    }
}

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
    if (this != &other) std::memcpy(memory_.data(), other.memory_.data(), memory_.size());
    has_hidden_ = other.has_hidden_;
    end_change();
    return *this;
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
    std::memset(memory_.data(), 0, memory_.size());
    const size_t C = config_.n_embd;
    if (config_.version == Version::v4) {
        for (size_t i = 0; i < config_.n_layer; ++i) std::fill_n(wkv(i) + 2 * C, C, kFreshPp);
    }
}

void State::read(float* out) const {
    require_whole();
    convert(config_, transpose_, values(), out);
}

void State::write(const float* in) noexcept {
    end_change();
    has_hidden_ = false;
    convert(config_, transpose_, in, values());
}

void State::set_hidden(const float* values) noexcept {
    has_hidden_ = values != nullptr;
    if (has_hidden_) std::memcpy(hidden(), values, config_.n_embd * sizeof *values);
}

void State::lie_at(const float* from, float* to) noexcept {
    values_ = to;
    from_ = to;
    if (from == to) return;
    const size_t n = config_.state_size();
    const bool apart = from + n <= to || to + n <= from;
    if (config_.version != Version::v7 || config_.head_size > HeadV7::kMostChannels || !apart) {
        std::memmove(to, from, n * sizeof *to);
        return;
    }
    from_ = from;  // heads come from there when they are wanted
    for (size_t i = 0; i < config_.n_layer; ++i) {
        const size_t at = i * config_.layer_state_size();
        std::memcpy(to + at, from + at, 2 * config_.n_embd * sizeof *to);
    }
}

HeadV7::HeadV7(State& state, size_t layer, size_t head) noexcept
    : transpose_(state.is_callers_ ? state.transpose_ : nullptr),
      n_(state.config_.head_size),
      values_(state.wkv(layer) + head * n_ * n_),
      matrix_(transpose_ != nullptr && n_ <= kMostChannels ? buffer_ : values_) {
    if (transpose_ != nullptr) transpose_(state.from_ + (values_ - state.values_), matrix_, n_);
}

HeadV7::~HeadV7() {
    if (transpose_ != nullptr) transpose_(matrix_, values_, n_);
}

}  // namespace rwkv
