// The glue between rwkv.h and rwkv_py: it converts, releases the GIL while the library computes,
// and turns statuses into exceptions. Arrays are allocated, and defaults chosen, by the Python
// side.
#include <nanobind/nanobind.h>
#include <nanobind/ndarray.h>
#include <nanobind/stl/optional.h>
#include <nanobind/stl/string.h>
#include <nanobind/stl/vector.h>

#include <atomic>
#include <cstring>
#include <exception>
#include <memory>
#include <optional>
#include <string>
#include <unordered_set>
#include <utility>
#include <vector>

#include "rwkv/rwkv.h"

namespace nb = nanobind;
using namespace nb::literals;

namespace {

template <class T, int Dimensions>
using Array = nb::ndarray<T, nb::ndim<Dimensions>, nb::c_contig, nb::device::cpu>;
using Tokens = Array<const int32_t, 1>;
using Floats = Array<float, 1>;
using ConstFloats = Array<const float, 1>;

// ------------------------------------------------------------------------------------ errors ---

class StatusError : public std::exception {
  public:
    StatusError(rwkv_status status, std::string message)
        : status_(status), message_(std::move(message)) {}
    rwkv_status status() const noexcept { return status_; }
    const char* what() const noexcept override { return message_.c_str(); }

  private:
    rwkv_status status_;
    std::string message_;
};

void check(rwkv_status status) {
    if (status != RWKV_STATUS_OK) throw StatusError(status, rwkv_error_message());
}

void check_size(size_t got, size_t expected, const char* what) {
    if (got != expected) {
        throw StatusError(RWKV_STATUS_INVALID_ARGUMENT, std::string(what) + ": expected " +
                                                            std::to_string(expected) +
                                                            " numbers, got " + std::to_string(got));
    }
}

// Raises what rwkv_py.errors makes of a status and its message.
void raise_status_error(const std::exception_ptr& thrown, void*) {
    try {
        std::rethrow_exception(thrown);
    } catch (const StatusError& error) {
        // Messages quote paths, which may hold bytes that are not UTF-8.
        const nb::object message = nb::steal(PyUnicode_DecodeFSDefault(error.what()));
        const nb::object exception =
            nb::module_::import_("rwkv_py.errors")
                .attr("error_of")(static_cast<int>(error.status()), message);
        PyErr_SetObject(reinterpret_cast<PyObject*>(Py_TYPE(exception.ptr())), exception.ptr());
    }
}

// ---------------------------------------------------------------------------------- objects ---

template <auto free_object>
struct Free {
    template <class T>
    void operator()(T* object) const {
        free_object(object);
    }
};

template <class T, auto free_object>
using Handle = std::unique_ptr<T, Free<free_object>>;

class Session;

// The sessions of a model: each keeps the native model alive, so closing it takes them along. Only
// used with the GIL.
struct Sessions {
    std::string path;
    bool closed = false;
    std::unordered_set<Session*> open = {};

