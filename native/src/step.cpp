#include "step.h"

#include <algorithm>
#include <mutex>

#include "executor.h"
#include "forward.h"
#include "stages.h"
#include "status.h"

namespace rwkv {

namespace {

void require_whole(const Model& model) {
    if (!model.is_part) return;
    throw Failure(RWKV_STATUS_INVALID_ARGUMENT,
                  "session: expected one of a whole model, got one of some layers, which have no "
                  "embedding and no head. See rwkv_session_run_layers");
}

// Rows of a pass beyond which no further piece is taken: a whole piece of a prompt, and beside it a token
// each of many sequences that write, which would else take a pass of their own, and a copy of all their
// states (`before`).
constexpr size_t kPassRows = kPieceRows + 64;

// The passes of a step, one after another: of each sequence that has tokens left the next piece, as
// many sequences as a pass takes.
class Passes {
  public:
    // Asks for the memory of all batches.
    Passes(const Model& model, const std::vector<Work>& work) : model_(model), work_(work) {
        // A pass has at most so many rows, and of each piece at least one.
        done_.resize(work.size());
        pieces_.reserve(kPassRows);
        batch_.tokens.reserve(kPassRows);
        batch_.sequence_of.reserve(kPassRows);
        batch_.sequences.reserve(kPassRows);
        batch_.logits.reserve(kPassRows);
        batch_.hidden.reserve(2 * kPassRows);
    }

    void restart() noexcept { std::fill(done_.begin(), done_.end(), 0); }

    // The rows of the next pass; none when all is done. Valid until the next call.
    const Batch& next() noexcept {
        choose();
        batch_.tokens.clear();
        batch_.sequence_of.clear();
        batch_.sequences.clear();
        batch_.logits.clear();
        batch_.hidden.clear();
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
        // What can be taken back is a step, not the last piece of a longer one.
        RecentRows* const recent = w.state->recent_for(w.tokens.size());
        batch_.sequences.push_back({w.state, first_row, p.n, recent});
        for (size_t t = 0; t < p.n; ++t) {
            const Config& c = model_.config;
            const size_t row = first_row + t;
            if (w.wanted == RWKV_LOGITS_ALL) {
                batch_.logits.push_back({row, w.out + (at + t) * c.n_vocab});
            } else if (w.wanted == RWKV_HIDDEN_ALL) {
                batch_.hidden.push_back({row, w.out + (at + t) * c.n_embd});
            }
            if (recent != nullptr) batch_.hidden.push_back({row, recent->hidden(t)});
        }
        at += p.n;
        const size_t last = batch_.n_rows() - 1;
        if (recent == nullptr) batch_.hidden.push_back({last, w.state->next_hidden()});
        if (at < w.tokens.size()) return;
        if (w.wanted == RWKV_LOGITS_LAST) batch_.logits.push_back({last, w.out});
        if (w.wanted == RWKV_HIDDEN_LAST) batch_.hidden.push_back({last, w.out});
    }

