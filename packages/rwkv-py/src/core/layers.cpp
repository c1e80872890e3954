// Some layers of a model, and one sequence that runs through them as rows of the residual stream.
#include <nanobind/stl/tuple.h>

#include <optional>
#include <tuple>
#include <vector>

#include "glue.h"

namespace rwkv_py {

namespace {

using Rows = Array<float, 2>;

class Layers {
  public:
    // `file` holds the bytes of a model file.
    Layers(const Array<const uint8_t, 1>& file, size_t first, size_t n, size_t n_threads,
           float ln_x_eps) {
        rwkv_model_options options;
        rwkv_model_options_init(&options, sizeof options);
        options.n_threads = n_threads;
        options.ln_x_eps = ln_x_eps;
        options.first_layer = first;
        options.n_layers = n;
        rwkv_model* model = nullptr;
        rwkv_session* session = nullptr;
        {
            const nb::gil_scoped_release released;
            check(rwkv_model_open_memory(file.data(), file.size(), &options, &model));
        }
        model_.reset(model);
        check(rwkv_session_create(model, &session));
        session_.reset(session);
        rwkv_model_info info;
        check(rwkv_model_info_get(model, &info, sizeof info));
        n_embd_ = info.n_embd;
    }

    // Name, outputs and inputs of each.
    std::vector<std::tuple<std::string, size_t, size_t>> matrices() const {
        std::vector<std::tuple<std::string, size_t, size_t>> all;
        for (size_t i = 0; i < rwkv_model_n_matrices(model_.get()); ++i) {
            const rwkv_matrix_info info = matrix(i);
            all.emplace_back(info.name, info.n_out, info.n_in);
        }
        return all;
    }

    void reset() { rwkv_session_reset(session_.get()); }

    // `inputs`: None, or for each matrix room for what it multiplies, or None.
    void run(const Rows& rows, const Rows& v_first,
             const std::optional<std::vector<std::optional<Rows>>>& inputs) {
        const size_t n_rows = rows.shape(0);
        check_size(rows.shape(1), n_embd_, "rows");
        check_size(v_first.size(), rows.size(), "v_first");
        std::vector<float*> places;
        if (inputs) {
            check_size(inputs->size(), rwkv_model_n_matrices(model_.get()), "inputs");
            for (size_t i = 0; i < inputs->size(); ++i) {
                const std::optional<Rows>& room = (*inputs)[i];
                if (room) check_size(room->size(), n_rows * matrix(i).n_in, "inputs");
                places.push_back(room ? room->data() : nullptr);
            }
        }
        const nb::gil_scoped_release released;
        check(rwkv_session_run_layers(session_.get(), rows.data(), v_first.data(), n_rows,
                                      inputs ? places.data() : nullptr));
    }

  private:
    rwkv_matrix_info matrix(size_t i) const {
        rwkv_matrix_info info;
        check(rwkv_model_matrix_get(model_.get(), i, &info, sizeof info));
        return info;
    }

    Handle<rwkv_model, rwkv_model_free> model_;
    Handle<rwkv_session, rwkv_session_free> session_;
    size_t n_embd_ = 0;
};

}  // namespace

void define_layers(nb::module_& m) {
    nb::class_<Layers>(m, "Layers")
        .def(nb::init<const Array<const uint8_t, 1>&, size_t, size_t, size_t, float>(), "file"_a,
             "first"_a, "n"_a, "n_threads"_a, "ln_x_eps"_a)
        .def("matrices", &Layers::matrices)
        .def("reset", &Layers::reset)
        .def("run", &Layers::run, "rows"_a, "v_first"_a, "inputs"_a.none());
}

}  // namespace rwkv_py
