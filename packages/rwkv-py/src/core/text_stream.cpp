#include <vector>

#include "glue.h"

namespace rwkv_py {

namespace {

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

}  // namespace

void define_text_stream(nb::module_& m) {
    nb::class_<TextStream>(m, "TextStream")
        .def(nb::init<const std::vector<nb::bytes>&>(), "stops"_a)
        .def("push", &TextStream::push, "piece"_a)
        .def("finish", &TextStream::finish)
        .def_prop_ro("stopped", &TextStream::stopped);
}

}  // namespace rwkv_py
