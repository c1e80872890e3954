// Any bytes as a program that calls the C API: every object may be missing, every number odd. Only what
// the header leaves to the caller is kept: objects are not used after they are freed, arrays are as long
// as they must be, and sessions stay while they are in a batch.
#include "calls.h"
#include "later_calls.h"

namespace {

// THE list of calls; a byte of the program chooses. New ones come last, so that old corpora stay what
// they are.
constexpr size_t kMostKinds = 64;
constexpr void (*kCalls[])(World&) = {
    open_model,
    free_model,
    model_info,
    create_session,
    free_session,
    fork_session,
    feed,
    feed,
    reset,
    read_state,
    write_state,
    copy_state,
    save_state,
    load_state,
    create_batch,
    free_batch,
    add,
    add,
    run,
    clear,
    encode,
    make_tokenizer,
    decode,
    free_tokenizer,
    has_token,
    create_sampler,
    sample,
    free_sampler,
    accept,
    bias,
    weigh,
    reset_sampler,
    open_memory,
    state_memory,
    last_logits,
    feed_all,
    allow_take_back,
    keep,
    set_time_state,
    cancel,
    sample_masked,
    create_cache,
    free_cache,
    cache_feed,
    cache_keep,
    create_stream,
    stop_stream,
    push,
    finish_stream,
    create_generator,
    stop_generator,
    begin_text,
    next_text,
    open_layers,
    run_layers,
};

}  // namespace

void run_input(const uint8_t* data, size_t size) {
    World w{Program(data, size)};
    for (size_t n = 0; n < kMostCalls && !w.p.ended(); ++n) {
        const size_t i = w.p.byte() % kMostKinds;
        if (i < std::size(kCalls)) kCalls[i](w);
    }
    w.let_go();
    for (auto& slot : w.caches.all) rwkv_prefix_cache_free(slot.object);
    for (auto& slot : w.batches.all) rwkv_batch_free(slot.object);
    for (auto& slot : w.models.all) rwkv_model_free(slot.object);
    for (auto& slot : w.sessions.all) rwkv_session_free(slot.object);
    for (auto& slot : w.tokenizers.all) rwkv_tokenizer_free(slot.object);
    for (auto& slot : w.samplers.all) rwkv_sampler_free(slot.object);
}
