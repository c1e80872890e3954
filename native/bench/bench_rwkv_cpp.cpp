// bench_rwkv_cpp: what rwkv.cpp's interface costs over the runtime's own: microseconds a token, read
// one by one with logits, by both in turns.
#include <algorithm>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <memory>
#include <string>
#include <vector>

#include "rwkv/rwkv.h"
#include "rwkv_cpp/rwkv.h"
#include "structs.h"

namespace {

constexpr const char* kUsage =
    "usage: bench_rwkv_cpp [options] MODEL\n"
    "  --threads N      (default: 2)\n"
    "  --seconds S      in all (default: 10)\n";

constexpr size_t kTokens = 16;  // of a turn
constexpr size_t kWarm = 4;  // of which the first are not counted: the other's threads go to sleep

struct Options {
    std::string path;
    size_t n_threads = 2;
    double seconds = 10.0;
};

[[noreturn]] void refuse(const std::string& message) {
    std::fprintf(stderr, "bench_rwkv_cpp: %s\n\n%s", message.c_str(), kUsage);
    std::exit(2);
}

double number(const std::string& option, const char* text) {
    char* end = nullptr;
    const double value = std::strtod(text, &end);
    if (end == text || *end != '\0' || !(value > 0) || value > 1e6) {
        refuse(option + ": expected a number above 0, got '" + text + "'");
    }
    return value;
}

Options parse(int argc, char** argv) {
    Options o;
    for (int i = 1; i < argc; ++i) {
        const std::string option = argv[i];
        if (option == "--help") {
            std::fputs(kUsage, stdout);
            std::exit(0);
        }
        if (option == "--threads" || option == "--seconds") {
            if (++i == argc) refuse(option + ": expected a value");
            const double value = number(option, argv[i]);
            if (option == "--seconds") o.seconds = value;
            if (option == "--threads") o.n_threads = static_cast<size_t>(value);
        } else if (option[0] == '-' || !o.path.empty()) {
            refuse("unknown option '" + option + "'");
        } else {
            o.path = option;
        }
    }
    if (o.path.empty()) refuse("expected a model file");
    return o;
}

void require(bool holds, const char* what) {
    if (holds) return;
    std::fprintf(stderr, "bench_rwkv_cpp: %s\n", what);
    std::exit(1);
}

double now() {
    const auto t = std::chrono::steady_clock::now().time_since_epoch();
    return std::chrono::duration<double, std::micro>(t).count();
}

// The times of all tokens that one interface has read.
struct Times {
    const char* name;
    std::vector<double> all = {};

    template <class Read>
    void take_turn(Read&& read) {
        for (size_t i = 0; i < kTokens; ++i) {
            const double began = now();
            read(static_cast<int32_t>(33 + i));
            if (i >= kWarm) all.push_back(now() - began);
        }
    }
    double median() {
        const auto middle = all.begin() + static_cast<ptrdiff_t>(all.size() / 2);
        std::nth_element(all.begin(), middle, all.end());
        return *middle;
    }
};

template <auto free_object>
struct FreeWith {
    template <class T>
    void operator()(T* object) const {
        free_object(object);
    }
};

}  // namespace

int main(int argc, char** argv) {
    const Options options = parse(argc, argv);

    rwkv_model_options native = model_options();
    native.n_threads = options.n_threads;
    native.like_rwkv_cpp = 1;
    rwkv_model* opened = nullptr;
    require(rwkv_model_open(options.path.c_str(), &native, &opened) == RWKV_STATUS_OK,
            rwkv_error_message());
    const std::unique_ptr<rwkv_model, FreeWith<rwkv_model_free>> model(opened);
    rwkv_session* created = nullptr;
    require(rwkv_session_create(opened, &created) == RWKV_STATUS_OK, rwkv_error_message());
    const std::unique_ptr<rwkv_session, FreeWith<rwkv_session_free>> session(created);
    const std::unique_ptr<rwkv_context, FreeWith<rwkv_free>> ctx(
        rwkv_init_from_file(options.path.c_str(), static_cast<uint32_t>(options.n_threads), 0));
    require(ctx != nullptr, "the model was not opened");

    std::vector<float> logits(rwkv_get_logits_len(ctx.get()));
    std::vector<float> state(rwkv_get_state_len(ctx.get()));
    std::vector<float> other(state.size());
    rwkv_init_state(ctx.get(), state.data());
    Times own{"rwkv_session_feed"};
    Times in_place{"rwkv_eval, one state"};
    Times two{"rwkv_eval, two states"};
    const double end = now() + options.seconds * 1e6;
    do {
        own.take_turn([&](int32_t token) {
            require(rwkv_session_feed(created, &token, 1, logits.data()) == RWKV_STATUS_OK,
                    rwkv_error_message());
        });
        const auto eval = [&](int32_t token, const float* in, float* out) {
            require(rwkv_eval(ctx.get(), static_cast<uint32_t>(token), in, out, logits.data()),
                    "rwkv_eval failed");
        };
        in_place.take_turn([&](int32_t token) { eval(token, state.data(), state.data()); });
        two.take_turn([&](int32_t token) {
            eval(token, state.data(), other.data());
            state.swap(other);
        });
    } while (now() < end);

    const double base = own.median();
    for (Times* times : {&own, &in_place, &two}) {
        std::printf("%-24s %9.1f us  %6.3f\n", times->name, times->median(),
                    times->median() / base);
    }
    return 0;
}
