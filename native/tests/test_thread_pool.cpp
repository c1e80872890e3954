// The thread pool: every piece once, in order of stages, whatever the number of threads; sleepers
// wake, nothing is left running, and a pool that waits burns no processor time.
#if defined(_WIN32)
#define WIN32_LEAN_AND_MEAN
#include <windows.h>
/* after it */
#include <tlhelp32.h>
#else
#include <dirent.h>
#endif
#include <time.h>

#include <atomic>
#include <chrono>
#include <cstdint>
#include <memory>
#include <string>
#include <thread>
#include <vector>

#include "check.h"
#include "thread_pool.h"

using rwkv::Team;
using rwkv::ThreadPool;

namespace {

constexpr size_t kThreadCounts[] = {1, 2, 3, 4, 16};

void sleep_ms(int ms) { std::this_thread::sleep_for(std::chrono::milliseconds(ms)); }

void work_for_us(int us) {
    const auto end = std::chrono::steady_clock::now() + std::chrono::microseconds(us);
    while (std::chrono::steady_clock::now() < end) {
    }
}

#if defined(_WIN32)
size_t threads_of_this_process() {
    HANDLE all = ::CreateToolhelp32Snapshot(TH32CS_SNAPTHREAD, 0);
    THREADENTRY32 thread = {};
    thread.dwSize = sizeof thread;
    size_t n = 0;
    for (BOOL more = ::Thread32First(all, &thread); more; more = ::Thread32Next(all, &thread)) {
        n += thread.th32OwnerProcessID == ::GetCurrentProcessId();
    }
    ::CloseHandle(all);
    return n;
}
#else
size_t threads_of_this_process() {
    DIR* folder = ::opendir("/proc/self/task");
    if (folder == nullptr) return 0;  // not Linux
    size_t n = 0;
    while (const dirent* entry = ::readdir(folder)) n += entry->d_name[0] != '.';
    ::closedir(folder);
    return n;
}
#endif

double process_cpu_seconds() {
    timespec t = {};
    CHECK(::clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &t) == 0);
    return static_cast<double>(t.tv_sec) + static_cast<double>(t.tv_nsec) * 1e-9;
}

void test_every_piece_once() {
    for (const size_t n_threads : kThreadCounts) {
        ThreadPool pool(n_threads);
        CHECK(pool.size() == n_threads);
        for (const size_t n : {0, 1, 2, 7, 64, 1000}) {
            for (const size_t grain : {1, 3, 16, 1001}) {
                std::vector<std::atomic<int>> counts(n);
                pool.run([&](Team& team) {
                    team.for_each(n, grain, [&](size_t begin, size_t end) {
                        CHECK(begin % grain == 0);
                        CHECK(begin < end && end <= n);
                        CHECK(end - begin == grain || end == n);
                        for (size_t i = begin; i < end; ++i) ++counts[i];
                    });
                });
                for (const auto& count : counts) CHECK(count == 1);
            }
        }
    }
    CHECK(ThreadPool(0).size() == 1);
}

// All threads come to help: pieces that wait for each other to be begun can only end if each is on
// a thread of its own.
void test_all_threads_take_pieces() {
    for (const size_t n_threads : kThreadCounts) {
        ThreadPool pool(n_threads);
        std::atomic<size_t> begun{0};
        std::vector<std::thread::id> ids(n_threads);
        pool.run([&](Team& team) {
            team.for_each(n_threads, 1, [&](size_t i, size_t) {
                ids[i] = std::this_thread::get_id();
                ++begun;
                while (begun < n_threads) std::this_thread::yield();
            });
        });
        for (size_t i = 0; i < n_threads; ++i) {
            for (size_t j = 0; j < i; ++j) CHECK(ids[i] != ids[j]);
        }
    }
}

// What one for_each wrote, the next may read, anywhere: a chain of sums that comes out wrong if any
// thread runs ahead or sees old values.
void test_stages_wait_for_each_other() {
    constexpr size_t kSize = 37;
    for (const size_t n_threads : kThreadCounts) {
        const uint64_t n_stages = n_threads <= 2 ? 4000 : 400;  // more threads than cores are slow
        ThreadPool pool(n_threads);
        std::vector<uint64_t> a(kSize, 1);
        std::vector<uint64_t> b(kSize);
        pool.run([&](Team& team) {
            for (uint64_t stage = 0; stage < n_stages; ++stage) {
                const std::vector<uint64_t>& from = stage % 2 == 0 ? a : b;
                std::vector<uint64_t>& to = stage % 2 == 0 ? b : a;
                team.for_each(kSize, 2, [&](size_t begin, size_t end) {
                    for (size_t i = begin; i < end; ++i) {
                        to[i] = from[i] + from[(i + 1) % kSize] + from[kSize - 1 - i];
                    }
                });
            }
        });
        uint64_t expected = 1;  // all values stay equal: each is tripled, modulo 2^64
        for (uint64_t stage = 0; stage < n_stages; ++stage) expected *= 3;
        for (const uint64_t x : a) CHECK(x == expected);
    }
}

