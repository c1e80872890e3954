#include <memory>
#include <optional>
#include <vector>

#include "glue.h"
#include "model.h"
#include "session.h"

namespace rwkv_py {

namespace {

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

}  // namespace

void define_batch(nb::module_& m) {
    m.def("step", &step, "model"_a, "sessions"_a, "tokens"_a, "logits"_a);
}

}  // namespace rwkv_py
