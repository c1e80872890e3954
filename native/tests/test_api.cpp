// What the C API refuses, and that it leaves everything as it was; its options, its environment
// variables and its messages.
#include <algorithm>
#include <cmath>
#include <cstdlib>
#include <cstring>
#include <limits>
#include <string>
#include <thread>

#include "check.h"
#include "open_model.h"
#include "rwkv/rwkv.h"
#include "tiny_model.h"

namespace {

using namespace opened;

// ---- what fails, and that it leaves everything as it was

void test_errors_change_nothing() {
    const tiny::File file(tiny::random_model("7", RWKV_TYPE_Q4_0));
    const Model model = open(file);
    const size_t n_vocab = vocab_of(model);
    const Session session = session_of(model);
    Tokens tokens = random_tokens(300, n_vocab);
    EXPECT_OK(rwkv_session_feed(session.get(), tokens.data(), 3, nullptr));
    const Floats state = state_of(model, session);
    const Floats untouched(n_vocab, 7.0f);
    Floats logits = untouched;

    const int32_t bad_tokens[] = {-1, static_cast<int32_t>(n_vocab),
                                  std::numeric_limits<int32_t>::min(),
                                  std::numeric_limits<int32_t>::max()};
    for (const int32_t bad : bad_tokens) {
        tokens.back() = bad;
        EXPECT_STATUS(rwkv_session_feed(session.get(), tokens.data(), 300, logits.data()),
                      RWKV_STATUS_TOKEN_OUT_OF_RANGE, "tokens[299]");
        CHECK(std::strstr(rwkv_error_message(), std::to_string(bad).c_str()) != nullptr);
    }
    EXPECT_STATUS(rwkv_session_feed(session.get(), tokens.data(), 0, logits.data()),
                  RWKV_STATUS_INVALID_ARGUMENT, "tokens");
    EXPECT_STATUS(rwkv_session_feed(session.get(), nullptr, 1, logits.data()),
                  RWKV_STATUS_INVALID_ARGUMENT, "tokens");

    const Batch batch = batch_of(model);
    const auto add = [&](const int32_t* t, size_t n, rwkv_logits wanted, float* out) {
        return rwkv_batch_add(batch.get(), session.get(), t, n, wanted, out);
    };
    EXPECT_STATUS(add(tokens.data(), 300, RWKV_LOGITS_ALL, logits.data()),
                  RWKV_STATUS_TOKEN_OUT_OF_RANGE, "tokens[299]");
    EXPECT_STATUS(add(tokens.data(), 0, RWKV_LOGITS_NONE, nullptr), RWKV_STATUS_INVALID_ARGUMENT,
                  "tokens");
    EXPECT_STATUS(add(nullptr, 1, RWKV_LOGITS_NONE, nullptr), RWKV_STATUS_INVALID_ARGUMENT,
                  "tokens");
    EXPECT_STATUS(add(tokens.data(), 1, RWKV_LOGITS_LAST, nullptr), RWKV_STATUS_INVALID_ARGUMENT,
                  "out");
    EXPECT_STATUS(add(tokens.data(), 1, RWKV_LOGITS_ALL, nullptr), RWKV_STATUS_INVALID_ARGUMENT,
                  "out");
    EXPECT_STATUS(add(tokens.data(), 1, static_cast<rwkv_logits>(5), logits.data()),
                  RWKV_STATUS_INVALID_ARGUMENT, "wanted");
    EXPECT_OK(rwkv_batch_run(batch.get()));  // nothing came into it
    EXPECT_OK(add(tokens.data(), 1, RWKV_LOGITS_LAST, logits.data()));
    EXPECT_STATUS(add(tokens.data(), 1, RWKV_LOGITS_NONE, nullptr), RWKV_STATUS_INVALID_ARGUMENT,
                  "got one twice");
    rwkv_batch_clear(batch.get());
    EXPECT_OK(rwkv_batch_run(batch.get()));
    CHECK(same_bits(logits, untouched));
    CHECK(same_bits(state_of(model, session), state));

    // An error of one sequence is no error of those that were added before.
    EXPECT_OK(add(tokens.data(), 1, RWKV_LOGITS_LAST, logits.data()));
    const Session other = session_of(model);
    EXPECT_STATUS(
        rwkv_batch_add(batch.get(), other.get(), &tokens.back(), 1, RWKV_LOGITS_NONE, nullptr),
        RWKV_STATUS_TOKEN_OUT_OF_RANGE, "tokens[0]");
    EXPECT_OK(rwkv_batch_run(batch.get()));
    CHECK(!same_bits(logits, untouched));
    CHECK(!same_bits(state_of(model, session), state));
}

void test_null_arguments() {
    const tiny::File file(tiny::random_model("5.2", RWKV_TYPE_FP16));
    const Model model = open(file);
    const Session session = session_of(model);
    const Batch batch = batch_of(model);
    Floats state = state_of(model, session);
    const int32_t token = 0;
    rwkv_model* const model_before = model.get();
    rwkv_model* model_out = model_before;
    rwkv_session* session_out = session.get();
    rwkv_batch* batch_out = batch.get();
    constexpr rwkv_status kInvalid = RWKV_STATUS_INVALID_ARGUMENT;

    EXPECT_STATUS(rwkv_model_open(nullptr, nullptr, &model_out), kInvalid, "path");
    EXPECT_STATUS(rwkv_model_open(file.path(), nullptr, nullptr), kInvalid, "model_out");
    EXPECT_STATUS(rwkv_session_create(nullptr, &session_out), kInvalid, "model");
    EXPECT_STATUS(rwkv_session_create(model.get(), nullptr), kInvalid, "session_out");
    EXPECT_STATUS(rwkv_session_feed(nullptr, &token, 1, nullptr), kInvalid, "session");
    EXPECT_STATUS(rwkv_session_fork(nullptr, &session_out), kInvalid, "session");
    EXPECT_STATUS(rwkv_session_fork(session.get(), nullptr), kInvalid, "session_out");
    EXPECT_STATUS(rwkv_state_read(nullptr, state.data(), state.size()), kInvalid, "session");
    EXPECT_STATUS(rwkv_state_read(session.get(), nullptr, state.size()), kInvalid, "state_out");
    EXPECT_STATUS(rwkv_state_write(nullptr, state.data(), state.size()), kInvalid, "session");
    EXPECT_STATUS(rwkv_state_write(session.get(), nullptr, state.size()), kInvalid, "state");
    EXPECT_STATUS(rwkv_state_copy(nullptr, session.get()), kInvalid, "NULL");
    EXPECT_STATUS(rwkv_state_copy(session.get(), nullptr), kInvalid, "NULL");
    EXPECT_STATUS(rwkv_batch_create(nullptr, &batch_out), kInvalid, "model");
    EXPECT_STATUS(rwkv_batch_create(model.get(), nullptr), kInvalid, "batch_out");
    EXPECT_STATUS(rwkv_batch_add(nullptr, session.get(), &token, 1, RWKV_LOGITS_NONE, nullptr),
                  kInvalid, "batch");
    EXPECT_STATUS(rwkv_batch_add(batch.get(), nullptr, &token, 1, RWKV_LOGITS_NONE, nullptr),
                  kInvalid, "session");
    EXPECT_STATUS(rwkv_batch_run(nullptr), kInvalid, "batch");
    EXPECT_STATUS(rwkv_model_open("missing.bin", nullptr, &model_out), RWKV_STATUS_FILE_UNREADABLE,
                  "missing.bin");
    CHECK(model_out == model_before && session_out == session.get() && batch_out == batch.get());
    CHECK(rwkv_kernels_supported(nullptr) == 0);
    rwkv_model_info info = {};
    EXPECT_STATUS(rwkv_model_info_get(nullptr, &info, sizeof info), kInvalid, "model");
    EXPECT_STATUS(rwkv_model_info_get(model.get(), nullptr, sizeof info), kInvalid, "info_out");
    EXPECT_STATUS(rwkv_model_info_get(model.get(), &info, 0), kInvalid, "struct_size");
    CHECK(info.struct_size == 0);
    CHECK(rwkv_model_n_vocab(nullptr) == 0 && rwkv_model_state_size(nullptr) == 0);
}

void test_status_sentences() {
    for (const int status :
         {0, 1, 2, 3, 4, 5, 9, 20, 21, 22, 23, 24, 30, 31, 32, 33, 34, 40, 41, 50, 60}) {
        const char* sentence = rwkv_status_sentence(static_cast<rwkv_status>(status));
        CHECK(std::string(sentence) != "unknown status" && *sentence != '\0');
    }
    for (const int unknown : {10, 63}) {
        CHECK(rwkv_status_sentence(static_cast<rwkv_status>(unknown)) != nullptr);
    }
    CHECK(rwkv_version_string() == std::string(RWKV_VERSION_STRING));
    CHECK(rwkv_version_abi() == RWKV_ABI_VERSION);
}

// ---- options and environment

void test_options() {
    const tiny::File file4(tiny::random_model("4", RWKV_TYPE_FP32));
    const tiny::File file5(tiny::random_model("5.1", RWKV_TYPE_FP32));
    rwkv_model* model = nullptr;
    rwkv_model_options options = model_options();
    CHECK(options.struct_size == sizeof options && options.n_threads == 0 &&
          options.ln_x_eps == 0.0f);

    for (const size_t size : {size_t{0}, sizeof(size_t) - 1, size_t{1} << 40}) {
        options.struct_size = size;
        EXPECT_STATUS(rwkv_model_open(file4.path(), &options, &model), RWKV_STATUS_INVALID_ARGUMENT,
                      "struct_size");
    }
    options = model_options();
    for (const size_t n : {size_t{1025}, std::numeric_limits<size_t>::max()}) {
        options.n_threads = n;
        EXPECT_STATUS(rwkv_model_open(file4.path(), &options, &model), RWKV_STATUS_INVALID_ARGUMENT,
                      "n_threads");
    }
    options.n_threads = 1;
    constexpr float kInfinity = std::numeric_limits<float>::infinity();
    for (const float eps : {-1e-5f, std::numeric_limits<float>::quiet_NaN(), kInfinity}) {
        options.ln_x_eps = eps;
        EXPECT_STATUS(rwkv_model_open(file5.path(), &options, &model), RWKV_STATUS_INVALID_ARGUMENT,
                      "ln_x_eps");
    }
    options.ln_x_eps = 1e-5f;
    EXPECT_STATUS(rwkv_model_open(file4.path(), &options, &model), RWKV_STATUS_MODEL_OPTION,
                  "ln_x_eps");
    CHECK(model == nullptr);

    EXPECT_OK(rwkv_model_open(file5.path(), &options, &model));
    const Model changed(model);
    CHECK(info_of(model).ln_x_eps == 1e-5f);

    for (const int32_t wrong : {-1, 2}) {
        options.like_rwkv_cpp = wrong;
        EXPECT_STATUS(rwkv_model_open(file5.path(), &options, &model), RWKV_STATUS_INVALID_ARGUMENT,
                      "like_rwkv_cpp");
    }
    options.like_rwkv_cpp = 1;
    options.ln_x_eps = 2e-5f;  // goes before it
    EXPECT_OK(rwkv_model_open(file5.path(), &options, &model));
    CHECK(info_of(Model(model).get()).ln_x_eps == 2e-5f);
    options.ln_x_eps = 0.0f;
    for (const char* version : tiny::kVersions) {
        const tiny::File file(tiny::random_model(version, RWKV_TYPE_FP32));
        EXPECT_OK(rwkv_model_open(file.path(), &options, &model));
        const float expected = version[0] == '4' ? 0.0f : version[0] == '5' ? 1e-5f : 64e-5f;
        CHECK(info_of(Model(model).get()).ln_x_eps == expected);
    }
    const Model plain = open(file5);
    const int32_t token = 1;
    Floats logits(vocab_of(plain)), changed_logits(logits.size());
    EXPECT_OK(rwkv_session_feed(session_of(plain).get(), &token, 1, logits.data()));
    EXPECT_OK(rwkv_session_feed(session_of(changed).get(), &token, 1, changed_logits.data()));
    double largest = 0;
    for (size_t i = 0; i < logits.size(); ++i) {
        largest = std::max(largest, std::fabs(double{logits[i]} - double{changed_logits[i]}));
    }
    CHECK(largest > 1e-5);
}

void test_kernel_levels() {
    const tiny::File file(tiny::random_model("7", RWKV_TYPE_Q4_0));
    const auto open_status = [&](std::string* active) {
        rwkv_model* model = nullptr;
        const rwkv_status status = rwkv_model_open(file.path(), nullptr, &model);
        if (status == RWKV_STATUS_OK) *active = info_of(model).kernels;
        CHECK((status == RWKV_STATUS_OK) == (model != nullptr));
        rwkv_model_free(model);
        return status;
    };
    CHECK(rwkv_kernels_all()[0] == std::string("reference"));
    CHECK(rwkv_kernels_supported("reference") == 1);
    std::string active;
    std::string highest;
    for (const char* const* name = rwkv_kernels_all(); *name != nullptr; ++name) {
        choose_level(*name);
        if (rwkv_kernels_supported(*name)) {
            EXPECT_OK(open_status(&active));
            CHECK(active == *name);
            highest = *name;
        } else {
            EXPECT_STATUS(open_status(&active), RWKV_STATUS_KERNELS_UNSUPPORTED, *name);
        }
    }
    for (const char* unknown : {"avx3", "Reference", "reference ", "0"}) {
        choose_level(unknown);
        CHECK(rwkv_kernels_supported(unknown) == 0);
        EXPECT_STATUS(open_status(&active), RWKV_STATUS_KERNELS_UNKNOWN, unknown);
        CHECK(std::strstr(rwkv_error_message(), "reference") != nullptr);  // what there is
    }
    choose_level("");
    EXPECT_OK(open_status(&active));
    CHECK(active == highest);
    CHECK(unsetenv("RWKV_KERNELS") == 0);
    EXPECT_OK(open_status(&active));
    CHECK(active == highest);
}

void test_thread_environment() {
    const tiny::File file(tiny::random_model("4", RWKV_TYPE_FP32));
    rwkv_model* model = nullptr;
    CHECK(setenv("RWKV_THREADS", "3", 1) == 0);
    EXPECT_OK(rwkv_model_open(file.path(), nullptr, &model));
    CHECK(info_of(model).n_threads == 3);
    rwkv_model_free(model);
    open(file, 2);  // the option goes first: `open` checks the number
    model = nullptr;
    for (const char* bad : {"0", "-1", "x", "3x", "1025", "99999999999999999999", "1.5"}) {
        CHECK(setenv("RWKV_THREADS", bad, 1) == 0);
        EXPECT_STATUS(rwkv_model_open(file.path(), nullptr, &model), RWKV_STATUS_INVALID_ARGUMENT,
                      "RWKV_THREADS");
        CHECK(model == nullptr);
    }
    for (const char* none : {"", static_cast<const char*>(nullptr)}) {
        CHECK((none == nullptr ? unsetenv("RWKV_THREADS") : setenv("RWKV_THREADS", none, 1)) == 0);
        EXPECT_OK(rwkv_model_open(file.path(), nullptr, &model));
        CHECK(info_of(model).n_threads >= 1);
        rwkv_model_free(model);
        model = nullptr;
    }
}

// ---- messages

void test_message_is_per_thread() {
    rwkv_model* model = nullptr;
    EXPECT_STATUS(rwkv_model_open("here.bin", nullptr, &model), RWKV_STATUS_FILE_UNREADABLE,
                  "here.bin");
    std::thread([] {
        CHECK(*rwkv_error_message() == '\0');
        rwkv_model* other = nullptr;
        EXPECT_STATUS(rwkv_model_open("there.bin", nullptr, &other), RWKV_STATUS_FILE_UNREADABLE,
                      "there.bin");
    }).join();
    CHECK(std::strstr(rwkv_error_message(), "here.bin") == rwkv_error_message());
}

}  // namespace

int main() {
    CHECK(unsetenv("RWKV_KERNELS") == 0 && unsetenv("RWKV_THREADS") == 0);
    test_status_sentences();
    test_message_is_per_thread();
    test_kernel_levels();
    test_thread_environment();
    test_options();
    test_null_arguments();
    test_errors_change_nothing();
    return 0;
}
