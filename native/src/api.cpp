// The C API of models, sessions, states and batches: check arguments, call, turn failures into a
// status; no logic.
#include <algorithm>
#include <memory>
#include <utility>
#include <vector>

#include "api_guard.h"
#include "api_objects.h"
#include "block_types.h"
#include "kernels/registry.h"
#include "log.h"
#include "model_loader.h"
#include "session.h"
#include "state_file.h"
#include "status.h"

using rwkv::guard;
using rwkv::require;
using rwkv::require_given;

struct rwkv_batch {
    rwkv::StepBatch batch;
};

namespace {

constexpr rwkv_model_options kModelDefaults = {
    sizeof(rwkv_model_options), 0, 0.0f, nullptr, nullptr, 0, 0, 0};

void open(std::unique_ptr<rwkv::InputFile> input, const rwkv_model_options* options,
          rwkv_model** model_out) {
    require_given(model_out, "model_out", "where to put the model");
    const auto o = rwkv::options_of(options, kModelDefaults, "rwkv_model_options_init");
    require(o.like_rwkv_cpp == 0 || o.like_rwkv_cpp == 1,
            "options: like_rwkv_cpp, expected 0 or 1, got another number");
    rwkv::ModelOptions wanted;
    wanted.n_threads = o.n_threads;
    wanted.ln_x_eps = o.ln_x_eps;
    wanted.progress = {o.progress, o.progress_data};
    wanted.like_rwkv_cpp = o.like_rwkv_cpp == 1;
    wanted.first_layer = o.first_layer;
    wanted.n_layers = o.n_layers;
    auto model = std::make_unique<rwkv_model>();
    model->shared = rwkv::load_model(std::move(input), wanted);
    *model_out = model.release();
}

void require_tokens(const int32_t* tokens, size_t n_tokens) {
    require_given(tokens, "tokens", "an array");
    require(n_tokens > 0, "tokens: expected at least one, got none");
}

}  // namespace

