#include "state_file.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <atomic>
#include <cerrno>
#include <cmath>
#include <cstdio>
#include <cstring>
#include <memory>
#include <vector>

#include "block_types.h"
#include "hash64.h"
#include "mapped_file.h"
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

// A file that appears under its name when it is complete, and else leaves nothing.
class NewFile {
  public:
    explicit NewFile(const std::string& path) : path_(path) {
        static std::atomic<unsigned> count{0};
        do {
            temporary_ = format("%s.%ld-%u.partial", path.c_str(), static_cast<long>(::getpid()),
                                count.fetch_add(1));
            file_ = ::open(temporary_.c_str(), O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0666);
        } while (file_ < 0 && errno == EEXIST);
        if (file_ < 0) fail(errno);
    }

    ~NewFile() {
        if (file_ >= 0) ::close(file_);
        if (!done_ && !temporary_.empty()) ::unlink(temporary_.c_str());
    }

    NewFile(const NewFile&) = delete;
    NewFile& operator=(const NewFile&) = delete;

    void write(const void* bytes, size_t n) {
        const auto* p = static_cast<const char*>(bytes);
        while (n > 0) {
            const ssize_t written = ::write(file_, p, n);
            if (written < 0 && errno == EINTR) continue;
            if (written < 0) fail(errno);
            p += written;
            n -= static_cast<size_t>(written);
        }
    }

    void finish() {
        // On the disk before it takes the place of an older file.
        if (::fsync(file_) != 0 && errno != EINVAL) fail(errno);
        const int closed = ::close(file_);
        file_ = -1;
        if (closed != 0 || ::rename(temporary_.c_str(), path_.c_str()) != 0) fail(errno);
        done_ = true;
    }

  private:
    // The destructor of an object whose constructor throws does not run, but then there is no file.
    [[noreturn]] void fail(int error) const {
        throw Failure(RWKV_STATUS_FILE_UNWRITABLE,
                      format("%s: cannot be written: %s. Try another folder.", path_.c_str(),
                             std::strerror(error)));
    }

    const std::string path_;
    std::string temporary_;
    int file_ = -1;
    bool done_ = false;
};

[[noreturn]] void damaged(const std::string& path, const char* what) {
    throw Failure(RWKV_STATUS_STATE_FORMAT,
                  format("%s: %s; the file is corrupt. Save the state again.", path.c_str(), what));
}

// What the header says, against the file's size. Who wrote it matters only after the checksum has
// said that the header is what was written.
void check_header(const std::string& path, const Header& h, size_t n_bytes) {
    if (h.file_version != kFileVersion) {
        throw Failure(RWKV_STATUS_STATE_VERSION,
                      format("%s: state file of version %u, expected %u. Save it again with this "
                             "version of the library, or read it with the one that wrote it.",
                             path.c_str(), h.file_version, kFileVersion));
    }
    if (h.type != RWKV_STATE_FP32 && h.type != RWKV_STATE_FP16) {
        damaged(path, format("type %u, expected 0 (fp32) or 1 (fp16)", h.type).c_str());
    }
    const size_t number_bytes = rwkv_block_bytes(block_type_of(h.type));
    if (h.n_floats > (SIZE_MAX / 2) / number_bytes) damaged(path, "an impossible size");
    const size_t expected = sizeof h + h.n_floats * number_bytes + sizeof(uint64_t);
    if (n_bytes < expected) {
        throw Failure(RWKV_STATUS_STATE_TRUNCATED,
                      format("%s: truncated: expected %zu bytes, got %zu. Copy or save it again.",
                             path.c_str(), expected, n_bytes));
    }
    if (n_bytes > expected) {
        damaged(path, format("expected %zu bytes, got %zu", expected, n_bytes).c_str());
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
        format("%s: a state of another model: expected one of %s (%s), got %s. Open the model file "
               "that wrote it.",
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
            format("%s: not written: number %zu of the state is %g, expected at most %g "
                   "in %s.%s",
                   path.c_str(), i, values[i], limit, type == RWKV_STATE_FP16 ? "fp16" : "fp32",
                   type == RWKV_STATE_FP16 ? " Try fp32." : " Reset the session."));
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
    const MappedFile file(path);
    if (file.size() < sizeof kMagic || std::memcmp(file.data(), kMagic, sizeof kMagic) != 0) {
        throw Failure(RWKV_STATUS_STATE_FORMAT,
                      format("%s: not a state file (it does not begin with 'rwkvstat'). Try one "
                             "that was saved from a session.",
                             path.c_str()));
    }
    Header header;
    if (file.size() < sizeof header) {
        throw Failure(RWKV_STATUS_STATE_TRUNCATED,
                      format("%s: truncated: the header needs %zu bytes, got %zu. Copy or save it "
                             "again.",
                             path.c_str(), sizeof header, file.size()));
    }
    std::memcpy(&header, file.data(), sizeof header);
    check_header(path, header, file.size());

    const size_t n_hashed = file.size() - sizeof(uint64_t);
    uint64_t checksum;
    std::memcpy(&checksum, file.data() + n_hashed, sizeof checksum);
    Hash64 hash;
    hash.add(file.data(), n_hashed);
    if (hash.value() != checksum) damaged(path, "the checksum is wrong");
    check_model(model, path, header);  // from here on the sizes are the model's

    const size_t n = model.config.state_size();
    const auto values = std::make_unique<float[]>(n);
    dequantize_row(block_type_of(header.type), file.data() + sizeof header, n, values.get());
    for (size_t i = 0; i < n; ++i) {
        if (std::isfinite(values[i])) continue;
        throw Failure(RWKV_STATUS_STATE_VALUE,
                      format("%s: number %zu of the state is %g, expected finite numbers.",
                             path.c_str(), i, values[i]));
    }
    State state(model);
    state.write(values.get());
    return state;
}

}  // namespace rwkv
