// bench_kernels: how fast each kernel of each level is, and what share of the machine's limit that
// is, measured in the same run on one thread. With --limits: the limits alone, for several threads.
// With --pool: what the thread pool costs.
//
// The limit of a piece of work is the larger of the time to read its bytes at the rate measured
// over a buffer as large, and the time to do its multiply-adds at the rate measured for the best
// instruction of the level.
#include <unistd.h>

#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <map>
#include <string>
#include <vector>

#include "cpu_cores.h"
#include "kernels/registry.h"
#include "machine_limits.h"
#include "memory.h"
#include "pool_costs.h"
#include "thread_pool.h"

namespace {

using rwkv_bench::MultiplyRates;
using rwkv_bench::seconds_now;

constexpr const char* kUsage =
    "usage: bench_kernels [options]\n"
    "  --levels A,B     kernel levels (default: all that run here, but reference)\n"
    "  --kernels A,B    matmul, quantize, layer_norm, wkv, elementwise (default: all)\n"
    "  --types A,B      fp32, fp16, bf16, q4_0, ... q6_K (default: all)\n"
    "  --rows A,B       rows of activations (default: 1,4,16,64,256)\n"
    "  --uncached MB    memory that matrices which do not fit the cache take (default: 128)\n"
    "  --seconds S      time for each figure (default: 0.1)\n"
    "  --limits         measure the machine's limits and no kernels\n"
    "  --read A,B       with --limits: bytes of the buffers to read (default: 32 KiB .. 512 MiB)\n"
    "  --pool           measure the thread pool and no kernels\n"
    "  --threads A,B    with --limits and --pool: numbers of threads (default: 1 and all cores)\n"
    "  --json           print JSON\n";

std::vector<std::string> type_names() {
    std::vector<std::string> names;
    names.reserve(RWKV_TYPE_COUNT);
    for (int type = 0; type < RWKV_TYPE_COUNT; ++type) {
        names.emplace_back(rwkv_block_type_of(static_cast<rwkv_type>(type))->name);
    }
    return names;
}

struct Options {
    std::vector<std::string> levels;
    std::vector<std::string> kernels = {"matmul", "quantize", "layer_norm", "wkv", "elementwise"};
    std::vector<std::string> types = type_names();
    std::vector<size_t> rows = {1, 4, 16, 64, 256};
    size_t uncached_bytes = size_t{128} << 20;
    double seconds = 0.1;
    bool limits_only = false;
    bool pool_only = false;
    std::vector<size_t> read_bytes;
    std::vector<size_t> threads;
    bool json = false;

