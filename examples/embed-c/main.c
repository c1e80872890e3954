/* Continues a text: embed-c MODEL PROMPT */
#include <rwkv/rwkv.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static void check(rwkv_status status) {
    if (status == RWKV_STATUS_OK) return;
    fprintf(stderr, "embed-c: %s\n", rwkv_error_message());
    exit(1);
}

int main(int argc, char** argv) {
    if (argc != 3) {
        fprintf(stderr, "usage: embed-c MODEL PROMPT\n");
        return 2;
    }
    rwkv_model* model;
    rwkv_tokenizer* tokenizer;
    rwkv_session* session;
    rwkv_sampler* sampler;
    rwkv_generator* generator;
    check(rwkv_model_open(argv[1], NULL, &model));
    check(rwkv_tokenizer_create_for(model, &tokenizer)); /* the file's, World or bytes */
    check(rwkv_session_create(model, &session));

    rwkv_sampler_options options;
    rwkv_sampler_options_init(&options, sizeof options);
    options.temperature = 0.8;
    options.seed = 1;
    check(rwkv_sampler_create(rwkv_model_n_vocab(model), &options, &sampler));
    check(rwkv_generator_create(session, tokenizer, sampler, &generator));

    check(rwkv_generator_begin(generator, argv[2], strlen(argv[2]), 100));
    for (;;) {
        const char* text;
        size_t n_bytes;
        check(rwkv_generator_next(generator, &text, &n_bytes));
        if (text == NULL) break;
        fwrite(text, 1, n_bytes, stdout); /* whole characters */
        fflush(stdout);
    }
    putchar('\n');

    rwkv_generator_free(generator);
    rwkv_sampler_free(sampler);
    rwkv_session_free(session);
    rwkv_tokenizer_free(tokenizer);
    rwkv_model_free(model);
    return 0;
}
