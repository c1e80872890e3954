#include "status.h"

#include <cstdarg>
#include <cstdio>

namespace rwkv {

namespace {

struct LastMessage {
    std::string text;
    const char* fallback = "";
};
thread_local LastMessage last;

}  // namespace

const char* sentence(rwkv_status status) noexcept {
    switch (status) {
        case RWKV_STATUS_OK:
            return "no error";
        case RWKV_STATUS_INVALID_ARGUMENT:
            return "an argument is invalid";
        case RWKV_STATUS_OUT_OF_MEMORY:
            return "not enough memory";
        case RWKV_STATUS_TOKEN_OUT_OF_RANGE:
            return "a token is outside the vocabulary";
        case RWKV_STATUS_BUFFER_TOO_SMALL:
            return "the buffer is too small";
        case RWKV_STATUS_CANCELLED:
            return "the call was cancelled";
        case RWKV_STATUS_INTERNAL:
            return "internal fault of the library; please report it";
        case RWKV_STATUS_FILE_UNREADABLE:
            return "the file cannot be read";
        case RWKV_STATUS_FILE_TRUNCATED:
            return "the file is truncated";
        case RWKV_STATUS_FILE_FORMAT:
            return "the file is not of the expected format";
        case RWKV_STATUS_FILE_VERSION:
            return "the file's version is not supported";
        case RWKV_STATUS_FILE_UNWRITABLE:
            return "the file cannot be written";
        case RWKV_STATUS_TENSOR_MISSING:
            return "a tensor is missing";
        case RWKV_STATUS_TENSOR_SHAPE:
            return "a tensor has the wrong shape";
        case RWKV_STATUS_TENSOR_TYPE:
            return "a tensor has an unsupported type";
        case RWKV_STATUS_MODEL_VERSION:
            return "the model is of no known RWKV version";
        case RWKV_STATUS_MODEL_OPTION:
            return "the option does not apply to this model";
        case RWKV_STATUS_KERNELS_UNKNOWN:
            return "the kernel level is unknown";
        case RWKV_STATUS_KERNELS_UNSUPPORTED:
            return "the kernel level is not supported here";
        case RWKV_STATUS_STATE_MISMATCH:
            return "the state belongs to another model";
        case RWKV_STATUS_STATE_FORMAT:
            return "the file is not a state file, or a corrupt one";
        case RWKV_STATUS_STATE_TRUNCATED:
            return "the state file is truncated";
        case RWKV_STATUS_STATE_VERSION:
            return "the state file's version is not supported";
        case RWKV_STATUS_STATE_VALUE:
            return "the state holds a number that its type cannot";
        case RWKV_STATUS_VOCABULARY:
            return "the vocabulary cannot be understood";
    }
    return "unknown status";
}

const char* last_message() noexcept {
    return last.text.empty() ? last.fallback : last.text.c_str();
}

void set_last_message(rwkv_status status, const char* message) noexcept {
    last.fallback = sentence(status);
    try {
        last.text = message;
    } catch (...) {
        last.text.clear();
    }
}

std::string printable(std::string text) {
    for (char& c : text) {
        if (c < 0x20 || c > 0x7e) c = '?';
    }
    return text;
}

std::string format(const char* pattern, ...) {
    va_list args, again;
    va_start(args, pattern);
    va_copy(again, args);
    const int n = std::vsnprintf(nullptr, 0, pattern, args);
    va_end(args);
    std::string text(n > 0 ? static_cast<size_t>(n) : 0, '\0');
    if (n > 0) std::vsnprintf(text.data(), text.size() + 1, pattern, again);
    va_end(again);
    return text;
}

}  // namespace rwkv
