/* rwkv.h: RWKV language models (v4, v5, v6, v7) on an ordinary CPU, in 4 bits.
 *
 * This header is the manual. It is C99 and needs nothing but the standard library.
 *
 *     #include <rwkv/rwkv.h>
 *
 *     rwkv_model *model;
 *     rwkv_tokenizer *tokenizer;
 *     rwkv_session *session;
 *     rwkv_sampler *sampler;
 *     rwkv_generator *generator;
 *     if (rwkv_model_open("model.bin", NULL, &model) ||
 *         rwkv_tokenizer_create_for(model, &tokenizer) || rwkv_session_create(model, &session) ||
 *         rwkv_sampler_create(rwkv_model_n_vocab(model), NULL, &sampler) ||
 *         rwkv_generator_create(session, tokenizer, sampler, &generator) ||
 *         rwkv_generator_begin(generator, "Once upon a time", 16, 200)) {
 *         fprintf(stderr, "%s\n", rwkv_error_message());
 *         return 1;
 *     }
 *     const char *text;
 *     size_t n_bytes;
 *     while (!rwkv_generator_next(generator, &text, &n_bytes) && text != NULL) {
 *         fwrite(text, 1, n_bytes, stdout);   // whole characters, as they become certain
 *     }
 *
 * Contents
 *     1. Versions, status codes, log
 *     2. Model          a file, opened: immutable, shared, owner of the threads
 *     3. Session        one sequence being read or written: a model and a state
 *     4. State          what a session remembers: as numbers, as a file, as bytes
 *     5. Batch          many sequences in one step
 *     6. Prefix cache   beginnings that many texts share, read once
 *     7. Tokenizer      text <-> tokens
 *     8. Text stream    tokens, one by one -> text that can be shown
 *     9. Sampler        logits -> token
 *    10. Generator      all of it: a prompt -> text, piece by piece
 *    11. Layers         some of a model's by themselves; what each matrix multiplies
 *
 * Threads
 *     A model may be used from any thread at any time; steps on one model queue up, first come,
 *     first served, so that two sessions do not run twice the threads. A session, batch, sampler,
 *     text stream or generator is used by one thread at a time, but for rwkv_session_cancel and
 *     rwkv_batch_cancel, which any thread may call. A tokenizer is immutable; a prefix cache may be
 *     used by several threads. Error messages are kept per thread. Arrays are read before a
 *     function waits or returns, never later.
 *
 * Processes
 *     After fork() the child may use whatever its parent has opened, also while the parent goes
 *     on: a model makes threads of its own when the child first steps, and its weights stay shared.
 *     A session that a step of another thread was computing at that moment is half-way: it fails
 *     with RWKV_STATUS_INVALID_ARGUMENT until it is reset or given a state. What the child frees
 *     stays with the parent.
 *
 * Ownership
 *     Every object is made by a function with `_open` or `_create` in its name (or by
 *     rwkv_session_fork) and is given back with its `_free`, which accepts NULL. What an object is
 *     made of, such as the model of a session, it keeps alive: they may be freed in any order, but
 *     for a generator, whose session and sampler must stay. Functions that fail leave their out-parameters and objects as they were, also if they
 *     fail for want of memory: they can be called again.
 *
 * NULL
 *     Functions that return a status refuse NULL where a thing is needed, with INVALID_ARGUMENT.
 *     Of the others, those that free, reset or clear do nothing, and those that tell a number tell
 *     0.
 *
 * Structs
 *     Options are begun with their `_init`, which sets the defaults, and filled in. Both that and
 *     functions that fill a struct take its size, `sizeof` in your program, so that structs can
 *     grow: what an older library does not know must be left at 0, and is told as 0.
 *
 * Environment (read when a model is opened; by samplers, which belong to none, with the first)
 *     RWKV_KERNELS   the highest instruction-set level to use: reference, avx2, ...
 *     RWKV_THREADS   how many threads to use where the options say 0
 */
#ifndef RWKV_RWKV_H
#define RWKV_RWKV_H

#include <stddef.h>
#include <stdint.h>

#if defined(_WIN32) && !defined(RWKV_STATIC) /* whoever links the static library defines it */
#define RWKV_API __declspec(dllimport)
#elif defined(_WIN32)
#define RWKV_API
#else
#define RWKV_API __attribute__((visibility("default")))
#endif

/* Callers may pass any number where the library is to say which are right: C++ must not take for granted
 * that it is one of those named. */
