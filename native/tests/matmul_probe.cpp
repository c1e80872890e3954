// One matrix product of the kernels, for tests that compute the same in another language:
//
//     matmul_probe TYPE N_OUT N_IN W X OUT
//
// W holds a matrix (N_OUT, N_IN) of the type (q4_0, ...) as it lies in model files, X raw float32
// (rows, N_IN). The level is that of RWKV_KERNELS. OUT receives, raw and one after another,
//     y    float32 (rows, n_out)       x times the transpose of the matrix
//     d    float32 (rows, n_in / 32)   the activations' scales ...
//     sum  float32 (rows, n_in / 32)   ... the sums of their codes ...
//     q    int8    (rows, n_in)        ... and the codes; these three for quantised matrices only
//
//     matmul_probe              prints the levels that this machine supports, one a line
//     matmul_probe LEVEL...     fails unless it supports these (not six of them)
#include <algorithm>
#include <cstdio>
#include <cstring>
#include <exception>
#include <string>
#include <vector>

#include "block_types.h"
#include "input_file.h"
#include "kernels/registry.h"
#include "memory.h"

namespace {

std::vector<float> read_floats(const char* path) {
    const rwkv::InputFile file(path);
    std::vector<float> x(file.size() / sizeof(float));
    file.read(0, x.size() * sizeof(float), x.data());
    return x;
}

rwkv_type type_named(const char* name) {
    int type = 0;
    while (type < RWKV_TYPE_COUNT &&
           std::strcmp(rwkv::type_name(static_cast<rwkv_type>(type)), name) != 0) {
        ++type;
    }
    return static_cast<rwkv_type>(type);
}

template <class T>
bool write(std::FILE* file, const std::vector<T>& values) {
    return std::fwrite(values.data(), sizeof(T), values.size(), file) == values.size();
}

bool probe(const char* type_text, size_t n_out, size_t n_in, const char* w_path, const char* x_path,
           const char* out_path) {
    const rwkv_type type = type_named(type_text);
    const rwkv::InputFile w(w_path);
    if (type == RWKV_TYPE_COUNT || n_out == 0 || n_in == 0 ||
        w.size() != n_out * rwkv_row_bytes(type, n_in)) {
        std::fprintf(stderr, "%s: no matrix (%zu, %zu) of type %s\n", w_path, n_out, n_in,
                     type_text);
        return false;
    }
    const rwkv_kernels kernels = rwkv::choose_kernels();
    const rwkv_matrix_kernels& m = kernels.matrix[type];
    const size_t n_panels = (n_out + RWKV_PANEL - 1) / RWKV_PANEL;
    const rwkv::Memory packed(m.packed_size(type, n_out, n_in));
    std::vector<uint8_t> bytes(w.size());
    w.read(0, bytes.size(), bytes.data());
    m.pack(type, bytes.data(), n_out, n_in, 0, n_panels, packed.data());

    std::vector<float> x = read_floats(x_path);
    const size_t n_rows = x.size() / n_in;
    const bool quantised = rwkv_is_quantised(type) != 0;
    const size_t n_blocks = quantised ? n_in / RWKV_BLOCK : 0;
    std::vector<float> y(n_rows * n_out);
    const size_t tile = std::clamp<size_t>(n_rows, 1, RWKV_TILE);
    std::vector<rwkv_q8> q8(rwkv::round_up(n_rows, tile) * n_blocks);
    const rwkv_rows rows = {x.data(), q8.data(), nullptr, n_in, n_in, tile};
    std::vector<float> d;
    std::vector<float> sum;
    std::vector<int8_t> q;
    for (size_t i = 0; quantised && i < n_rows; ++i) {
        rwkv_q8* row = rwkv_q8_row(&rows, i);
        kernels.quantize(x.data() + i * n_in, n_in, row, tile);
        for (size_t b = 0; b < n_blocks; ++b) {
            const rwkv_q8& block = row[b * tile];
            d.push_back(block.d);
            sum.push_back(static_cast<float>(block.minus_8_sum) / -8.0f);
            q.insert(q.end(), block.q, block.q + RWKV_BLOCK);
        }
    }
    const rwkv_matrix matrix = {packed.data(), n_out, n_in, type, 0};
    m.matmul(&matrix, &rows, 0, n_rows, 0, n_panels, y.data(), n_out);

    std::FILE* out = std::fopen(out_path, "wb");
    if (out == nullptr) return false;
    const bool written = write(out, y) && write(out, d) && write(out, sum) && write(out, q);
    return std::fclose(out) == 0 && written;
}

}  // namespace

int main(int argc, char** argv) {
    if (argc == 7) {
        try {
            const size_t n_out = std::stoul(argv[2]);
            const size_t n_in = std::stoul(argv[3]);
            return probe(argv[1], n_out, n_in, argv[4], argv[5], argv[6]) ? 0 : 1;
        } catch (const std::exception& error) {
            std::fprintf(stderr, "%s\n", error.what());
            return 1;
        }
    }
    if (argc == 1) {
        for (const char* const* name = rwkv::kernel_names(); *name != nullptr; ++name) {
            if (rwkv::kernels_supported(*name)) std::puts(*name);
        }
    }
    int n_missing = 0;
    for (int i = 1; i < argc; ++i) {
        if (rwkv::kernels_supported(argv[i])) continue;
        std::fprintf(stderr, "%s: expected a level of this machine\n", argv[i]);
        ++n_missing;
    }
    return n_missing == 0 ? 0 : 1;
}
