#include "log.h"

#include <atomic>

namespace rwkv {

namespace {

struct Listener {
    rwkv_log_callback callback;
    void* data;
    const Listener* before;  // kept: a thread may be about to call it
};

// Without a lock, which a child of fork() could find held for ever.
std::atomic<const Listener*> listener{nullptr};

}  // namespace

void set_log(rwkv_log_callback callback, void* data) {
    const Listener* before = listener.load(std::memory_order_acquire);
    auto* const now = new Listener{callback, data, before};
    while (!listener.compare_exchange_weak(before, now, std::memory_order_acq_rel)) {
        now->before = before;
    }
}

void log_note(const std::string& message) noexcept {
    const Listener* const now = listener.load(std::memory_order_acquire);
    if (now == nullptr || now->callback == nullptr) return;
    now->callback(now->data, message.c_str());
}

}  // namespace rwkv
