#include "rwkv_cpp_checks.h"

#include <math.h>
#include <rwkv.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define N_THREADS 2

static float* floats(size_t n) {
    float* const x = calloc(n, sizeof *x);
    CHECK(x != NULL);
    for (size_t i = 0; i < n; ++i) x[i] = 7777.0f; /* what is not written stays so */
    return x;
}

static float* copy_of(const float* x, size_t n) {
    float* const copy = floats(n);
    memcpy(copy, x, n * sizeof *x);
    return copy;
}

static int equal(const float* a, const float* b, size_t n) {
    return memcmp(a, b, n * sizeof *a) == 0;
}

static void check_near(const float* logits, const float* expected, size_t n, double tolerance) {
    double most = 0.0;
    for (size_t i = 0; i < n; ++i) {
        const double difference = fabs((double)logits[i] - (double)expected[i]);
        CHECK(difference <= tolerance);
        if (difference > most) most = difference;
    }
    printf("difference from the logits expected: at most %g\n", most);
}

static struct rwkv_context* opened(const char* path) {
    struct rwkv_context* const ctx = rwkv_init_from_file(path, N_THREADS, 0);
    CHECK(ctx != NULL);
    CHECK(rwkv_get_last_error(NULL) == RWKV_ERROR_NONE);
    return ctx;
}

/* Token by token, state in and out in one buffer, as most programs do. */
static void one_by_one(struct rwkv_context* ctx, const uint32_t* prompt, size_t n, float* state,
                       float* logits) {
    rwkv_init_state(ctx, state);
    for (size_t i = 0; i < n; ++i) CHECK(rwkv_eval(ctx, prompt[i], state, state, logits));
    CHECK(rwkv_get_last_error(ctx) == RWKV_ERROR_NONE);
}