    bool wants_kernel(const char* name) const {
        return std::find(kernels.begin(), kernels.end(), name) != kernels.end();
    }
    bool wants_type(const char* name) const {
        return std::find(types.begin(), types.end(), name) != types.end();
    }
};

// One line of the result.
struct Figure {
    std::string level, kernel, type, shape;
    size_t rows;
    double seconds;  // median of one call
    double bytes;    // that one call must read and write
    double macs;     // multiply-adds of one call
    double limit;    // seconds that the machine's limit allows
};

// ---- options
// --------------------------------------------------------------------------------------

std::vector<std::string> split(const std::string& text) {
    std::vector<std::string> parts;
    size_t begin = 0;
    while (begin <= text.size()) {
        const size_t end = std::min(text.find(',', begin), text.size());
        parts.push_back(text.substr(begin, end - begin));
        begin = end + 1;
    }
    return parts;
}

[[noreturn]] void refuse(const std::string& message) {
    std::fprintf(stderr, "bench_kernels: %s\n\n%s", message.c_str(), kUsage);
    std::exit(2);
}

double number(const std::string& option, const std::string& text) {
    char* end = nullptr;
    const double value = std::strtod(text.c_str(), &end);
    if (text.empty() || *end != '\0' || !(value > 0) || value > 1e15) {
        refuse(option + ": expected a number above 0, got '" + text + "'");
    }
    return value;
}

std::vector<size_t> numbers(const std::string& option, const std::string& text) {
    std::vector<size_t> values;
    for (const std::string& part : split(text)) {
        values.push_back(static_cast<size_t>(number(option, part)));
    }
    return values;
}

Options parse(int argc, char** argv) {
    Options o;
    for (int i = 1; i < argc; ++i) {
        const std::string option = argv[i];
        const auto value = [&]() -> std::string {
            if (++i == argc) refuse(option + ": expected a value");
            return argv[i];
        };
        if (option == "--levels") {
            o.levels = split(value());
        } else if (option == "--kernels") {
            o.kernels = split(value());
        } else if (option == "--types") {
            o.types = split(value());
        } else if (option == "--rows") {
            o.rows = numbers(option, value());
        } else if (option == "--uncached") {
            o.uncached_bytes = static_cast<size_t>(number(option, value()) * (1 << 20));
        } else if (option == "--seconds") {
            o.seconds = number(option, value());
        } else if (option == "--limits") {
            o.limits_only = true;
        } else if (option == "--pool") {
            o.pool_only = true;
        } else if (option == "--read") {
            o.read_bytes = numbers(option, value());
        } else if (option == "--threads") {
            o.threads = numbers(option, value());
        } else if (option == "--json") {
            o.json = true;
        } else if (option == "--help" || option == "-h") {
            std::fputs(kUsage, stdout);
            std::exit(0);
        } else {
            refuse("unknown option '" + option + "'");
        }
    }
    const std::vector<std::string> types = type_names();
    for (const std::string& type : o.types) {
        if (std::find(types.begin(), types.end(), type) == types.end()) {
            refuse("--types: unknown type '" + type + "'");
        }
    }
    const std::vector<std::string> known = Options().kernels;
    for (const std::string& kernel : o.kernels) {
        if (std::find(known.begin(), known.end(), kernel) == known.end()) {
            refuse("--kernels: unknown kernel '" + kernel + "'");
        }
    }
    if (o.levels.empty()) {
        for (const char* const* level = rwkv::kernel_names(); *level != nullptr; ++level) {
            const bool wanted = o.limits_only || std::strcmp(*level, "reference") != 0;
            if (wanted && rwkv::kernels_supported(*level)) o.levels.emplace_back(*level);
        }
    }
    if (o.read_bytes.empty()) {
        for (size_t n = 32 << 10; n <= size_t{512} << 20; n *= 4) o.read_bytes.push_back(n);
    }
    if (o.threads.empty()) {
        o.threads = {1};
        if (rwkv::usable_cores() > 1) o.threads.push_back(rwkv::usable_cores());
    }
    return o;
}

// ---- measuring
// ------------------------------------------------------------------------------------

void progress(const std::string& what) {
    static const bool terminal = isatty(fileno(stderr)) != 0;
    if (terminal) std::fprintf(stderr, "\r\033[K%s", what.c_str());
}

double median(std::vector<double> values) {
    const auto middle = values.begin() + static_cast<ptrdiff_t>(values.size() / 2);
    std::nth_element(values.begin(), middle, values.end());
    return *middle;
}

// The median seconds of one call. Calls that are too short to be timed are timed in groups.
template <class Call>
double time_of(const Options& options, Call&& call) {
    call();
    size_t group = 1;
    double spent = 0;
    while (true) {
        const double start = seconds_now();
        for (size_t i = 0; i < group; ++i) call();
        spent = seconds_now() - start;
        if (spent > 1e-4) break;
        group *= 2;
    }
    std::vector<double> samples = {spent / static_cast<double>(group)};
    const double begin = seconds_now();
    while (seconds_now() - begin < options.seconds) {
        const double start = seconds_now();
        for (size_t i = 0; i < group; ++i) call();
        samples.push_back((seconds_now() - start) / static_cast<double>(group));
    }
    return median(samples);
}

// The read rate for a buffer of some bytes, on one thread; measured once for each power of two.
double read_rate(double bytes) {
    static std::map<size_t, double> known;
    size_t size = size_t{16} << 10;
    while (static_cast<double>(size) < bytes && size < size_t{1} << 30) size *= 2;
    double& rate = known[size];
    if (rate == 0) rate = rwkv_bench::read_rate(size, 1);
    return rate;
}

// The same numbers in every run: xorshift (Marsaglia 2003).
class Random {
  public:
    uint32_t next() {
        state_ ^= state_ << 13;
        state_ ^= state_ >> 17;
        state_ ^= state_ << 5;
        return state_;
    }

