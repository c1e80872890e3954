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
constexpr uint32_t kFileVersion = 2;

// The file: this header; n_floats numbers of `type`, the state; n_hidden numbers in fp32, its hidden
// state, or none; and the Hash64 of all before it. The format and every supported machine are
// little-endian. Version 1 has neither hidden state nor the header's last two fields.
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
    uint32_t n_hidden;  // n_embd, or 0
    uint32_t zero;
};
static_assert(sizeof(Header) == 64, "the header has no gaps");
constexpr size_t kHeaderBytes1 = 56;  // of version 1

size_t header_bytes(const Header& h) { return h.file_version == 1 ? kHeaderBytes1 : sizeof h; }

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
    if (h.file_version != 1 && h.file_version != kFileVersion) {
        throw Failure(
            RWKV_STATUS_STATE_VERSION,
            format("%s: version of the state file, expected 1 or %u, got %u. Save it again with "
                   "this version of the library, or read it with the one that wrote it",
                   path.c_str(), kFileVersion, h.file_version));
    }
    if (h.type != RWKV_STATE_FP32 && h.type != RWKV_STATE_FP16) {
        damaged(path, format("type, expected 0 (fp32) or 1 (fp16), got %u", h.type).c_str());
    }
    const size_t number_bytes = rwkv_block_bytes(block_type_of(h.type));
    if (h.n_floats > (SIZE_MAX / 4) / number_bytes)
        damaged(path, "size, expected a possible one, got another");
    const size_t expected =
        header_bytes(h) + h.n_floats * number_bytes + h.n_hidden * sizeof(float) + sizeof(uint64_t);
    if (n_bytes < expected) {
        throw Failure(RWKV_STATUS_STATE_TRUNCATED,
                      format("%s: truncated, expected %zu bytes, got %zu. Copy or save it again",
                             path.c_str(), expected, n_bytes));
    }
    if (n_bytes > expected) {
        damaged(path, format("size, expected %zu bytes, got %zu", expected, n_bytes).c_str());
    }
}

// Reads the header, which has been found to be as long as the file is.
Header read_header(const InputFile& file) {
    Header h = {};
    const auto require = [&](size_t n_bytes) {
        if (file.size() >= n_bytes) return;
        throw Failure(RWKV_STATUS_STATE_TRUNCATED,
                      format("%s: truncated, expected a header of %zu bytes, got %zu. Copy or save "
                             "it again",
                             file.path().c_str(), n_bytes, file.size()));
    };
    require(kHeaderBytes1);
    file.read(0, kHeaderBytes1, &h);
    if (h.file_version == 1) return h;
    require(sizeof h);
    file.read(0, sizeof h, &h);
    return h;
}

void check_model(const Model& model, const std::string& path, const Header& h) {
    Header own = header_of(model, static_cast<rwkv_state_type>(h.type));
    own.file_version = h.file_version;
    own.n_hidden = h.n_hidden;
    if (h.n_hidden != 0 && h.n_hidden != h.n_embd) {
        damaged(path,
                format("hidden state, expected %u numbers or none, got %u", h.n_embd, h.n_hidden)
                    .c_str());
    }
    if (std::memcmp(&own, &h, sizeof h) == 0) return;
    const auto describe = [](const Header& x) {
        return printable(format("RWKV-%.8s of %u layers, width %u, fingerprint %016llx",
                                x.model_version, x.n_layer, x.n_embd,
                                static_cast<unsigned long long>(x.fingerprint)));
    };
    throw Failure(
        RWKV_STATUS_STATE_MISMATCH,
        format("%s: a state of another model, expected one of %s (%s), got %s. Open the model file "
               "that wrote it",
               path.c_str(), model.path.c_str(), describe(own).c_str(), describe(h).c_str()));
}

}  // namespace

