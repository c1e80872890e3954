// rwkv.cpp's C interface over the runtime: arguments, flags and messages as rwkv.cpp has them; what
// is computed is the runtime's.
#include "rwkv_cpp/rwkv.h"

#include <algorithm>
#include <cstdio>
#include <cstring>
#include <iterator>
#include <memory>
#include <new>
#include <string>
#include <utility>
#include <vector>

#include "block_types.h"
#include "containers.h"
#include "cpu_features.h"
#include "error_flags.h"
#include "input_file.h"
#include "model_loader.h"
#include "new_file.h"
#include "quantize_file.h"
#include "session.h"
#include "state.h"
#include "status.h"
#include "step.h"

using rwkv::Failure;
using rwkv::format;
using rwkv_cpp::Reading;

namespace {

using Floats = std::vector<float>;

// What all contexts of a model share.
struct Opened {
    explicit Opened(std::shared_ptr<const rwkv::Model> of)
        : model(std::move(of)), fresh(model->config.state_size()) {
        rwkv::Session(model).state.read(fresh.data());
    }
    const std::shared_ptr<const rwkv::Model> model;
    Floats fresh;  // what NULL as state_in stands for
};

// rwkv.cpp keeps these for each thread.
thread_local int last_error = RWKV_ERROR_NONE;
thread_local bool print_errors = true;

}  // namespace

struct rwkv_context {
    explicit rwkv_context(std::shared_ptr<const Opened> of)
        : opened(std::move(of)), state(*opened->model, rwkv::State::OfCaller{}) {}

    const std::shared_ptr<const Opened> opened;
    rwkv::State state;
    Floats unwanted;  // where the state goes for which the caller has no place
    int last_error = RWKV_ERROR_NONE;
    bool print_errors = ::print_errors;
};

namespace {

// Adds flags to the context's, or to this thread's if there is none, and tells why.
void report(rwkv_context* ctx, const char* function, int flags, const char* message) noexcept {
    (ctx != nullptr ? ctx->last_error : last_error) |= flags;
    if (ctx != nullptr ? ctx->print_errors : print_errors) {
        std::fprintf(stderr, "%s: %s\n", function, message);
    }
}

// Runs the body of a function; whether it came to its end. `flags_of` gives a failure its flags.
template <class FlagsOf, class Body>
bool attempt(rwkv_context* ctx, const char* function, FlagsOf&& flags_of, Body&& body) noexcept {
    try {
        body();
        return true;
    } catch (const Failure& failure) {
        report(ctx, function, flags_of(failure), failure.what());
    } catch (const std::bad_alloc&) {
        report(ctx, function, rwkv_cpp::flags_of(RWKV_STATUS_OUT_OF_MEMORY), "not enough memory");
    } catch (const std::exception& error) {
        report(ctx, function, rwkv_cpp::flags_of(RWKV_STATUS_INTERNAL), error.what());
    }
    return false;
}

int status_flags(const Failure& failure) noexcept { return rwkv_cpp::flags_of(failure.status()); }

void require(bool holds, const char* message) {
    if (!holds) throw Failure(RWKV_STATUS_INVALID_ARGUMENT, message);
}

void require_context(const rwkv_context* ctx) {
    require(ctx != nullptr, "ctx: expected a context, got NULL");
}

// ---- evaluating

std::vector<int32_t> checked_tokens(const rwkv_context& ctx, const uint32_t* tokens, size_t n) {
    const size_t n_vocab = ctx.opened->model->config.n_vocab;
    for (size_t i = 0; i < n; ++i) {
        if (tokens[i] < n_vocab) continue;
        throw Failure(RWKV_STATUS_TOKEN_OUT_OF_RANGE,
                      format("tokens[%zu]: expected one of the vocabulary, 0 to %zu, got %u", i,
                             n_vocab - 1, tokens[i]));
    }
    return {tokens, tokens + n};
}

// Whether the numbers that a sequence gets depend on where it is cut.
bool cuts_matter(const rwkv::Model& model) {
    const auto& all = model.kernels.matrix;
    return std::any_of(std::begin(all), std::end(all),
                       [](const rwkv_matrix_kernels& k) { return k.matmul_wide != nullptr; });
}

void evaluate(rwkv_context& ctx, const uint32_t* tokens, size_t n_tokens, size_t chunk,
              const float* state_in, float* state_out, float* logits_out) {
    const std::vector<int32_t> checked = checked_tokens(ctx, tokens, n_tokens);
    const rwkv::Model& model = *ctx.opened->model;
    const size_t n_state = model.config.state_size();
    // Else in the pieces that are fastest: those of a pass.
    chunk = cuts_matter(model) ? std::min(chunk, rwkv::kPieceRows) : rwkv::kPieceRows;
    if (state_in == nullptr) state_in = ctx.opened->fresh.data();
    if (state_out == nullptr) {
        ctx.unwanted.resize(n_state);
        state_out = ctx.unwanted.data();
    }
    const rwkv::Cancelled never{false};
    for (size_t at = 0; at < n_tokens; at += chunk) {
        const size_t n = std::min(chunk, n_tokens - at);
        const auto begin = checked.begin() + static_cast<ptrdiff_t>(at);
        ctx.state.lie_at(at == 0 ? state_in : state_out, state_out);
        const bool wanted = logits_out != nullptr && at + n == n_tokens;
        rwkv::step(model,
                   {{&ctx.state,
                     {begin, begin + static_cast<ptrdiff_t>(n)},
                     wanted ? RWKV_LOGITS_LAST : RWKV_LOGITS_NONE,
                     logits_out,
                     &never}},
                   never);
    }
}

// ---- quantising

rwkv_type quantised_type(const char* format_name) {
    constexpr struct {
        const char* name;
        rwkv_type type;
    } kFormats[] = {
        {"Q4_0", RWKV_TYPE_Q4_0}, {"Q4_1", RWKV_TYPE_Q4_1}, {"Q5_0", RWKV_TYPE_Q5_0},
        {"Q5_1", RWKV_TYPE_Q5_1}, {"Q8_0", RWKV_TYPE_Q8_0},
    };
    const std::string name = format_name;
    for (const auto& f : kFormats) {
        if (name == f.name) return f.type;
    }
    const bool is_k = name == "Q4_K" || name == "Q5_K";
    throw Failure(
        RWKV_STATUS_TENSOR_TYPE,
        format("format_name: expected one of Q4_0, Q4_1, Q5_0, Q5_1, Q8_0, got '%s'%s", format_name,
               is_k ? ", which ggmf files do not hold. Try a GGUF file: rwkv-convert IN "
                      "OUT.gguf --dtype q4_K_M, or q5_K_M"
                    : ""));
}

// The flags of a file that cannot be written, by whether it could be begun.
struct Unwritable : Failure {
    Unwritable(const Failure& f, int is) : Failure(f.status(), f.what()), flags(is) {}
    int flags;
};

template <class Work>
auto writing(int flags, Work&& work) {
    try {
        return work();
    } catch (const Failure& failure) {
        if (failure.status() == RWKV_STATUS_FILE_UNWRITABLE) throw Unwritable(failure, flags);
        throw;
    }
}

void quantize(const char* in, const char* out, rwkv_type type) {
    const auto file = rwkv::read_model_file(std::make_unique<rwkv::InputFile>(in));
    const auto result = writing(RWKV_ERROR_FILE | RWKV_ERROR_FILE_OPEN,
                                [&] { return std::make_unique<rwkv::NewFile>(out); });
    const auto left_out = writing(RWKV_ERROR_FILE | RWKV_ERROR_FILE_WRITE,
                                  [&] { return rwkv::quantize_file(*file, type, *result); });
    for (const std::string& name : left_out) {
        report(
            nullptr, "rwkv_quantize_model_file", RWKV_ERROR_NONE,
            format("%s: tensor '%s' is of no RWKV version and left out", in, name.c_str()).c_str());
    }
}

}  // namespace

