// The border between C++ and C: no exception passes it.
#pragma once

#include <exception>
#include <new>

#include "status.h"

namespace rwkv {

// Runs the body of an extern "C" function. A failure becomes its status, and its sentence what
// rwkv_error_message() returns next.
template <class F>
rwkv_status guard(F&& body) noexcept {
    try {
        body();
        return RWKV_STATUS_OK;
    } catch (const Failure& failure) {
        set_last_message(failure.status(), failure.what());
        return failure.status();
    } catch (const std::bad_alloc&) {
        set_last_message(RWKV_STATUS_OUT_OF_MEMORY, sentence(RWKV_STATUS_OUT_OF_MEMORY));
        return RWKV_STATUS_OUT_OF_MEMORY;
    } catch (const std::exception& error) {
        set_last_message(RWKV_STATUS_INTERNAL, error.what());
        return RWKV_STATUS_INTERNAL;
    } catch (...) {
        set_last_message(RWKV_STATUS_INTERNAL, sentence(RWKV_STATUS_INTERNAL));
        return RWKV_STATUS_INTERNAL;
    }
}

// Throws the failure of an argument that breaks a function's contract.
inline void require(bool holds, const char* message) {
    if (!holds) throw Failure(RWKV_STATUS_INVALID_ARGUMENT, message);
}

// The same where that argument is a pointer that must not be NULL.
template <class T>
void require_given(T* pointer, const char* name, const char* expected) {
    if (pointer != nullptr) return;
    throw Failure(RWKV_STATUS_INVALID_ARGUMENT,
                  format("%s: expected %s, got NULL", name, expected));
}

}  // namespace rwkv
