// The forward pass of each RWKV version: computes the rows of a batch, moves the states of its
// sequences on, and writes the logits that it asks for. Where the executor's scratch memory counts,
// it takes its buffers and does nothing else.
#pragma once

#include "batch.h"
#include "executor.h"
#include "model.h"

namespace rwkv {

void forward_v4(const Model& model, Executor& executor, const Batch& batch);
void forward_v5(const Model& model, Executor& executor, const Batch& batch);
void forward_v6(const Model& model, Executor& executor, const Batch& batch);
void forward_v7(const Model& model, Executor& executor, const Batch& batch);

inline void forward(const Model& model, Executor& executor, const Batch& batch) {
    switch (model.config.version) {
        case Version::v4:
            return forward_v4(model, executor, batch);
        case Version::v5_1:
        case Version::v5_2:
            return forward_v5(model, executor, batch);
        case Version::v6:
            return forward_v6(model, executor, batch);
        case Version::v7:
            return forward_v7(model, executor, batch);
    }
}

}  // namespace rwkv
