// bench_rollback: what it costs that a step can be taken back: milliseconds of a step of some tokens with
// all logits, by a session that takes nothing back and by one of which all, or half, are kept, in turns;
// as many can be taken back as by guessing sessions.
#include <algorithm>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "rwkv/rwkv.h"
#include "structs.h"

namespace {

constexpr const char* kUsage =
    "usage: bench_rollback [options] MODEL\n"
    "  --threads N      (default: 2)\n"
    "  --tokens K,K...  of a step, 1 to 31 (default: 1,4,6,8,16,31)\n"
    "  --seconds S      for each number of tokens (default: 5)\n";

// Tokens that can be taken back, at most.
constexpr size_t kMost = 31;

// Steps of a session in a turn: its state is as near as the step before has left it.
constexpr size_t kTurn = 4;

struct Options {
    std::string path;
    size_t n_threads = 2;
    std::vector<size_t> tokens = {1, 4, 6, 8, 16, kMost};
    double seconds = 5.0;
};

[[noreturn]] void refuse(const std::string& message) {
    std::fprintf(stderr, "bench_rollback: %s\n\n%s", message.c_str(), kUsage);
    std::exit(2);
}

void require(bool holds, const char* what) {
    if (holds) return;
    std::fprintf(stderr, "bench_rollback: %s\n", what);
    std::exit(1);
}

void require_ok(rwkv_status status) { require(status == RWKV_STATUS_OK, rwkv_error_message()); }

double number(const std::string& option, const char*& text, double most) {
    char* end = nullptr;
    const double value = std::strtod(text, &end);
    if (end == text || !(value > 0) || value > most) {
        refuse(option + ": expected a number above 0, got '" + text + "'");
    }
    text = end;
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
        if (option == "--threads" || option == "--seconds" || option == "--tokens") {
            if (++i == argc) refuse(option + ": expected a value");
            const char* text = argv[i];
            if (option == "--seconds") o.seconds = number(option, text, 1e6);
            if (option == "--threads") o.n_threads = static_cast<size_t>(number(option, text, 1e3));
            if (option == "--tokens") {
                o.tokens = {static_cast<size_t>(number(option, text, kMost))};
                while (*text == ',') {
                    o.tokens.push_back(static_cast<size_t>(number(option, ++text, kMost)));
                }
            }
            if (*text != '\0') refuse(option + ": expected a number, got '" + argv[i] + "'");
        } else if (option[0] == '-' || !o.path.empty()) {
            refuse("unknown option '" + option + "'");
        } else {
            o.path = option;
        }
    }
    if (o.path.empty()) refuse("expected a model file");
    return o;
}

double now() {
    const auto t = std::chrono::steady_clock::now().time_since_epoch();
    return std::chrono::duration<double, std::milli>(t).count();
}

struct Free {
    void operator()(rwkv_model* m) const { rwkv_model_free(m); }
    void operator()(rwkv_session* s) const { rwkv_session_free(s); }
};

// A session, and how long its steps took, each with what is done to keep some of it.
struct Steps {
    std::unique_ptr<rwkv_session, Free> session;
    bool takes_back;
    size_t n_kept;
    std::vector<double> times{};

    void take_turn(const std::vector<int32_t>& tokens, std::vector<float>& logits) {
        const double began = now();
        require_ok(
            rwkv_session_feed_all(session.get(), tokens.data(), tokens.size(), logits.data()));
        if (takes_back) require_ok(rwkv_session_keep(session.get(), n_kept));
        times.push_back(now() - began);
    }
    double median() {
        const auto middle = times.begin() + static_cast<ptrdiff_t>(times.size() / 2);
        std::nth_element(times.begin(), middle, times.end());
        return *middle;
    }
};

}  // namespace

int main(int argc, char** argv) {
    const Options options = parse(argc, argv);
    rwkv_model_options given = model_options();
    given.n_threads = options.n_threads;
    rwkv_model* opened = nullptr;
    require_ok(rwkv_model_open(options.path.c_str(), &given, &opened));
    const std::unique_ptr<rwkv_model, Free> model(opened);
    const size_t n_vocab = rwkv_model_n_vocab(opened);

    std::printf("tokens   plain      all kept         half kept\n");
    for (const size_t n : options.tokens) {
        std::vector<int32_t> tokens(n);
        for (size_t i = 0; i < n; ++i) tokens[i] = static_cast<int32_t>((33 + 7 * i) % n_vocab);
        std::vector<float> logits(n * n_vocab);
        std::vector<Steps> all;
        for (const auto& [takes_back, n_kept] :
             {std::pair{false, n}, std::pair{true, n}, std::pair{true, n / 2}}) {
            rwkv_session* created = nullptr;
            require_ok(rwkv_session_create(opened, &created));
            all.push_back({std::unique_ptr<rwkv_session, Free>(created), takes_back, n_kept});
            if (takes_back) require_ok(rwkv_session_allow_take_back(created, kMost));
        }
        const double end = now() + options.seconds * 1e3;
        // In turns of some steps: whoever else uses the machine is in the way of all alike.
        do {
            for (Steps& steps : all) {
                for (size_t i = 0; i < kTurn; ++i) steps.take_turn(tokens, logits);
            }
        } while (now() < end);
        const double plain = all[0].median();
        std::printf("%6zu %7.3f ms", n, plain);
        for (Steps& steps : all) {
            if (!steps.takes_back) continue;
            std::printf(" %7.3f ms %+5.1f %%", steps.median(), 100 * (steps.median() / plain - 1));
        }
        std::printf("\n");
    }
    return 0;
}