extern "C" {

const char* rwkv_version_string(void) { return RWKV_VERSION_STRING; }

int32_t rwkv_version_abi(void) { return RWKV_ABI_VERSION; }

const char* rwkv_status_sentence(rwkv_status status) { return rwkv::sentence(status); }

const char* rwkv_error_message(void) { return rwkv::last_message(); }

void rwkv_log_set(rwkv_log_callback callback, void* data) { rwkv::set_log(callback, data); }

// ---- model

void rwkv_model_options_init(rwkv_model_options* options, size_t struct_size) {
    rwkv::fill_struct(options, struct_size, kModelDefaults);
}

rwkv_status rwkv_model_open(const char* path, const rwkv_model_options* options,
                            rwkv_model** model_out) {
    return guard([&] {
        require_given(path, "path", "the path of a model file");
        open(std::make_unique<rwkv::InputFile>(path), options, model_out);
    });
}

rwkv_status rwkv_model_open_memory(const void* bytes, size_t n_bytes,
                                   const rwkv_model_options* options, rwkv_model** model_out) {
    return guard([&] {
        require_given(bytes, "bytes", "those of a model file");
        open(std::make_unique<rwkv::InputFile>(bytes, n_bytes), options, model_out);
    });
}

void rwkv_model_free(rwkv_model* model) { delete model; }

rwkv_status rwkv_model_info_get(const rwkv_model* model, rwkv_model_info* info_out,
                                size_t struct_size) {
    return guard([&] {
        require_given(model, "model", "a model");
        require_given(info_out, "info_out", "where to put the information");
        require(struct_size >= sizeof(size_t) && struct_size <= rwkv::kMostStructBytes,
                "struct_size: expected sizeof(rwkv_model_info), got another number");
        const rwkv::Model& m = *model->shared;
        const rwkv::Config& c = m.config;
        rwkv_model_info info = {};
        info.version = rwkv::version_name(c.version);
        info.n_vocab = c.n_vocab;
        info.n_embd = c.n_embd;
        info.n_layer = c.n_layer;
        info.n_head = c.n_head;
        info.head_size = c.head_size;
        info.n_ffn = c.n_ffn;
        info.state_size = c.state_size();
        info.data_type = rwkv::type_name(m.data_type);
        info.n_parameters = m.n_parameters;
        info.file_bytes = m.file_bytes;
        info.weight_bytes = m.weight_bytes();
        info.n_threads = m.n_threads;
        info.kernels = m.kernels.name;
        info.ln_x_eps = c.ln_x_eps;
        info.fingerprint = m.fingerprint;
        info.has_time_state = m.time_state.empty() ? 0 : 1;
        info.has_tokenizer = m.notes.tokens.empty() ? 0 : 1;
        info.end_of_text = m.notes.end_of_text;
        info.end_of_turn = m.notes.end_of_turn;
        info.container = m.container;
        info.name = m.notes.name.c_str();
        info.chat_template = m.notes.chat_template.c_str();
        rwkv::fill_struct(info_out, struct_size, info);
    });
}

size_t rwkv_model_n_vocab(const rwkv_model* model) {
    return model == nullptr ? 0 : model->shared->config.n_vocab;
}

size_t rwkv_model_state_size(const rwkv_model* model) {
    return model == nullptr ? 0 : model->shared->config.state_size();
}

const char* const* rwkv_kernels_all(void) { return rwkv::kernel_names(); }

int32_t rwkv_kernels_supported(const char* name) {
    return name != nullptr && rwkv::kernels_supported(name) ? 1 : 0;
}

// ---- session

rwkv_status rwkv_session_create(rwkv_model* model, rwkv_session** session_out) {
    return guard([&] {
        require_given(model, "model", "a model");
        require_given(session_out, "session_out", "where to put the session");
        *session_out = new rwkv_session{rwkv::Session(model->shared)};
    });
}

size_t rwkv_session_piece_size(void) { return rwkv::kPieceRows; }

void rwkv_session_free(rwkv_session* session) { delete session; }

rwkv_status rwkv_session_feed(rwkv_session* session, const int32_t* tokens, size_t n_tokens,
                              float* logits_out) {
    return guard([&] {
        require_given(session, "session", "a session");
        require_tokens(tokens, n_tokens);
        const rwkv_logits wanted = logits_out == nullptr ? RWKV_LOGITS_NONE : RWKV_LOGITS_LAST;
        session->impl.feed(tokens, n_tokens, wanted, logits_out);
    });
}

rwkv_status rwkv_session_feed_all(rwkv_session* session, const int32_t* tokens, size_t n_tokens,
                                  float* logits_out) {
    return guard([&] {
        require_given(session, "session", "a session");
        require_tokens(tokens, n_tokens);
        require_given(logits_out, "logits_out", "room for the logits after each token");
        session->impl.feed(tokens, n_tokens, RWKV_LOGITS_ALL, logits_out);
    });
}

void rwkv_session_cancel(rwkv_session* session) {
    if (session != nullptr) session->impl.cancelled.store(true, std::memory_order_relaxed);
}

rwkv_status rwkv_session_logits(const rwkv_session* session, float* logits_out) {
    return guard([&] {
        require_given(session, "session", "a session");
        require_given(logits_out, "logits_out", "room for the logits");
        session->impl.logits(logits_out);
    });
}

rwkv_status rwkv_session_hidden(const rwkv_session* session, float* hidden_out) {
    return guard([&] {
        require_given(session, "session", "a session");
        require_given(hidden_out, "hidden_out", "room for the hidden state");
        std::copy_n(session->impl.hidden(), session->impl.model->config.n_embd, hidden_out);
    });
}

rwkv_status rwkv_session_allow_take_back(rwkv_session* session, size_t most) {
    return guard([&] {
        require_given(session, "session", "a session");
        require(most <= rwkv::RecentRows::kMost, "most: expected 0 to 31, got more");
        session->impl.allow_take_back(most);
    });
}

rwkv_status rwkv_session_keep(rwkv_session* session, size_t n_kept) {
    return guard([&] {
        require_given(session, "session", "a session");
        session->impl.keep(n_kept);
    });
}

void rwkv_session_reset(rwkv_session* session) {
    if (session != nullptr) session->impl.reset();
}

rwkv_status rwkv_session_set_time_state(rwkv_session* session, const float* time_state, size_t n) {
    return guard([&] {
        require_given(session, "session", "a session");
        const rwkv::Config& c = session->impl.model->config;
        const size_t expected = time_state == nullptr ? 0 : c.n_layer * c.n_embd * c.head_size;
        if (c.version != rwkv::Version::v4 && n != expected) {
            throw rwkv::Failure(
                RWKV_STATUS_STATE_MISMATCH,
                rwkv::format("time_state: expected %zu floats for this model, got %zu", expected,
                             n));
        }
        session->impl.set_time_state(time_state);
    });
}

rwkv_status rwkv_session_fork(const rwkv_session* session, rwkv_session** session_out) {
    return guard([&] {
        require_given(session, "session", "a session");
        require_given(session_out, "session_out", "where to put the session");
        *session_out = new rwkv_session(*session);
    });
}

// ---- state

}  // extern "C"

