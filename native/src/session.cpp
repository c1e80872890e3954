#include "session.h"

#include <algorithm>

#include "batch.h"
#include "forward.h"
#include "status.h"

namespace rwkv {

namespace {

// Rows of a pass beyond which no further piece is taken.
constexpr size_t kPassRows = 256;

// The next piece of each sequence that has tokens left, as many as a pass takes; `done` counts each
// sequence's tokens and is moved on.
Batch next_batch(const Model& model, const std::vector<Work>& work, std::vector<size_t>& done) {
    struct Piece {
        size_t sequence;
        size_t n;
    };
    std::vector<Piece> pieces;
    size_t n_rows = 0;
    for (size_t i = 0; i < work.size() && n_rows < kPassRows; ++i) {
        const size_t n = std::min(work[i].n_tokens - done[i], kPieceRows);
        if (n == 0 || (n_rows > 0 && n_rows + n > kPassRows)) continue;
        pieces.push_back({i, n});
        n_rows += n;
    }
    const auto narrow = std::stable_partition(pieces.begin(), pieces.end(),
                                              [](const Piece& p) { return p.n >= RWKV_WIDE; });
    Batch batch;
    for (auto p = pieces.begin(); p != pieces.end(); ++p) {
        const Work& w = work[p->sequence];
        const size_t first_row = batch.n_rows();
        size_t& at = done[p->sequence];
        batch.tokens.insert(batch.tokens.end(), w.tokens + at, w.tokens + at + p->n);
        batch.sequence_of.insert(batch.sequence_of.end(), p->n, batch.sequences.size());
        batch.sequences.push_back({w.state, first_row, p->n});
        if (w.wanted == RWKV_LOGITS_ALL) {
            for (size_t t = 0; t < p->n; ++t) {
                batch.logits.push_back({first_row + t, w.logits + (at + t) * model.config.n_vocab});
            }
        }
        at += p->n;
        if (w.wanted == RWKV_LOGITS_LAST && at == w.n_tokens) {
            batch.logits.push_back({batch.n_rows() - 1, w.logits});
        }
        if (p < narrow) batch.n_wide = batch.n_rows();
    }
    return batch;
}

}  // namespace

Session::Session(std::shared_ptr<const Model> of) : model(std::move(of)), state(*model) {}

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
    std::vector<size_t> done(work.size(), 0);
    for (;;) {
        const Batch batch = next_batch(model, work, done);
        if (batch.n_rows() == 0) return;
        forward(model, batch);
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
