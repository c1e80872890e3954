// What every object of rwkv_py._core is made with: it converts, releases the GIL while the library
// computes, and turns statuses into exceptions. Arrays are allocated, and defaults chosen, by the
// Python side.
#pragma once

// All of nanobind's conversions in one place: each file that used one without its header would
// convert otherwise.
#include <nanobind/nanobind.h>
#include <nanobind/ndarray.h>
#include <nanobind/stl/optional.h>
#include <nanobind/stl/string.h>
#include <nanobind/stl/vector.h>

#include <cstddef>
#include <cstdint>
#include <memory>
#include <string>

#include "rwkv/rwkv.h"

namespace rwkv_py {

namespace nb = nanobind;
using namespace nb::literals;

template <class T, int Dimensions>
using Array = nb::ndarray<T, nb::ndim<Dimensions>, nb::c_contig, nb::device::cpu>;
using Tokens = Array<const int32_t, 1>;
using Floats = Array<float, 1>;
using ConstFloats = Array<const float, 1>;

// These throw what becomes an exception of rwkv_py.errors.
[[noreturn]] void refuse(const std::string& message, const char* remedy = "");  // INVALID_ARGUMENT
void check(rwkv_status status);
void check_size(size_t got, size_t expected, const char* what);

template <auto free_object>
struct Free {
    template <class T>
    void operator()(T* object) const {
        free_object(object);
    }
};

template <class T, auto free_object>
using Handle = std::unique_ptr<T, Free<free_object>>;

// Each puts into the module what its file is about.
void define_errors(nb::module_& m);
void define_log(nb::module_& m);
void define_model(nb::module_& m);
void define_session(nb::module_& m);
void define_layers(nb::module_& m);
void define_batch(nb::module_& m);
void define_tokenizer(nb::module_& m);
void define_text_stream(nb::module_& m);
void define_sampler(nb::module_& m);

}  // namespace rwkv_py
