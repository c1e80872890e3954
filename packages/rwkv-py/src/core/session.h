// A session, which one thread at a time may use.
#pragma once

#include <atomic>
#include <memory>
#include <optional>

#include "glue.h"
#include "model.h"

namespace rwkv_py {

class Session {
  public:
    explicit Session(const Model& model);
    Session(const Session&) = delete;
    Session& operator=(const Session&) = delete;
    ~Session() { siblings_->open.erase(this); }

    // The session, for the time of one call: a second thread that comes meanwhile is refused, where
    // the library would let the two run into each other.
    class Use {
      public:
        explicit Use(const Session& session);
        Use(const Use&) = delete;
        Use& operator=(const Use&) = delete;
        ~Use();
        rwkv_session* get() const { return session_.handle_.get(); }

      private:
        const Session& session_;
    };

    void feed(const Tokens& tokens, const std::optional<Floats>& logits);
    void feed_all(const Tokens& tokens, const Floats& logits);  // (n_tokens, n_vocab)
    void allow_take_back(size_t most);
    void keep(size_t n_kept);
    void read_logits(const Floats& logits) const;  // after the last token read
    void read_hidden(const Floats& hidden) const;
    void set_time_state(const ConstFloats& time_state);
    void reset();
    Session* fork() const;
    // Lets go of the model: now, or when the call that uses the session ends.
    void close();

    void read_state(const Floats& state) const;
    void write_state(const ConstFloats& state);
    void copy_state(const Session& from);
    void save_state(const nb::bytes& path, bool as_fp16) const;
    void load_state(const nb::bytes& path);

  private:
    Session(rwkv_session* session, const Session& sibling);

    mutable Handle<rwkv_session, rwkv_session_free> handle_;
    size_t n_vocab_;
    size_t n_embd_;
    std::shared_ptr<Sessions> siblings_;
    mutable std::atomic<bool> in_use_ = false;
};

}  // namespace rwkv_py