  private:
    uint32_t state_ = 2463534242u;
};

// Uniform in [-1, 1).
std::vector<float> random_floats(size_t n) {
    Random random;
    std::vector<float> values(n);
    for (float& v : values) v = static_cast<float>(random.next()) * 0x1p-31f - 1.0f;
    return values;
}

// Weights as they lie in a file: any codes, and scales of about 0.01.
std::vector<uint8_t> random_weights(rwkv_type type, size_t n_values) {
    Random random;
    const size_t block = rwkv_block_bytes(type);
    std::vector<uint8_t> bytes(n_values / rwkv_block_values(type) * block);
    for (uint8_t& b : bytes) b = static_cast<uint8_t>(random.next() >> 8);
    constexpr float kFp32 = 0.01f;
    constexpr uint16_t kFp16 = 0x211f;  // 0.01
    constexpr uint16_t kBf16 = 0x3c24;  // 0.01
    const size_t d_at = rwkv_block_type_of(type)->d_at;
    for (size_t at = 0; at < bytes.size(); at += block) {
        if (type == RWKV_TYPE_FP32) {
            std::memcpy(&bytes[at], &kFp32, sizeof kFp32);
        } else {
            const uint16_t& value = type == RWKV_TYPE_BF16 ? kBf16 : kFp16;
            std::memcpy(&bytes[at + d_at], &value, sizeof value);
            if (rwkv_has_m(type)) std::memcpy(&bytes[at + d_at + 2], &value, sizeof value);
        }
    }
    return bytes;
}

class Bench {
  public:
    Bench(const Options& options, const std::string& level)
        : options_(options),
          level_(level),
          k_(rwkv::kernels_of(level.c_str())),
          rates_(rwkv_bench::multiply_rates(level, 1)) {}

    std::vector<Figure> run() {
        if (options_.wants_kernel("matmul")) {
            for (int type = 0; type < RWKV_TYPE_COUNT; ++type) {
                if (!options_.wants_type(rwkv_block_type_of(static_cast<rwkv_type>(type))->name)) {
                    continue;
                }
                matmul(static_cast<rwkv_type>(type), 256, 1);
                matmul(static_cast<rwkv_type>(type), 1024, options_.uncached_bytes);
                if (k_.matrix[type].matmul_columns != nullptr) {
                    columns(static_cast<rwkv_type>(type), 1);
                    columns(static_cast<rwkv_type>(type), options_.uncached_bytes);
                }
            }
        }
        if (options_.wants_kernel("quantize")) quantize();
        if (options_.wants_kernel("layer_norm")) layer_norm();
        if (options_.wants_kernel("wkv")) recurrences();
        if (options_.wants_kernel("elementwise")) elementwise();
        return figures_;
    }

  private:
    // `footprint`: the bytes that calls go through again and again, which says how near they lie.
    template <class Call>
    void add(const char* kernel, const char* type, const std::string& shape, size_t rows,
             double bytes, double footprint, double macs, double macs_per_second, Call&& call) {
        progress(level_ + " " + kernel + " " + type + " " + shape + " rows " +
                 std::to_string(rows));
        const double seconds = time_of(options_, call);
        const double multiply = macs_per_second > 0 ? macs / macs_per_second : 0;
        const double limit = std::max(bytes / read_rate(footprint), multiply);
        figures_.push_back({level_, kernel, type, shape, rows, seconds, bytes, macs, limit});
    }

