#include "model_file.h"

#include <utility>

#include "status.h"

namespace rwkv {

namespace {

// A file with more tensors than this is no model: RWKV-7's have 36 a layer.
constexpr size_t kMaxTensors = 100'000;

}  // namespace

size_t Tensor::n_elements() const noexcept {
    size_t n = 1;
    for (const size_t d : shape) n *= d;  // cannot overflow: checked when the tensor was read
    return n;
}

std::string Tensor::shape_text() const {
    std::string text = "(";
    for (size_t i = 0; i < shape.size(); ++i) {
        text += (i == 0 ? "" : ", ") + std::to_string(shape[i]);
    }
    return text + ")";
}

InputFile& ModelFile::open_next(const std::string& path) {
    inputs_.push_back(std::make_unique<InputFile>(path));
    return *inputs_.back();
}

size_t ModelFile::n_bytes() const noexcept {
    size_t n = 0;
    for (const auto& input : inputs_) n += input->size();
    return n;
}

const Tensor* ModelFile::find(const std::string& name) const noexcept {
    const auto found = by_name_.find(name);
    return found == by_name_.end() ? nullptr : &tensors_[found->second];
}

void ModelFile::add(Tensor tensor) {
    if (tensors_.size() == kMaxTensors) {
        throw Failure(RWKV_STATUS_FILE_FORMAT,
                      format("%s: expected at most %zu tensors, got more. The file is corrupt, try "
                             "to download it again",
                             path().c_str(), kMaxTensors));
    }
    if (!by_name_.emplace(tensor.name, tensors_.size()).second) {
        throw Failure(RWKV_STATUS_FILE_FORMAT,
                      format("%s: tensor '%s', expected once, got twice. The file is corrupt, try "
                             "to download it again",
                             path().c_str(), tensor.name.c_str()));
    }
    tensors_.push_back(std::move(tensor));
}

}  // namespace rwkv
