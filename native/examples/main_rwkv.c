/* main_rwkv: feeds one token to a model and keeps the state in files.
 *
 *     main_rwkv MODEL TOKEN STATE_IN STATE_OUT LOGITS_OUT
 *
 * The files are raw float32: a state has the layout of section 4 of rwkv.h, logits are n_vocab
 * floats. Where STATE_IN is absent or empty, the token is the first of its sequence. */
#include <errno.h>
#include <rwkv/rwkv.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "utf8.h"

static int fail(const char* what, const char* why) {
    fprintf(stderr, "main_rwkv: %s: %s\n", what, why);
    return 1;
}

/* Reads exactly n floats. Returns 1 if it did, 0 if the file is absent or empty, -1 if it holds
 * something else. */
static int read_floats(const char* path, float* out, size_t n) {
    FILE* file = utf8_fopen(path, "rb");
    if (file == NULL) return errno == ENOENT || *path == '\0' ? 0 : -1;
    const size_t got = fread(out, sizeof *out, n, file);
    const int more = fgetc(file) != EOF;
    const int failed = ferror(file);
    fclose(file);
    if (failed || more) return -1;
    return got == n ? 1 : got == 0 ? 0 : -1;
}

static int write_floats(const char* path, const float* values, size_t n) {
    FILE* file = utf8_fopen(path, "wb");
    if (file == NULL) return 0;
    const int written = fwrite(values, sizeof *values, n, file) == n;
    return fclose(file) == 0 && written;
}

static int run(const char* const* arg, rwkv_session* session, size_t n_state, size_t n_vocab) {
    float* state = malloc(n_state * sizeof *state);
    float* logits = malloc(n_vocab * sizeof *logits);
    char* end = NULL;
    const long token = strtol(arg[2], &end, 10);
    int status = 1;
    if (state == NULL || logits == NULL) {
        status = fail(arg[1], "not enough memory");
    } else if (end == arg[2] || *end != '\0' || token != (int32_t)token) {
        status = fail(arg[2], "not a token, expected a whole number");
    } else {
        const int32_t token32 = (int32_t)token;
        const int found = read_floats(arg[3], state, n_state);
        if (found < 0) {
            status = fail(arg[3], "not a state of this model (wrong size, or unreadable)");
        } else if ((found && rwkv_state_write(session, state, n_state)) ||
                   rwkv_session_feed(session, &token32, 1, logits) ||
                   rwkv_state_read(session, state, n_state)) {
            status = fail(arg[1], rwkv_error_message());
        } else if (!write_floats(arg[4], state, n_state)) {
            status = fail(arg[4], strerror(errno));
        } else if (!write_floats(arg[5], logits, n_vocab)) {
            status = fail(arg[5], strerror(errno));
        } else {
            status = 0;
        }
    }
    free(state);
    free(logits);
    return status;
}

int main(int argc, char** argv) {
    argv = utf8_arguments(argc, argv);
    if (argv == NULL) return fail("arguments", "not enough memory");
    if (argc != 6) {
        fprintf(stderr, "usage: main_rwkv MODEL TOKEN STATE_IN STATE_OUT LOGITS_OUT\n");
        return 2;
    }
    rwkv_model* model = NULL;
    rwkv_session* session = NULL;
    int status = 1;
    if (rwkv_model_open(argv[1], NULL, &model) || rwkv_session_create(model, &session)) {
        fprintf(stderr, "main_rwkv: %s\n", rwkv_error_message());
    } else {
        status = run((const char* const*)argv, session, rwkv_model_state_size(model),
                     rwkv_model_n_vocab(model));
    }
    rwkv_session_free(session);
    rwkv_model_free(model);
    return status;
}
