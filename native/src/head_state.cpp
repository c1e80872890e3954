#include "head_state.h"

namespace rwkv {

HeadState::HeadState(State& state, RecentRows* recent, size_t layer, size_t head,
                     float* room) noexcept
    : state_(state),
      recent_(recent),
      layer_(layer),
      head_(head),
      in_state_(state.wkv(layer) + head * Heads(state.config_).part),
      before_(in_state_),
      after_(in_state_),
      ld_before_(state.config_.n_embd),
      ld_after_(ld_before_),
      n_(state.config_.head_size) {
    if (state.recent_ != nullptr) state.recent_->apply(layer, head, in_state_);
    if (recent != nullptr) {
        after_ = room;
        ld_after_ = Heads(state.config_).part;
    }
    if (state.is_callers_ && state.config_.version == Version::v7) {
        transpose_ = state.transpose_;
        transpose_(state.from_ + (in_state_ - state.values_), room, n_);
        before_ = after_ = room;
    }
}

HeadState::~HeadState() {
    if (recent_ != nullptr) recent_->leave_head(layer_, head_, after_, state_.own_wkv(layer_));
    if (transpose_ != nullptr) transpose_(after_, in_state_, n_);
}

}  // namespace rwkv
