#include <memory>
#include <optional>
#include <vector>

#include "glue.h"
#include "model.h"
#include "session.h"

namespace rwkv_py {

namespace {

// One step over many sequences. Row i: sessions[i] reads tokens[i]; out[i] is None, or gets what
// wanted[i], a rwkv_logits, says: (n_vocab,), (n_tokens, n_vocab), (n_embd,) or (n_tokens, n_embd).
using Out = nb::ndarray<float, nb::c_contig, nb::device::cpu>;
void step(const Model& model, const std::vector<Session*>& sessions,
          const std::vector<Tokens>& tokens, const std::vector<int>& wanted,
          const std::vector<std::optional<Out>>& out) {
    check_size(tokens.size(), sessions.size(), "tokens");
    check_size(wanted.size(), sessions.size(), "wanted");
    check_size(out.size(), sessions.size(), "out");
    rwkv_batch* created = nullptr;
    check(rwkv_batch_create(model.get(), &created));
    const Handle<rwkv_batch, rwkv_batch_free> batch(created);
    const size_t n_vocab = model.n_vocab();
    const size_t n_embd = model.info().n_embd;
    std::vector<std::unique_ptr<Session::Use>> uses;
    for (size_t i = 0; i < sessions.size(); ++i) {
        uses.push_back(std::make_unique<Session::Use>(*sessions[i]));
        const auto what = static_cast<rwkv_logits>(wanted[i]);
        const bool all = what == RWKV_LOGITS_ALL || what == RWKV_HIDDEN_ALL;
        const bool hidden = what == RWKV_HIDDEN_LAST || what == RWKV_HIDDEN_ALL;
        const size_t n_rows = what == RWKV_LOGITS_NONE ? 0 : all ? tokens[i].size() : 1;
        const std::optional<Out>& given = out[i];
        check_size(given ? given->size() : 0, n_rows * (hidden ? n_embd : n_vocab), "out");
        check(rwkv_batch_add(batch.get(), uses.back()->get(), tokens[i].data(), tokens[i].size(),
                             what, given ? given->data() : nullptr));
    }
    const nb::gil_scoped_release released;
    check(rwkv_batch_run(batch.get()));
}

}  // namespace

void define_batch(nb::module_& m) {
    m.def("step", &step, "model"_a, "sessions"_a, "tokens"_a, "wanted"_a, "out"_a);
}

}  // namespace rwkv_py
