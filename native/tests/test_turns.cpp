// Steps on a model take turns: first come, first served; and what a step reads is what it was given,
// whatever the caller does with the array while it waits.
#include <chrono>
#include <mutex>
#include <thread>

#include "check.h"
#include "executor.h"
#include "model_loader.h"
#include "open_model.h"
#include "rwkv/rwkv.h"
#include "session.h"
#include "tiny_model.h"

namespace {

using namespace opened;

void until_waiting(const rwkv::FairMutex& mutex, size_t n) {
    while (mutex.n_waiting() < n) std::this_thread::sleep_for(std::chrono::milliseconds(1));
}

// Threads that come one after another while it is held get it in that order.
void test_order() {
    rwkv::FairMutex mutex;
    std::vector<int> order;
    std::vector<std::thread> threads;
    mutex.lock();
    for (int i = 0; i < 8; ++i) {
        threads.emplace_back([&, i] {
            const std::lock_guard<rwkv::FairMutex> turn(mutex);
            order.push_back(i);
        });
        until_waiting(mutex, static_cast<size_t>(i) + 1);
    }
    mutex.unlock();
    for (std::thread& thread : threads) thread.join();
    CHECK((order == std::vector<int>{0, 1, 2, 3, 4, 5, 6, 7}));
}

// Who gives it back and takes it again at once comes after those who wait; a std::mutex would let
// it in first, because it is awake.
void test_nobody_starves() {
    rwkv::FairMutex mutex;
    size_t turns = 0;
    mutex.lock();
    for (size_t i = 1; i <= 100; ++i) {
        std::thread other([&] {
            const std::lock_guard<rwkv::FairMutex> turn(mutex);
            ++turns;
        });
        until_waiting(mutex, 1);
        mutex.unlock();
        mutex.lock();
        CHECK(turns == i);
        other.join();
    }
    mutex.unlock();
}

// While a step waits for its turn, its caller (or another thread) writes into the array.
void test_tokens_are_copied() {
    const tiny::File file(tiny::random_model("7", RWKV_TYPE_Q4_0));
    const auto model = rwkv::load_model(file.path(), {1});
    const Tokens tokens = {1, 2, 3, 4, 5, 6, 7, 8};
    Floats expected(model->config.n_vocab);
    Floats got(expected.size());
    rwkv::Session(model).feed(tokens.data(), tokens.size(), RWKV_LOGITS_LAST, expected.data());

    rwkv::Session session(model);
    Tokens changing = tokens;
    model->executor().turn.lock();
    std::thread caller(
        [&] { session.feed(changing.data(), changing.size(), RWKV_LOGITS_LAST, got.data()); });
    until_waiting(model->executor().turn, 1);
    for (int32_t& token : changing) token = INT32_MAX;
    model->executor().turn.unlock();
    caller.join();
    CHECK(same_bits(got, expected));

    rwkv::Session again(model);
    rwkv::StepBatch batch(model);
    changing = tokens;
    batch.add(again, changing.data(), changing.size(), RWKV_LOGITS_LAST, got.data());
    for (int32_t& token : changing) token = INT32_MAX;
    batch.run();
    CHECK(same_bits(got, expected));
}

}  // namespace

int main() {
    CHECK(unsetenv("RWKV_KERNELS") == 0 && unsetenv("RWKV_THREADS") == 0);
    test_order();
    test_nobody_starves();
    test_tokens_are_copied();
    return 0;
}
