// A model, and the sessions that go when it is closed.
#pragma once

#include <memory>
#include <optional>
#include <string>
#include <unordered_set>

#include "glue.h"

namespace rwkv_py {

class Session;

// The sessions of a model: each keeps the native model alive, so closing it takes them along. Only
// used with the GIL.
struct Sessions {
    std::string path;
    bool closed = false;
    std::unordered_set<Session*> open = {};

    void check_open() const;
};

class Model {
  public:
    // `progress` is called with (bytes done, bytes in all); what it raises ends the opening.
    Model(const nb::bytes& path, size_t n_threads, float ln_x_eps, bool like_rwkv_cpp,
          const std::optional<nb::callable>& progress);

    rwkv_model* get() const { return shared().get(); }
    // For calls without the GIL, during which another thread may close it.
    std::shared_ptr<rwkv_model> shared() const {
        sessions_->check_open();
        return handle_;
    }
    size_t n_vocab() const { return rwkv_model_n_vocab(get()); }
    rwkv_model_info info() const;
    const std::shared_ptr<Sessions>& sessions() const { return sessions_; }

    // Gives back the memory of the weights; calls in other threads finish first.
    void close();

  private:
    std::shared_ptr<rwkv_model> handle_;
    std::shared_ptr<Sessions> sessions_;
};

}  // namespace rwkv_py