std::vector<uint8_t> state_bytes(const Model& model, const State& state, rwkv_state_type type,
                                 const std::string& where) {
    const size_t n = model.config.state_size();
    const size_t n_hidden = state.has_hidden() ? model.config.n_embd : 0;
    const auto values = std::make_unique<float[]>(n);
    state.read(values.get());
    // Numbers that are not finite, or too large for the type, would not come back.
    const auto require_storable = [&](const float* x, size_t count, rwkv_state_type as,
                                      const char* what) {
        const float limit = as == RWKV_STATE_FP16 ? 65504.0f : 3.402823466e+38f;
        for (size_t i = 0; i < count; ++i) {
            if (std::fabs(x[i]) <= limit) continue;  // false for NaN
            throw Failure(
                RWKV_STATUS_STATE_VALUE,
                format("%s: cannot be written: number %zu of the %s, expected at most %g in %s, "
                       "got %g. %s",
                       where.c_str(), i, what, static_cast<double>(limit),
                       as == RWKV_STATE_FP16 ? "fp16" : "fp32", static_cast<double>(x[i]),
                       as == RWKV_STATE_FP16 ? "Try fp32" : "Reset the session"));
        }
    };
    require_storable(values.get(), n, type, "state");
    require_storable(state.hidden(), n_hidden, RWKV_STATE_FP32, "hidden state");

    const rwkv_type stored = block_type_of(type);
    const size_t payload_bytes = n * rwkv_block_bytes(stored);
    std::vector<uint8_t> bytes(sizeof(Header) + payload_bytes + n_hidden * sizeof(float) +
                               sizeof(uint64_t));
    Header header = header_of(model, type);
    header.n_hidden = static_cast<uint32_t>(n_hidden);
    uint8_t* p = bytes.data();
    std::memcpy(p, &header, sizeof header);
    p += sizeof header;
    quantize_row(stored, values.get(), n, p);
    p += payload_bytes;
    std::memcpy(p, state.hidden(), n_hidden * sizeof(float));
    p += n_hidden * sizeof(float);
    Hash64 hash;
    hash.add(bytes.data(), static_cast<size_t>(p - bytes.data()));
    const uint64_t checksum = hash.value();
    std::memcpy(p, &checksum, sizeof checksum);
    return bytes;
}

void save_state(const Model& model, const State& state, const std::string& path,
                rwkv_state_type type) {
    const std::vector<uint8_t> bytes = state_bytes(model, state, type, path);
    NewFile file(path);
    file.write(bytes.data(), bytes.size());
    file.finish();
}

State load_state(const Model& model, const InputFile& file) {
    const std::string& path = file.path();
    char magic[sizeof kMagic] = {};
    file.read(0, std::min(sizeof magic, file.size()), magic);
    if (std::memcmp(magic, kMagic, sizeof kMagic) != 0) {
        throw Failure(
            RWKV_STATUS_STATE_FORMAT,
            format("%s: not a state file, expected it to begin with 'rwkvstat', got other "
                   "bytes. Try one that was saved from a session",
                   path.c_str()));
    }
    check_header(path, read_header(file), file.size());  // no more memory than such a file is worth

    std::vector<uint8_t> bytes(file.size());
    file.read(0, bytes.size(), bytes.data());
    // The header that is used is the one that the checksum is of.
    const Header header = read_header(InputFile(bytes.data(), bytes.size()));
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
    const rwkv_type stored = block_type_of(header.type);
    const uint8_t* p = bytes.data() + header_bytes(header);
    dequantize_row(stored, p, n, values.get());
    p += n * rwkv_block_bytes(stored);
    std::vector<float> hidden(header.n_hidden);
    if (!hidden.empty()) std::memcpy(hidden.data(), p, hidden.size() * sizeof(float));
    const auto require_finite = [&](const float* x, size_t count, const char* what) {
        for (size_t i = 0; i < count; ++i) {
            if (std::isfinite(x[i])) continue;
            throw Failure(RWKV_STATUS_STATE_VALUE,
                          format("%s: number %zu of the %s, expected a finite one, got %g",
                                 path.c_str(), i, what, static_cast<double>(x[i])));
        }
    };
    require_finite(values.get(), n, "state");
    require_finite(hidden.data(), hidden.size(), "hidden state");
    State state(model);
    state.write(values.get(), hidden.empty() ? nullptr : hidden.data());
    return state;
}

}  // namespace rwkv
