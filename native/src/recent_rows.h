// The rows that a sequence read last, while they can be taken back.
#pragma once

#include <cstddef>
#include <initializer_list>
#include <vector>

#include "memory.h"
#include "model.h"

namespace rwkv {

// The token shifts of a layer, in the order in which a state holds them: of the channel mix, of the
// time mix.
enum class Shift : size_t { ffn = 0, att = 1 };

// What a layer's recurrence is made of, each worked on by itself: heads, (N, N). Version 4 has none: 64
// of its channels are one, and of each of aa, bb and pp, which are parts C floats apart, it has (64).
struct Heads {
    explicit Heads(const Config& c) noexcept;

    // Channels of a head: only the last of version 4 may have fewer than others.
    size_t width_of(size_t head) const noexcept {
        return n_embd - head * width < width ? n_embd - head * width : width;
    }
    size_t size() const noexcept { return n_parts * part; }  // floats

    size_t n_embd;
    size_t n;        // in a layer
    size_t width;    // channels
    size_t n_parts;  // of a head; each is of `part` floats, and that of the next head follows
    size_t part;
};

// A step of a few rows leaves the state as it was before them. What they make of it stands here, for
// each row and layer: what the recurrence reads; both shifts; and behind the last layer the hidden state.
// How many rows are kept can be said after the step; unless it is said, all are. Those that are kept
// are pending: the next pass applies them, head by head, before it works on its own rows, and so does
// whoever copies the state meanwhile. That gives, to the bit, what a step of them alone would have
// left, since kernels give the same however rows are cut.
//
// To apply rows is to compute the recurrence again. It is spared where it can be foreseen: at first, and
// after a step of several rows that were all kept, a pass also leaves the heads as all its rows make them. For that there
// are two places, the state's memory and one here; if all is kept again, they change parts. Leaving them
// costs a store of each (more than to apply a single row), in vain if rows are taken back: then the
// next pass leaves none.
//
// What a pass leaves here is read by none before the next, when a model's weights have gone through
// the caches: it is streamed past them, which spares reading the lines before they are written.
//
// In floats, of `most` rows of a layer of version 7: 5 C most that the recurrence reads, and 2 C
// (most + 1) shifts; and once 64 C of heads. A copy of the layer's state, 66 C, would be smaller from 10
// rows on; but every step would have to make it, reading and writing 66 C more, and whoever takes rows
// back would have to run the model again. Memory is asked for once, and of it a step touches what its
// rows need: so there is this one way for all numbers of rows and all versions.
class RecentRows {
  public:
    static constexpr size_t kMost = RWKV_WIDE - 1;  // of more, results depend on how they are cut

    RecentRows(const Model& model, size_t most);  // 1 to kMost; `model` must stay
    size_t most() const noexcept { return most_; }

    // ---- in a pass: where what becomes of its rows is left

    void leave_shift(Shift shift, size_t layer, size_t row, const float* x) noexcept {  // (C)
        model_.kernels.stream(x, shift_at(shift, layer, slot_after(row + 1)), heads_.n_embd);
    }
    float* hidden(size_t row) noexcept { return hidden_at(slot_after(row + 1)); }  // (C)

    // Takes a head's part of what the recurrence reads of n_rows rows, which are `ld` floats apart.
    // In this order: k, v; of versions 6 and 7 w, too; of version 7 -kappa and a kappa, too.
    void take(size_t layer, size_t head, size_t row, size_t n_rows, size_t ld,
              std::initializer_list<const float*> inputs) noexcept;

    // Where the heads of a layer stand: at `own`, the state's place for them, or here.
    float* heads(size_t layer, float* own) const noexcept {
        return are_here_ ? heads_at(layer) : own;
    }
    // Is told what all rows of the pass make of a head, S, whose parts follow each other.
    void leave_head(size_t layer, size_t head, const float* S, float* own) noexcept;

    // The pass is over, and has read n_rows rows.
    void end_pass(size_t n_rows) noexcept;

    // ---- what is pending

    // Applies it to a head, S; its parts are C floats apart.
    void apply(size_t layer, size_t head, float* S) const noexcept;

    // What the last row that is kept left behind, (C); nullptr: what the state says.
    const float* last_shift(Shift shift, size_t layer) const noexcept {
        return has_last() ? shift_at(shift, layer, slot_after(0)) : nullptr;
    }
    const float* last_hidden() const noexcept {
        return has_last() ? hidden_at(slot_after(0)) : nullptr;
    }

    // The state has it all, the heads where they stand: nothing is pending.
    void clear() noexcept;
    // The state has become another, whose heads stand in its own memory.
    void reset() noexcept;

    // ---- taking back

    // Of how many rows of the last pass `keep` can still take some back; it keeps the first n.
    size_t n_undecided() const noexcept { return n_undecided_; }
    void keep(size_t n) noexcept;
    void keep_all() noexcept {
        if (n_undecided_ > 0) keep(n_undecided_);
    }

  private:
    bool has_last() const noexcept { return n_pending_ > 0 || has_before_; }
    // Shifts and hidden states stand in a ring of `most` + 1 places, so that those after the last row
    // that is kept stay beside those of the rows that follow it, though any thread may write those.
    size_t slot_after(size_t n) const noexcept { return (before_ + n_pending_ + n) % (most_ + 1); }
    float* shift_at(Shift shift, size_t layer, size_t slot) const noexcept {
        const size_t i = (slot * model_.config.n_layer + layer) * 2 + static_cast<size_t>(shift);
        return shifts_ + i * heads_.n_embd;
    }
    float* hidden_at(size_t slot) const noexcept { return hidden_ + slot * heads_.n_embd; }
    float* heads_at(size_t layer) const noexcept { return heads_here_ + layer * heads_size_; }
    float* inputs_of(size_t layer, size_t head) const noexcept {
        return inputs_ + (layer * heads_.n + head) * head_inputs_;
    }

    const Model& model_;
    const Heads heads_;
    const std::vector<Vector> decays_;
    const size_t most_;
    const size_t heads_size_;   // floats, of all heads of a layer
    const size_t head_inputs_;  // floats, of a head's row of all inputs
    const size_t ld_;           // floats, of a row of all layers
    Memory memory_;
    float* heads_here_;  // (n_layer, heads), laid out as in a state
    float* inputs_;      // (most, n_layer, heads, inputs, width)
    float* shifts_;      // (most + 1, n_layer, 2, C)
    float* hidden_;      // (most + 1, C)

    size_t before_ = 0;        // the place of the row before those that are pending,
    bool has_before_ = false;  // if it is not the state that has what it left behind
    bool are_here_ = false;    // heads stand in heads_here_
    // Passes leave heads in the other place: the first, too, so that only one asks for memory.
    bool leaves_ = true;
    bool left_ = false;  // the last one did
    size_t n_pending_ = 0;
    size_t n_undecided_ = 0;
};

}  // namespace rwkv
