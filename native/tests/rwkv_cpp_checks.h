/* What programs written for rwkv.cpp rely on, checked with its interface alone, in C99. */
#ifndef RWKV_CPP_CHECKS_H
#define RWKV_CPP_CHECKS_H

#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

/* Opens the model and evaluates the prompt in every way: its logits must be those expected, float
 * (n_vocab), within the tolerance, and states and logits of all ways the same, to the bit. Ends the
 * program at the first fault. */
void check_model(const char* path, const uint32_t* prompt, size_t n_prompt, const float* expected,
                 size_t n_vocab, double tolerance);

/* Wrong arguments, error flags and their clearing, what is printed, with any model of at least 4
 * tokens; `missing` is a path where nothing is. */
void check_arguments(const char* path, const char* missing);

#ifdef __cplusplus
}
#else
#include <stdio.h>
#include <stdlib.h>
#define CHECK(condition)                                                                  \
    do {                                                                                  \
        if (!(condition)) {                                                               \
            fprintf(stderr, "%s:%d: CHECK(%s) failed\n", __FILE__, __LINE__, #condition); \
            exit(1);                                                                      \
        }                                                                                 \
    } while (0)
#endif

#endif
