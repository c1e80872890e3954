/* A program written for rwkv.cpp, for tests/whole/test_rwkv_cpp.py:
 *     rwkv_cpp_program MODEL LOGITS TOLERANCE   after the bytes "in, from a file of 256 float32
 *     rwkv_cpp_program quantize IN OUT FORMAT */
#include <rwkv.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "rwkv_cpp_checks.h"

#define N_VOCAB 256

int main(int argc, char** argv) {
    if (argc == 5 && strcmp(argv[1], "quantize") == 0) {
        const bool done = rwkv_quantize_model_file(argv[2], argv[3], argv[4]);
        printf("%d\n", (int)rwkv_get_last_error(NULL));
        return done ? 0 : 1;
    }
    if (argc != 4) {
        fprintf(stderr,
                "usage: rwkv_cpp_program MODEL LOGITS TOLERANCE | quantize IN OUT FORMAT\n");
        return 2;
    }
    float expected[N_VOCAB];
    FILE* const file = fopen(argv[2], "rb");
    CHECK(file != NULL);
    CHECK(fread(expected, sizeof(float), N_VOCAB, file) == N_VOCAB);
    fclose(file);
    const uint32_t prompt[] = {'"', 'i', 'n'};
    check_model(argv[1], prompt, 3, expected, N_VOCAB, atof(argv[3]));
    check_arguments(argv[1], "there/is/no/such/file.bin");
    return 0;
}