#ifdef __cplusplus
#define RWKV_ANY_NUMBER : int32_t
extern "C" {
#else
#define RWKV_ANY_NUMBER
#endif

/* ------------------------------------------------------------------ 1. versions and status --- */

#define RWKV_VERSION_MAJOR 0
#define RWKV_VERSION_MINOR 1
#define RWKV_VERSION_PATCH 0
#define RWKV_VERSION_STRING "0.1.0"

/* Grows when a program compiled against an older header would break.
 *     4   Structs are passed by pointer with their size: rwkv_model_options_init,
 *         rwkv_sampler_options_init and rwkv_model_info_get replace functions that returned them.
 *         rwkv_tokenizer_create_for replaces rwkv_tokenizer_create_of_model. State files are of
 *         version 2; those of version 1 are read. New: sections 6, 8 and 10, the log, opening from
 *         memory and its progress, cancelling, hidden states, taking tokens back, states in
 *         memory, time states, masks. */
#define RWKV_ABI_VERSION 4

/* Returns the version of the library that is loaded, such as "0.1.0". */
RWKV_API const char* rwkv_version_string(void);

/* Returns RWKV_ABI_VERSION of the library that is loaded; compare it with your header's. */
RWKV_API int32_t rwkv_version_abi(void);

/* Every function that can fail returns one of these; RWKV_STATUS_OK is 0. The numbers are fixed for
 * ever, and leave gaps by topic. */
typedef enum rwkv_status RWKV_ANY_NUMBER {
    RWKV_STATUS_OK = 0,

    RWKV_STATUS_INVALID_ARGUMENT = 1, /* an argument breaks the function's contract */
    RWKV_STATUS_OUT_OF_MEMORY = 2,
    RWKV_STATUS_TOKEN_OUT_OF_RANGE = 3, /* a token is negative or not below n_vocab */
    RWKV_STATUS_BUFFER_TOO_SMALL = 4,   /* the caller's buffer; the size needed is reported */
    RWKV_STATUS_CANCELLED = 5, /* by rwkv_session_cancel, rwkv_batch_cancel or a callback */
    RWKV_STATUS_INTERNAL = 9,  /* a fault of the library: please report it */

    RWKV_STATUS_FILE_UNREADABLE = 20, /* missing, no permission, a folder, read error */
    RWKV_STATUS_FILE_TRUNCATED = 21,  /* ends before what its header promises */
    RWKV_STATUS_FILE_FORMAT = 22,     /* not a file of the expected kind, or a corrupt one */
    RWKV_STATUS_FILE_VERSION = 23,    /* the right kind, of a version this library cannot read */
    RWKV_STATUS_FILE_UNWRITABLE = 24,

    RWKV_STATUS_TENSOR_MISSING = 30,
    RWKV_STATUS_TENSOR_SHAPE = 31,
    RWKV_STATUS_TENSOR_TYPE = 32,
    RWKV_STATUS_MODEL_VERSION = 33, /* the tensors are not those of any RWKV version we know */
    RWKV_STATUS_MODEL_OPTION = 34,  /* an option that this model does not have */

    RWKV_STATUS_KERNELS_UNKNOWN = 40,     /* RWKV_KERNELS names no level */
    RWKV_STATUS_KERNELS_UNSUPPORTED = 41, /* this processor or operating system lacks the level */

    RWKV_STATUS_STATE_MISMATCH = 50,  /* a state of another model */
    RWKV_STATUS_STATE_FORMAT = 51,    /* not a state file, or a corrupt one */
    RWKV_STATUS_STATE_TRUNCATED = 52, /* a state file that ends before its header says */
    RWKV_STATUS_STATE_VERSION = 53,   /* a state file of a version this library cannot read */
    RWKV_STATUS_STATE_VALUE = 54,     /* a number that is not finite, or too large for fp16 */

    RWKV_STATUS_VOCABULARY = 60 /* a vocabulary file that cannot be understood */
} rwkv_status;

/* Returns a short general sentence for a status, never NULL. */
RWKV_API const char* rwkv_status_sentence(rwkv_status status);

/* Returns the message of the last call of this thread that failed: one sentence that says where,
 * what was expected, what was found and what to do. Valid until the next failing call of this
 * thread; "" if none failed yet. */
RWKV_API const char* rwkv_error_message(void);

/* Something that does not fail but that a user may want to know: a sentence without a newline. Such
 * as: a file of version 5 was probably made for rwkv.cpp, which computes it with another eps. */
typedef void (*rwkv_log_callback)(void* data, const char* message);

/* Tells all that is to be told to `callback` from now on, from any thread and in every model;
 * `data` is handed to it. NULL, as at the beginning: nobody is told, nothing is printed. */
RWKV_API void rwkv_log_set(rwkv_log_callback callback, void* data);

/* -------------------------------------------------------------------------------- 2. model --- */

typedef struct rwkv_model rwkv_model;

/* Called while a model is opened, by the thread that opens it, a few hundred times: `done` of
 * `total` bytes are packed. What it returns other than 0 ends the opening with CANCELLED. */
typedef int32_t (*rwkv_progress_callback)(void* data, uint64_t done, uint64_t total);

typedef struct rwkv_model_options {
    size_t struct_size; /* set by rwkv_model_options_init */
    size_t n_threads;   /* 1 to 1024; 0: RWKV_THREADS, else the physical cores that this process may
                           use by its affinity and the quotas of its cgroups */
    float ln_x_eps;     /* eps of the group norm after WKV; 0: the official 64e-5. rwkv.cpp computes
                           v5 with 1e-5. Version 4 has no such norm: setting it there is an error. */
    rwkv_progress_callback progress; /* NULL: none */
    void* progress_data;             /* handed to it */
    /* 1: where ln_x_eps is 0 it is rwkv.cpp's, 1e-5 for v5 and the official value for others.
     * 0: the official value for all. */
    int32_t like_rwkv_cpp;
    size_t first_layer; /* n_layers > 0: only so many of the file's layers are opened, from this */
    size_t n_layers;    /* one on, without embedding and head. For section 11; reads no tokens */
} rwkv_model_options;

/* `struct_size` is sizeof(rwkv_model_options). */
RWKV_API void rwkv_model_options_init(rwkv_model_options* options, size_t struct_size);

/* Opens a model file, checks all of it, and packs its weights for this processor:
 *     ggmf   `.bin`, version 100 or 101, made by rwkv-convert or rwkv.cpp
 *     GGUF   version 2 or 3, of RWKV-6 or RWKV-7, made by rwkv-convert or llama.cpp; of a model that
 *            is split into several files, name any, and keep the others beside it
 * The content tells which. `options` may be NULL. `path` is UTF-8. Returns any of the FILE, TENSOR,
 * MODEL and KERNELS statuses, CANCELLED, INVALID_ARGUMENT, OUT_OF_MEMORY. */
RWKV_API rwkv_status rwkv_model_open(const char* path, const rwkv_model_options* options,
                                     rwkv_model** model_out);

/* The same, of the bytes of such a file in memory, which may be given back afterwards. They are one
 * file: a model that is split into several is refused. */
RWKV_API rwkv_status rwkv_model_open_memory(const void* bytes, size_t n_bytes,
                                            const rwkv_model_options* options,
                                            rwkv_model** model_out);

RWKV_API void rwkv_model_free(rwkv_model* model);

/* What a model is. The strings live as long as the model. */
typedef struct rwkv_model_info {
    size_t struct_size;  /* set by rwkv_model_info_get */
    const char* version; /* "4", "5.1", "5.2", "6" or "7" */
    size_t n_vocab;      /* tokens are 0 .. n_vocab - 1 */
    size_t n_embd;       /* width of the residual stream */
    size_t n_layer;
    size_t n_head;         /* 0 for version 4, which has no heads */
    size_t head_size;      /* 0 for version 4 */
    size_t n_ffn;          /* width of the channel mix */
    size_t state_size;     /* floats in a state, see section 4 */
    const char* data_type; /* the type in the file's header: "fp32", "fp16", "q4_0" ... */
    uint64_t n_parameters; /* numbers in all tensors of the file */
    uint64_t file_bytes;
    uint64_t weight_bytes; /* resident bytes of packed weights */
    size_t n_threads;
    const char* kernels;    /* the instruction-set level in use: "reference", "avx2" ... */
    float ln_x_eps;         /* 0 for version 4 */
    uint64_t fingerprint;   /* tells models apart: of tensors' names, types, shapes and samples */
    int32_t has_time_state; /* 1 if the file holds an initial state, see section 4; else 0 */
    /* What GGUF files say; others say nothing. */
    int32_t has_tokenizer;     /* 1 if the file has a vocabulary: rwkv_tokenizer_create_for */
    int32_t end_of_text;       /* the token; -1 if the file names none */
    int32_t end_of_turn;       /* likewise: after which the other side of a chat speaks */
    const char* container;     /* "ggmf" or "gguf" */
    const char* name;          /* what the model is called; "" if the file does not say */
    const char* chat_template; /* jinja; "" likewise */
} rwkv_model_info;

/* Tells what `model` is; `struct_size` is sizeof(rwkv_model_info). Returns INVALID_ARGUMENT. */
RWKV_API rwkv_status rwkv_model_info_get(const rwkv_model* model, rwkv_model_info* info_out,
                                         size_t struct_size);

/* Of these, what programs need most: sizes of logits and states, in floats. */
RWKV_API size_t rwkv_model_n_vocab(const rwkv_model* model);
RWKV_API size_t rwkv_model_state_size(const rwkv_model* model);

/* Returns the names of the levels this build has, lowest first, ending with NULL. */
RWKV_API const char* const* rwkv_kernels_all(void);

/* Returns 1 if the processor and the operating system support the level `name`, else 0. */
RWKV_API int32_t rwkv_kernels_supported(const char* name);

/* ------------------------------------------------------------------------------ 3. session --- */

typedef struct rwkv_session rwkv_session;

/* A session begins with the model's fresh state. */
RWKV_API rwkv_status rwkv_session_create(rwkv_model* model, rwkv_session** session_out);

RWKV_API void rwkv_session_free(rwkv_session* session);

/* Feeds `n_tokens` tokens, in order, and writes the logits after the last of them to `logits_out`,
 * float (n_vocab), or nowhere if it is NULL (which saves the work of the head).
 * All tokens are checked, and all memory is there, before any is fed: after an error the session is
 * as it was.
 * `n_tokens` may be any number from 1 on: long prompts are computed many tokens at a time.
 * Returns INVALID_ARGUMENT, TOKEN_OUT_OF_RANGE, CANCELLED, OUT_OF_MEMORY. */
RWKV_API rwkv_status rwkv_session_feed(rwkv_session* session, const int32_t* tokens,
                                       size_t n_tokens, float* logits_out);

/* The same, and writes the logits after each token: float (n_tokens, n_vocab). */
RWKV_API rwkv_status rwkv_session_feed_all(rwkv_session* session, const int32_t* tokens,
                                           size_t n_tokens, float* logits_out);

/* Ends the feed, or the batch, that `session` is being used by in another thread with CANCELLED:
 * before its next pass of a few hundred tokens, or when its turn comes. The sessions are then as
 * they were. Nothing happens if there is none. */
RWKV_API void rwkv_session_cancel(rwkv_session* session);

/* Writes what the last token read left behind: the logits after it, float (n_vocab), and the final
 * hidden state that they are made of, float (n_embd), normed. They belong to a session's state:
 * forks, copies and state files have them. A session that has read nothing since it was fresh or
 * was given the numbers of a state has none: INVALID_ARGUMENT. Returns OUT_OF_MEMORY, too. */
RWKV_API rwkv_status rwkv_session_logits(const rwkv_session* session, float* logits_out);
RWKV_API rwkv_status rwkv_session_hidden(const rwkv_session* session, float* hidden_out);

/* Tokens can be taken back: when up to `most` tokens (0, at the beginning, to 31) were fed in one
 * step, rwkv_session_keep lets the session have read only the first `n_kept` of them, to the bit as
 * if the others had never been fed; the logits are those after the last that is kept, or those
 * before the step if that is none. It may follow each step once, before the next and before the
 * state is replaced; unless it does, all are kept. For checking guesses: feed several tokens with all
 * logits, keep those that were right. No state is copied: to keep takes no time, and a step a little
 * more. Memory for `most` tokens is asked for when they are allowed: of one state, and in version 7 of
 * one more for each nine. Forks allow as many.
 * Both return INVALID_ARGUMENT, the former OUT_OF_MEMORY, too, and has then changed nothing. */
RWKV_API rwkv_status rwkv_session_allow_take_back(rwkv_session* session, size_t most);
RWKV_API rwkv_status rwkv_session_keep(rwkv_session* session, size_t n_kept);

/* Returns the number of tokens in a piece, the same for every model. Long prompts are computed
 * piece by piece, in rwkv_session_feed and in batches alike: a caller who feeds them so, each
 * call a piece and the last what is left, gets the same numbers, and can do something else in
 * between. */
RWKV_API size_t rwkv_session_piece_size(void);

/* Returns to the fresh state. */
RWKV_API void rwkv_session_reset(rwkv_session* session);

/* Makes `time_state` what the session's fresh state holds, and returns to it: float (n_layer,
 * n_head, head_size, head_size), row = the value's index, as state tuning makes it; `n` is the
 * number of floats. NULL and 0: what the model's file says. Returns STATE_MISMATCH for another
 * number, MODEL_OPTION for version 4, which has no such state, OUT_OF_MEMORY, INVALID_ARGUMENT. */
RWKV_API rwkv_status rwkv_session_set_time_state(rwkv_session* session, const float* time_state,
                                                 size_t n);

/* Makes a second session that goes on from where `session` is, in time proportional to the
 * state. */
RWKV_API rwkv_status rwkv_session_fork(const rwkv_session* session, rwkv_session** session_out);

/* -------------------------------------------------------------------------------- 4. state --- */

/* A state is a flat array of rwkv_model_info.state_size floats, layer after layer:
 *     channel-mix shift (n_embd), time-mix shift (n_embd), then
 *     version 4:         aa (n_embd), bb (n_embd), pp (n_embd; starts at -1e30)
 *     versions 5 and 6:  (n_head, head_size, head_size), row = key index, column = value index
 *     version 7:         (n_head, head_size, head_size), row = value index, column = key index
 * It is the layout of rwkv.cpp's state buffers. A fresh state is all zeros but for pp, and for the
 * heads' matrices of a model whose file holds the tensors `blocks.N.att.time_state`: they begin
 * with those. State tuning makes them, and rwkv-convert puts them into the file. In it, the row is
 * the value's index in every version. `n` is the number of floats in the caller's array and must be
 * the model's state_size, else RWKV_STATUS_STATE_MISMATCH. */
RWKV_API rwkv_status rwkv_state_read(const rwkv_session* session, float* state_out, size_t n);
RWKV_API rwkv_status rwkv_state_write(rwkv_session* session, const float* state, size_t n);

/* Gives `to` the state of `from`; both must be of the same model. */
RWKV_API rwkv_status rwkv_state_copy(rwkv_session* to, const rwkv_session* from);

/* How the numbers of a state file are stored. fp16 halves the file; what follows then differs a
 * little from what would have followed without it. */
typedef enum rwkv_state_type RWKV_ANY_NUMBER {
    RWKV_STATE_FP32 = 0,
    RWKV_STATE_FP16 = 1
} rwkv_state_type;

/* Writes the state of `session` to a file, whose layout is in docs/formats.md. It appears under its
 * name when it is complete, replacing an older one; after a failure there is nothing new. `path` is
 * UTF-8. Returns FILE_UNWRITABLE, STATE_VALUE, INVALID_ARGUMENT, OUT_OF_MEMORY. */
RWKV_API rwkv_status rwkv_state_save(const rwkv_session* session, const char* path,
                                     rwkv_state_type type);

/* Gives `session` the state in the file. It must be one of this model, that is of a file with the
 * same rwkv_model_info.fingerprint. All of the file is checked before the session changes.
 * Returns FILE_UNREADABLE, STATE_MISMATCH, STATE_FORMAT, STATE_TRUNCATED, STATE_VERSION,
 * STATE_VALUE, INVALID_ARGUMENT, OUT_OF_MEMORY. */
RWKV_API rwkv_status rwkv_state_load(rwkv_session* session, const char* path);

/* The same with the bytes of such a file in memory. `n_bytes_out` is told how many they are; if
 * they are more than `capacity`, nothing is written and BUFFER_TOO_SMALL returned. */
RWKV_API rwkv_status rwkv_state_save_memory(const rwkv_session* session, rwkv_state_type type,
                                            void* bytes_out, size_t capacity, size_t* n_bytes_out);
RWKV_API rwkv_status rwkv_state_load_memory(rwkv_session* session, const void* bytes,
                                            size_t n_bytes);

/* -------------------------------------------------------------------------------- 5. batch --- */

/* A batch is one step over many sequences: each contributes any number of tokens, and every matrix
 * of the model is read once for all of them. What a sequence gets does not depend on its
 * neighbours: a sequence of fewer than 32 tokens gets bit for bit what it would get alone. */
typedef struct rwkv_batch rwkv_batch;

typedef enum rwkv_logits RWKV_ANY_NUMBER {
    RWKV_LOGITS_NONE = 0, /* out is not written and may be NULL */
    RWKV_LOGITS_LAST = 1, /* out: float (n_vocab), logits after the last token */
    RWKV_LOGITS_ALL = 2,  /* out: float (n_tokens, n_vocab), logits after each token */
    RWKV_HIDDEN_LAST = 3, /* out: float (n_embd), the final hidden state after the last token */
    RWKV_HIDDEN_ALL = 4   /* out: float (n_tokens, n_embd), after each token: for embeddings */
} rwkv_logits;

RWKV_API rwkv_status rwkv_batch_create(rwkv_model* model, rwkv_batch** batch_out);

RWKV_API void rwkv_batch_free(rwkv_batch* batch);

/* Adds `n_tokens` (>= 1) tokens of `session`, which must be of the batch's model and not be in
 * the batch already. The tokens are copied; `session` and `out` must stay valid until
 * rwkv_batch_run or rwkv_batch_clear. Returns INVALID_ARGUMENT, TOKEN_OUT_OF_RANGE,
 * OUT_OF_MEMORY. */
RWKV_API rwkv_status rwkv_batch_add(rwkv_batch* batch, rwkv_session* session, const int32_t* tokens,
                                    size_t n_tokens, rwkv_logits wanted, float* out);

/* Computes the batch and clears it. An empty batch is fine. If it fails, no session has changed and
 * the batch is as it was: it can be run again. Returns INVALID_ARGUMENT, CANCELLED,
 * OUT_OF_MEMORY. */
RWKV_API rwkv_status rwkv_batch_run(rwkv_batch* batch);

/* Ends the run that another thread is at with CANCELLED, as rwkv_session_cancel does. */
RWKV_API void rwkv_batch_cancel(rwkv_batch* batch);

/* Forgets what was added. */
RWKV_API void rwkv_batch_clear(rwkv_batch* batch);

/* ------------------------------------------------------------------------- 6. prefix cache --- */

/* Keeps states after beginnings of token sequences, so that each is read once: system prompts,
 * documents, conversations that are sent again with something more. */
typedef struct rwkv_prefix_cache rwkv_prefix_cache;

/* At most `max_bytes` of states are kept; those not used for the longest time go. */
RWKV_API rwkv_status rwkv_prefix_cache_create(rwkv_model* model, size_t max_bytes,
                                              rwkv_prefix_cache** cache_out);

RWKV_API void rwkv_prefix_cache_free(rwkv_prefix_cache* cache);

/* Resets `session` and feeds it `n_tokens` tokens as rwkv_session_feed does, but for the longest
 * beginning whose state is kept, which it gets; how long that was goes to `n_found_out`, unless it
 * is NULL. States are kept after each piece and after the last token, so what follows is the same
 * to the bit as without a cache where the beginning was read in the same pieces: see
 * rwkv_session_piece_size. Returns what rwkv_session_feed does; STATE_MISMATCH if the session is of
 * another model. */
RWKV_API rwkv_status rwkv_prefix_cache_feed(rwkv_prefix_cache* cache, rwkv_session* session,
                                            const int32_t* tokens, size_t n_tokens,
                                            float* logits_out, size_t* n_found_out);

/* Keeps the state of `session` as that after these tokens, all that it has read since it was fresh:
 * such as a prompt and the answer that was written. */
RWKV_API rwkv_status rwkv_prefix_cache_keep(rwkv_prefix_cache* cache, const rwkv_session* session,
                                            const int32_t* tokens, size_t n_tokens);

/* Returns the bytes in use. */
RWKV_API size_t rwkv_prefix_cache_n_bytes(const rwkv_prefix_cache* cache);

RWKV_API void rwkv_prefix_cache_clear(rwkv_prefix_cache* cache);

/* ---------------------------------------------------------------------------- 7. tokenizer --- */

typedef struct rwkv_tokenizer rwkv_tokenizer;

/* Opens a vocabulary in the text format of the RWKV World vocabulary: one token a line, as
 *     ID LITERAL LENGTH
 * where LITERAL is a Python string or bytes literal and LENGTH its number of bytes (UTF-8). Ids may
 * have gaps; id 0 is the end of a document and stands for no bytes. Encoding is greedy: at each
 * place the longest token.
 * Returns FILE_UNREADABLE, VOCABULARY (naming the line), OUT_OF_MEMORY. */
RWKV_API rwkv_status rwkv_tokenizer_open(const char* path, rwkv_tokenizer** tokenizer_out);

/* A tokenizer with one token for each byte: 0 .. 255. */
RWKV_API rwkv_status rwkv_tokenizer_create_bytes(rwkv_tokenizer** tokenizer_out);

/* The tokenizer of the RWKV World vocabulary, rwkv_vocab_v20230424, which is built into the library:
 * tokens 0 .. 65529, of models with 65536. */
RWKV_API rwkv_status rwkv_tokenizer_create_world(rwkv_tokenizer** tokenizer_out);

/* The tokenizer of a model: the vocabulary of its file, if it has one (rwkv_model_info.has_tokenizer,
 * as GGUF files do); else the World vocabulary for 65536 tokens and bytes for 256. Returns
 * MODEL_OPTION for another number of tokens, VOCABULARY, OUT_OF_MEMORY, INVALID_ARGUMENT. */
RWKV_API rwkv_status rwkv_tokenizer_create_for(const rwkv_model* model,
                                               rwkv_tokenizer** tokenizer_out);

RWKV_API void rwkv_tokenizer_free(rwkv_tokenizer* tokenizer);

/* Returns the largest token id plus one. */
RWKV_API size_t rwkv_tokenizer_n_vocab(const rwkv_tokenizer* tokenizer);

/* Returns 1 if `token` is of the vocabulary, else 0: ids may have gaps. */
RWKV_API int32_t rwkv_tokenizer_has(const rwkv_tokenizer* tokenizer, int32_t token);

/* Writes the tokens of `text` (any bytes, UTF-8 or not, zeros too) to `tokens_out` and their number
 * to `n_tokens_out`. There are never more tokens than bytes.
 * Returns BUFFER_TOO_SMALL (with the number needed in `n_tokens_out`; nothing else is written),
 * INVALID_ARGUMENT if a byte begins no token of the vocabulary. */
RWKV_API rwkv_status rwkv_tokenizer_encode(const rwkv_tokenizer* tokenizer, const char* text,
                                           size_t n_bytes, int32_t* tokens_out, size_t capacity,
                                           size_t* n_tokens_out);

/* Writes the bytes of the tokens to `text_out` (no terminator) and their number to `n_bytes_out`.
 * Returns TOKEN_OUT_OF_RANGE for an id that the vocabulary lacks, BUFFER_TOO_SMALL as above. */
RWKV_API rwkv_status rwkv_tokenizer_decode(const rwkv_tokenizer* tokenizer, const int32_t* tokens,
                                           size_t n_tokens, char* text_out, size_t capacity,
                                           size_t* n_bytes_out);

/* -------------------------------------------------------------------------- 8. text stream --- */

/* Makes text that can be shown of tokens that come one by one: whole characters only, though tokens
 * may be parts of one, and nothing of a stop string, though it may begin in one token and end in
 * another. Bytes that are not UTF-8 become U+FFFD, as the Unicode standard recommends. */
typedef struct rwkv_text_stream rwkv_text_stream;

/* `tokenizer` may be NULL: such a stream takes bytes alone. */
RWKV_API rwkv_status rwkv_text_stream_create(const rwkv_tokenizer* tokenizer,
                                             rwkv_text_stream** stream_out);

RWKV_API void rwkv_text_stream_free(rwkv_text_stream* stream);

/* Adds a stop string of `n_bytes` >= 1 bytes: it ends the text and is no part of it. */
RWKV_API rwkv_status rwkv_text_stream_stop(rwkv_text_stream* stream, const char* stop,
                                           size_t n_bytes);

/* Lets `token` come next. `text_out` and `n_bytes_out` are told what has become certain, often
 * nothing; it is valid until the stream is used again. After a stop string nothing comes any more.
 * Returns TOKEN_OUT_OF_RANGE, OUT_OF_MEMORY, INVALID_ARGUMENT; then nothing has come. */
RWKV_API rwkv_status rwkv_text_stream_push(rwkv_text_stream* stream, int32_t token,
                                           const char** text_out, size_t* n_bytes_out);

/* The same of the bytes that a token of another tokenizer stands for. */
RWKV_API rwkv_status rwkv_text_stream_push_bytes(rwkv_text_stream* stream, const char* bytes,
                                                 size_t n_bytes, const char** text_out,
                                                 size_t* n_bytes_out);

/* Returns 1 if a stop string has come, else 0. */
RWKV_API int32_t rwkv_text_stream_stopped(const rwkv_text_stream* stream);

/* Ends the text: tells what was held back because a stop string could have become of it. A character
 * of which only a part has come is left out. */
RWKV_API rwkv_status rwkv_text_stream_finish(rwkv_text_stream* stream, const char** text_out,
                                             size_t* n_bytes_out);

/* Begins another text. Stop strings stay. */
RWKV_API void rwkv_text_stream_reset(rwkv_text_stream* stream);

/* ------------------------------------------------------------------------------ 9. sampler --- */

typedef struct rwkv_sampler rwkv_sampler;

/* How the next token is drawn, in the order of the official `rwkv` package:
 *
 *     1. bias         what rwkv_sampler_bias says is added to the logits; -INFINITY bans a token
 *     2. penalties    for every token accepted so far, x being its logit:
 *                         x := x / repetition_penalty, or x * repetition_penalty if x < 0
 *                         x := x - presence_penalty - count * frequency_penalty
 *                     To accept a token multiplies all counts by penalty_decay, then adds 1 (or
 *                     what rwkv_sampler_weigh says) to its own.
 *     3. top-p        of p = softmax(logits) keep those at least as large as the one where the
 *                     sum, from the largest down, reaches top_p
 *     4. top-k        of these keep the top_k largest
 *     5. min-p        of these keep those that are at least min_p times the largest
 *     6. typical      of these keep those whose surprise -log p is nearest to its mean, until
 *                     their share reaches typical_p
 *     7. temperature  p^(1 / temperature), then draw; 0 takes the most probable token
 *
 * The token is the one at which the sum of the probabilities, in the order of tokens, exceeds a
 * random number from 0 up to 1 (SplitMix64). The same logits, seed and tokens accepted give the
 * same token on every platform and at every kernel level.
 *
 * Biases other than bans, repetition_penalty, min-p and typical are additions to that package.
 *
 * With mirostat_tau > 0, mirostat 2 replaces steps 3 to 6, after the temperature: tokens more
 * surprising than mu bits leave, and mu, which begins at 2 mirostat_tau, changes by
 * mirostat_eta * (mirostat_tau - surprise of the token drawn). */
typedef struct rwkv_sampler_options {
    size_t struct_size;
    double temperature;        /* 0 .. 1e6; default 1 */
    double top_p;              /* 0 .. 1; default 0.85; 1: off */
    double min_p;              /* 0 .. 1; default 0, off */
    double typical_p;          /* 0 .. 1; default 1, off */
    double mirostat_tau;       /* bits, 0 .. 1000; default 0, off */
    double mirostat_eta;       /* 0 .. 1000; default 0.1 */
    double repetition_penalty; /* 1e-6 .. 1e6; default 1, off */
    double presence_penalty;   /* -1e6 .. 1e6; default 0 */
    double frequency_penalty;  /* -1e6 .. 1e6; default 0 */
    double penalty_decay;      /* 0 .. 1; default 0.996 */
    uint64_t seed;             /* the same seed and logits give the same tokens on every platform */
    int32_t top_k;             /* >= 0; default 0, off */
} rwkv_sampler_options;

/* `struct_size` is sizeof(rwkv_sampler_options). */
RWKV_API void rwkv_sampler_options_init(rwkv_sampler_options* options, size_t struct_size);

/* `n_vocab` is 1 .. 2^24. `options` may be NULL. Returns INVALID_ARGUMENT (naming the option),
 * OUT_OF_MEMORY, KERNELS_UNKNOWN, KERNELS_UNSUPPORTED. */
RWKV_API rwkv_status rwkv_sampler_create(size_t n_vocab, const rwkv_sampler_options* options,
                                         rwkv_sampler** sampler_out);

RWKV_API void rwkv_sampler_free(rwkv_sampler* sampler);

/* Forgets the tokens accepted, and starts the random numbers and mirostat's mu again. Biases and
 * weights stay. */
RWKV_API void rwkv_sampler_reset(rwkv_sampler* sampler, uint64_t seed);

/* Adds `bias` to the logit of `token` from now on (it replaces an earlier one); -INFINITY bans it.
 * Returns TOKEN_OUT_OF_RANGE, INVALID_ARGUMENT if `bias` is NaN or +INFINITY. */
RWKV_API rwkv_status rwkv_sampler_bias(rwkv_sampler* sampler, int32_t token, float bias);

/* Sets what accepting `token` adds to its count from now on, -1e6 .. 1e6; 1 until set. The official
 * package lets spaces, tabs and digits count 0. Returns TOKEN_OUT_OF_RANGE, INVALID_ARGUMENT. */
RWKV_API rwkv_status rwkv_sampler_weigh(rwkv_sampler* sampler, int32_t token, double weight);

/* Draws a token from `logits`, float (n_vocab), which are not changed. Does not accept it.
 * Returns INVALID_ARGUMENT if a logit is NaN or +INFINITY or all tokens are banned. */
RWKV_API rwkv_status rwkv_sampler_sample(rwkv_sampler* sampler, const float* logits,
                                         int32_t* token_out);

/* The same among the tokens that `mask` allows: bit t % 32 of mask[t / 32] is 1 for those. It has
 * (n_vocab + 31) / 32 words, and bans all others for this once, as grammars want it. */
RWKV_API rwkv_status rwkv_sampler_sample_masked(rwkv_sampler* sampler, const float* logits,
                                                const uint32_t* mask, int32_t* token_out);

/* Tells the sampler that `token` was taken, so that the penalties know it.
 * Returns TOKEN_OUT_OF_RANGE. */
RWKV_API rwkv_status rwkv_sampler_accept(rwkv_sampler* sampler, int32_t token);

/* --------------------------------------------------------------------------- 10. generator --- */

/* Reads prompts and writes texts with a session, a tokenizer and a sampler. */
typedef struct rwkv_generator rwkv_generator;

typedef enum rwkv_finish RWKV_ANY_NUMBER {
    RWKV_FINISH_NONE = 0,  /* there may be more, or the text was left */
    RWKV_FINISH_END = 1,   /* a stop token was drawn, such as the end of the document */
    RWKV_FINISH_STOP = 2,  /* a stop string has come */
    RWKV_FINISH_LENGTH = 3 /* there are max_tokens tokens */
} rwkv_finish;

/* `session` and `sampler` must stay valid as long as the generator; the sampler must be one for the
 * model's number of tokens. Returns INVALID_ARGUMENT, OUT_OF_MEMORY. */
RWKV_API rwkv_status rwkv_generator_create(rwkv_session* session, const rwkv_tokenizer* tokenizer,
                                           rwkv_sampler* sampler, rwkv_generator** generator_out);

RWKV_API void rwkv_generator_free(rwkv_generator* generator);

/* Adds a string, or a token, that ends texts and is no part of them. Token 0, the end of a document,
 * and the model's end_of_text are such tokens from the beginning. */
RWKV_API rwkv_status rwkv_generator_stop(rwkv_generator* generator, const char* stop,
                                         size_t n_bytes);
RWKV_API rwkv_status rwkv_generator_stop_token(rwkv_generator* generator, int32_t token);

/* Reads a prompt with the session, and begins a text of at most `max_tokens` tokens after it. With
 * `n_bytes` 0 the text goes on after what was read before; a session that has read nothing begins a
 * document, with token 0. Returns what rwkv_tokenizer_encode and rwkv_session_feed do; then nothing
 * was read. */
RWKV_API rwkv_status rwkv_generator_begin(rwkv_generator* generator, const char* prompt,
                                          size_t n_bytes, size_t max_tokens);

/* Draws a token, lets the session read it, and tells the text that has become certain, which may be
 * of 0 bytes; it is valid until the generator is used again. When the text has ended `text_out` is
 * told NULL, and rwkv_generator_finish_reason why; the session has then read all tokens but the one that
 * ended it. Returns what rwkv_sampler_sample and rwkv_session_feed do. */
RWKV_API rwkv_status rwkv_generator_next(rwkv_generator* generator, const char** text_out,
                                         size_t* n_bytes_out);

/* Returns why the text ended. */
RWKV_API rwkv_finish rwkv_generator_finish_reason(const rwkv_generator* generator);

/* ------------------------------------------------------------------------------ 11. layers --- */

/* For tools that look into a model, such as one that chooses how its matrices are quantised. A model
 * that is opened with rwkv_model_options.n_layers has some of its file's layers, and a session of it
 * their state. It reads rows of the residual stream in place of tokens: what would feed tokens
 * returns INVALID_ARGUMENT. Between such models rows can be handed on as between layers. */

/* Returns how many matrices a model has: all that a vector is multiplied by. */
RWKV_API size_t rwkv_model_n_matrices(const rwkv_model* model);

typedef struct rwkv_matrix_info {
    size_t struct_size; /* set by rwkv_model_matrix_get */
    const char* name;   /* the tensor's; "NAME[i]" of several that are stacked in one */
    const char* type;   /* "fp32", "q4_0" ... */
    size_t n_out;       /* rows */
    size_t n_in;        /* columns */
} rwkv_matrix_info;

/* Tells what matrix `i` is, from 0 on; the strings live as long as the model. `struct_size` is
 * sizeof(rwkv_matrix_info). Returns INVALID_ARGUMENT. */
RWKV_API rwkv_status rwkv_model_matrix_get(const rwkv_model* model, size_t i,
                                           rwkv_matrix_info* info_out, size_t struct_size);

/* Lets the layers of the session's model work on the next `n_rows` rows of a sequence.
 *     rows        float (n_rows, n_embd): the residual stream, before and after. Before layer 0 it is
 *                 the token's row of the embedding, normed by ln0; after the last, what ln_out norms.
 *     v_first     float (n_rows, n_embd), for version 7, else unused: written by layer 0, read by
 *                 those after it
 *     inputs_out  NULL, or a pointer for each of rwkv_model_n_matrices(model), to room for what that
 *                 matrix multiplies, float (n_rows, n_in), or NULL. It is told before it is
 *                 quantised, where the matrix is. (The head is no matrix of a layer: nothing is told.)
 * Returns INVALID_ARGUMENT, OUT_OF_MEMORY, and has then changed nothing. */
RWKV_API rwkv_status rwkv_session_run_layers(rwkv_session* session, float* rows, float* v_first,
                                             size_t n_rows, float* const* inputs_out);

#ifdef __cplusplus
}
#endif

#endif /* RWKV_RWKV_H */