    const Model& model_;
    const std::vector<Work>& work_;
    std::vector<size_t> done_;  // tokens of each sequence that earlier passes had
    std::vector<Piece> pieces_;
    Batch batch_;
};

// What the passes need: bytes of scratch memory of the hungriest, and how many they are.
struct Needs {
    size_t scratch = 0;
    size_t n_passes = 0;
};
Needs needs_of(const Model& model, Executor& executor, Passes& passes) {
    Needs needs;
    executor.scratch.count();
    for (;; ++needs.n_passes) {
        const Batch& batch = passes.next();
        if (batch.n_rows() == 0) break;
        forward(model, executor, batch);
        needs.scratch = std::max(needs.scratch, executor.scratch.used());
    }
    passes.restart();
    return needs;
}

// A pass, after which the states of its sequences have read its rows.
void compute(const Model& model, Executor& executor, const Batch& batch) {
    forward(model, executor, batch);
    for (const Sequence& s : batch.sequences) s.state->end_pass(s.recent, s.n_rows);
}

bool is_cancelled(const std::vector<Work>& work, const Cancelled& cancelled) noexcept {
    const auto set = [](const Cancelled* flag) {
        return flag != nullptr && flag->load(std::memory_order_relaxed);
    };
    return set(&cancelled) ||
           std::any_of(work.begin(), work.end(), [&](const Work& w) { return set(w.cancelled); });
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

void step(const Model& model, const std::vector<Work>& work, const Cancelled& cancelled) {
    require_whole(model);
    Executor& executor = model.executor();
    const std::lock_guard<FairMutex> turn(executor.turn);
    const auto require_wanted = [&] {
        if (!is_cancelled(work, cancelled)) return;
        throw Failure(RWKV_STATUS_CANCELLED, "the step: cancelled by another thread");
    };
    // All that can fail comes first.
    for (const Work& w : work) w.state->require_whole();
    Passes passes(model, work);
    const Needs needs = needs_of(model, executor, passes);
    executor.scratch.reserve(needs.scratch);
    // A step that is cancelled between its passes goes back to these.
    std::vector<State> before;
    if (needs.n_passes > 1) {
        before.reserve(work.size());
        for (const Work& w : work) before.emplace_back(*w.state);
    }
    require_wanted();
    // From here on states change.
    for (const Work& w : work) w.state->begin_change();
    for (bool first = true;; first = false) {
        const Batch& batch = passes.next();
        if (batch.n_rows() == 0) break;
        if (!first && is_cancelled(work, cancelled)) {
            for (size_t i = 0; i < work.size(); ++i) *work[i].state = before[i];
            require_wanted();
        }
        compute(model, executor, batch);
    }
    for (const Work& w : work) w.state->end_step();
}

void run_layers(const Model& model, State& state, size_t n_rows, const LayerRows& rows) {
    Executor& executor = model.executor();
    const std::lock_guard<FairMutex> turn(executor.turn);
    state.require_whole();
    const size_t C = model.config.n_embd;
    LayerRows piece = rows;
    const size_t most = std::min(n_rows, kPieceRows);
    Batch batch;
    batch.tokens.reserve(most);
    batch.sequence_of.reserve(most);
    batch.layer_rows = &piece;
    const auto begin = [&](size_t n) {
        batch.tokens.assign(n, 0);
        batch.sequence_of.assign(n, 0);
        batch.sequences.assign(1, {&state, 0, n, nullptr});
        batch.n_wide = n >= RWKV_WIDE ? n : 0;
    };
    // The largest piece needs the most memory.
    begin(most);
    executor.scratch.count();
    forward(model, executor, batch);
    executor.scratch.reserve(executor.scratch.used());
    state.begin_change();
    for (size_t at = 0; at < n_rows; at += kPieceRows) {
        begin(std::min(n_rows - at, kPieceRows));
        compute(model, executor, batch);
        piece.x += kPieceRows * C;
        if (piece.v_first != nullptr) piece.v_first += kPieceRows * C;
        for (Tap& tap : piece.taps) tap.rows += kPieceRows * tap.matrix->n_in;
    }
    state.end_layers();
}

void logits_of(const Model& model, const float* hidden, float* out) {
    require_whole(model);
    Executor& executor = model.executor();
    const std::lock_guard<FairMutex> turn(executor.turn);
    // A pass of one row, of which only the head is computed.
    Batch batch;
    batch.tokens = {0};
    batch.sequence_of = {0};
    Scratch& scratch = executor.scratch;
    const auto run = [&] {
        scratch.begin();
        const HeadBuffers head_buffers(scratch, model.config, 1);
        const ProductBuffers buffers(scratch, model, batch);
        if (scratch.is_counting()) return;
        executor.pool.run([&](Team& team) {
            Pass pass{model, batch, buffers, team};
            logits_of(pass, hidden, head_buffers, out);
        });
    };
    scratch.count();
    run();
    scratch.reserve(scratch.used());
    run();
}

}  // namespace rwkv
