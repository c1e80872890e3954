#include "glue.h"

namespace rwkv_py {

namespace {

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

}  // namespace

void define_sampler(nb::module_& m) {
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

}  // namespace rwkv_py