    void check_open() const {
        if (closed) {
            throw StatusError(RWKV_STATUS_INVALID_ARGUMENT,
                              path + ": the model was closed, expected an open one");
        }
    }
};

class Model {
  public:
    // `progress` is called with (bytes done, bytes in all); what it raises ends the opening.
    Model(const nb::bytes& path, size_t n_threads, float ln_x_eps,
          const std::optional<nb::callable>& progress)
        : sessions_(std::make_shared<Sessions>(Sessions{path.c_str()})) {
        rwkv_model_options options;
        rwkv_model_options_init(&options, sizeof options);
        options.n_threads = n_threads;
        options.ln_x_eps = ln_x_eps;
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

    rwkv_model* get() const { return shared().get(); }
    // For calls without the GIL, during which another thread may close it.
    std::shared_ptr<rwkv_model> shared() const {
        sessions_->check_open();
        return handle_;
    }
    size_t n_vocab() const { return rwkv_model_n_vocab(get()); }
    const std::shared_ptr<Sessions>& sessions() const { return sessions_; }

    // Gives back the memory of the weights; calls in other threads finish first.
    void close();

    nb::dict info() const {
        rwkv_model_info info;
        check(rwkv_model_info_get(get(), &info, sizeof info));
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
        dict["end_of_text"] = info.end_of_text < 0 ? nb::none() : nb::cast(info.end_of_text);
        dict["end_of_turn"] = info.end_of_turn < 0 ? nb::none() : nb::cast(info.end_of_turn);
        dict["container"] = info.container;
        // A file may hold any bytes.
        dict["name"] = nb::steal(PyUnicode_DecodeUTF8(
            info.name, static_cast<Py_ssize_t>(std::strlen(info.name)), "replace"));
        dict["chat_template"] = nb::steal(PyUnicode_DecodeUTF8(
            info.chat_template, static_cast<Py_ssize_t>(std::strlen(info.chat_template)),
            "replace"));
        return dict;
    }

  private:
    struct Listener {
        const nb::callable* progress;
        std::exception_ptr raised;
    };
    static int32_t tell_progress(void* data, uint64_t done, uint64_t total) {
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

    std::shared_ptr<rwkv_model> handle_;
    std::shared_ptr<Sessions> sessions_;
};

class Session {
  public:
    explicit Session(const Model& model)
        : n_vocab_(model.n_vocab()), n_embd_(n_embd_of(model.get())), siblings_(model.sessions()) {
        rwkv_session* session = nullptr;
        check(rwkv_session_create(model.get(), &session));
        handle_.reset(session);
        siblings_->open.insert(this);
    }
    Session(const Session&) = delete;
    Session& operator=(const Session&) = delete;
    ~Session() { siblings_->open.erase(this); }

    // The session, for the time of one call: a second thread that comes meanwhile is refused, where
    // the library would let the two run into each other.
    class Use {
      public:
        explicit Use(const Session& session) : session_(session) {
            session.siblings_->check_open();
            if (session.in_use_.exchange(true)) {
                throw StatusError(RWKV_STATUS_INVALID_ARGUMENT,
                                  "session: is in use by another thread, expected one thread at a "
                                  "time. Try a session for each thread: fork() makes one.");
            }
        }
        Use(const Use&) = delete;
        Use& operator=(const Use&) = delete;
        ~Use() {
            session_.in_use_ = false;
            if (session_.siblings_->closed) session_.handle_.reset();
        }
        rwkv_session* get() const { return session_.handle_.get(); }

      private:
        const Session& session_;
    };

    void feed(const Tokens& tokens, const std::optional<Floats>& logits) {
        if (logits) check_size(logits->size(), n_vocab_, "logits");
        const Use use(*this);
        const nb::gil_scoped_release released;
        check(rwkv_session_feed(use.get(), tokens.data(), tokens.size(),
                                logits ? logits->data() : nullptr));
    }

    // After the last token read.
    void read_logits(const Floats& logits) const {
        check_size(logits.size(), n_vocab_, "logits");
        const Use use(*this);
        const nb::gil_scoped_release released;
        check(rwkv_session_logits(use.get(), logits.data()));
    }

    void read_hidden(const Floats& hidden) const {
        check_size(hidden.size(), n_embd_, "hidden");
        check(rwkv_session_hidden(Use(*this).get(), hidden.data()));
    }

    void set_time_state(const ConstFloats& time_state) {
        check(rwkv_session_set_time_state(Use(*this).get(), time_state.data(), time_state.size()));
    }

    void reset() { rwkv_session_reset(Use(*this).get()); }

    Session* fork() const {
        rwkv_session* copy = nullptr;
        check(rwkv_session_fork(Use(*this).get(), &copy));
        return new Session(copy, n_vocab_, n_embd_, siblings_);
    }

    // Lets go of the model: now, or when the call that uses the session ends.
    void close() {
        if (!in_use_) handle_.reset();
    }

    void read_state(const Floats& state) const {
        check(rwkv_state_read(Use(*this).get(), state.data(), state.size()));
    }

    void write_state(const ConstFloats& state) {
        check(rwkv_state_write(Use(*this).get(), state.data(), state.size()));
    }

    void copy_state(const Session& from) {
        check(rwkv_state_copy(Use(*this).get(), Use(from).get()));
    }

    void save_state(const nb::bytes& path, bool as_fp16) const {
        const Use use(*this);
        const nb::gil_scoped_release released;
        check(
            rwkv_state_save(use.get(), path.c_str(), as_fp16 ? RWKV_STATE_FP16 : RWKV_STATE_FP32));
    }

    void load_state(const nb::bytes& path) {
        const Use use(*this);
        const nb::gil_scoped_release released;
        check(rwkv_state_load(use.get(), path.c_str()));
    }

  private:
    Session(rwkv_session* session, size_t n_vocab, size_t n_embd,
            std::shared_ptr<Sessions> siblings)
        : handle_(session), n_vocab_(n_vocab), n_embd_(n_embd), siblings_(std::move(siblings)) {
        siblings_->open.insert(this);
    }

    static size_t n_embd_of(const rwkv_model* model) {
        rwkv_model_info info;
        check(rwkv_model_info_get(model, &info, sizeof info));
        return info.n_embd;
    }

    mutable Handle<rwkv_session, rwkv_session_free> handle_;
    size_t n_vocab_;
    size_t n_embd_;
    std::shared_ptr<Sessions> siblings_;
    mutable std::atomic<bool> in_use_ = false;
};

void Model::close() {
    sessions_->closed = true;
    for (Session* session : sessions_->open) session->close();
    handle_.reset();
}

// One step over many sequences. Row i: sessions[i] reads tokens[i]; logits[i] is None, (n_vocab,)
// or (n_tokens, n_vocab).
using Logits = nb::ndarray<float, nb::c_contig, nb::device::cpu>;
void step(const Model& model, const std::vector<Session*>& sessions,
          const std::vector<Tokens>& tokens, const std::vector<std::optional<Logits>>& logits) {
    check_size(tokens.size(), sessions.size(), "tokens");
    check_size(logits.size(), sessions.size(), "logits");
    rwkv_batch* created = nullptr;
    check(rwkv_batch_create(model.get(), &created));
    const Handle<rwkv_batch, rwkv_batch_free> batch(created);
    std::vector<std::unique_ptr<Session::Use>> uses;
    for (size_t i = 0; i < sessions.size(); ++i) {
        uses.push_back(std::make_unique<Session::Use>(*sessions[i]));
        rwkv_logits wanted = RWKV_LOGITS_NONE;
        float* out = nullptr;
        if (const std::optional<Logits>& array = logits[i]) {
            const bool all = array->ndim() == 2;
            check_size(array->size(), model.n_vocab() * (all ? tokens[i].size() : 1), "logits");
            wanted = all ? RWKV_LOGITS_ALL : RWKV_LOGITS_LAST;
            out = array->data();
        }
        check(rwkv_batch_add(batch.get(), uses.back()->get(), tokens[i].data(), tokens[i].size(),
                             wanted, out));
    }
    const nb::gil_scoped_release released;
    check(rwkv_batch_run(batch.get()));
}

class Tokenizer {
  public:
    static Tokenizer* open(const nb::bytes& path) {
        rwkv_tokenizer* tokenizer = nullptr;
        const nb::gil_scoped_release released;
        check(rwkv_tokenizer_open(path.c_str(), &tokenizer));
        return new Tokenizer(tokenizer);
    }

    static Tokenizer* create_bytes() {
        rwkv_tokenizer* tokenizer = nullptr;
        check(rwkv_tokenizer_create_bytes(&tokenizer));
        return new Tokenizer(tokenizer);
    }

    static Tokenizer* create_world() {
        rwkv_tokenizer* tokenizer = nullptr;
        const nb::gil_scoped_release released;
        check(rwkv_tokenizer_create_world(&tokenizer));
        return new Tokenizer(tokenizer);
    }

    static Tokenizer* create_for(const Model& model) {
        rwkv_tokenizer* tokenizer = nullptr;
        const std::shared_ptr<rwkv_model> kept = model.shared();
        const nb::gil_scoped_release released;
        check(rwkv_tokenizer_create_for(kept.get(), &tokenizer));
        return new Tokenizer(tokenizer);
    }

    size_t n_vocab() const { return rwkv_tokenizer_n_vocab(handle_.get()); }

    bool has(int32_t token) const { return rwkv_tokenizer_has(handle_.get(), token) != 0; }

    // Writes to `tokens`, which has room for a token a byte, and returns how many there are.
    size_t encode(const nb::bytes& text, const Array<int32_t, 1>& tokens) const {
        size_t n_tokens = 0;
        const nb::gil_scoped_release released;
        check(rwkv_tokenizer_encode(handle_.get(), static_cast<const char*>(text.data()),
                                    text.size(), tokens.data(), tokens.size(), &n_tokens));
        return n_tokens;
    }

    nb::bytes decode(const Tokens& tokens) const {
        size_t n_bytes = 0;
        std::string text;
        {
            const nb::gil_scoped_release released;
            const rwkv_status status = rwkv_tokenizer_decode(handle_.get(), tokens.data(),
                                                             tokens.size(), nullptr, 0, &n_bytes);
            if (status == RWKV_STATUS_BUFFER_TOO_SMALL) {
                text.resize(n_bytes);
                check(rwkv_tokenizer_decode(handle_.get(), tokens.data(), tokens.size(),
                                            text.data(), n_bytes, &n_bytes));
            } else {
                check(status);
            }
        }
        return nb::bytes(text.data(), text.size());
    }

  private:
    explicit Tokenizer(rwkv_tokenizer* tokenizer) : handle_(tokenizer) {}
    Handle<rwkv_tokenizer, rwkv_tokenizer_free> handle_;
};

// Keeps the GIL: what it does is short.
class TextStream {
  public:
    explicit TextStream(const std::vector<nb::bytes>& stops) {
        rwkv_text_stream* stream = nullptr;
        check(rwkv_text_stream_create(nullptr, &stream));
        handle_.reset(stream);
        for (const nb::bytes& stop : stops) {
            check(
                rwkv_text_stream_stop(stream, static_cast<const char*>(stop.data()), stop.size()));
        }
    }

    nb::str push(const nb::bytes& piece) {
        const char* text = nullptr;
        size_t n_bytes = 0;
        check(rwkv_text_stream_push_bytes(handle_.get(), static_cast<const char*>(piece.data()),
                                          piece.size(), &text, &n_bytes));
        return nb::str(text, n_bytes);
    }

    nb::str finish() {
        const char* text = nullptr;
        size_t n_bytes = 0;
        check(rwkv_text_stream_finish(handle_.get(), &text, &n_bytes));
        return nb::str(text, n_bytes);
    }

    bool stopped() const { return rwkv_text_stream_stopped(handle_.get()) != 0; }

  private:
    Handle<rwkv_text_stream, rwkv_text_stream_free> handle_;
};

class Sampler {
  public:
    Sampler(size_t n_vocab, const rwkv_sampler_options& options) : n_vocab_(n_vocab) {
        rwkv_sampler* sampler = nullptr;
        check(rwkv_sampler_create(n_vocab, &options, &sampler));
        handle_.reset(sampler);
    }

    // Keeps the GIL: it is short, and two threads with one sampler would run into each other.
    int32_t sample(const ConstFloats& logits) {
        check_size(logits.size(), n_vocab_, "logits");
        int32_t token = 0;
        check(rwkv_sampler_sample(handle_.get(), logits.data(), &token));
        return token;
    }

    // Bit t % 32 of mask[t / 32] says whether token t may be drawn.
    int32_t sample_masked(const ConstFloats& logits, const Array<const uint32_t, 1>& mask) {
        check_size(logits.size(), n_vocab_, "logits");
        check_size(mask.size(), (n_vocab_ + 31) / 32, "mask");
        int32_t token = 0;
        check(rwkv_sampler_sample_masked(handle_.get(), logits.data(), mask.data(), &token));
        return token;
    }

    void accept(int32_t token) { check(rwkv_sampler_accept(handle_.get(), token)); }
    void reset(uint64_t seed) { rwkv_sampler_reset(handle_.get(), seed); }
    void bias(int32_t token, float bias) { check(rwkv_sampler_bias(handle_.get(), token, bias)); }
    void weigh(int32_t token, double weight) {
        check(rwkv_sampler_weigh(handle_.get(), token, weight));
    }

  private:
    Handle<rwkv_sampler, rwkv_sampler_free> handle_;
    size_t n_vocab_;
};

// What the library has to say goes to Python's logging, where users hear it unless they arrange
// otherwise.
void tell_log(void*, const char* message) {
    const nb::gil_scoped_acquire acquired;
    try {
        const nb::object text = nb::steal(PyUnicode_DecodeFSDefault(message));
        nb::module_::import_("logging").attr("getLogger")("rwkv_py").attr("warning")("%s", text);
    } catch (nb::python_error& error) {
        error.discard_as_unraisable("rwkv_py: a message of the library");
    }
}

}  // namespace

NB_MODULE(_core, m) {
    nb::register_exception_translator(raise_status_error);
    // What a thread holds that Python does not wait for at its end, or that a forked child does not
    // have, is not a leak.
    nb::set_leak_warnings(false);

    rwkv_log_set(tell_log, nullptr);

    m.attr("ABI_VERSION") = RWKV_ABI_VERSION;
    m.def("abi_version", &rwkv_version_abi);
    m.def("runtime_version", &rwkv_version_string);
    m.def("session_piece_size", &rwkv_session_piece_size);
    m.def("step", &step, "model"_a, "sessions"_a, "tokens"_a, "logits"_a);

    nb::class_<Model>(m, "Model")
        .def(nb::init<const nb::bytes&, size_t, float, const std::optional<nb::callable>&>(),
             "path"_a, "n_threads"_a, "ln_x_eps"_a, "progress"_a.none())
        .def("info", &Model::info)
        .def("close", &Model::close);

    nb::class_<Session>(m, "Session")
        .def(nb::init<const Model&>(), "model"_a)
        .def("feed", &Session::feed, "tokens"_a, "logits"_a.none())
        .def("read_logits", &Session::read_logits, "logits"_a)
        .def("read_hidden", &Session::read_hidden, "hidden"_a)
        .def("set_time_state", &Session::set_time_state, "time_state"_a)
        .def("reset", &Session::reset)
        .def("fork", &Session::fork)
        .def("read_state", &Session::read_state, "state"_a)
        .def("write_state", &Session::write_state, "state"_a)
        .def("copy_state", &Session::copy_state, "source"_a)
        .def("save_state", &Session::save_state, "path"_a, "as_fp16"_a)
        .def("load_state", &Session::load_state, "path"_a);

    nb::class_<Tokenizer>(m, "Tokenizer")
        .def_static("open", &Tokenizer::open, "path"_a)
        .def_static("create_bytes", &Tokenizer::create_bytes)
        .def_static("create_world", &Tokenizer::create_world)
        .def_static("create_for", &Tokenizer::create_for, "model"_a)
        .def_prop_ro("n_vocab", &Tokenizer::n_vocab)
        .def("has", &Tokenizer::has, "token"_a)
        .def("encode", &Tokenizer::encode, "text"_a, "tokens"_a)
        .def("decode", &Tokenizer::decode, "tokens"_a);

    nb::class_<TextStream>(m, "TextStream")
        .def(nb::init<const std::vector<nb::bytes>&>(), "stops"_a)
        .def("push", &TextStream::push, "piece"_a)
        .def("finish", &TextStream::finish)
        .def_prop_ro("stopped", &TextStream::stopped);

    nb::class_<rwkv_sampler_options>(m, "SamplerOptions")
        .def("__init__",
             [](rwkv_sampler_options* self) { rwkv_sampler_options_init(self, sizeof *self); })
        .def_rw("temperature", &rwkv_sampler_options::temperature)
        .def_rw("top_p", &rwkv_sampler_options::top_p)
        .def_rw("top_k", &rwkv_sampler_options::top_k)
        .def_rw("min_p", &rwkv_sampler_options::min_p)
        .def_rw("typical_p", &rwkv_sampler_options::typical_p)
        .def_rw("mirostat_tau", &rwkv_sampler_options::mirostat_tau)
        .def_rw("mirostat_eta", &rwkv_sampler_options::mirostat_eta)
        .def_rw("repetition_penalty", &rwkv_sampler_options::repetition_penalty)
        .def_rw("presence_penalty", &rwkv_sampler_options::presence_penalty)
        .def_rw("frequency_penalty", &rwkv_sampler_options::frequency_penalty)
        .def_rw("penalty_decay", &rwkv_sampler_options::penalty_decay)
        .def_rw("seed", &rwkv_sampler_options::seed);

    nb::class_<Sampler>(m, "Sampler")
        .def(nb::init<size_t, const rwkv_sampler_options&>(), "n_vocab"_a, "options"_a)
        .def("sample", &Sampler::sample, "logits"_a)
        .def("sample_masked", &Sampler::sample_masked, "logits"_a, "mask"_a)
        .def("accept", &Sampler::accept, "token"_a)
        .def("reset", &Sampler::reset, "seed"_a)
        .def("bias", &Sampler::bias, "token"_a, "bias"_a)
        .def("weigh", &Sampler::weigh, "token"_a, "weight"_a);
}
