// The C API of models, sessions, states and batches: check arguments, call, turn failures into a
// status; no logic.
#include <memory>

#include "api_guard.h"
#include "api_model.h"
#include "block_types.h"
#include "kernels/registry.h"
#include "model_loader.h"
#include "session.h"
#include "state_file.h"
#include "status.h"

using rwkv::guard;
using rwkv::require;
using rwkv::require_given;

struct rwkv_session {
    rwkv::Session session;
};

struct rwkv_batch {
    rwkv::StepBatch batch;
};

namespace {

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

// ---- model

rwkv_model_options rwkv_model_options_default(void) {
    return {sizeof(rwkv_model_options), 0, 0.0f};
}

rwkv_status rwkv_model_open(const char* path, const rwkv_model_options* options,
                            rwkv_model** model_out) {
    return guard([&] {
        require_given(path, "path", "the path of a model file");
        require_given(model_out, "model_out", "where to put the model");
        rwkv::ModelOptions chosen;
        if (options != nullptr) {
            require(options->struct_size == sizeof *options,
                    "options: struct_size, expected sizeof(rwkv_model_options), got another. Start "
                    "from rwkv_model_options_default()");
            chosen = {options->n_threads, options->ln_x_eps};
        }
        auto model = std::make_unique<rwkv_model>();
        model->shared = rwkv::load_model(path, chosen);
        *model_out = model.release();
    });
}

void rwkv_model_free(rwkv_model* model) { delete model; }

rwkv_model_info rwkv_model_info_of(const rwkv_model* model) {
    if (model == nullptr) {
        rwkv_model_info none = {};
        none.struct_size = sizeof none;
        none.version = none.data_type = none.kernels = "";
        none.container = none.name = none.chat_template = "";
        none.end_of_text = none.end_of_turn = -1;
        return none;
    }
    const rwkv::Model& m = *model->shared;
    const rwkv::Config& c = m.config;
    rwkv_model_info info = {};
    info.struct_size = sizeof info;
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
    return info;
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
        session->session.feed(tokens, n_tokens, logits_out);
    });
}

void rwkv_session_reset(rwkv_session* session) {
    if (session != nullptr) session->session.state.reset(*session->session.model);
}

rwkv_status rwkv_session_fork(const rwkv_session* session, rwkv_session** session_out) {
    return guard([&] {
        require_given(session, "session", "a session");
        require_given(session_out, "session_out", "where to put the session");
        *session_out = new rwkv_session(*session);
    });
}

// ---- state

namespace {

void require_state_size(const rwkv_session* session, size_t n) {
    const size_t expected = session->session.model->config.state_size();
    if (n != expected) {
        throw rwkv::Failure(
            RWKV_STATUS_STATE_MISMATCH,
            rwkv::format("state: expected %zu floats for this model, got %zu", expected, n));
    }
}

}  // namespace

rwkv_status rwkv_state_read(const rwkv_session* session, float* state_out, size_t n) {
    return guard([&] {
        require_given(session, "session", "a session");
        require_given(state_out, "state_out", "where to put the state");
        require_state_size(session, n);
        session->session.state.read(state_out);
    });
}

rwkv_status rwkv_state_write(rwkv_session* session, const float* state, size_t n) {
    return guard([&] {
        require_given(session, "session", "a session");
        require_given(state, "state", "the numbers of a state");
        require_state_size(session, n);
        session->session.state.write(state);
    });
}

rwkv_status rwkv_state_copy(rwkv_session* to, const rwkv_session* from) {
    return guard([&] {
        require_given(to, "to", "a session");
        require_given(from, "from", "a session");
        if (to->session.model != from->session.model) {
            throw rwkv::Failure(RWKV_STATUS_STATE_MISMATCH,
                                "from: expected a session of the same model, got one of another");
        }
        to->session.state = from->session.state;
    });
}

rwkv_status rwkv_state_save(const rwkv_session* session, const char* path, rwkv_state_type type) {
    return guard([&] {
        require_given(session, "session", "a session");
        require_given(path, "path", "the path of a file to write");
        require(type == RWKV_STATE_FP32 || type == RWKV_STATE_FP16,
                "type: expected RWKV_STATE_FP32 or RWKV_STATE_FP16, got another number");
        rwkv::save_state(*session->session.model, session->session.state, path, type);
    });
}

rwkv_status rwkv_state_load(rwkv_session* session, const char* path) {
    return guard([&] {
        require_given(session, "session", "a session");
        require_given(path, "path", "the path of a state file");
        session->session.state = rwkv::load_state(*session->session.model, path);
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
                           size_t n_tokens, rwkv_logits wanted, float* logits_out) {
    return guard([&] {
        require_given(batch, "batch", "a batch");
        require_given(session, "session", "a session");
        require_tokens(tokens, n_tokens);
        require(
            wanted == RWKV_LOGITS_NONE || wanted == RWKV_LOGITS_LAST || wanted == RWKV_LOGITS_ALL,
            "wanted: expected RWKV_LOGITS_NONE, RWKV_LOGITS_LAST or RWKV_LOGITS_ALL, got another "
            "number");
        require(wanted == RWKV_LOGITS_NONE || logits_out != nullptr,
                "logits_out: expected room for the logits that are wanted, got NULL");
        batch->batch.add(session->session, tokens, n_tokens, wanted, logits_out);
    });
}

rwkv_status rwkv_batch_run(rwkv_batch* batch) {
    return guard([&] {
        require_given(batch, "batch", "a batch");
        batch->batch.run();
    });
}

void rwkv_batch_clear(rwkv_batch* batch) {
    if (batch != nullptr) batch->batch.clear();
}

}  // extern "C"