void check_model(const char* path, const uint32_t* prompt, size_t n_prompt, const float* expected,
                 size_t n_vocab, double tolerance) {
    struct rwkv_context* const ctx = opened(path);
    const size_t n_state = rwkv_get_state_len(ctx);
    CHECK(rwkv_get_n_vocab(ctx) == n_vocab && rwkv_get_logits_len(ctx) == n_vocab);
    CHECK(rwkv_get_state_buffer_element_count(ctx) == n_state);
    CHECK(rwkv_get_logits_buffer_element_count(ctx) == n_vocab);
    CHECK(n_state >= 5 * rwkv_get_n_embed(ctx) * rwkv_get_n_layer(ctx));

    float* const state = floats(n_state);
    float* const logits = floats(n_vocab);
    one_by_one(ctx, prompt, n_prompt, state, logits);
    check_near(logits, expected, n_vocab, tolerance);

    float* const state2 = floats(n_state);
    float* const logits2 = floats(n_vocab);

    /* No state is the fresh state; what comes in stays as it is. */
    float* const fresh = floats(n_state);
    rwkv_init_state(ctx, fresh);
    float* const fresh_before = copy_of(fresh, n_state);
    CHECK(rwkv_eval(ctx, prompt[0], NULL, state2, NULL));
    float* const first = copy_of(state2, n_state);
    CHECK(rwkv_eval(ctx, prompt[0], fresh, state2, NULL));
    CHECK(equal(first, state2, n_state) && equal(fresh, fresh_before, n_state));
    CHECK(!equal(first, fresh, n_state));

    /* In two buffers by turns; logits are not always wanted, nor the last state. */
    for (size_t i = 0; i + 1 < n_prompt; ++i) {
        const float* const in = i == 0 ? NULL : i % 2 == 0 ? first : state2;
        CHECK(rwkv_eval(ctx, prompt[i], in, i % 2 == 0 ? state2 : first, NULL));
    }
    const float* const before_last = n_prompt == 1 ? NULL : n_prompt % 2 == 0 ? state2 : first;
    float* const kept = copy_of(n_prompt % 2 == 0 ? state2 : first, n_state);
    CHECK(rwkv_eval(ctx, prompt[n_prompt - 1], before_last, NULL, logits2));
    CHECK(equal(logits, logits2, n_vocab));
    CHECK(equal(kept, n_prompt % 2 == 0 ? state2 : first, n_state));
    CHECK(rwkv_eval(ctx, prompt[n_prompt - 1], before_last, fresh, NULL));
    CHECK(equal(state, fresh, n_state));
    CHECK(rwkv_eval(ctx, prompt[n_prompt - 1], before_last, NULL, NULL));

    /* A state that the caller has changed since is what counts, also in the same buffer. */
    memcpy(first, state, n_state * sizeof *state);
    CHECK(rwkv_eval(ctx, prompt[0], first, first, logits2));
    memcpy(first, fresh_before, n_state * sizeof *state);
    for (size_t i = 0; i < n_prompt; ++i) CHECK(rwkv_eval(ctx, prompt[i], first, first, logits2));
    CHECK(equal(first, state, n_state) && equal(logits2, logits, n_vocab));
    memcpy(first, state, n_state * sizeof *state);
    CHECK(rwkv_eval(ctx, prompt[0], state, state2, NULL));
    first[n_state - 1] += 0.5f; /* one number, the last of the last matrix */
    CHECK(rwkv_eval(ctx, prompt[0], first, first, NULL));
    CHECK(!equal(first, state2, n_state));

    /* As a sequence, and in chunks of every kind. */
    CHECK(rwkv_eval_sequence(ctx, prompt, n_prompt, NULL, state2, logits2));
    CHECK(equal(state, state2, n_state) && equal(logits, logits2, n_vocab));
    rwkv_init_state(ctx, state2);
    CHECK(rwkv_eval_sequence(ctx, prompt, n_prompt, state2, state2, NULL));
    CHECK(equal(state, state2, n_state));
    const size_t sizes[] = {1, 2, 8, 10, n_prompt, n_prompt + 1, SIZE_MAX};
    for (size_t i = 0; i < sizeof sizes / sizeof *sizes; ++i) {
        memset(logits2, 0, n_vocab * sizeof *logits2);
        rwkv_init_state(ctx, state2);
        const float* const in = i % 2 == 0 ? NULL : state2;
        CHECK(rwkv_eval_sequence_in_chunks(ctx, prompt, n_prompt, sizes[i], in, state2, logits2));
        CHECK(equal(state, state2, n_state) && equal(logits, logits2, n_vocab));
    }
    CHECK(rwkv_eval_sequence_in_chunks(ctx, prompt, n_prompt, 2, NULL, NULL, NULL));

    /* Without tokens nothing happens, and that is fine. */
    memcpy(state2, state, n_state * sizeof *state);
    memcpy(logits2, logits, n_vocab * sizeof *logits);
    CHECK(rwkv_eval_sequence(ctx, NULL, 1, NULL, state2, logits2));
    CHECK(rwkv_eval_sequence(ctx, NULL, 64, NULL, state2, logits2));
    CHECK(rwkv_eval_sequence_in_chunks(ctx, NULL, 64, 16, NULL, state2, logits2));
    CHECK(equal(state, state2, n_state) && equal(logits, logits2, n_vocab));

    /* A clone shares the model, which outlives the context that it came from. */
    rwkv_set_print_errors(ctx, false);
    struct rwkv_context* const clone = rwkv_clone_context(ctx, 1);
    CHECK(clone != NULL && !rwkv_get_print_errors(clone));
    CHECK(rwkv_get_state_len(clone) == n_state);
    CHECK(rwkv_eval(clone, prompt[0], NULL, state2, logits2)); /* does not disturb ctx */
    one_by_one(ctx, prompt, n_prompt, first, logits2);
    CHECK(equal(state, first, n_state) && equal(logits, logits2, n_vocab));
    rwkv_free(ctx);
    one_by_one(clone, prompt, n_prompt, state2, logits2);
    CHECK(equal(state, state2, n_state) && equal(logits, logits2, n_vocab));
    rwkv_free(clone);
    rwkv_free(NULL);

    free(kept);
    free(first);
    free(fresh_before);
    free(fresh);
    free(logits2);
    free(state2);
    free(logits);
    free(state);
}

