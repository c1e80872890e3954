// Assertions for the native tests: a failed one says where and ends the test program.
#pragma once

#include <cmath>
#include <cstdio>
#include <cstdlib>

// CMake's RWKV_BRIEF_TESTS, for builds whose programs are slow (under sanitizers, under emulation): tests
// look at every path of the code, but leave out repetitions of it, which the usual build has: draws,
// truncations, numbers of threads, weight types that take the same path.
#ifdef RWKV_BRIEF_TESTS
constexpr bool kBrief = true;
#else
constexpr bool kBrief = false;
#endif

// Each instruction of the processor takes many of another one.
#ifdef RWKV_EMULATED_PROCESSOR
constexpr bool kEmulated = true;
#else
constexpr bool kEmulated = false;
#endif

#define CHECK(condition)                                                                       \
    do {                                                                                       \
        if (!(condition)) {                                                                    \
            std::fprintf(stderr, "%s:%d: CHECK(%s) failed\n", __FILE__, __LINE__, #condition); \
            std::exit(1);                                                                      \
        }                                                                                      \
    } while (0)

#define CHECK_NEAR(a, b, tolerance)                                                              \
    do {                                                                                         \
        const double check_a = (a), check_b = (b);                                               \
        if (!(std::fabs(check_a - check_b) <= (tolerance))) {                                    \
            std::fprintf(stderr, "%s:%d: %s = %.17g, expected %s = %.17g within %g\n", __FILE__, \
                         __LINE__, #a, check_a, #b, check_b, double(tolerance));                 \
            std::exit(1);                                                                        \
        }                                                                                        \
    } while (0)
