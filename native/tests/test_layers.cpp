// Layers by themselves: rows that enter from elsewhere, and what each matrix multiplies.
#include <cmath>
#include <random>
#include <string>
#include <vector>

#include "check.h"
#include "open_model.h"
#include "rwkv/rwkv.h"
#include "tiny_model.h"

namespace {

using namespace opened;

Model open_layers(const tiny::File& file, size_t first, size_t n) {
    rwkv_model_options options = model_options();
    options.n_threads = 2;
    options.first_layer = first;
    options.n_layers = n;
    rwkv_model* model = nullptr;
    EXPECT_OK(rwkv_model_open(file.path(), &options, &model));
    CHECK(info_of(model).n_layer == n);
    return Model(model);
}

rwkv_matrix_info matrix_of(const Model& model, size_t i) {
    rwkv_matrix_info info = {};
    EXPECT_OK(rwkv_model_matrix_get(model.get(), i, &info, sizeof info));
    return info;
}

Floats random_floats(size_t n) {
    std::mt19937 random(3);
    std::normal_distribution<float> normal;
    Floats x(n);
    for (float& one : x) one = normal(random);
    return x;
}

// The residual stream of some rows.
struct Rows {
    size_t n;
    Floats x;
    Floats v_first;
    explicit Rows(size_t n_rows, size_t n_embd)
        : n(n_rows), x(random_floats(n * n_embd)), v_first(n * n_embd) {}
};

using Inputs = std::vector<Floats>;

Inputs run(const Model& model, const Session& session, Rows& rows) {
    Inputs inputs;
    std::vector<float*> places;
    for (size_t i = 0; i < rwkv_model_n_matrices(model.get()); ++i) {
        inputs.emplace_back(rows.n * matrix_of(model, i).n_in);
    }
    for (Floats& room : inputs) places.push_back(room.data());
    EXPECT_OK(rwkv_session_run_layers(session.get(), rows.x.data(), rows.v_first.data(), rows.n,
                                      places.data()));
    return inputs;
}

const Floats& input_of(const Model& model, const Inputs& inputs, const std::string& name) {
    for (size_t i = 0; i < inputs.size(); ++i) {
        if (name == matrix_of(model, i).name) return inputs[i];
    }
    std::fprintf(stderr, "no matrix %s\n", name.c_str());
    std::exit(1);
}

// Two layers at once are one after the other, and pieces of a text are the text.
void test_handing_on(const std::string& version, rwkv_type type) {
    const tiny::File file(tiny::random_model(version, type));
    const Model both = open_layers(file, 0, 2);
    const size_t n_embd = info_of(both.get()).n_embd;
    for (const size_t n : {1, 5, 300}) {
        Rows at_once(n, n_embd);
        Rows one_by_one(n, n_embd);
        Rows untapped(n, n_embd);
        const Session whole = session_of(both);
        const Inputs inputs = run(both, whole, at_once);
        Floats state = state_of(both, whole);
        Floats states;
        for (const size_t layer : {0, 1}) {
            const Model part = open_layers(file, layer, 1);
            const Session session = session_of(part);
            const Inputs of_part = run(part, session, one_by_one);
            const Floats of_layer = state_of(part, session);
            states.insert(states.end(), of_layer.begin(), of_layer.end());
            for (size_t i = 0; i < of_part.size(); ++i) {
                const char* name = matrix_of(part, i).name;
                CHECK(same_bits(of_part[i], input_of(both, inputs, name)));
            }
        }
        CHECK(same_bits(at_once.x, one_by_one.x));
        CHECK(same_bits(at_once.v_first, one_by_one.v_first));
        CHECK(same_bits(state, states));
        const Session again = session_of(both);
        EXPECT_OK(rwkv_session_run_layers(again.get(), untapped.x.data(), untapped.v_first.data(),
                                          n, nullptr));
        CHECK(same_bits(at_once.x, untapped.x));
    }
}

// The rows of tokens, entered by hand, leave as the hidden state that feeding the tokens leaves.
void test_against_feeding(const std::string& version) {
    const tiny::Model made = tiny::random_model(version, RWKV_TYPE_FP32);
    const tiny::File file(made);
    tiny::Model looked_at = made;
    const Model whole = open(file);
    const Model layers = open_layers(file, 0, 2);
    const size_t C = info_of(whole.get()).n_embd;
    const Tokens tokens = random_tokens(40, vocab_of(whole));
    const auto numbers = [&](const char* name) {
        return reinterpret_cast<const float*>(looked_at.at(name).data.data());
    };
    const auto normed = [&](const float* x, const std::string& norm, float* out) {
        const float* weight = numbers((norm + ".weight").c_str());
        const float* bias = numbers((norm + ".bias").c_str());
        double mean = 0.0;
        double square = 0.0;
        for (size_t i = 0; i < C; ++i) mean += x[i] / static_cast<double>(C);
        for (size_t i = 0; i < C; ++i) square += (x[i] - mean) * (x[i] - mean);
        const double scale = 1.0 / std::sqrt(square / static_cast<double>(C) + 1e-5);
        for (size_t i = 0; i < C; ++i) {
            out[i] = static_cast<float>((x[i] - mean) * scale) * weight[i] + bias[i];
        }
    };
    Rows rows(tokens.size(), C);
    for (size_t t = 0; t < tokens.size(); ++t) {
        const float* x = numbers("emb.weight") + static_cast<size_t>(tokens[t]) * C;
        normed(x, "blocks.0.ln0", rows.x.data() + t * C);
    }
    run(layers, session_of(layers), rows);
    const Session session = session_of(whole);
    EXPECT_OK(rwkv_session_feed(session.get(), tokens.data(), tokens.size(), nullptr));
    Floats hidden(C);
    Floats expected(C);
    EXPECT_OK(rwkv_session_hidden(session.get(), expected.data()));
    normed(rows.x.data() + (tokens.size() - 1) * C, "ln_out", hidden.data());
    for (size_t i = 0; i < C; ++i) CHECK(std::fabs(hidden[i] - expected[i]) < 2e-4f);
}

// What is told of a quantised matrix is told before it is quantised.
void test_inputs_of_quantised(const std::string& version) {
    const tiny::File fp32(tiny::random_model(version, RWKV_TYPE_FP32));
    const tiny::File q4_0(tiny::random_model(version, RWKV_TYPE_Q4_0));
    Inputs inputs[2];
    const Model models[2] = {open_layers(fp32, 0, 1), open_layers(q4_0, 0, 1)};
    for (const size_t i : {0, 1}) {
        Rows rows(70, info_of(models[i].get()).n_embd);
        inputs[i] = run(models[i], session_of(models[i]), rows);
    }
    const auto same = [&](const char* name) {
        return same_bits(input_of(models[0], inputs[0], name),
                         input_of(models[1], inputs[1], name));
    };
    if (version == "6") {  // whose other mixes are computed by matrices
        CHECK(same("blocks.0.att.time_maa_w1"));
    } else {
        CHECK(same("blocks.0.att.receptance.weight"));
        CHECK(same("blocks.0.att.key.weight"));
        CHECK(same("blocks.0.att.value.weight"));
    }
    size_t n_zeros = 0;
    const Floats& of_value = input_of(models[1], inputs[1], "blocks.0.ffn.value.weight");
    for (const float x : of_value) {
        CHECK(x >= 0.0f);  // relu^2
        n_zeros += x == 0.0f;
    }
    CHECK(n_zeros > of_value.size() / 4 && n_zeros < of_value.size() * 3 / 4);
    for (const float x : input_of(models[1], inputs[1], "blocks.0.att.output.weight")) {
        CHECK(std::isfinite(x));
    }
}

void test_refusals() {
    const tiny::File file(tiny::random_model("7", RWKV_TYPE_FP32));
    rwkv_model_options options = model_options();
    rwkv_model* none = nullptr;
    const size_t wrong[][2] = {{2, 1}, {0, 3}, {1, 2}, {1, 0}, {SIZE_MAX, 2}, {1, SIZE_MAX}};
    for (const auto& [first, n] : wrong) {
        options.first_layer = first;
        options.n_layers = n;
        EXPECT_STATUS(rwkv_model_open(file.path(), &options, &none), RWKV_STATUS_MODEL_OPTION,
                      "some of its 2 layers");
    }
    CHECK(none == nullptr);
    const Model part = open_layers(file, 1, 1);
    const Session session = session_of(part);
    const int32_t token = 1;
    Floats logits(vocab_of(part), 7.0f);
    EXPECT_STATUS(rwkv_session_feed(session.get(), &token, 1, logits.data()),
                  RWKV_STATUS_INVALID_ARGUMENT, "whole model");
    EXPECT_STATUS(rwkv_session_logits(session.get(), logits.data()), RWKV_STATUS_INVALID_ARGUMENT,
                  "has read a token");
    Rows rows(2, info_of(part.get()).n_embd);
    float* const x = rows.x.data();
    EXPECT_STATUS(rwkv_session_run_layers(nullptr, x, x, 2, nullptr), RWKV_STATUS_INVALID_ARGUMENT,
                  "session");
    EXPECT_STATUS(rwkv_session_run_layers(session.get(), nullptr, x, 2, nullptr),
                  RWKV_STATUS_INVALID_ARGUMENT, "rows");
    EXPECT_STATUS(rwkv_session_run_layers(session.get(), x, nullptr, 2, nullptr),
                  RWKV_STATUS_INVALID_ARGUMENT, "v_first");
    EXPECT_STATUS(rwkv_session_run_layers(session.get(), x, x, 0, nullptr),
                  RWKV_STATUS_INVALID_ARGUMENT, "n_rows");
    rwkv_matrix_info info = {};
    EXPECT_STATUS(
        rwkv_model_matrix_get(part.get(), rwkv_model_n_matrices(part.get()), &info, sizeof info),
        RWKV_STATUS_INVALID_ARGUMENT, "matrices");
    CHECK(rwkv_model_n_matrices(nullptr) == 0);
    // A state of the whole model is not one of some layers.
    const Model whole = open(file);
    const Session other = session_of(whole);
    EXPECT_OK(rwkv_session_feed(other.get(), &token, 1, nullptr));
    size_t n_bytes = 0;
    std::vector<unsigned char> bytes(1 << 20);
    EXPECT_OK(
        rwkv_state_save_memory(other.get(), RWKV_STATE_FP32, bytes.data(), bytes.size(), &n_bytes));
    EXPECT_STATUS(rwkv_state_load_memory(session.get(), bytes.data(), n_bytes),
                  RWKV_STATUS_STATE_MISMATCH, "");
}

}  // namespace

int main() {
    for (const char* version : tiny::kVersions) {
        for (const rwkv_type type : {RWKV_TYPE_FP32, RWKV_TYPE_Q4_0})
            test_handing_on(version, type);
        test_against_feeding(version);
        test_inputs_of_quantised(version);
    }
    test_refusals();
    return 0;
}