extern "C" {

void rwkv_set_print_errors(struct rwkv_context* ctx, const bool print) {
    (ctx != nullptr ? ctx->print_errors : print_errors) = print;
}

bool rwkv_get_print_errors(const struct rwkv_context* ctx) {
    return ctx != nullptr ? ctx->print_errors : print_errors;
}

enum rwkv_error_flags rwkv_get_last_error(struct rwkv_context* ctx) {
    int& flags = ctx != nullptr ? ctx->last_error : last_error;
    return static_cast<rwkv_error_flags>(std::exchange(flags, RWKV_ERROR_NONE));
}

struct rwkv_context* rwkv_init_from_file(const char* model_file_path, const uint32_t n_threads,
                                         const uint32_t) {
    last_error = RWKV_ERROR_NONE;
    rwkv_context* ctx = nullptr;
    const auto flags = [&](const Failure& failure) {
        return rwkv_cpp::flags_of_file(model_file_path, failure, Reading::to_open);
    };
    attempt(nullptr, __func__, flags, [&] {
        require(model_file_path != nullptr, "model_file_path: expected a path, got NULL");
        rwkv::ModelOptions options;
        options.n_threads = n_threads;
        options.like_rwkv_cpp = true;
        ctx =
            new rwkv_context(std::make_shared<Opened>(rwkv::load_model(model_file_path, options)));
    });
    return ctx;
}

struct rwkv_context* rwkv_clone_context(struct rwkv_context* ctx, const uint32_t) {
    rwkv_context* clone = nullptr;
    attempt(nullptr, __func__, status_flags, [&] {
        require_context(ctx);
        clone = new rwkv_context(ctx->opened);
        clone->print_errors = ctx->print_errors;
    });
    return clone;
}

bool rwkv_eval(struct rwkv_context* ctx, const uint32_t token, const float* state_in,
               float* state_out, float* logits_out) {
    return attempt(ctx, __func__, status_flags, [&] {
        require_context(ctx);
        ctx->last_error = RWKV_ERROR_NONE;
        evaluate(*ctx, &token, 1, 1, state_in, state_out, logits_out);
    });
}

bool rwkv_eval_sequence(struct rwkv_context* ctx, const uint32_t* tokens, const size_t sequence_len,
                        const float* state_in, float* state_out, float* logits_out) {
    return attempt(ctx, __func__, status_flags, [&] {
        require_context(ctx);
        ctx->last_error = RWKV_ERROR_NONE;
        require(sequence_len > 0, "sequence_len: expected at least 1, got 0");
        if (tokens == nullptr) return;  // rwkv.cpp prepares a graph; there is nothing to prepare
        evaluate(*ctx, tokens, sequence_len, sequence_len, state_in, state_out, logits_out);
    });
}

bool rwkv_eval_sequence_in_chunks(struct rwkv_context* ctx, const uint32_t* tokens,
                                  const size_t sequence_len, const size_t chunk_size,
                                  const float* state_in, float* state_out, float* logits_out) {
    return attempt(ctx, __func__, status_flags, [&] {
        require_context(ctx);
        ctx->last_error = RWKV_ERROR_NONE;
        require(sequence_len > 0, "sequence_len: expected at least 1, got 0");
        require(chunk_size > 0, "chunk_size: expected at least 1, got 0");
        if (tokens == nullptr) return;
        evaluate(*ctx, tokens, sequence_len, chunk_size, state_in, state_out, logits_out);
    });
}

size_t rwkv_get_n_vocab(const struct rwkv_context* ctx) {
    return ctx != nullptr ? ctx->opened->model->config.n_vocab : 0;
}

size_t rwkv_get_n_embed(const struct rwkv_context* ctx) {
    return ctx != nullptr ? ctx->opened->model->config.n_embd : 0;
}

size_t rwkv_get_n_layer(const struct rwkv_context* ctx) {
    return ctx != nullptr ? ctx->opened->model->config.n_layer : 0;
}

size_t rwkv_get_state_len(const struct rwkv_context* ctx) {
    return ctx != nullptr ? ctx->opened->model->config.state_size() : 0;
}

size_t rwkv_get_logits_len(const struct rwkv_context* ctx) { return rwkv_get_n_vocab(ctx); }

uint32_t rwkv_get_state_buffer_element_count(const struct rwkv_context* ctx) {
    return static_cast<uint32_t>(rwkv_get_state_len(ctx));
}

uint32_t rwkv_get_logits_buffer_element_count(const struct rwkv_context* ctx) {
    return static_cast<uint32_t>(rwkv_get_logits_len(ctx));
}

void rwkv_init_state(const struct rwkv_context* ctx, float* state) {
    if (ctx == nullptr || state == nullptr) return;
    std::copy(ctx->opened->fresh.begin(), ctx->opened->fresh.end(), state);
}

void rwkv_free(struct rwkv_context* ctx) { delete ctx; }

bool rwkv_quantize_model_file(const char* model_file_path_in, const char* model_file_path_out,
                              const char* format_name) {
    last_error = RWKV_ERROR_NONE;
    rwkv_type type = RWKV_TYPE_COUNT;
    const auto argument_flags = [](const Failure& failure) {
        const bool is_type = failure.status() == RWKV_STATUS_TENSOR_TYPE;
        return RWKV_ERROR_ARGS | (is_type ? RWKV_ERROR_DATA_TYPE : 0);
    };
    if (!attempt(nullptr, __func__, argument_flags, [&] {
            require(model_file_path_in != nullptr, "model_file_path_in: expected a path, got NULL");
            require(model_file_path_out != nullptr,
                    "model_file_path_out: expected a path, got NULL");
            require(format_name != nullptr, "format_name: expected a name, got NULL");
            type = quantised_type(format_name);
        })) {
        return false;
    }
    const auto file_flags = [&](const Failure& failure) {
        const auto* const unwritable = dynamic_cast<const Unwritable*>(&failure);
        if (unwritable != nullptr) return unwritable->flags;
        return rwkv_cpp::flags_of_file(model_file_path_in, failure, Reading::to_quantise);
    };
    return attempt(nullptr, __func__, file_flags,
                   [&] { quantize(model_file_path_in, model_file_path_out, type); });
}

const char* rwkv_get_system_info_string(void) {
    static const std::string text = [] {
        const uint32_t features = rwkv::cpu_features();
        const auto has = [&](uint32_t f) { return (features & f) != 0 ? 1 : 0; };
#if defined(__x86_64__)
        constexpr int kSse3 = 1;  // of every processor with AVX2; others are not asked
#else
        constexpr int kSse3 = 0;
#endif
#if defined(__aarch64__)
        constexpr int kNeon = 1;
#else
        constexpr int kNeon = 0;
#endif
        return format(
            "AVX=%d AVX2=%d AVX512=%d FMA=%d NEON=%d ARM_FMA=%d F16C=%d FP16_VA=0 WASM_SIMD=0 "
            "SSE3=%d VSX=0",
            has(rwkv::kAvx2), has(rwkv::kAvx2), has(rwkv::kAvx512), has(rwkv::kFma), kNeon, kNeon,
            has(rwkv::kF16c), kSse3);
    }();
    return text.c_str();
}

}  // extern "C"