    // Products with as many matrices (n_out, 1024) as fill min_bytes, one after the other: a single
    // one stays in the cache.
    void matmul(rwkv_type type, size_t n_out, size_t min_bytes) {
        constexpr size_t kIn = 1024;
        const rwkv_matrix_kernels& m = k_.matrix[type];
        const size_t size = rwkv::round_up(m.packed_size(type, n_out, kIn), 64);
        const size_t count = (min_bytes + size - 1) / size;
        const size_t panels = n_out / RWKV_PANEL;
        const rwkv::Memory memory(size * count);
        const std::vector<uint8_t> weights = random_weights(type, n_out * kIn);
        std::vector<rwkv_matrix> matrices;
        for (size_t i = 0; i < count; ++i) {
            uint8_t* at = memory.data() + i * size;
            if (i == 0) {
                m.pack(type, weights.data(), n_out, kIn, 0, panels, at);
            } else {
                std::memcpy(at, memory.data(), size);
            }
            matrices.push_back({at, n_out, kIn, type, 0});
        }
        for (const size_t rows : options_.rows) {
            std::vector<float> x = random_floats(rows * kIn);
            const size_t tile = std::min<size_t>(rows, RWKV_TILE);
            std::vector<rwkv_q8> q8(rwkv::round_up(rows, tile) * kIn / RWKV_BLOCK);
            std::vector<uint16_t> bf16(rwkv::round_up(rows, RWKV_WIDE) * kIn);
            if (k_.to_bf16 != nullptr) k_.to_bf16(x.data(), rows * kIn, bf16.data());
            const rwkv_rows in = {x.data(), q8.data(), bf16.data(), kIn, kIn, tile};
            for (size_t i = 0; i < rows; ++i) {
                k_.quantize(&x[i * kIn], kIn, rwkv_q8_row(&in, i), tile);
            }
            std::vector<float> y(rows * n_out);
            const double macs = static_cast<double>(rows * n_out * kIn);
            const std::string shape = std::to_string(n_out) + "x" + std::to_string(kIn) +
                                      (count > 1 ? " in memory" : " in cache");
            const bool fp = !rwkv_is_quantised(type);
            size_t turn = 0;
            const auto measure = [&](const char* kernel, auto* product, double rate) {
                add(kernel, rwkv_block_type_of(type)->name, shape, rows, static_cast<double>(size),
                    static_cast<double>(size * count), macs, rate, [&] {
                        const rwkv_matrix* w = &matrices[turn++ % count];
                        product(w, &in, 0, rows, 0, panels, y.data(), n_out);
                    });
            };
            measure("matmul", m.matmul, fp ? rates_.fp32 : rates_.int8);
            if (m.matmul_wide != nullptr && rows >= RWKV_WIDE) {
                measure("matmul_wide", m.matmul_wide, rates_.bf16);
            }
        }
    }

    // Products with matrices by columns (1024, 4096), which one call takes whole: one row, all of
    // whose inputs are not zero, a half or a quarter of them, a few rows and a tile. What must be read
    // is the weights of those inputs and all that comes before them in a block.
    void columns(rwkv_type type, size_t min_bytes) {
        constexpr size_t kOut = 1024;
        constexpr size_t kIn = 4096;
        constexpr size_t kPanels = kOut / RWKV_COLUMN;
        const rwkv_matrix_kernels& m = k_.matrix[type];
        const size_t size = m.packed_size(type, kOut, kIn);
        const size_t count = (min_bytes + size - 1) / size;
        const rwkv::Memory memory(size * count);
        const std::vector<uint8_t> weights = random_weights(type, kOut * kIn);
        m.pack_columns(type, weights.data(), kOut, kIn, 0, kPanels, memory.data());
        for (size_t i = 1; i < count; ++i) {
            std::memcpy(memory.data() + i * size, memory.data(), size);
        }
        constexpr size_t kBlocks = kPanels * kIn / RWKV_BLOCK;
        const double block = static_cast<double>(size) / static_cast<double>(kBlocks);
        const bool fp = !rwkv_is_quantised(type);
        const double codes = fp ? block : type == RWKV_TYPE_Q8_0 ? 4096.0 : 2048.0;
        struct {
            size_t rows;
            unsigned in_use;  // of four inputs
        } const cases[] = {{1, 4}, {1, 2}, {1, 1}, {2, 2}, {4, 2}, {6, 2}, {RWKV_TILE, 1}};
        for (const auto& c : cases) {
            std::vector<float> x = random_floats(c.rows * kIn);
            Random random;
            for (float& v : x) v = random.next() >> 30 < c.in_use ? v : 0.0f;
            std::vector<rwkv_q8> q8(c.rows * kIn / RWKV_BLOCK);
            const rwkv_rows in = {x.data(), q8.data(), nullptr, kIn, kIn, c.rows};
            for (size_t i = 0; i < c.rows; ++i) {
                k_.quantize(&x[i * kIn], kIn, rwkv_q8_row(&in, i), c.rows);
            }
            std::vector<float> y(c.rows * RWKV_COLUMN);
            const double share = c.rows == 1 ? c.in_use / 4.0 : 1.0;
            const double bytes = static_cast<double>(size) * (1 - (1 - share) * codes / block);
            const std::string shape = std::to_string(kOut) + "x" + std::to_string(kIn) + ", " +
                                      std::to_string(25 * c.in_use) + " % of inputs" +
                                      (count > 1 ? " in memory" : " in cache");
            size_t turn = 0;
            add("matmul_columns", rwkv_block_type_of(type)->name, shape, c.rows, bytes,
                static_cast<double>(size * count), share * static_cast<double>(c.rows * kOut * kIn),
                fp ? rates_.fp32 : rates_.int8, [&] {
                    const rwkv_matrix w = {memory.data() + turn++ % count * size, kOut, kIn, type,
                                           1};
                    for (size_t panel = 0; panel < kPanels; ++panel) {
                        m.matmul_columns(&w, &in, 0, c.rows, panel, y.data(), RWKV_COLUMN);
                    }
                });
        }
    }

