#include "model.h"

#include <cstring>
#include <exception>

#include "session.h"

namespace rwkv_py {

namespace {

struct Listener {
    const nb::callable* progress;
    std::exception_ptr raised;
};

int32_t tell_progress(void* data, uint64_t done, uint64_t total) {
    auto& listener = *static_cast<Listener*>(data);
    const nb::gil_scoped_acquire acquired;
    try {
        (*listener.progress)(done, total);
        return 0;
    } catch (...) {
        listener.raised = std::current_exception();
        return 1;
    }
}

// A file may hold any bytes.
nb::object text_of(const char* bytes) {
    return nb::steal(
        PyUnicode_DecodeUTF8(bytes, static_cast<Py_ssize_t>(std::strlen(bytes)), "replace"));
}

nb::object token_or_none(int32_t token) { return token < 0 ? nb::none() : nb::cast(token); }

nb::dict dict_of(const Model& model) {
    const rwkv_model_info info = model.info();
    nb::dict dict;
    dict["version"] = info.version;
    dict["n_vocab"] = info.n_vocab;
    dict["n_embd"] = info.n_embd;
    dict["n_layer"] = info.n_layer;
    dict["n_head"] = info.n_head;
    dict["head_size"] = info.head_size;
    dict["n_ffn"] = info.n_ffn;
    dict["state_size"] = info.state_size;
    dict["data_type"] = info.data_type;
    dict["n_parameters"] = info.n_parameters;
    dict["file_bytes"] = info.file_bytes;
    dict["weight_bytes"] = info.weight_bytes;
    dict["n_threads"] = info.n_threads;
    dict["kernels"] = info.kernels;
    dict["ln_x_eps"] = info.ln_x_eps;
    dict["fingerprint"] = info.fingerprint;
    dict["has_time_state"] = info.has_time_state != 0;
    dict["has_tokenizer"] = info.has_tokenizer != 0;
    dict["end_of_text"] = token_or_none(info.end_of_text);
    dict["end_of_turn"] = token_or_none(info.end_of_turn);
    dict["container"] = info.container;
    dict["name"] = text_of(info.name);
    dict["chat_template"] = text_of(info.chat_template);
    return dict;
}

}  // namespace

void Sessions::check_open() const {
    if (closed) refuse(path + ": the model was closed, expected an open one");
}

Model::Model(const nb::bytes& path, size_t n_threads, float ln_x_eps, bool like_rwkv_cpp,
             const std::optional<nb::callable>& progress)
    : sessions_(std::make_shared<Sessions>(Sessions{path.c_str()})) {
    rwkv_model_options options;
    rwkv_model_options_init(&options, sizeof options);
    options.n_threads = n_threads;
    options.ln_x_eps = ln_x_eps;
    options.like_rwkv_cpp = like_rwkv_cpp ? 1 : 0;
    Listener listener{progress ? &*progress : nullptr, nullptr};
    if (progress) {
        options.progress = tell_progress;
        options.progress_data = &listener;
    }
    rwkv_model* model = nullptr;
    rwkv_status status = RWKV_STATUS_OK;
    {
        const nb::gil_scoped_release released;
        status = rwkv_model_open(path.c_str(), &options, &model);
    }
    if (listener.raised) std::rethrow_exception(listener.raised);
    check(status);
    handle_.reset(model, rwkv_model_free);
}

rwkv_model_info Model::info() const {
    rwkv_model_info info;
    check(rwkv_model_info_get(get(), &info, sizeof info));
    return info;
}

void Model::close() {
    sessions_->closed = true;
    for (Session* session : sessions_->open) session->close();
    handle_.reset();
}

void define_model(nb::module_& m) {
    nb::class_<Model>(m, "Model")
        .def(nb::init<const nb::bytes&, size_t, float, bool, const std::optional<nb::callable>&>(),
             "path"_a, "n_threads"_a, "ln_x_eps"_a, "like_rwkv_cpp"_a, "progress"_a.none())
        .def("info", &dict_of)
        .def("close", &Model::close);
}

}  // namespace rwkv_py
