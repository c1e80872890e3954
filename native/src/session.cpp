#include "session.h"

#include <algorithm>

#include "batch.h"
#include "forward.h"
#include "status.h"

namespace rwkv {

namespace {

// Rows of one sequence in a pass, at most: enough for a matrix that is unpacked once to serve many
// tokens, few enough for their activations to stay in the cache.
constexpr size_t kPieceRows = 256;

// Rows of a pass beyond which no further piece is taken.
constexpr size_t kPassRows = 256;

}  // namespace

Session::Session(std::shared_ptr<const Model> of) : model(std::move(of)), state(model->config) {}

void Session::feed(const int32_t* tokens, size_t n_tokens, float* logits_out) {
    check_tokens(*model, tokens, n_tokens);
    const rwkv_logits wanted = logits_out == nullptr ? RWKV_LOGITS_NONE : RWKV_LOGITS_LAST;
    step(*model, {{&state, tokens, n_tokens, wanted, logits_out}});
}

void check_tokens(const Model& model, const int32_t* tokens, size_t n_tokens) {
    const size_t n_vocab = model.config.n_vocab;
    for (size_t i = 0; i < n_tokens; ++i) {
        if (tokens[i] < 0 || static_cast<size_t>(tokens[i]) >= n_vocab) {
            throw Failure(RWKV_STATUS_TOKEN_OUT_OF_RANGE,
                          format("tokens[%zu]: %d is not in the vocabulary, expected 0 to %zu.", i,
                                 tokens[i], n_vocab - 1));
        }
    }
}

void step(const Model& model, const std::vector<Work>& work) {
    const std::lock_guard<std::mutex> turn(model.stepping);
    std::vector<size_t> done(work.size(), 0);  // tokens of each sequence
    size_t first = 0;                          // the sequences before it are done
    while (first < work.size()) {
        Batch batch;
        for (size_t i = first; i < work.size() && batch.n_rows() < kPassRows; ++i) {
            const Work& w = work[i];
            const size_t n = std::min(w.n_tokens - done[i], kPieceRows);
            if (n == 0) continue;
            const size_t first_row = batch.n_rows();
            if (first_row > 0 && first_row + n > kPassRows) continue;  // in a later pass
            batch.tokens.insert(batch.tokens.end(), w.tokens + done[i], w.tokens + done[i] + n);
            batch.sequence_of.insert(batch.sequence_of.end(), n, batch.sequences.size());
            batch.sequences.push_back({w.state, first_row, n});
            if (w.wanted == RWKV_LOGITS_ALL) {
                for (size_t t = 0; t < n; ++t) {
                    float* out = w.logits + (done[i] + t) * model.config.n_vocab;
                    batch.logits.push_back({first_row + t, out});
                }
            } else if (w.wanted == RWKV_LOGITS_LAST && done[i] + n == w.n_tokens) {
                batch.logits.push_back({first_row + n - 1, w.logits});
            }
            done[i] += n;
        }
        forward(model, batch);
        while (first < work.size() && done[first] == work[first].n_tokens) ++first;
    }
}

void StepBatch::add(Session& session, const int32_t* tokens, size_t n_tokens, rwkv_logits wanted,
                    float* logits_out) {
    if (session.model != model_) {
        throw Failure(RWKV_STATUS_INVALID_ARGUMENT,
                      "session: it is of another model than the batch. Make one batch per model.");
    }
    for (const Entry& entry : entries_) {
        if (entry.session != &session) continue;
        throw Failure(RWKV_STATUS_INVALID_ARGUMENT,
                      "session: it is in the batch already, expected each session once. Join its "
                      "tokens, or run the batch first.");
    }
    check_tokens(*model_, tokens, n_tokens);
    entries_.push_back({&session, {tokens, tokens + n_tokens}, wanted, logits_out});
}

void StepBatch::run() {
    std::vector<Work> work;
    work.reserve(entries_.size());
    for (Entry& e : entries_) {
        work.push_back({&e.session->state, e.tokens.data(), e.tokens.size(), e.wanted, e.logits});
    }
    step(*model_, work);
    clear();
}

}  // namespace rwkv
