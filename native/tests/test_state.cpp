// States are values: what a fresh one holds, and that it can be read, written, copied and forked,
// but not carried to another model.
#include <cstring>
#include <limits>
#include <numeric>
#include <string>

#include "check.h"
#include "open_model.h"
#include "rwkv/rwkv.h"
#include "tiny_model.h"

namespace {

using namespace opened;

void test_fresh_state() {
    for (const char* version : tiny::kVersions) {
        const tiny::File file(tiny::random_model(version, RWKV_TYPE_FP32));
        const Model model = open(file);
        const rwkv_model_info info = info_of(model.get());
        const bool is_v4 = std::string(version) == "4";
        const size_t C = info.n_embd;
        CHECK(info.version == std::string(version));
        CHECK(C == 64 && info.n_layer == 2 && info.n_vocab == 40 && info.n_ffn == 96);
        CHECK(info.n_head == (is_v4 ? 0 : 2) && info.head_size == (is_v4 ? 0 : 32));
        CHECK(info.ln_x_eps == (is_v4 ? 0.0f : 64e-5f));
        CHECK(info.state_size == 2 * (is_v4 ? 5 * C : 2 * C + 2 * 32 * 32));
        CHECK(info.data_type == std::string("fp32") && info.struct_size == sizeof info);

        const Session session = session_of(model);
        const Floats fresh = state_of(model, session);
        for (size_t i = 0; i < fresh.size(); ++i) {
            const bool is_pp = is_v4 && i % (5 * C) >= 4 * C;
            CHECK(fresh[i] == (is_pp ? -1e30f : 0.0f));
        }
        const int32_t token = 5;
        EXPECT_OK(rwkv_session_feed(session.get(), &token, 1, nullptr));
        CHECK(!same_bits(state_of(model, session), fresh));
        rwkv_session_reset(session.get());
        CHECK(same_bits(state_of(model, session), fresh));
    }
}

// A file may say what the heads' matrices begin with: row = value, column = key in the file.
void test_time_state() {
    for (const std::string version : {"5.1", "5.2", "6", "7"}) {
        tiny::Sizes sizes;
        sizes.time_state = true;
        tiny::Model made = tiny::random_model(version, RWKV_TYPE_Q4_0, sizes);
        const tiny::File tuned_file(made);
        const Model tuned = open(tuned_file);
        const size_t C = 64;
        const size_t N = 32;
        Floats expected(state_size_of(tuned), 0.0f);
        for (size_t layer = 0; layer < 2; ++layer) {
            const std::string name = "blocks." + std::to_string(layer) + ".att.time_state";
            Floats heads(C * N);
            std::memcpy(heads.data(), made.at(name).data.data(), heads.size() * sizeof(float));
            made.erase(name);
            float* wkv = expected.data() + layer * (2 * C + C * N) + 2 * C;
            for (size_t i = 0; i < heads.size(); ++i) {
                const size_t head = i / (N * N);
                const size_t row = i / N % N;
                const size_t column = i % N;
                const bool as_it_is = version == "7";
                wkv[as_it_is ? i : (head * N + column) * N + row] = heads[i];
            }
        }
        const tiny::File plain_file(made);
        const Model plain = open(plain_file);
        CHECK(info_of(tuned.get()).has_time_state == 1);
        CHECK(info_of(plain.get()).has_time_state == 0);

        const Session session = session_of(tuned);
        CHECK(same_bits(state_of(tuned, session), expected));
        rwkv_session* forked = nullptr;
        EXPECT_OK(rwkv_session_fork(session.get(), &forked));
        const Session fork(forked);
        CHECK(same_bits(state_of(tuned, fork), expected));

        // As if the state had been written to a session that began with zeros.
        const Session written = session_of(plain);
        CHECK(!same_bits(state_of(plain, written), expected));
        EXPECT_OK(rwkv_state_write(written.get(), expected.data(), expected.size()));
        const Tokens tokens = random_tokens(40, vocab_of(plain));
        Floats logits(vocab_of(plain));
        EXPECT_OK(rwkv_session_feed(written.get(), tokens.data(), tokens.size(), logits.data()));
        for (int i = 0; i < 2; ++i) {
            Floats got(logits.size());
            EXPECT_OK(rwkv_session_feed(session.get(), tokens.data(), tokens.size(), got.data()));
            CHECK(same_bits(got, logits));
            CHECK(same_bits(state_of(tuned, session), state_of(plain, written)));
            rwkv_session_reset(session.get());
            CHECK(same_bits(state_of(tuned, session), expected));
        }
        rwkv_session_reset(written.get());
        CHECK(same_bits(state_of(plain, written), Floats(expected.size(), 0.0f)));
    }
}

void test_state_is_a_value() {
    for (const char* version : tiny::kVersions) {
        const tiny::File file(tiny::random_model(version, RWKV_TYPE_Q8_0));
        const Model model = open(file);
        const size_t n_vocab = vocab_of(model);
        const Tokens before = random_tokens(9, n_vocab, 1);
        const Tokens after = random_tokens(6, n_vocab, 2);
        const Session session = session_of(model);
        EXPECT_OK(rwkv_session_feed(session.get(), before.data(), before.size(), nullptr));
        const Floats saved = state_of(model, session);

        rwkv_session* forked = nullptr;
        EXPECT_OK(rwkv_session_fork(session.get(), &forked));
        const Session fork(forked);
        const Session written = session_of(model);
        EXPECT_OK(rwkv_state_write(written.get(), saved.data(), saved.size()));
        const Session copied = session_of(model);
        EXPECT_OK(rwkv_state_copy(copied.get(), session.get()));
        EXPECT_OK(rwkv_state_copy(copied.get(), copied.get()));

        Floats expected(n_vocab);
        EXPECT_OK(rwkv_session_feed(session.get(), after.data(), after.size(), expected.data()));
        CHECK(!same_bits(state_of(model, session), saved));
        for (const Session* other : {&fork, &written, &copied}) {
            CHECK(same_bits(state_of(model, *other), saved));  // it did not move with the first
            Floats got(n_vocab);
            EXPECT_OK(rwkv_session_feed(other->get(), after.data(), after.size(), got.data()));
            CHECK(same_bits(got, expected));
            CHECK(same_bits(state_of(model, *other), state_of(model, session)));
        }

        // Any numbers come back as they were written, NaN too.
        Floats numbers(saved.size());
        std::iota(numbers.begin(), numbers.end(), -1000.0f);
        numbers[1] = std::numeric_limits<float>::quiet_NaN();
        EXPECT_OK(rwkv_state_write(written.get(), numbers.data(), numbers.size()));
        CHECK(same_bits(state_of(model, written), numbers));
    }
}

void test_state_of_another_model() {
    const tiny::File file4(tiny::random_model("4", RWKV_TYPE_FP32));
    const tiny::File file7(tiny::random_model("7", RWKV_TYPE_FP32));
    const Model model4 = open(file4);
    const Model model7 = open(file7);
    const Model twin7 = open(file7);
    const Session of4 = session_of(model4);
    const Session of7 = session_of(model7);
    const Session of_twin7 = session_of(twin7);
    const Floats fresh = state_of(model7, of7);
    Floats state4 = state_of(model4, of4);

    EXPECT_STATUS(rwkv_state_write(of7.get(), state4.data(), state4.size()),
                  RWKV_STATUS_STATE_MISMATCH, "expected");
    EXPECT_STATUS(rwkv_state_write(of7.get(), fresh.data(), fresh.size() - 1),
                  RWKV_STATUS_STATE_MISMATCH, std::to_string(fresh.size()).c_str());
    EXPECT_STATUS(rwkv_state_read(of4.get(), state4.data(), state4.size() + 1),
                  RWKV_STATUS_STATE_MISMATCH, "expected");
    EXPECT_STATUS(rwkv_state_copy(of7.get(), of4.get()), RWKV_STATUS_STATE_MISMATCH, "model");
    EXPECT_STATUS(rwkv_state_copy(of7.get(), of_twin7.get()), RWKV_STATUS_STATE_MISMATCH, "model");
    CHECK(same_bits(state_of(model7, of7), fresh));

    const Batch batch = batch_of(model7);
    const int32_t token = 1;
    EXPECT_STATUS(rwkv_batch_add(batch.get(), of_twin7.get(), &token, 1, RWKV_LOGITS_NONE, nullptr),
                  RWKV_STATUS_INVALID_ARGUMENT, "got one of another");
    EXPECT_OK(rwkv_batch_run(batch.get()));
    CHECK(same_bits(state_of(twin7, of_twin7), fresh));
}

}  // namespace

int main() {
    test_fresh_state();
    test_time_state();
    test_state_is_a_value();
    test_state_of_another_model();
    return 0;
}
