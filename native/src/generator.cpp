#include "generator.h"

#include <utility>

#include "status.h"

namespace rwkv {

namespace {

constexpr int32_t kEndOfDocument = 0;

}  // namespace

Generator::Generator(Session& session, std::shared_ptr<const Tokenizer> tokenizer, Sampler& sampler)
    : session_(session),
      sampler_(sampler),
      tokenizer_(tokenizer),
      stream_(std::move(tokenizer)),
      stop_tokens_{kEndOfDocument},
      logits_(session.model->config.n_vocab) {
    const size_t n_vocab = session.model->config.n_vocab;
    if (sampler.n_vocab() != n_vocab) {
        throw Failure(RWKV_STATUS_INVALID_ARGUMENT,
                      format("sampler: expected one for the model's %zu tokens, got one for %zu",
                             n_vocab, sampler.n_vocab()));
    }
    if (session.model->notes.end_of_text >= 0) stop_token(session.model->notes.end_of_text);
}

void Generator::begin(std::string_view prompt, size_t max_tokens) {
    std::vector<int32_t> tokens(tokenizer_->count(prompt));
    tokenizer_->encode(prompt, tokens.data());
    if (tokens.empty() && !session_.state.has_hidden()) tokens = {kEndOfDocument};
    if (tokens.empty()) {
        session_.logits(logits_.data());
    } else {
        session_.feed(tokens.data(), tokens.size(), RWKV_LOGITS_LAST, logits_.data());
    }
    stream_.reset();
    drawn_.reset();
    left_ = max_tokens;
    reason_ = RWKV_FINISH_NONE;
    begun_ = true;
}

const std::string* Generator::next() {
    if (!begun_) {
        throw Failure(RWKV_STATUS_INVALID_ARGUMENT,
                      "generator: expected a text that was begun, got none. Call "
                      "rwkv_generator_begin first");
    }
    if (reason_ != RWKV_FINISH_NONE) return nullptr;
    if (left_ == 0) return end(RWKV_FINISH_LENGTH);
    if (!drawn_) drawn_ = sampler_.sample(logits_.data());
    const int32_t token = *drawn_;
    if (stop_tokens_.count(token) != 0) return end(RWKV_FINISH_END);
    // What the stream is afterwards counts only if the session can read the token.
    TextStream after = stream_;
    std::string text = after.push(token);
    if (after.stopped()) {
        reason_ = RWKV_FINISH_STOP;
    } else {
        session_.feed(&token, 1, RWKV_LOGITS_LAST, logits_.data());
        sampler_.accept(token);
        --left_;
    }
    drawn_.reset();
    stream_ = std::move(after);
    text_ = std::move(text);
    return &text_;
}

const std::string* Generator::end(rwkv_finish reason) {
    text_ = stream_.finish();
    reason_ = reason;
    return &text_;
}

}  // namespace rwkv
