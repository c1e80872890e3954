// What every harness has in common: it gives any bytes to the library, which may not crash, take more
// than a second or more memory than 2 x the bytes + 64 MB, or break its contract.
#pragma once

#include <cstddef>
#include <cstdint>
#include <cstdio>
#include <cstdlib>

#include "rwkv/rwkv.h"

// Each harness defines it.
void run_input(const uint8_t* data, size_t size);

// The header's contract is broken: that is a finding.
[[noreturn]] inline void finding(const char* file, int line, const char* what) {
    std::fprintf(stderr, "ERROR: %s:%d: expected %s; last message: %s\n", file, line, what,
                 rwkv_error_message());
    std::abort();
}

#define REQUIRE(condition)                                         \
    do {                                                           \
        if (!(condition)) finding(__FILE__, __LINE__, #condition); \
    } while (0)

// After a call that failed: its message is one line of text.
inline void require_message() {
    const char* message = rwkv_error_message();
    REQUIRE(*message != '\0');
    for (; *message != '\0'; ++message) REQUIRE(static_cast<unsigned char>(*message) >= 0x20);
}