// Many short runs, as decoding makes them, of one or more regions. When a run returns, no thread is
// inside its body any more, even one that came late and found nothing to do: what the body uses is
// gone a moment later.
void test_many_runs() {
    const std::thread::id caller = std::this_thread::get_id();
    for (const size_t n_threads : {2, 3, 4}) {
        const size_t n_runs = n_threads == 2 ? 10000 : 3000;
        ThreadPool pool(n_threads);
        std::vector<size_t> sums(5, 0);
        for (size_t run = 0; run < n_runs; ++run) {
            const auto inside = std::make_unique<std::atomic<size_t>>(0);
            pool.run([&](Team& team) {
                CHECK(++*inside <= n_threads);
                for (size_t region = 0; region < 1 + run % 3; ++region) {
                    team.for_each(sums.size(), 1, [&](size_t i, size_t) {
                        sums[i] += run;
                        if (run % 2 == 1) work_for_us(3);  // else over before anyone can help
                    });
                }
                // Helpers leave after the caller, in one run out of two.
                if (run % 4 > 1 && std::this_thread::get_id() != caller) work_for_us(3);
                --*inside;
            });
            CHECK(*inside == 0);
        }
        size_t expected = 0;
        for (size_t run = 0; run < n_runs; ++run) expected += run * (1 + run % 3);
        for (const size_t sum : sums) CHECK(sum == expected);
    }
}

// Waits that are longer than the spinning before sleep, on both sides of the pool.
void test_sleepers_wake() {
    for (const size_t n_threads : {2, 4, 16}) {
        ThreadPool pool(n_threads);
        std::atomic<size_t> done{0};
        for (int region = 0; region < 5; ++region) {
            sleep_ms(5);  // the others fall asleep waiting for a body
            pool.run([&](Team& team) {
                // All but one fall asleep waiting for the last piece.
                team.for_each(n_threads, 1, [&](size_t i, size_t) {
                    if (i == 0) sleep_ms(5);
                    ++done;
                });
                team.for_each(n_threads, 1, [&](size_t, size_t) { ++done; });
            });
        }
        CHECK(done == 10 * n_threads);
    }
}

void test_callers_take_turns() {
    ThreadPool pool(3);
    size_t sum = 0;
    for (int i = 0; i < 20; ++i) {  // each time another thread calls
        std::thread([&] {
            pool.run([&](Team& team) { team.for_each(1, 1, [&](size_t, size_t) { ++sum; }); });
        }).join();
    }
    CHECK(sum == 20);
}

// Whether there are so many threads, within ten seconds: one that was joined may be listed for a
// moment longer, which under emulation on a busy machine is long.
bool comes_to_threads(size_t n) {
    for (int i = 0; i < 10000 && threads_of_this_process() != n; ++i) sleep_ms(1);
    return threads_of_this_process() == n;
}

void test_nothing_left_running() {
    const size_t before = threads_of_this_process();
    for (int i = 0; i < 200; ++i) {
        ThreadPool pool(4);
        if (before > 0) CHECK(comes_to_threads(before + 3));
        if (i % 2 == 0) pool.run([](Team&) {});
        if (i % 50 == 0) sleep_ms(2);  // destroyed while asleep, too
    }
    CHECK(comes_to_threads(before));
}

// A spinning thread would use all of the pause, 3 of them three times as much. The best of a few
// tries counts, so that a busy machine does not fail the test.
void test_idle_pool_burns_nothing() {
    constexpr int kPauseMs = 200;
    ThreadPool pool(4);
    double least = 1e9;
    for (int attempt = 0; attempt < 5 && least > 0.02; ++attempt) {
        pool.run([](Team& team) { team.for_each(4, 1, [](size_t, size_t) {}); });
        sleep_ms(20);
        const double begin = process_cpu_seconds();
        sleep_ms(kPauseMs);
        least = std::min(least, process_cpu_seconds() - begin);
    }
    if (least > 0.02) {
        std::fprintf(stderr, "an idle pool used %.0f ms of processor time in %d ms\n", least * 1e3,
                     kPauseMs);
        std::exit(1);
    }
}

}  // namespace

int main() {
    test_every_piece_once();
    test_all_threads_take_pieces();
    test_stages_wait_for_each_other();
    test_many_runs();
    test_sleepers_wake();
    test_callers_take_turns();
    test_nothing_left_running();
    test_idle_pool_burns_nothing();
    return 0;
}
