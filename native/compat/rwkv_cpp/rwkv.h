/* rwkv.h: the C interface of rwkv.cpp, as librwkv offers it on top of the RWKV runtime.
 *
 * A program written for rwkv.cpp compiles against this header and links with librwkv, unchanged. New
 * programs find more in <rwkv/rwkv.h>, the runtime's own interface; both headers can be included in
 * one program. docs/guides/rwkv-cpp-c-library.md says what is equal to rwkv.cpp to the bit and what
 * differs.
 *
 * Threads
 *     A context is used by one thread at a time, whichever. Contexts that share a model (see
 *     rwkv_clone_context) may be used at the same time; their steps take turns.
 *
 * Errors
 *     Functions that return bool return false when they fail, those that return a pointer NULL. What
 *     failed is then in the flags that rwkv_get_last_error returns, and a sentence was printed to
 *     stderr, unless rwkv_set_print_errors has turned that off.
 */
#ifndef RWKV_CPP_RWKV_H
#define RWKV_CPP_RWKV_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#if defined(_WIN32) && !defined(RWKV_STATIC) /* defined where the library itself is compiled */
#define RWKV_CPP_API __declspec(dllimport)
#elif defined(_WIN32)
#define RWKV_CPP_API
#else
#define RWKV_CPP_API __attribute__((visibility("default")))
#endif

/* Of the container ggmf. Version 100 is read where it holds no quantised tensors. */
#define RWKV_FILE_MAGIC 0x67676d66
#define RWKV_FILE_VERSION_0 100
#define RWKV_FILE_VERSION_1 101
#define RWKV_FILE_VERSION_MIN RWKV_FILE_VERSION_0
#define RWKV_FILE_VERSION_MAX RWKV_FILE_VERSION_1
#define RWKV_FILE_VERSION RWKV_FILE_VERSION_MAX

