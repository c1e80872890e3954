// Continues several texts side by side, one step of the model for all: embed-cpp MODEL PROMPT...
#include <rwkv/rwkv.h>

#include <cstdio>
#include <memory>
#include <stdexcept>
#include <string>
#include <vector>

namespace {

// Handles that give themselves back.
template <auto free>
struct Free {
    template <typename T>
    void operator()(T* object) const {
        free(object);
    }
};
using Model = std::unique_ptr<rwkv_model, Free<rwkv_model_free>>;
using Tokenizer = std::unique_ptr<rwkv_tokenizer, Free<rwkv_tokenizer_free>>;
using Session = std::unique_ptr<rwkv_session, Free<rwkv_session_free>>;
using Sampler = std::unique_ptr<rwkv_sampler, Free<rwkv_sampler_free>>;
using Stream = std::unique_ptr<rwkv_text_stream, Free<rwkv_text_stream_free>>;
using Batch = std::unique_ptr<rwkv_batch, Free<rwkv_batch_free>>;

void check(rwkv_status status) {
    if (status != RWKV_STATUS_OK) throw std::runtime_error(rwkv_error_message());
}

// make<Session>(rwkv_session_create, model): what such a function makes, or an exception.
template <typename Handle, typename Create, typename... Arguments>
Handle make(Create create, Arguments... arguments) {
    typename Handle::pointer made = nullptr;
    check(create(arguments..., &made));
    return Handle(made);
}

// A text being written.
struct Text {
    Session session;
    Sampler sampler;
    Stream stream;
    std::vector<int32_t> tokens;  // what the session reads next: the prompt, then a token a step
    std::vector<float> logits;    // after the last of them
    std::string written;
    bool ended = false;

    Text(rwkv_model* model, const rwkv_tokenizer* tokenizer, const std::string& prompt,
         uint64_t seed)
        : session(make<Session>(rwkv_session_create, model)),
          stream(make<Stream>(rwkv_text_stream_create, tokenizer)),
          tokens(prompt.size() + 1),  // never more tokens than bytes; 0 begins a document
          logits(rwkv_model_n_vocab(model)),
          written(prompt) {
        rwkv_sampler_options options;
        rwkv_sampler_options_init(&options, sizeof options);
        options.temperature = 0.8;
        options.seed = seed;
        sampler = make<Sampler>(rwkv_sampler_create, logits.size(), &options);
        std::size_t n = 0;
        check(rwkv_tokenizer_encode(tokenizer, prompt.data(), prompt.size(), tokens.data() + 1,
                                    prompt.size(), &n));
        tokens.resize(n + 1);
    }

    // Draws the next token, and shows what has become certain.
    void draw(const rwkv_tokenizer* tokenizer) {
        int32_t token = 0;
        check(rwkv_sampler_sample(sampler.get(), logits.data(), &token));
        // 0 ends a document; a model may have more rows than its vocabulary has tokens.
        ended = token == 0 || rwkv_tokenizer_has(tokenizer, token) == 0;
        if (ended) return;
        check(rwkv_sampler_accept(sampler.get(), token));
        const char* text = nullptr;
        std::size_t n_bytes = 0;
        check(rwkv_text_stream_push(stream.get(), token, &text, &n_bytes));
        written.append(text, n_bytes);
        tokens.assign(1, token);
    }
};

void write_texts(const char* path, const std::vector<std::string>& prompts) {
    const Model model = make<Model>(rwkv_model_open, path, nullptr);
    const Tokenizer tokenizer = make<Tokenizer>(rwkv_tokenizer_create_for, model.get());
    const Batch batch = make<Batch>(rwkv_batch_create, model.get());
    std::vector<Text> texts;
    for (const std::string& prompt : prompts) {
        texts.emplace_back(model.get(), tokenizer.get(), prompt, texts.size() + 1);
    }
    for (int step = 0; step < 60; ++step) {
        for (Text& text : texts) {
            if (text.ended) continue;
            check(rwkv_batch_add(batch.get(), text.session.get(), text.tokens.data(),
                                 text.tokens.size(), RWKV_LOGITS_LAST, text.logits.data()));
        }
        check(rwkv_batch_run(batch.get()));  // the weights are read once for all of them
        for (Text& text : texts) {
            if (!text.ended) text.draw(tokenizer.get());
        }
    }
    for (const Text& text : texts) {
        std::printf("%s\n--------\n", text.written.c_str());
    }
}

}  // namespace

int main(int argc, char** argv) {
    if (argc < 3) {
        std::fprintf(stderr, "usage: embed-cpp MODEL PROMPT...\n");
        return 2;
    }
    try {
        write_texts(argv[1], {argv + 2, argv + argc});
    } catch (const std::exception& error) {
        std::fprintf(stderr, "embed-cpp: %s\n", error.what());
        return 1;
    }
    return 0;
}
