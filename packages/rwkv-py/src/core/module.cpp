// rwkv_py._core: rwkv.h for Python, and nothing more.
#include "glue.h"

NB_MODULE(_core, m) {
    // What a thread holds that Python does not wait for at its end, or that a forked child does not
    // have, is not a leak.
    nanobind::set_leak_warnings(false);

    m.attr("ABI_VERSION") = RWKV_ABI_VERSION;
    m.def("abi_version", &rwkv_version_abi);
    m.def("runtime_version", &rwkv_version_string);

    rwkv_py::define_errors(m);
    rwkv_py::define_log(m);
    rwkv_py::define_model(m);
    rwkv_py::define_session(m);
    rwkv_py::define_layers(m);
    rwkv_py::define_batch(m);
    rwkv_py::define_tokenizer(m);
    rwkv_py::define_text_stream(m);
    rwkv_py::define_sampler(m);
}
