#include "session.h"

#include <algorithm>
#include <utility>

#include "status.h"

namespace rwkv {

Session::Session(std::shared_ptr<const Model> of) : model(std::move(of)), state(*model) { reset(); }

Session::Session(const Session& other)
    : model(other.model), state(other.state), time_state_(other.time_state_) {
    allow_take_back(other.state.most_taken_back());
}

void Session::feed(const int32_t* tokens, size_t n_tokens, rwkv_logits wanted, float* out) {
    cancelled.store(false, std::memory_order_relaxed);
    read(tokens, n_tokens, wanted, out);
}

void Session::read(const int32_t* tokens, size_t n_tokens, rwkv_logits wanted, float* out) {
    std::vector<Work> all;
    all.push_back(work(tokens, n_tokens, wanted, out));
    step(*model, all, cancelled);
}

void Session::run_layers(size_t n_rows, const LayerRows& rows) {
    rwkv::run_layers(*model, state, n_rows, rows);
}

const float* Session::hidden() const {
    state.require_whole();
    if (state.has_hidden()) return state.hidden();
    throw Failure(RWKV_STATUS_INVALID_ARGUMENT,
                  "session: expected one that has read a token, got one that has read none since "
                  "it was fresh or was given the numbers of a state. Feed it a token");
}

void Session::logits(float* out) const { logits_of(*model, hidden(), out); }

void Session::reset() noexcept {
    state.reset();
    const Config& c = model->config;
    const size_t layer_size = c.n_embd * c.head_size;
    for (size_t i = 0; i < c.n_layer; ++i) {
        const float* heads = nullptr;
        if (!time_state_.empty()) {
            heads = time_state_.data() + i * layer_size;
        } else if (!model->time_state.empty()) {
            heads = model->time_state[i];
        }
        if (heads != nullptr) state.set_heads(i, heads);
    }
}

void Session::set_time_state(const float* heads) {
    const Config& c = model->config;
    if (c.version == Version::v4) {
        throw Failure(RWKV_STATUS_MODEL_OPTION,
                      "time_state: expected a model of version 5 or later, got one of version 4, "
                      "which has no such state");
    }
    std::vector<float> own;
    if (heads != nullptr) {
        const size_t N = c.head_size;
        own.resize(c.n_layer * c.n_embd * N);
        for (size_t head = 0; head < c.n_layer * c.n_head; ++head) {
            const float* const from = heads + head * N * N;
            float* const to = own.data() + head * N * N;
            for (size_t i = 0; i < N; ++i) {
                for (size_t j = 0; j < N; ++j) to[j * N + i] = from[i * N + j];
            }
        }
    }
    time_state_ = std::move(own);
    reset();
}

void Session::keep(size_t n_kept) {
    state.require_whole();
    const size_t n = state.n_undecided();
    if (n == 0) {
        throw Failure(RWKV_STATUS_INVALID_ARGUMENT,
                      "session: expected one whose last step can be taken back, got another. See "
                      "rwkv_session_allow_take_back");
    }
    if (n_kept > n) {
        throw Failure(
            RWKV_STATUS_INVALID_ARGUMENT,
            format("n_kept: expected at most the %zu tokens of the last step, got %zu", n, n_kept));
    }
    state.keep(n_kept);
}

Work Session::work(const int32_t* tokens, size_t n_tokens, rwkv_logits wanted, float* out) {
    return {&state, checked_tokens(*model, tokens, n_tokens), wanted, out, &cancelled};
}

// ---- batches

void StepBatch::add(Session& session, const int32_t* tokens, size_t n_tokens, rwkv_logits wanted,
                    float* out) {
    if (session.model != model_) {
        throw Failure(RWKV_STATUS_INVALID_ARGUMENT,
                      "session: expected one of the batch's model, got one of another. Make a "
                      "batch for each model");
    }
    // A sequence's tokens are in order: twice in a step it would be in two places at once.
    if (std::find(sessions_.begin(), sessions_.end(), &session) != sessions_.end()) {
        throw Failure(RWKV_STATUS_INVALID_ARGUMENT,
                      "session: expected each in a batch once, got one twice. Join its tokens, or "
                      "run the batch first");
    }
    Work work = session.work(tokens, n_tokens, wanted, out);
    sessions_.push_back(&session);
    try {
        work_.push_back(std::move(work));
    } catch (...) {
        sessions_.pop_back();
        throw;
    }
}

void StepBatch::run() {
    cancelled.store(false, std::memory_order_relaxed);
    for (Session* session : sessions_) session->cancelled.store(false, std::memory_order_relaxed);
    step(*model_, work_, cancelled);
    clear();
}

void StepBatch::clear() noexcept {
    sessions_.clear();
    work_.clear();
}

}  // namespace rwkv
