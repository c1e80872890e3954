/* Opens a model whose tokens are bytes (such as rwkv7-pydoc), reads a prompt, writes 200 bytes. */
#include <rwkv/rwkv.h>
#include <stdio.h>
#include <stdlib.h>

static void check(rwkv_status status) {
    if (status != RWKV_STATUS_OK) {
        fprintf(stderr, "%s\n", rwkv_error_message());
        exit(1);
    }
}

int main(int argc, char** argv) {
    if (argc != 2) {
        fprintf(stderr, "usage: embed MODEL.bin\n");
        return 2;
    }
    rwkv_model* model;
    rwkv_session* session;
    rwkv_sampler* sampler;
    check(rwkv_model_open(argv[1], NULL, &model));
    const rwkv_model_info info = rwkv_model_info_of(model);
    if (info.n_vocab != 256) {
        fprintf(stderr, "%s: expected a vocabulary of 256 bytes, got %zu tokens\n", argv[1],
                info.n_vocab);
        return 1;
    }
    check(rwkv_session_create(model, &session));

    rwkv_sampler_options options = rwkv_sampler_options_default();
    options.temperature = 0.8F;
    options.top_p = 0.9F;
    options.seed = 1;
    check(rwkv_sampler_create(info.n_vocab, &options, &sampler));

    float* logits = malloc(info.n_vocab * sizeof *logits);
    if (logits == NULL) {
        fprintf(stderr, "out of memory\n");
        return 1;
    }

    const char prompt[] = ".. function:: ";
    int32_t tokens[sizeof prompt - 1];
    for (size_t i = 0; i < sizeof prompt - 1; ++i) tokens[i] = prompt[i];
    check(rwkv_session_feed(session, tokens, sizeof prompt - 1, logits));

    fputs(prompt, stdout);
    for (int i = 0; i < 200; ++i) {
        int32_t token;
        check(rwkv_sampler_sample(sampler, logits, &token));
        if (token == 0) break; /* the end of a document */
        putchar(token);
        check(rwkv_session_feed(session, &token, 1, logits));
    }
    putchar('\n');

    free(logits);
    rwkv_sampler_free(sampler);
    rwkv_session_free(session);
    rwkv_model_free(model);
    return 0;
}
