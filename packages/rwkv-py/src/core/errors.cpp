#include <exception>
#include <string>
#include <utility>

#include "glue.h"

namespace rwkv_py {

namespace {

class StatusError : public std::exception {
  public:
    StatusError(rwkv_status status, std::string message, const char* remedy = "")
        : status_(status), message_(std::move(message)), remedy_(remedy) {}
    rwkv_status status() const noexcept { return status_; }
    const char* remedy() const noexcept { return remedy_; }
    const char* what() const noexcept override { return message_.c_str(); }

  private:
    rwkv_status status_;
    std::string message_;
    const char* remedy_;
};

// Raises what rwkv_py.errors makes of a status and its message.
void raise_status_error(const std::exception_ptr& thrown, void*) {
    try {
        std::rethrow_exception(thrown);
    } catch (const StatusError& error) {
        // Messages quote paths, which may hold bytes that are not UTF-8.
        const nb::object message = nb::steal(PyUnicode_DecodeFSDefault(error.what()));
        const nb::object exception =
            nb::module_::import_("rwkv_py.errors")
                .attr("error_of")(static_cast<int>(error.status()), message, error.remedy());
        PyErr_SetObject(reinterpret_cast<PyObject*>(Py_TYPE(exception.ptr())), exception.ptr());
    }
}

}  // namespace

void refuse(const std::string& message, const char* remedy) {
    throw StatusError(RWKV_STATUS_INVALID_ARGUMENT, message, remedy);
}

void check(rwkv_status status) {
    if (status != RWKV_STATUS_OK) throw StatusError(status, rwkv_error_message());
}

void check_size(size_t got, size_t expected, const char* what) {
    if (got == expected) return;
    refuse(std::string(what) + ": expected " + std::to_string(expected) + " numbers, got " +
           std::to_string(got));
}

void define_errors(nb::module_&) { nb::register_exception_translator(raise_status_error); }

}  // namespace rwkv_py