    void quantize() {
        constexpr size_t kN = 2048;
        const std::vector<float> x = random_floats(kN);
        std::vector<rwkv_q8> y(kN / RWKV_BLOCK);
        const double bytes = kN * 4.0 + static_cast<double>(y.size() * sizeof(rwkv_q8));
        add("quantize", "", std::to_string(kN), 1, bytes, bytes, 0, 0,
            [&] { k_.quantize(x.data(), kN, y.data(), 1); });
    }

    void layer_norm() {
        for (const size_t n : {size_t{64}, size_t{2048}}) {
            const std::vector<float> x = random_floats(3 * n);
            std::vector<float> y(n);
            const double bytes = 16.0 * static_cast<double>(n);
            add("layer_norm", "", std::to_string(n), 1, bytes, bytes, 0, 0,
                [&] { k_.layer_norm(&x[0], &x[n], &x[2 * n], 1e-5f, n, y.data()); });
        }
    }

    // One head of 64 channels (of WKV4: 2048 channels). Multiply-adds for each token and element of
    // the state: WKV5 S r, w S, + k v; WKV7 S a, w S, + s b, + v k, S r.
    void recurrences() {
        constexpr size_t kN = 64;
        constexpr size_t kChannels = 2048;
        for (const size_t tokens : {size_t{1}, size_t{256}}) {
            const size_t n = tokens * kN;
            const std::vector<float> in = random_floats(6 * n);
            const std::vector<float> decay(n, 0.9f);
            std::vector<float> small(6 * n);
            for (size_t i = 0; i < 6 * n; ++i) small[i] = in[i] * 0.05f;
            std::vector<float> y(n);
            std::vector<float> S(kN * kN);
            const double state = 2.0 * kN * kN * sizeof(float);
            const double rows = static_cast<double>(n * sizeof(float));
            const double elements = static_cast<double>(tokens * kN * kN);
            const std::string shape = std::to_string(kN) + "x" + std::to_string(kN);
            add("wkv5", "", shape, tokens, state + 5 * rows, state / 2 + 5 * rows, 3 * elements,
                rates_.fp32, [&] {
                    k_.wkv5(tokens, kN, kN, &in[0], &small[n], &in[2 * n], &in[0], decay.data(), kN,
                            S.data(), S.data(), y.data());
                });
            std::fill(S.begin(), S.end(), 0.0f);
            add("wkv7", "", shape, tokens, state + 7 * rows, state / 2 + 7 * rows, 5 * elements,
                rates_.fp32, [&] {
                    k_.wkv7(tokens, kN, kN, &in[0], decay.data(), &small[n], &in[2 * n],
                            &small[3 * n], &small[4 * n], S.data(), S.data(), y.data());
                });

            const std::vector<float> kv = random_floats(2 * tokens * kChannels);
            const std::vector<float> w(kChannels, -0.5f);
            std::vector<float> y4(tokens * kChannels);
            std::vector<float> s4(3 * kChannels);
            const double bytes = 12.0 * static_cast<double>(tokens * kChannels) + 32.0 * kChannels;
            add("wkv4", "", std::to_string(kChannels), tokens, bytes, bytes, 0, 0, [&] {
                k_.wkv4(tokens, kChannels, kChannels, &kv[0], w.data(), &kv[0],
                        &kv[tokens * kChannels], s4.data(), kChannels, s4.data(), kChannels,
                        y4.data());
            });
        }
    }

