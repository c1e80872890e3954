#include "error_flags.h"

#include <exception>
#include <string>
#include <unordered_set>

#include "block_types.h"
#include "compiler.h"
#include "file_reader.h"
#include "input_file.h"
#include "os.h"

namespace rwkv_cpp {

namespace {

// rwkv.cpp's own numbers of types: which it knows, and which of them it once had.
constexpr int32_t kTypesKnown = 17;
constexpr bool retired(int32_t type) { return type >= 4 && type <= 6; }

bool type_is_read(int32_t type) {
    return type >= 0 && type < kTypesKnown && !retired(type) &&
           rwkv::type_in_ggmf(type) != RWKV_TYPE_COUNT;
}

struct Fault : std::exception {
    explicit Fault(int of) : flags(of) {}
    int flags;
};

// Throws a fault as soon as something is wrong, in the order in which rwkv.cpp looks.
class Inspection {
  public:
    Inspection(rwkv::FileReader& reader, Reading reading)
        : reader_(reader),
          reading_(reading),
          in_table_(reading == Reading::to_open ? RWKV_ERROR_MODEL_PARAMS : RWKV_ERROR_FILE) {}

    // Of a file that begins like ggmf.
    void header() {
        require(reader_.left() >= 24, RWKV_ERROR_FILE | RWKV_ERROR_FILE_READ);
        require(number() == RWKV_FILE_MAGIC, RWKV_ERROR_FILE | RWKV_ERROR_FILE_MAGIC);
        version_ = number();
        require(version_ >= RWKV_FILE_VERSION_MIN && version_ <= RWKV_FILE_VERSION_MAX,
                RWKV_ERROR_FILE | RWKV_ERROR_FILE_VERSION);
        n_vocab_ = number();
        n_embed_ = number();
        number();  // n_layer
        const int32_t type = number();
        require_type(type, RWKV_ERROR_FILE | RWKV_ERROR_DATA_TYPE);
        const bool is_float = !rwkv_is_quantised(rwkv::type_in_ggmf(type));
        require(reading_ == Reading::to_open || is_float, RWKV_ERROR_FILE);
    }

    void tensors() {
        bool has_emb = false;
        std::unordered_set<std::string> names;
        while (reader_.left() > 0) {
            int32_t shape[3] = {1, 1, 1};
            require(reader_.left() >= 16, in_table_ | RWKV_ERROR_FILE_READ);
            const int32_t n_dims = number();
            const int32_t name_bytes = number();
            const int32_t type = number();
            require(n_dims >= 1 && n_dims <= 3, in_table_ | RWKV_ERROR_SHAPE);
            require_type(type, in_table_ | RWKV_ERROR_DATA_TYPE);
            const size_t rest = 4 * static_cast<size_t>(n_dims);
            require(reader_.left() >= rest, in_table_ | RWKV_ERROR_FILE_READ);
            for (int32_t i = 0; i < n_dims; ++i) shape[i] = number();
            require(name_bytes >= 1 && name_bytes <= 1024, in_table_ | RWKV_ERROR_KEY);
            require(reader_.left() >= static_cast<size_t>(name_bytes),
                    in_table_ | RWKV_ERROR_FILE_READ);
            const std::string name =
                reader_.take_bytes(static_cast<size_t>(name_bytes), "a tensor's name");
            require(names.insert(name).second, in_table_ | RWKV_ERROR_KEY);
            skip_data(rwkv::type_in_ggmf(type), shape);
            if (name != "emb.weight") continue;
            has_emb = true;
            require(n_dims == 2, RWKV_ERROR_MODEL_PARAMS | RWKV_ERROR_SHAPE);
            require(shape[0] == n_embed_ && shape[1] == n_vocab_,
                    RWKV_ERROR_MODEL_PARAMS | RWKV_ERROR_DIMENSION);
        }
        require(has_emb, RWKV_ERROR_MODEL_PARAMS | RWKV_ERROR_PARAM_MISSING);
    }

  private:
    static void require(bool holds, int flags) {
        if (!holds) throw Fault(flags);
    }

    void require_type(int32_t type, int flags) const {
        require(type_is_read(type), flags);
        require(version_ != 100 || !rwkv_is_quantised(rwkv::type_in_ggmf(type)), flags);
    }

    int32_t number() { return reader_.take_i32("a number"); }

