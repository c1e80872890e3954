#include "session.h"

namespace rwkv_py {

Session::Session(const Model& model)
    : n_vocab_(model.n_vocab()), n_embd_(model.info().n_embd), siblings_(model.sessions()) {
    rwkv_session* session = nullptr;
    check(rwkv_session_create(model.get(), &session));
    handle_.reset(session);
    siblings_->open.insert(this);
}

Session::Session(rwkv_session* session, const Session& sibling)
    : handle_(session),
      n_vocab_(sibling.n_vocab_),
      n_embd_(sibling.n_embd_),
      siblings_(sibling.siblings_) {
    siblings_->open.insert(this);
}

Session::Use::Use(const Session& session) : session_(session) {
    session.siblings_->check_open();
    if (session.in_use_.exchange(true)) {
        refuse("session: is in use by another thread, expected one thread at a time",
               "Try a session for each thread: fork() makes one");
    }
}

Session::Use::~Use() {
    session_.in_use_ = false;
    if (session_.siblings_->closed) session_.handle_.reset();
}

void Session::feed(const Tokens& tokens, const std::optional<Floats>& logits) {
    if (logits) check_size(logits->size(), n_vocab_, "logits");
    const Use use(*this);
    const nb::gil_scoped_release released;
    check(rwkv_session_feed(use.get(), tokens.data(), tokens.size(),
                            logits ? logits->data() : nullptr));
}

void Session::feed_all(const Tokens& tokens, const Floats& logits) {
    check_size(logits.size(), tokens.size() * n_vocab_, "logits");
    const Use use(*this);
    const nb::gil_scoped_release released;
    check(rwkv_session_feed_all(use.get(), tokens.data(), tokens.size(), logits.data()));
}

void Session::allow_take_back(size_t most) {
    check(rwkv_session_allow_take_back(Use(*this).get(), most));
}

void Session::keep(size_t n_kept) { check(rwkv_session_keep(Use(*this).get(), n_kept)); }

void Session::read_logits(const Floats& logits) const {
    check_size(logits.size(), n_vocab_, "logits");
    const Use use(*this);
    const nb::gil_scoped_release released;
    check(rwkv_session_logits(use.get(), logits.data()));
}

void Session::read_hidden(const Floats& hidden) const {
    check_size(hidden.size(), n_embd_, "hidden");
    check(rwkv_session_hidden(Use(*this).get(), hidden.data()));
}

void Session::set_time_state(const ConstFloats& time_state) {
    check(rwkv_session_set_time_state(Use(*this).get(), time_state.data(), time_state.size()));
}

void Session::reset() { rwkv_session_reset(Use(*this).get()); }

Session* Session::fork() const {
    rwkv_session* copy = nullptr;
    check(rwkv_session_fork(Use(*this).get(), &copy));
    return new Session(copy, *this);
}

void Session::close() {
    if (!in_use_) handle_.reset();
}

void Session::read_state(const Floats& state) const {
    check(rwkv_state_read(Use(*this).get(), state.data(), state.size()));
}

void Session::write_state(const ConstFloats& state) {
    check(rwkv_state_write(Use(*this).get(), state.data(), state.size()));
}

void Session::copy_state(const Session& from) {
    check(rwkv_state_copy(Use(*this).get(), Use(from).get()));
}

void Session::save_state(const nb::bytes& path, bool as_fp16) const {
    const Use use(*this);
    const nb::gil_scoped_release released;
    check(rwkv_state_save(use.get(), path.c_str(), as_fp16 ? RWKV_STATE_FP16 : RWKV_STATE_FP32));
}

void Session::load_state(const nb::bytes& path) {
    const Use use(*this);
    const nb::gil_scoped_release released;
    check(rwkv_state_load(use.get(), path.c_str()));
}

void define_session(nb::module_& m) {
    m.def("session_piece_size", &rwkv_session_piece_size);
    nb::class_<Session>(m, "Session")
        .def(nb::init<const Model&>(), "model"_a)
        .def("feed", &Session::feed, "tokens"_a, "logits"_a.none())
        .def("feed_all", &Session::feed_all, "tokens"_a, "logits"_a)
        .def("allow_take_back", &Session::allow_take_back, "most"_a)
        .def("keep", &Session::keep, "n_kept"_a)
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
}

}  // namespace rwkv_py