    void elementwise() {
        constexpr size_t kN = 2048;
        const std::vector<float> in = random_floats(3 * kN);
        const float* a = &in[0];
        const float* b = &in[kN];
        const float* c = &in[2 * kN];
        std::vector<float> out(kN);
        float* y = out.data();
        const std::string shape = std::to_string(kN);
        const auto one = [&](const char* name, int arrays, auto&& call) {
            const double bytes = 4.0 * kN * arrays;
            add(name, "", shape, 1, bytes, bytes, 0, 0, call);
        };
        one("lerp", 4, [&] { k_.lerp(a, b, c, kN, y); });
        one("add", 3, [&] { k_.add(a, b, kN, y); });
        one("mul", 3, [&] { k_.mul(a, b, kN, y); });
        // Sums that go on from call to call: scaled down, so that they stay finite.
        const std::vector<float> zeros(kN);
        one("add_mul", 4, [&] { k_.add_mul(a, zeros.data(), kN, y); });
        one("sigmoid", 2, [&] { k_.sigmoid(a, kN, y); });
        one("tanh", 2, [&] { k_.tanh(a, kN, y); });
        one("silu", 2, [&] { k_.silu(a, kN, y); });
        one("relu2", 2, [&] { k_.relu2(a, kN, y); });
        one("decay_v6", 2, [&] { k_.decay_v6(a, kN, y); });
        const rwkv_weights_v7 weights = {a, a, a, b, b, b, c, c, 64e-5f};
        std::vector<std::vector<float>> rows(11, std::vector<float>(kN, 0.5f));
        const auto row = [&](size_t i) { return rows[i].data(); };
        const rwkv_head_v7 head = {row(0), row(1), row(2), row(3), row(4), row(5),
                                   row(6), row(7), row(8), row(9), row(10)};
        one("before_wkv7", 17, [&] { k_.before_wkv7(&weights, &head, kN); });
        one("after_wkv7", 10, [&] { k_.after_wkv7(&weights, &head, kN); });
    }