    void skip_data(rwkv_type type, const int32_t (&shape)[3]) {
        size_t n = 1;
        bool possible = true;
        for (const int32_t d : shape) {
            possible = possible && d > 0 && rwkv::multiply(n, static_cast<size_t>(d), &n) &&
                       n < SIZE_MAX / 8;
        }
        require(possible && rwkv::row_fits(type, static_cast<size_t>(shape[0])),
                in_table_ | RWKV_ERROR_SHAPE);
        const size_t bytes = rwkv_row_bytes(type, n);
        require(reader_.left() >= bytes, reading_ == Reading::to_quantise
                                             ? RWKV_ERROR_MODEL_PARAMS
                                             : RWKV_ERROR_MODEL_PARAMS | RWKV_ERROR_FILE_READ);
        reader_.skip(bytes, "a tensor's data");
    }

    rwkv::FileReader& reader_;
    const Reading reading_;
    const int in_table_;  // flags of a fault in a tensor's header
    int32_t version_ = 0;
    int32_t n_vocab_ = 0;
    int32_t n_embed_ = 0;
};

bool begins_like_gguf(const rwkv::InputFile& file) {
    char head[4] = {};
    if (file.size() < sizeof head) return false;
    file.read(0, sizeof head, head);
    return std::string(head, sizeof head) == "GGUF";
}

// What rwkv.cpp would say of the file; 0 if nothing.
int inspect(const std::string& path, Reading reading) {
    if (rwkv::os::is_folder(path)) {
        return RWKV_ERROR_FILE | RWKV_ERROR_FILE_READ;  // opening it succeeds in rwkv.cpp
    }
    try {
        const rwkv::InputFile file(path);
        if (reading == Reading::to_open && begins_like_gguf(file)) return 0;
        rwkv::FileReader reader(file);
        Inspection look(reader, reading);
        look.header();
        look.tensors();
        return 0;
    } catch (const rwkv::Failure&) {
        return RWKV_ERROR_FILE | RWKV_ERROR_FILE_OPEN;
    } catch (const Fault& fault) {
        return fault.flags;
    }
}

}  // namespace

int flags_of_file(const char* path, const rwkv::Failure& failure, Reading reading) noexcept {
    switch (failure.status()) {
        case RWKV_STATUS_FILE_UNREADABLE:
        case RWKV_STATUS_FILE_TRUNCATED:
        case RWKV_STATUS_FILE_FORMAT:
        case RWKV_STATUS_FILE_VERSION:
        case RWKV_STATUS_TENSOR_MISSING:
        case RWKV_STATUS_TENSOR_SHAPE:
        case RWKV_STATUS_TENSOR_TYPE:
            break;
        default:
            return flags_of(failure.status());
    }
    try {
        const int found = inspect(path, reading);
        if (found != 0) return found;
        return flags_of(failure.status());
    } catch (const std::exception&) {  // for want of memory: the status says enough
        return flags_of(failure.status());
    }
}

int flags_of(rwkv_status status) noexcept {
    switch (status) {
        case RWKV_STATUS_INVALID_ARGUMENT:
        case RWKV_STATUS_TOKEN_OUT_OF_RANGE:
            return RWKV_ERROR_ARGS;
        case RWKV_STATUS_OUT_OF_MEMORY:
            return RWKV_ERROR_CTX | RWKV_ERROR_ALLOC;
        case RWKV_STATUS_FILE_UNREADABLE:
            return RWKV_ERROR_FILE | RWKV_ERROR_FILE_READ;
        case RWKV_STATUS_FILE_UNWRITABLE:
            return RWKV_ERROR_FILE | RWKV_ERROR_FILE_WRITE;
        case RWKV_STATUS_FILE_TRUNCATED:
            return RWKV_ERROR_MODEL_PARAMS | RWKV_ERROR_FILE_READ;
        case RWKV_STATUS_FILE_FORMAT:
        case RWKV_STATUS_FILE_VERSION:
            return RWKV_ERROR_MODEL_PARAMS | RWKV_ERROR_DATA;
        case RWKV_STATUS_TENSOR_MISSING:
        case RWKV_STATUS_MODEL_VERSION:  // it would be taken for version 4, and lack its tensors
            return RWKV_ERROR_MODEL_PARAMS | RWKV_ERROR_PARAM_MISSING;
        case RWKV_STATUS_TENSOR_SHAPE:
            return RWKV_ERROR_MODEL_PARAMS | RWKV_ERROR_SHAPE;
        case RWKV_STATUS_TENSOR_TYPE:
            return RWKV_ERROR_MODEL_PARAMS | RWKV_ERROR_DATA_TYPE;
        case RWKV_STATUS_KERNELS_UNKNOWN:
        case RWKV_STATUS_KERNELS_UNSUPPORTED:
            return RWKV_ERROR_CTX | RWKV_ERROR_UNSUPPORTED;
        default:
            return RWKV_ERROR_GRAPH;
    }
}

}  // namespace rwkv_cpp
