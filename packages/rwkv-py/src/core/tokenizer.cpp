#include <memory>
#include <optional>
#include <string>

#include "glue.h"
#include "model.h"

namespace rwkv_py {

namespace {

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
            // A few tokens take less time than waiting for the lock again.
            std::optional<nb::gil_scoped_release> released;
            if (tokens.size() > 64) released.emplace();
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

}  // namespace

void define_tokenizer(nb::module_& m) {
    nb::class_<Tokenizer>(m, "Tokenizer")
        .def_static("open", &Tokenizer::open, "path"_a)
        .def_static("create_bytes", &Tokenizer::create_bytes)
        .def_static("create_world", &Tokenizer::create_world)
        .def_static("create_for", &Tokenizer::create_for, "model"_a)
        .def_prop_ro("n_vocab", &Tokenizer::n_vocab)
        .def("has", &Tokenizer::has, "token"_a)
        .def("encode", &Tokenizer::encode, "text"_a, "tokens"_a)
        .def("decode", &Tokenizer::decode, "tokens"_a);
}

}  // namespace rwkv_py
