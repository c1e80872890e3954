#include "session.h"

#include "status.h"

namespace rwkv {

Session::Session(std::shared_ptr<const Model> of) : model(std::move(of)), state(*model) {}

void Session::feed(const int32_t* tokens, size_t n_tokens, float* logits_out) {
    const rwkv_logits wanted = logits_out == nullptr ? RWKV_LOGITS_NONE : RWKV_LOGITS_LAST;
    step(*model, {{&state, checked_tokens(*model, tokens, n_tokens), wanted, logits_out}});
}

void StepBatch::add(Session& session, const int32_t* tokens, size_t n_tokens, rwkv_logits wanted,
                    float* logits_out) {
    if (session.model != model_) {
        throw Failure(RWKV_STATUS_INVALID_ARGUMENT,
                      "session: expected one of the batch's model, got one of another. Make a "
                      "batch for each model");
    }
    // A sequence's tokens are in order: twice in a step it would be in two places at once.
    for (const Work& w : work_) {
        if (w.state != &session.state) continue;
        throw Failure(RWKV_STATUS_INVALID_ARGUMENT,
                      "session: expected each in a batch once, got one twice. Join its tokens, or "
                      "run the batch first");
    }
    work_.push_back(
        {&session.state, checked_tokens(*model_, tokens, n_tokens), wanted, logits_out});
}

void StepBatch::run() {
    step(*model_, work_);
    clear();
}

}  // namespace rwkv
