#include "step.h"

#include <algorithm>
#include <mutex>

#include "batch.h"
#include "executor.h"
#include "forward.h"
#include "status.h"

namespace rwkv {

namespace {

// Rows of a pass beyond which no further piece is taken.
constexpr size_t kPassRows = 256;

// The passes of a step, one after another: of each sequence that has tokens left the next piece, as
// many sequences as a pass takes.
class Passes {
  public:
    // Asks for the memory of all batches.
    Passes(const Model& model, const std::vector<Work>& work) : model_(model), work_(work) {
        // A pass has at most kPassRows rows, and of each piece at least one.
        constexpr size_t kMost = std::max(kPassRows, kPieceRows);
        done_.resize(work.size());
        pieces_.reserve(kMost);
        batch_.tokens.reserve(kMost);
        batch_.sequence_of.reserve(kMost);
        batch_.sequences.reserve(kMost);
        batch_.logits.reserve(kMost);
    }

    void restart() noexcept { std::fill(done_.begin(), done_.end(), 0); }

    // The rows of the next pass; none when all is done. Valid until the next call.
    const Batch& next() noexcept {
        choose();
        batch_.tokens.clear();
        batch_.sequence_of.clear();
        batch_.sequences.clear();
        batch_.logits.clear();
        batch_.n_wide = 0;
        // Sequences that may take the wide way come first.
        for (const Piece& p : pieces_) {
            if (p.n >= RWKV_WIDE) add(p);
        }
        batch_.n_wide = batch_.n_rows();
        for (const Piece& p : pieces_) {
            if (p.n < RWKV_WIDE) add(p);
        }
        return batch_;
    }

  private:
    struct Piece {
        size_t sequence;  // in work_
        size_t n;         // tokens
    };

    void choose() noexcept {
        pieces_.clear();
        size_t n_rows = 0;
        for (size_t i = 0; i < work_.size() && n_rows < kPassRows; ++i) {
            const size_t n = std::min(work_[i].tokens.size() - done_[i], kPieceRows);
            if (n == 0 || (n_rows > 0 && n_rows + n > kPassRows)) continue;
            pieces_.push_back({i, n});
            n_rows += n;
        }
    }

    void add(const Piece& p) noexcept {
        const Work& w = work_[p.sequence];
        const size_t first_row = batch_.n_rows();
        size_t& at = done_[p.sequence];
        const auto begin = w.tokens.begin() + static_cast<ptrdiff_t>(at);
        batch_.tokens.insert(batch_.tokens.end(), begin, begin + static_cast<ptrdiff_t>(p.n));
        batch_.sequence_of.insert(batch_.sequence_of.end(), p.n, batch_.sequences.size());
        batch_.sequences.push_back({w.state, first_row, p.n});
        if (w.wanted == RWKV_LOGITS_ALL) {
            for (size_t t = 0; t < p.n; ++t) {
                batch_.logits.push_back(
                    {first_row + t, w.logits + (at + t) * model_.config.n_vocab});
            }
        }
        at += p.n;
        if (w.wanted == RWKV_LOGITS_LAST && at == w.tokens.size()) {
            batch_.logits.push_back({batch_.n_rows() - 1, w.logits});
        }
    }

    const Model& model_;
    const std::vector<Work>& work_;
    std::vector<size_t> done_;  // tokens of each sequence that earlier passes had
    std::vector<Piece> pieces_;
    Batch batch_;
};

// Bytes of scratch memory that the hungriest of the passes takes.
size_t scratch_needed(const Model& model, Executor& executor, Passes& passes) {
    Scratch& scratch = executor.scratch;
    size_t most = 0;
    scratch.count();
    for (;;) {
        const Batch& batch = passes.next();
        if (batch.n_rows() == 0) break;
        forward(model, executor, batch);
        most = std::max(most, scratch.used());
    }
    passes.restart();
    return most;
}

}  // namespace

std::vector<int32_t> checked_tokens(const Model& model, const int32_t* tokens, size_t n_tokens) {
    std::vector<int32_t> copy(tokens, tokens + n_tokens);
    const size_t n_vocab = model.config.n_vocab;
    for (size_t i = 0; i < n_tokens; ++i) {
        if (copy[i] < 0 || static_cast<size_t>(copy[i]) >= n_vocab) {
            throw Failure(RWKV_STATUS_TOKEN_OUT_OF_RANGE,
                          format("tokens[%zu]: expected one of the vocabulary, 0 to %zu, got %d", i,
                                 n_vocab - 1, copy[i]));
        }
    }
    return copy;
}

void step(const Model& model, const std::vector<Work>& work) {
    Executor& executor = model.executor();
    const std::lock_guard<FairMutex> turn(executor.turn);
    // All that can fail comes first.
    for (const Work& w : work) w.state->require_whole();
    Passes passes(model, work);
    executor.scratch.reserve(scratch_needed(model, executor, passes));
    // From here on states change.
    for (const Work& w : work) w.state->begin_change();
    for (;;) {
        const Batch& batch = passes.next();
        if (batch.n_rows() == 0) break;
        forward(model, executor, batch);
    }
    for (const Work& w : work) w.state->end_change();
}

}  // namespace rwkv
