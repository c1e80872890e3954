#include "state_file.h"

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <cstring>
#include <memory>
#include <vector>

#include "block_types.h"
#include "hash64.h"
#include "input_file.h"
#include "new_file.h"
#include "status.h"

namespace rwkv {

namespace {

constexpr char kMagic[8] = {'r', 'w', 'k', 'v', 's', 't', 'a', 't'};
constexpr uint32_t kFileVersion = 1;

// The file: this header, n_floats numbers of `type`, and the Hash64 of all before it. The format
// and every supported machine are little-endian.
struct Header {
    char magic[8];
    uint32_t file_version;
    uint32_t type;  // rwkv_state_type
    uint64_t fingerprint;
    char model_version[8];  // "7", filled up with zeros
    uint32_t n_layer;
    uint32_t n_embd;
    uint32_t n_head;
    uint32_t head_size;
    uint64_t n_floats;
};
static_assert(sizeof(Header) == 56, "the header has no gaps");

rwkv_type block_type_of(uint32_t type) {
    return type == RWKV_STATE_FP16 ? RWKV_TYPE_FP16 : RWKV_TYPE_FP32;
}

Header header_of(const Model& model, rwkv_state_type type) {
    const Config& c = model.config;
    Header h = {};
    std::memcpy(h.magic, kMagic, sizeof kMagic);
    h.file_version = kFileVersion;
    h.type = static_cast<uint32_t>(type);
    h.fingerprint = model.fingerprint;
    std::snprintf(h.model_version, sizeof h.model_version, "%s", version_name(c.version));
    h.n_layer = static_cast<uint32_t>(c.n_layer);
    h.n_embd = static_cast<uint32_t>(c.n_embd);
    h.n_head = static_cast<uint32_t>(c.n_head);
    h.head_size = static_cast<uint32_t>(c.head_size);
    h.n_floats = c.state_size();
    return h;
}

[[noreturn]] void damaged(const std::string& path, const char* what) {
    throw Failure(RWKV_STATUS_STATE_FORMAT,
                  format("%s: %s. The file is corrupt, save the state again", path.c_str(), what));
}

// What the header says, against the file's size. Who wrote it matters only after the checksum has
// said that the header is what was written.
void check_header(const std::string& path, const Header& h, size_t n_bytes) {
    if (h.file_version != kFileVersion) {
        throw Failure(
            RWKV_STATUS_STATE_VERSION,
            format("%s: version of the state file, expected %u, got %u. Save it again with "
                   "this version of the library, or read it with the one that wrote it",
                   path.c_str(), kFileVersion, h.file_version));
    }
    if (h.type != RWKV_STATE_FP32 && h.type != RWKV_STATE_FP16) {
        damaged(path, format("type, expected 0 (fp32) or 1 (fp16), got %u", h.type).c_str());
    }
    const size_t number_bytes = rwkv_block_bytes(block_type_of(h.type));
    if (h.n_floats > (SIZE_MAX / 2) / number_bytes)
        damaged(path, "size, expected a possible one, got another");
    const size_t expected = sizeof h + h.n_floats * number_bytes + sizeof(uint64_t);
    if (n_bytes < expected) {
        throw Failure(RWKV_STATUS_STATE_TRUNCATED,
                      format("%s: truncated, expected %zu bytes, got %zu. Copy or save it again",
                             path.c_str(), expected, n_bytes));
    }
    if (n_bytes > expected) {
        damaged(path, format("size, expected %zu bytes, got %zu", expected, n_bytes).c_str());
    }
}

void check_model(const Model& model, const std::string& path, const Header& h) {
    const Header own = header_of(model, static_cast<rwkv_state_type>(h.type));
    if (std::memcmp(&own, &h, sizeof h) == 0) return;
    const auto describe = [](const Header& x) {
        return format("RWKV-%.8s of %u layers, width %u, fingerprint %016llx", x.model_version,
                      x.n_layer, x.n_embd, static_cast<unsigned long long>(x.fingerprint));
    };
    throw Failure(
        RWKV_STATUS_STATE_MISMATCH,
        format("%s: a state of another model, expected one of %s (%s), got %s. Open the model file "
               "that wrote it",
               path.c_str(), model.path.c_str(), describe(own).c_str(), describe(h).c_str()));
}

}  // namespace

void save_state(const Model& model, const State& state, const std::string& path,
                rwkv_state_type type) {
    const size_t n = model.config.state_size();
    const auto values = std::make_unique<float[]>(n);
    state.read(values.get());
    const float limit = type == RWKV_STATE_FP16 ? 65504.0f : 3.402823466e+38f;
    for (size_t i = 0; i < n; ++i) {
        if (std::fabs(values[i]) <= limit) continue;  // false for NaN
        throw Failure(
            RWKV_STATUS_STATE_VALUE,
            format("%s: cannot be written: number %zu of the state, expected at most %g in %s, got "
                   "%g. %s",
                   path.c_str(), i, static_cast<double>(limit),
                   type == RWKV_STATE_FP16 ? "fp16" : "fp32", static_cast<double>(values[i]),
                   type == RWKV_STATE_FP16 ? "Try fp32" : "Reset the session"));
    }

    const rwkv_type stored = block_type_of(type);
    const size_t payload_bytes = n * rwkv_block_bytes(stored);
    std::vector<uint8_t> bytes(sizeof(Header) + payload_bytes);
    const Header header = header_of(model, type);
    std::memcpy(bytes.data(), &header, sizeof header);
    quantize_row(stored, values.get(), n, bytes.data() + sizeof header);
    Hash64 hash;
    hash.add(bytes.data(), bytes.size());
    const uint64_t checksum = hash.value();

    NewFile file(path);
    file.write(bytes.data(), bytes.size());
    file.write(&checksum, sizeof checksum);
    file.finish();
}

State load_state(const Model& model, const std::string& path) {
    const InputFile file(path);
    char magic[sizeof kMagic] = {};
    file.read(0, std::min(sizeof magic, file.size()), magic);
    if (std::memcmp(magic, kMagic, sizeof kMagic) != 0) {
        throw Failure(
            RWKV_STATUS_STATE_FORMAT,
            format("%s: not a state file, expected it to begin with 'rwkvstat', got other "
                   "bytes. Try one that was saved from a session",
                   path.c_str()));
    }
    Header header;
    if (file.size() < sizeof header) {
        throw Failure(RWKV_STATUS_STATE_TRUNCATED,
                      format("%s: truncated, expected a header of %zu bytes, got %zu. Copy or save "
                             "it again",
                             path.c_str(), sizeof header, file.size()));
    }
    file.read(0, sizeof header, &header);
    check_header(path, header, file.size());  // no more memory than a file of this size is worth

    std::vector<uint8_t> bytes(file.size());
    file.read(0, bytes.size(), bytes.data());
    // The header that is used is the one that the checksum is of.
    std::memcpy(&header, bytes.data(), sizeof header);
    check_header(path, header, bytes.size());
    const size_t n_hashed = bytes.size() - sizeof(uint64_t);
    uint64_t checksum;
    std::memcpy(&checksum, bytes.data() + n_hashed, sizeof checksum);
    Hash64 hash;
    hash.add(bytes.data(), n_hashed);
    if (hash.value() != checksum)
        damaged(path, "checksum, expected that of its bytes, got another");
    check_model(model, path, header);  // from here on the sizes are the model's

    const size_t n = model.config.state_size();
    const auto values = std::make_unique<float[]>(n);
    dequantize_row(block_type_of(header.type), bytes.data() + sizeof header, n, values.get());
    for (size_t i = 0; i < n; ++i) {
        if (std::isfinite(values[i])) continue;
        throw Failure(RWKV_STATUS_STATE_VALUE,
                      format("%s: number %zu of the state, expected a finite one, got %g",
                             path.c_str(), i, static_cast<double>(values[i])));
    }
    State state(model);
    state.write(values.get());
    return state;
}

}  // namespace rwkv