// Outside of it: functions of C have one name for the whole program, anonymous namespace or not.
namespace {

void require_state_type(rwkv_state_type type) {
    require(type == RWKV_STATE_FP32 || type == RWKV_STATE_FP16,
            "type: expected RWKV_STATE_FP32 or RWKV_STATE_FP16, got another number");
}

void load_state(rwkv_session* session, const rwkv::InputFile& file) {
    session->impl.set_state(rwkv::load_state(*session->impl.model, file));
}

void require_state_size(const rwkv_session* session, size_t n) {
    const size_t expected = session->impl.model->config.state_size();
    if (n != expected) {
        throw rwkv::Failure(
            RWKV_STATUS_STATE_MISMATCH,
            rwkv::format("state: expected %zu floats for this model, got %zu", expected, n));
    }
}

}  // namespace

extern "C" {

rwkv_status rwkv_state_read(const rwkv_session* session, float* state_out, size_t n) {
    return guard([&] {
        require_given(session, "session", "a session");
        require_given(state_out, "state_out", "where to put the state");
        require_state_size(session, n);
        session->impl.state.read(state_out);
    });
}

rwkv_status rwkv_state_write(rwkv_session* session, const float* state, size_t n) {
    return guard([&] {
        require_given(session, "session", "a session");
        require_given(state, "state", "the numbers of a state");
        require_state_size(session, n);
        session->impl.state.write(state, nullptr);
    });
}

rwkv_status rwkv_state_copy(rwkv_session* to, const rwkv_session* from) {
    return guard([&] {
        require_given(to, "to", "a session");
        require_given(from, "from", "a session");
        if (to->impl.model != from->impl.model) {
            throw rwkv::Failure(RWKV_STATUS_STATE_MISMATCH,
                                "from: expected a session of the same model, got one of another");
        }
        to->impl.set_state(from->impl.state);
    });
}

rwkv_status rwkv_state_save(const rwkv_session* session, const char* path, rwkv_state_type type) {
    return guard([&] {
        require_given(session, "session", "a session");
        require_given(path, "path", "the path of a file to write");
        require_state_type(type);
        rwkv::save_state(*session->impl.model, session->impl.state, path, type);
    });
}

rwkv_status rwkv_state_load(rwkv_session* session, const char* path) {
    return guard([&] {
        require_given(session, "session", "a session");
        require_given(path, "path", "the path of a state file");
        load_state(session, rwkv::InputFile(path));
    });
}

rwkv_status rwkv_state_save_memory(const rwkv_session* session, rwkv_state_type type,
                                   void* bytes_out, size_t capacity, size_t* n_bytes_out) {
    return guard([&] {
        require_given(session, "session", "a session");
        require_state_type(type);
        require(bytes_out != nullptr || capacity == 0, "bytes_out: expected a buffer, got NULL");
        require_given(n_bytes_out, "n_bytes_out", "where to put a number");
        const std::vector<uint8_t> bytes =
            rwkv::state_bytes(*session->impl.model, session->impl.state, type, "memory");
        *n_bytes_out = bytes.size();
        if (bytes.size() > capacity) {
            throw rwkv::Failure(
                RWKV_STATUS_BUFFER_TOO_SMALL,
                rwkv::format("capacity: expected at least %zu, got %zu", bytes.size(), capacity));
        }
        std::copy(bytes.begin(), bytes.end(), static_cast<uint8_t*>(bytes_out));
    });
}

rwkv_status rwkv_state_load_memory(rwkv_session* session, const void* bytes, size_t n_bytes) {
    return guard([&] {
        require_given(session, "session", "a session");
        require_given(bytes, "bytes", "those of a state file");
        load_state(session, rwkv::InputFile(bytes, n_bytes));
    });
}

// ---- batch

rwkv_status rwkv_batch_create(rwkv_model* model, rwkv_batch** batch_out) {
    return guard([&] {
        require_given(model, "model", "a model");
        require_given(batch_out, "batch_out", "where to put the batch");
        *batch_out = new rwkv_batch{rwkv::StepBatch(model->shared)};
    });
}

void rwkv_batch_free(rwkv_batch* batch) { delete batch; }

rwkv_status rwkv_batch_add(rwkv_batch* batch, rwkv_session* session, const int32_t* tokens,
                           size_t n_tokens, rwkv_logits wanted, float* out) {
    return guard([&] {
        require_given(batch, "batch", "a batch");
        require_given(session, "session", "a session");
        require_tokens(tokens, n_tokens);
        require(wanted >= RWKV_LOGITS_NONE && wanted <= RWKV_HIDDEN_ALL,
                "wanted: expected one of rwkv_logits, got another number");
        require(wanted == RWKV_LOGITS_NONE || out != nullptr,
                "out: expected room for what is wanted, got NULL");
        batch->batch.add(session->impl, tokens, n_tokens, wanted, out);
    });
}

rwkv_status rwkv_batch_run(rwkv_batch* batch) {
    return guard([&] {
        require_given(batch, "batch", "a batch");
        batch->batch.run();
    });
}

void rwkv_batch_cancel(rwkv_batch* batch) {
    if (batch != nullptr) batch->batch.cancelled.store(true, std::memory_order_relaxed);
}

void rwkv_batch_clear(rwkv_batch* batch) {
    if (batch != nullptr) batch->batch.clear();
}

// ---- layers by themselves

size_t rwkv_model_n_matrices(const rwkv_model* model) {
    return model == nullptr ? 0 : model->shared->named_matrices.size();
}

rwkv_status rwkv_model_matrix_get(const rwkv_model* model, size_t i, rwkv_matrix_info* info_out,
                                  size_t struct_size) {
    return guard([&] {
        require_given(model, "model", "a model");
        require_given(info_out, "info_out", "where to put the information");
        const std::vector<rwkv::NamedMatrix>& all = model->shared->named_matrices;
        if (i >= all.size()) {
            throw rwkv::Failure(
                RWKV_STATUS_INVALID_ARGUMENT,
                rwkv::format("i: expected below the model's %zu matrices, got %zu", all.size(), i));
        }
        const rwkv_matrix& m = *all[i].matrix;
        rwkv_matrix_info info = {};
        info.name = all[i].name.c_str();
        info.type = rwkv::type_name(m.type);
        info.n_out = m.n_out;
        info.n_in = m.n_in;
        rwkv::fill_struct(info_out, struct_size, info);
    });
}

rwkv_status rwkv_session_run_layers(rwkv_session* session, float* rows, float* v_first,
                                    size_t n_rows, float* const* inputs_out) {
    return guard([&] {
        require_given(session, "session", "a session");
        require_given(rows, "rows", "an array");
        require(n_rows > 0, "n_rows: expected at least one, got none");
        const rwkv::Model& model = *session->impl.model;
        if (model.config.version == rwkv::Version::v7) {
            require_given(v_first, "v_first", "an array as large as rows");
        }
        rwkv::LayerRows all{rows, v_first, {}};
        for (size_t i = 0; inputs_out != nullptr && i < model.named_matrices.size(); ++i) {
            if (inputs_out[i] == nullptr) continue;
            all.taps.push_back({model.named_matrices[i].matrix, inputs_out[i]});
        }
        session->impl.run_layers(n_rows, all);
    });
}

}  // extern "C"
