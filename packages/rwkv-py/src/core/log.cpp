#include "glue.h"

namespace rwkv_py {

namespace {

// What the library has to say goes to Python's logging, where users hear it unless they arrange
// otherwise.
void tell_log(void*, const char* message) {
    const nb::gil_scoped_acquire acquired;
    try {
        const nb::object text = nb::steal(PyUnicode_DecodeFSDefault(message));
        nb::module_::import_("logging").attr("getLogger")("rwkv_py").attr("warning")("%s", text);
    } catch (nb::python_error& error) {
        error.discard_as_unraisable("rwkv_py: a message of the library");
    }
}

}  // namespace

void define_log(nb::module_&) { rwkv_log_set(tell_log, nullptr); }

}  // namespace rwkv_py
