// Failures inside the library: thrown as Failure, turned into a status by api.cpp, never seen
// outside.
#pragma once

#include <exception>
#include <string>

#include "compiler.h"
#include "rwkv/rwkv.h"

namespace rwkv {

// A failed call: what kind, and the one sentence for the user (where, what, expected, got, what to
// do).
class Failure : public std::exception {
  public:
    Failure(rwkv_status status, std::string message)
        : status_(status), message_(std::move(message)) {}
    rwkv_status status() const noexcept { return status_; }
    const char* what() const noexcept override { return message_.c_str(); }

  private:
    rwkv_status status_;
    std::string message_;
};

// The general sentence of each status.
const char* sentence(rwkv_status status) noexcept;

// The message of this thread's last failure; setting it never throws (a message that cannot be
// stored is replaced by the status's sentence).
const char* last_message() noexcept;
void set_last_message(rwkv_status status, const char* message) noexcept;

// printf into a std::string; for messages.
std::string format(const char* pattern, ...) RWKV_LIKE_PRINTF(1, 2);

// A text from a file for a message: what is not printable ASCII becomes '?'. What files should say is
// ASCII; what they do say must not reach a terminal as it is.
std::string printable(std::string text);

}  // namespace rwkv