#ifdef __cplusplus
extern "C" {
#endif

/* What failed: in the second byte where, in the first what; either may be missing. */
enum rwkv_error_flags {
    RWKV_ERROR_NONE = 0,

    RWKV_ERROR_ARGS = 1 << 8,
    RWKV_ERROR_FILE = 2 << 8,         /* the file as such, or its header */
    RWKV_ERROR_MODEL = 3 << 8,        /* not used */
    RWKV_ERROR_MODEL_PARAMS = 4 << 8, /* the file's tensors */
    RWKV_ERROR_GRAPH = 5 << 8,        /* the computation; a fault of the library */
    RWKV_ERROR_CTX = 6 << 8,          /* the context */

    RWKV_ERROR_ALLOC = 1, /* not enough memory */
    RWKV_ERROR_FILE_OPEN = 2,
    RWKV_ERROR_FILE_STAT = 3, /* not used */
    RWKV_ERROR_FILE_READ = 4, /* it cannot be read, or ends too early */
    RWKV_ERROR_FILE_WRITE = 5,
    RWKV_ERROR_FILE_MAGIC = 6,   /* not a model file */
    RWKV_ERROR_FILE_VERSION = 7, /* of ggmf */
    RWKV_ERROR_DATA_TYPE = 8,
    RWKV_ERROR_UNSUPPORTED = 9, /* of RWKV_KERNELS: not a level of this processor */
    RWKV_ERROR_SHAPE = 10,
    RWKV_ERROR_DIMENSION = 11,    /* of emb.weight: not the header's */
    RWKV_ERROR_KEY = 12,          /* a tensor's name */
    RWKV_ERROR_DATA = 13,         /* the file contradicts itself */
    RWKV_ERROR_PARAM_MISSING = 14 /* a tensor */
};

/* A model, which may be shared, and what one caller at a time needs to compute with it. */
struct rwkv_context;

/* Says whether sentences are printed to stderr, as they are at first: of the calls on `ctx`; or, if
 * it is NULL, of rwkv_init_from_file and rwkv_quantize_model_file in this thread, and what contexts
 * that this thread makes begin with. */
RWKV_CPP_API void rwkv_set_print_errors(struct rwkv_context* ctx, const bool print_errors);

/* Returns what the function above has set, likewise. */
RWKV_CPP_API bool rwkv_get_print_errors(const struct rwkv_context* ctx);

/* Returns the flags of the last call on `ctx`, or, if it is NULL, of the last rwkv_init_from_file or
 * rwkv_quantize_model_file of this thread (and of calls that had no context where they needed one),
 * and clears them. Those calls and the rwkv_eval functions clear them too, when they begin. */
RWKV_CPP_API enum rwkv_error_flags rwkv_get_last_error(struct rwkv_context* ctx);

/* Opens a model file, ggmf or GGUF, and returns a context for it, or NULL.
 * n_threads: how many to compute with, up to 1024; 0: what <rwkv/rwkv.h> says of 0.
 * n_gpu_layers: without effect. */
RWKV_CPP_API struct rwkv_context* rwkv_init_from_file(const char* model_file_path,
                                                      const uint32_t n_threads,
                                                      const uint32_t n_gpu_layers);

/* Returns another context of the same model, which stays in memory until the last of its contexts is
 * freed. n_threads is without effect: the model's threads serve all of its contexts in turn. */
RWKV_CPP_API struct rwkv_context* rwkv_clone_context(struct rwkv_context* ctx,
                                                     const uint32_t n_threads);

/* Reads one token, 0 .. n_vocab - 1.
 * state_in:   float (rwkv_get_state_len), what came before; NULL: nothing.
 * state_out:  float (rwkv_get_state_len), gets what to go on from; may be state_in; NULL: not
 *             wanted.
 * logits_out: float (rwkv_get_logits_len), gets the logits of the token that follows; NULL: not
 *             wanted, which saves their computation. */
RWKV_CPP_API bool rwkv_eval(struct rwkv_context* ctx, const uint32_t token, const float* state_in,
                            float* state_out, float* logits_out);

/* Reads sequence_len tokens, at least one, in fewer and larger products than one by one; the logits
 * are those after the last of them. If `tokens` is NULL, nothing is computed or written, and the
 * call succeeds. */
RWKV_CPP_API bool rwkv_eval_sequence(struct rwkv_context* ctx, const uint32_t* tokens,
                                     const size_t sequence_len, const float* state_in,
                                     float* state_out, float* logits_out);

/* The same in pieces of chunk_size tokens, at least one: the results are those of a call of
 * rwkv_eval_sequence for each of them. All tokens are checked before any is read. */
RWKV_CPP_API bool rwkv_eval_sequence_in_chunks(struct rwkv_context* ctx, const uint32_t* tokens,
                                               const size_t sequence_len, const size_t chunk_size,
                                               const float* state_in, float* state_out,
                                               float* logits_out);

/* Return numbers of the model; 0 if `ctx` is NULL. */
RWKV_CPP_API size_t rwkv_get_n_vocab(const struct rwkv_context* ctx);
RWKV_CPP_API size_t rwkv_get_n_embed(const struct rwkv_context* ctx);
RWKV_CPP_API size_t rwkv_get_n_layer(const struct rwkv_context* ctx);

/* Returns the floats of a state: n_layer * n_embed * 5 in RWKV-4, n_layer * n_embed * (2 + head
 * size) in others. Section 4 of <rwkv/rwkv.h> has their layout. */
RWKV_CPP_API size_t rwkv_get_state_len(const struct rwkv_context* ctx);

/* Returns the floats of the logits: n_vocab. */
RWKV_CPP_API size_t rwkv_get_logits_len(const struct rwkv_context* ctx);

/* The two above by the names that they once had. */
RWKV_CPP_API uint32_t rwkv_get_state_buffer_element_count(const struct rwkv_context* ctx);
RWKV_CPP_API uint32_t rwkv_get_logits_buffer_element_count(const struct rwkv_context* ctx);

/* Writes to `state`, float (rwkv_get_state_len), what NULL as state_in stands for. Zeros do not: in
 * RWKV-4 some of its numbers begin at -1e30. */
RWKV_CPP_API void rwkv_init_state(const struct rwkv_context* ctx, float* state);

/* Frees a context; its model too if it is the last one. NULL is allowed. */
RWKV_CPP_API void rwkv_free(struct rwkv_context* ctx);

/* Writes a ggmf file of type fp32 or fp16 as one of a quantised type: "Q4_0", "Q4_1", "Q5_0", "Q5_1"
 * or "Q8_0". Every matrix of the layers is quantised, the embedding, the head and RWKV-7's low-rank
 * matrices are not. The file appears under its name when it is complete. */
RWKV_CPP_API bool rwkv_quantize_model_file(const char* model_file_path_in,
                                           const char* model_file_path_out,
                                           const char* format_name);

/* Returns what the processor can do, as "AVX=1 AVX2=1 ...". The string stays valid. */
RWKV_CPP_API const char* rwkv_get_system_info_string(void);

#ifdef __cplusplus
}
#endif

#endif /* RWKV_CPP_RWKV_H */
