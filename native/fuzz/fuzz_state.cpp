// Any bytes as a state file of RWKV-4 or RWKV-7: it loads and can be gone on
// from, or fails with a sentence and leaves the session as it was.
#include <cstring>
#include <vector>

#include "tiny_models.h"

namespace {

using Floats = std::vector<float>;

class Player {
  public:
    explicit Player(const char* version) : model_(open_tiny(version)) {
        REQUIRE(rwkv_session_create(model_, &session_) == RWKV_STATUS_OK);
        REQUIRE(rwkv_session_create(model_, &other_) == RWKV_STATUS_OK);
        fresh_ = state_of(session_);
    }
    ~Player() {
        rwkv_session_free(session_);
        rwkv_session_free(other_);
        rwkv_model_free(model_);
    }
    Player(const Player&) = delete;
    Player& operator=(const Player&) = delete;

    void load(const char* path) {
        if (rwkv_state_load(session_, path) != RWKV_STATUS_OK) {
            require_message();
            REQUIRE(same(state_of(session_), fresh_));
            return;
        }
        const Floats loaded = state_of(session_);
        REQUIRE(rwkv_state_copy(other_, session_) == RWKV_STATUS_OK);
        REQUIRE(same(state_of(other_), loaded));
        Floats logits(info_of(model_).n_vocab);
        const int32_t token = 1;
        REQUIRE(rwkv_session_feed(session_, &token, 1, logits.data()) == RWKV_STATUS_OK);
        rwkv_session_reset(session_);
        REQUIRE(same(state_of(session_), fresh_));
    }

  private:
    static bool same(const Floats& a, const Floats& b) {
        return std::memcmp(a.data(), b.data(), a.size() * sizeof(float)) == 0;
    }
    Floats state_of(const rwkv_session* session) const {
        Floats state(info_of(model_).state_size);
        REQUIRE(rwkv_state_read(session, state.data(), state.size()) == RWKV_STATUS_OK);
        return state;
    }

    rwkv_model* model_;
    rwkv_session* session_ = nullptr;
    rwkv_session* other_ = nullptr;
    Floats fresh_;
};

}  // namespace

void run_input(const uint8_t* data, size_t size) {
    static Player v4("4");
    static Player v7("7");
    const MemoryFile file(data, size);
    v4.load(file.path());
    v7.load(file.path());
}
