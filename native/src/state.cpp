#include "state.h"

#include <algorithm>
#include <cstring>

#include "status.h"

namespace rwkv {

namespace {

// pp of version 4 is the logarithm of a maximum over nothing yet.
constexpr float kFreshPp = -1e30f;

using Four = float __attribute__((vector_size(16)));

Four load(const float* p) noexcept {
    Four x;
    std::memcpy(&x, p, sizeof x);
    return x;
}

void store(float* p, Four x) noexcept { std::memcpy(p, &x, sizeof x); }

// Four rows become four columns.
void transpose(Four (&x)[4]) noexcept {
    const Four low01 = __builtin_shufflevector(x[0], x[1], 0, 4, 1, 5);
    const Four low23 = __builtin_shufflevector(x[2], x[3], 0, 4, 1, 5);
    const Four high01 = __builtin_shufflevector(x[0], x[1], 2, 6, 3, 7);
    const Four high23 = __builtin_shufflevector(x[2], x[3], 2, 6, 3, 7);
    x[0] = __builtin_shufflevector(low01, low23, 0, 1, 4, 5);
    x[1] = __builtin_shufflevector(low01, low23, 2, 3, 6, 7);
    x[2] = __builtin_shufflevector(high01, high23, 0, 1, 4, 5);
    x[3] = __builtin_shufflevector(high01, high23, 2, 3, 6, 7);
}

// Transposes (n, n), in place too: in squares of 4 x 4, which change places in pairs.
void transpose(const float* from, float* to, size_t n) noexcept {
    if (n % 4 != 0) {
        for (size_t i = 0; i < n; ++i) {
            for (size_t j = 0; j <= i; ++j) {
                const float below = from[i * n + j];
                to[i * n + j] = from[j * n + i];
                to[j * n + i] = below;
            }
        }
        return;
    }
    for (size_t i = 0; i < n; i += 4) {
        for (size_t j = 0; j <= i; j += 4) {
            const size_t below = i * n + j;
            const size_t above = j * n + i;
            Four a[4];
            Four b[4];
            for (size_t k = 0; k < 4; ++k) {
                a[k] = load(from + below + k * n);
                b[k] = load(from + above + k * n);
            }
            transpose(a);
            transpose(b);
            for (size_t k = 0; k < 4; ++k) {  // on the diagonal both are one square, and equal
                store(to + below + k * n, b[k]);
                store(to + above + k * n, a[k]);
            }
        }
    }
}

// Copies all layers; transposes the heads of version 7 (which is its own inverse).
void convert(const Config& c, const float* from, float* to) noexcept {
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
      memory_((config_.state_size() + config_.n_embd) * sizeof(float)),
      values_(reinterpret_cast<float*>(memory_.data())),
      hidden_(values_ + config_.state_size()) {
    reset();
}

State::State(const Model& model, float* values)
    : config_(model.config),
      memory_(config_.n_embd * sizeof(float)),
      values_(values),
      hidden_(reinterpret_cast<float*>(memory_.data())),
      is_callers_(true) {}

State::State(const State& other)
    : config_(other.config_),
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
    convert(config_, values(), out);
}

void State::write(const float* in) noexcept {
    end_change();
    has_hidden_ = false;
    convert(config_, in, values());
}

void State::set_hidden(const float* values) noexcept {
    has_hidden_ = values != nullptr;
    if (has_hidden_) std::memcpy(hidden(), values, config_.n_embd * sizeof *values);
}

HeadV7::HeadV7(State& state, size_t layer, size_t head) noexcept
    : state_(state),
      matrix_(state.wkv(layer) + head * state.config_.head_size * state.config_.head_size) {
    transpose();
}

HeadV7::~HeadV7() { transpose(); }

void HeadV7::transpose() const noexcept {
    if (state_.is_callers_) rwkv::transpose(matrix_, matrix_, state_.config_.head_size);
}

}  // namespace rwkv