void check_arguments(const char* path, const char* missing) {
    CHECK(rwkv_get_print_errors(NULL)); /* at first they are printed */
    rwkv_set_print_errors(NULL, false);
    CHECK(!rwkv_get_print_errors(NULL));

    /* Reading the flags clears them; so does the next call that can set them. */
    CHECK(rwkv_init_from_file(missing, N_THREADS, 0) == NULL);
    CHECK(rwkv_get_last_error(NULL) == (RWKV_ERROR_FILE | RWKV_ERROR_FILE_OPEN));
    CHECK(rwkv_get_last_error(NULL) == RWKV_ERROR_NONE);
    CHECK(rwkv_init_from_file(missing, N_THREADS, 0) == NULL);
    CHECK(!rwkv_quantize_model_file(path, missing, "Q9_9"));
    CHECK(rwkv_get_last_error(NULL) == (RWKV_ERROR_ARGS | RWKV_ERROR_DATA_TYPE));
    CHECK(rwkv_init_from_file(NULL, N_THREADS, 0) == NULL);
    CHECK(rwkv_get_last_error(NULL) == RWKV_ERROR_ARGS);
    CHECK(rwkv_init_from_file(path, 1025, 0) == NULL);
    CHECK(rwkv_get_last_error(NULL) == RWKV_ERROR_ARGS);
    CHECK(rwkv_init_from_file(missing, N_THREADS, 0) == NULL);

    /* 0 threads: as many as there are; no GPU takes layers. */
    struct rwkv_context* const ctx = rwkv_init_from_file(path, 0, 99);
    CHECK(ctx != NULL);
    CHECK(rwkv_get_last_error(NULL) == RWKV_ERROR_NONE); /* cleared */
    CHECK(!rwkv_get_print_errors(ctx));                  /* as it was for its thread */
    rwkv_set_print_errors(NULL, true);
    CHECK(!rwkv_get_print_errors(ctx) && rwkv_get_print_errors(NULL));

    const uint32_t n_vocab = (uint32_t)rwkv_get_n_vocab(ctx);
    const size_t n_state = rwkv_get_state_len(ctx);
    float* const state = floats(n_state);
    float* const logits = floats(n_vocab);
    float* const state_before = copy_of(state, n_state);
    float* const logits_before = copy_of(logits, n_vocab);

    const uint32_t wrong[] = {n_vocab, n_vocab + 1, UINT32_MAX, (uint32_t)INT32_MAX + 1};
    for (size_t i = 0; i < sizeof wrong / sizeof *wrong; ++i) {
        CHECK(!rwkv_eval(ctx, wrong[i], NULL, state, logits));
        CHECK(rwkv_get_last_error(ctx) == RWKV_ERROR_ARGS);
        CHECK(rwkv_get_last_error(ctx) == RWKV_ERROR_NONE);
        const uint32_t sequence[] = {1, 2, 3, wrong[i]};
        CHECK(!rwkv_eval_sequence(ctx, sequence, 4, NULL, state, logits));
        CHECK(rwkv_get_last_error(ctx) == RWKV_ERROR_ARGS);
        CHECK(!rwkv_eval_sequence_in_chunks(ctx, sequence, 4, 2, NULL, state, logits));
        CHECK(rwkv_get_last_error(ctx) == RWKV_ERROR_ARGS);
    }
    const uint32_t tokens[] = {1, 2, 3};
    CHECK(!rwkv_eval_sequence(ctx, tokens, 0, NULL, state, logits));
    CHECK(rwkv_get_last_error(ctx) == RWKV_ERROR_ARGS);
    CHECK(!rwkv_eval_sequence(ctx, NULL, 0, NULL, state, logits));
    CHECK(rwkv_get_last_error(ctx) == RWKV_ERROR_ARGS);
    CHECK(!rwkv_eval_sequence_in_chunks(ctx, tokens, 0, 2, NULL, state, logits));
    CHECK(rwkv_get_last_error(ctx) == RWKV_ERROR_ARGS);
    CHECK(!rwkv_eval_sequence_in_chunks(ctx, tokens, 3, 0, NULL, state, logits));
    CHECK(rwkv_get_last_error(ctx) == RWKV_ERROR_ARGS);
    /* What failed has written nothing. */
    CHECK(equal(state, state_before, n_state) && equal(logits, logits_before, n_vocab));

    /* Flags are kept apart: the context's, another's, the thread's. A success clears. */
    struct rwkv_context* const clone = rwkv_clone_context(ctx, N_THREADS);
    CHECK(clone != NULL);
    CHECK(!rwkv_eval(ctx, n_vocab, NULL, NULL, NULL));
    CHECK(rwkv_get_last_error(NULL) == RWKV_ERROR_NONE);
    CHECK(rwkv_get_last_error(clone) == RWKV_ERROR_NONE);
    CHECK(rwkv_eval(ctx, 1, NULL, NULL, logits));
    CHECK(rwkv_get_last_error(ctx) == RWKV_ERROR_NONE);
    rwkv_free(clone);

    /* Without a context. */
    rwkv_set_print_errors(NULL, false);
    CHECK(!rwkv_eval(NULL, 1, NULL, state, logits));
    CHECK(rwkv_get_last_error(NULL) == RWKV_ERROR_ARGS);
    CHECK(!rwkv_eval_sequence(NULL, tokens, 3, NULL, state, logits));
    CHECK(!rwkv_eval_sequence_in_chunks(NULL, tokens, 3, 2, NULL, state, logits));
    CHECK(rwkv_clone_context(NULL, 1) == NULL);
    CHECK(rwkv_get_last_error(NULL) == RWKV_ERROR_ARGS);
    CHECK(rwkv_get_n_vocab(NULL) == 0 && rwkv_get_n_embed(NULL) == 0);
    CHECK(rwkv_get_n_layer(NULL) == 0 && rwkv_get_state_len(NULL) == 0);
    CHECK(rwkv_get_logits_len(NULL) == 0 && rwkv_get_state_buffer_element_count(NULL) == 0);
    CHECK(rwkv_get_logits_buffer_element_count(NULL) == 0);
    rwkv_init_state(NULL, state);
    rwkv_init_state(ctx, NULL);

    /* Quantising. */
    const char* const formats[] = {"Q4_K", "Q5_K", "q4_0", "FP16", "FP32", "", "unknown"};
    for (size_t i = 0; i < sizeof formats / sizeof *formats; ++i) {
        CHECK(!rwkv_quantize_model_file(path, missing, formats[i]));
        CHECK(rwkv_get_last_error(NULL) == (RWKV_ERROR_ARGS | RWKV_ERROR_DATA_TYPE));
    }
    CHECK(!rwkv_quantize_model_file(NULL, missing, "Q4_0"));
    CHECK(rwkv_get_last_error(NULL) == RWKV_ERROR_ARGS);
    CHECK(!rwkv_quantize_model_file(path, NULL, "Q4_0"));
    CHECK(rwkv_get_last_error(NULL) == RWKV_ERROR_ARGS);
    CHECK(!rwkv_quantize_model_file(path, missing, NULL));
    CHECK(rwkv_get_last_error(NULL) == RWKV_ERROR_ARGS);
    CHECK(!rwkv_quantize_model_file(missing, missing, "Q4_0"));
    CHECK(rwkv_get_last_error(NULL) == (RWKV_ERROR_FILE | RWKV_ERROR_FILE_OPEN));
    CHECK(fopen(missing, "rb") == NULL); /* nothing was made */
    rwkv_set_print_errors(NULL, true);

    const char* const info = rwkv_get_system_info_string();
    CHECK(strstr(info, "AVX2=") != NULL && info == rwkv_get_system_info_string());

    rwkv_free(ctx);
    free(logits_before);
    free(state_before);
    free(logits);
    free(state);
}
