// bench_sampler: microseconds that a token takes to be drawn, for the settings that users choose
// and for logits from peaked to flat, at each kernel level.
#include <algorithm>
#include <chrono>
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <numeric>
#include <random>
#include <string>
#include <vector>

#include "kernels/registry.h"
#include "rwkv/rwkv.h"
#include "structs.h"

namespace {

constexpr const char* kUsage =
    "usage: bench_sampler [options]\n"
    "  --level NAME     kernel level (default: all that run here)\n"
    "  --vocab N        entries of the logits (default: 65536)\n"
    "  --seconds S      time for each figure (default: 0.05)\n"
    "  --markdown       print Markdown\n";

struct Options {
    std::vector<std::string> levels;
    size_t n_vocab = 65536;
    double seconds = 0.05;
    bool markdown = false;
};

[[noreturn]] void refuse(const std::string& message) {
    std::fprintf(stderr, "bench_sampler: %s\n\n%s", message.c_str(), kUsage);
    std::exit(2);
}

double number(const std::string& option, const char* text) {
    char* end = nullptr;
    const double value = std::strtod(text, &end);
    if (end == text || *end != '\0' || !(value > 0) || value > 1e8) {
        refuse(option + ": expected a number above 0, got '" + text + "'");
    }
    return value;
}

Options parse(int argc, char** argv) {
    Options o;
    for (int i = 1; i < argc; ++i) {
        const std::string option = argv[i];
        const auto value = [&] {
            if (++i == argc) refuse(option + ": expected a value");
            return argv[i];
        };
        if (option == "--level") {
            o.levels.emplace_back(value());
        } else if (option == "--vocab") {
            o.n_vocab = static_cast<size_t>(std::max(1.0, number(option, value())));
        } else if (option == "--seconds") {
            o.seconds = number(option, value());
        } else if (option == "--markdown") {
            o.markdown = true;
        } else if (option == "--help") {
            std::fputs(kUsage, stdout);
            std::exit(0);
        } else {
            refuse("unknown option '" + option + "'");
        }
    }
    for (const std::string& level : o.levels) {
        if (!rwkv::kernels_supported(level.c_str())) refuse("--level: no '" + level + "' here");
    }
    if (o.levels.empty()) {
        for (const char* const* name = rwkv::kernel_names(); *name != nullptr; ++name) {
            if (rwkv::kernels_supported(*name)) o.levels.emplace_back(*name);
        }
    }
    return o;
}

// ---- logits
// --------------------------------------------------------------------------------------

using Logits = std::vector<float>;

struct Distribution {
    const char* name;
    Logits (*make)(size_t n, std::mt19937& random);
};

Logits normal_logits(size_t n, float sigma, std::mt19937& random) {
    std::normal_distribution<float> normal(0, sigma);
    Logits logits(n);
    for (float& x : logits) x = normal(random);
    return logits;
}

// A few tokens far above the others: after "the capital of France is".
Logits peaked_logits(size_t n, std::mt19937& random) {
    Logits logits = normal_logits(n, 2, random);
    for (int i = 0; i < 10; ++i) logits[random() % n] = 22 - 1.5F * static_cast<float>(i);
    return logits;
}

// p proportional to 1 / rank: what words do.
Logits zipf_logits(size_t n, std::mt19937& random) {
    Logits logits(n);
    for (size_t i = 0; i < n; ++i) logits[i] = -std::log(static_cast<float>(i + 1));
    std::shuffle(logits.begin(), logits.end(), random);
    return logits;
}

constexpr Distribution kDistributions[] = {
    {"peaked", peaked_logits},
    {"Zipf", zipf_logits},
    {"sigma 3", [](size_t n, std::mt19937& random) { return normal_logits(n, 3, random); }},
    {"sigma 1", [](size_t n, std::mt19937& random) { return normal_logits(n, 1, random); }},
    {"sigma 0.1", [](size_t n, std::mt19937& random) { return normal_logits(n, 0.1F, random); }},
    {"equal", [](size_t n, std::mt19937&) { return Logits(n, 0.5F); }},
};

// ---- settings
// ------------------------------------------------------------------------------------

struct Setting {
    const char* name;
    void (*change)(rwkv_sampler_options&);
};

constexpr Setting kSettings[] = {
    {"greedy", [](auto& o) { o.temperature = 0; }},
    {"temperature 1", [](auto& o) { o.top_p = 1; }},
    {"temperature 0.8", [](auto& o) { o.top_p = 1, o.temperature = 0.8; }},
    {"top-p 0.3", [](auto& o) { o.top_p = 0.3; }},
    {"top-p 0.5, temperature 0.5", [](auto& o) { o.top_p = 0.5, o.temperature = 0.5; }},
    {"top-p 0.5, temperature 2", [](auto& o) { o.top_p = 0.5, o.temperature = 2; }},
    {"top-p 0.9", [](auto& o) { o.top_p = 0.9; }},
    {"top-p 0.9, temperature 0.8", [](auto& o) { o.top_p = 0.9, o.temperature = 0.8; }},
    {"top-p 0.99, temperature 2", [](auto& o) { o.top_p = 0.99, o.temperature = 2; }},
    {"top-k 40", [](auto& o) { o.top_p = 1, o.top_k = 40; }},
    {"top-k 100, top-p 0.9, temperature 0.8",
     [](auto& o) { o.top_k = 100, o.top_p = 0.9, o.temperature = 0.8; }},
    {"min-p 0.05, temperature 1.5",
     [](auto& o) { o.top_p = 1, o.min_p = 0.05, o.temperature = 1.5; }},
    {"typical 0.9", [](auto& o) { o.top_p = 1, o.typical_p = 0.9; }},
    {"typical 0.5, top-p 0.9, temperature 0.8",
     [](auto& o) { o.typical_p = 0.5, o.top_p = 0.9, o.temperature = 0.8; }},
    {"mirostat 5, temperature 0.8", [](auto& o) { o.mirostat_tau = 5, o.temperature = 0.8; }},
    {"penalties over 500 tokens, top-p 0.9, temperature 0.8",
     [](auto& o) {
         o.presence_penalty = 0.2, o.frequency_penalty = 0.2, o.repetition_penalty = 1.1;
         o.top_p = 0.9, o.temperature = 0.8;
     }},
};

// ---- measuring
// -----------------------------------------------------------------------------------

double now() {
    using Clock = std::chrono::steady_clock;
    return std::chrono::duration<double>(Clock::now().time_since_epoch()).count();
}

void check(rwkv_status status) {
    if (status == RWKV_STATUS_OK) return;
    std::fprintf(stderr, "bench_sampler: %s\n", rwkv_error_message());
    std::exit(1);
}

// The median microseconds of a draw, and of accepting a token where there are penalties. Several
// logits take turns, as they do when a model computes them: they come from beyond the second cache.
double time_of(const Options& options, const Setting& setting, const std::vector<Logits>& logits) {
    rwkv_sampler_options sampling = sampler_options();
    setting.change(sampling);
    rwkv_sampler* sampler = nullptr;
    check(rwkv_sampler_create(options.n_vocab, &sampling, &sampler));
    std::mt19937 random(5);
    std::vector<int32_t> seen(sampling.presence_penalty != 0 ? 500 : 0);
    for (int32_t& token : seen) {
        token = static_cast<int32_t>(random() % options.n_vocab);
        check(rwkv_sampler_accept(sampler, token));
    }
    std::vector<double> times;
    const double begin = now();
    for (size_t i = 0; i < 20 || now() - begin < options.seconds; ++i) {
        int32_t token = 0;
        const double start = now();
        check(rwkv_sampler_sample(sampler, logits[i % logits.size()].data(), &token));
        if (!seen.empty()) check(rwkv_sampler_accept(sampler, seen[i % seen.size()]));
        times.push_back((now() - start) * 1e6);
    }
    rwkv_sampler_free(sampler);
    const auto middle = times.begin() + static_cast<ptrdiff_t>(times.size() / 2);
    std::nth_element(times.begin(), middle, times.end());
    return *middle;
}

void run(const Options& options) {
    std::vector<std::vector<Logits>> logits;
    std::mt19937 random(1);
    for (const Distribution& distribution : kDistributions) {
        std::vector<Logits> several;
        several.reserve(8);
        for (int i = 0; i < 8; ++i) several.push_back(distribution.make(options.n_vocab, random));
        logits.push_back(several);
    }
    for (const std::string& level : options.levels) {
        setenv("RWKV_KERNELS", level.c_str(), 1);
        const char* column = options.markdown ? " %s |" : " %10s";
        std::printf(options.markdown ? "%s\n\n| us per token, %zu logits |"
                                     : "\n%s: us per token, %zu logits\n%54s",
                    level.c_str(), options.n_vocab, "");
        for (const Distribution& distribution : kDistributions) {
            std::printf(column, distribution.name);
        }
        std::printf("\n");
        if (options.markdown) {
            std::printf("| --- |");
            for (size_t i = 0; i < logits.size(); ++i) std::printf(" ---: |");
            std::printf("\n");
        }
        for (const Setting& setting : kSettings) {
            std::printf(options.markdown ? "| %s |" : "%-54s", setting.name);
            for (const auto& several : logits) {
                char text[32];
                std::snprintf(text, sizeof text, "%.0f", time_of(options, setting, several));
                std::printf(column, text);
                std::fflush(stdout);
            }
            std::printf("\n");
        }
        if (options.markdown) std::printf("\n");
    }
}

}  // namespace

int main(int argc, char** argv) {
    run(parse(argc, argv));
    return 0;
}