    const Options& options_;
    std::string level_;
    rwkv_kernels k_;
    MultiplyRates rates_;
    std::vector<Figure> figures_;
};

// ---- printing
// -------------------------------------------------------------------------------------

void print_limits(const Options& o) {
    if (o.json) std::printf("{\n  \"read\": [");
    const char* comma = "";
    if (!o.json) std::printf("%14s %8s %10s\n", "bytes read", "threads", "GB/s");
    for (const size_t bytes : o.read_bytes) {
        for (const size_t threads : o.threads) {
            progress("reading " + std::to_string(bytes) + " bytes");
            const double rate = rwkv_bench::read_rate(bytes, threads);
            progress("");
            if (o.json) {
                std::printf("%s\n    {\"bytes\": %zu, \"threads\": %zu, \"bytes_per_s\": %.6g}",
                            comma, bytes, threads, rate);
                comma = ",";
            } else {
                std::printf("%14zu %8zu %10.1f\n", bytes, threads, rate / 1e9);
            }
        }
    }
    if (o.json) {
        std::printf("\n  ],\n  \"multiply\": [");
    } else {
        std::printf("\n%14s %8s %10s %10s %10s   (10^9 multiply-adds/s)\n", "level", "threads",
                    "int8", "bf16", "fp32");
    }
    comma = "";
    for (const std::string& level : o.levels) {
        for (const size_t threads : o.threads) {
            progress("multiplying, " + level);
            const MultiplyRates rates = rwkv_bench::multiply_rates(level, threads);
            progress("");
            if (o.json) {
                std::printf(
                    "%s\n    {\"level\": \"%s\", \"threads\": %zu, \"int8\": %.6g, "
                    "\"bf16\": %.6g, \"fp32\": %.6g}",
                    comma, level.c_str(), threads, rates.int8, rates.bf16, rates.fp32);
                comma = ",";
            } else {
                std::printf("%14s %8zu %10.1f %10.1f %10.1f\n", level.c_str(), threads,
                            rates.int8 / 1e9, rates.bf16 / 1e9, rates.fp32 / 1e9);
            }
        }
    }
    if (o.json) std::printf("\n  ]\n}\n");
}

void print_pool(const Options& o) {
    if (o.json) {
        std::printf("[");
    } else {
        std::printf("%8s %13s %18s %10s %10s %12s\n", "threads", "region, us", "beyond pieces, us",
                    "run, us", "wake, us", "idle, ms/s");
    }
    const char* comma = "";
    for (const size_t threads : o.threads) {
        progress("pool of " + std::to_string(threads));
        const rwkv_bench::PoolCosts c = rwkv_bench::pool_costs(threads, o.seconds);
        progress("");
        if (o.json) {
            std::printf(
                "%s\n  {\"threads\": %zu, \"region\": %.6g, \"beyond_pieces\": %.6g, "
                "\"run\": %.6g, \"wake\": %.6g, \"idle\": %.6g}",
                comma, threads, c.region, c.beyond_pieces, c.run, c.wake, c.idle);
            comma = ",";
        } else {
            std::printf("%8zu %13.2f %18.2f %10.2f %10.2f %12.3f\n", threads, c.region * 1e6,
                        c.beyond_pieces * 1e6, c.run * 1e6, c.wake * 1e6, c.idle * 1e3);
        }
    }
    if (o.json) std::printf("\n]\n");
}

void print_header() {
    std::printf("%-12s %-11s %-5s %-20s %5s %12s %9s %9s %6s\n", "level", "kernel", "type", "shape",
                "rows", "us", "GB/s", "GMAC/s", "limit");
}

void print(const Figure& f) {
    std::printf("%-12s %-11s %-5s %-20s %5zu %12.3f %9.1f %9.1f %5.0f%%\n", f.level.c_str(),
                f.kernel.c_str(), f.type.c_str(), f.shape.c_str(), f.rows, f.seconds * 1e6,
                f.bytes / f.seconds / 1e9, f.macs / f.seconds / 1e9, 100 * f.limit / f.seconds);
}

void print_json(const std::vector<Figure>& figures) {
    std::printf("[");
    const char* comma = "";
    for (const Figure& f : figures) {
        std::printf(
            "%s\n  {\"level\": \"%s\", \"kernel\": \"%s\", \"type\": \"%s\", "
            "\"shape\": \"%s\", \"rows\": %zu, \"seconds\": %.6g, \"bytes\": %.6g, "
            "\"macs\": %.6g, \"share_of_limit\": %.4g}",
            comma, f.level.c_str(), f.kernel.c_str(), f.type.c_str(), f.shape.c_str(), f.rows,
            f.seconds, f.bytes, f.macs, f.limit / f.seconds);
        comma = ",";
    }
    std::printf("\n]\n");
}

int run(const Options& options) {
    if (options.limits_only) {
        print_limits(options);
        return 0;
    }
    if (options.pool_only) {
        print_pool(options);
        return 0;
    }
    std::vector<Figure> all;
    if (!options.json) print_header();
    for (const std::string& level : options.levels) {
        const std::vector<Figure> figures = Bench(options, level).run();
        progress("");
        if (!options.json) std::for_each(figures.begin(), figures.end(), print);
        all.insert(all.end(), figures.begin(), figures.end());
    }
    if (options.json) print_json(all);
    return 0;
}

}  // namespace

int main(int argc, char** argv) {
    const Options options = parse(argc, argv);
    try {
        return run(options);
    } catch (const std::exception& error) {
        std::fprintf(stderr, "bench_kernels: %s\n", error.what());
        return 1;
    }
}
