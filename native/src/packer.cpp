#include "packer.h"

#include <algorithm>
#include <atomic>
#include <exception>
#include <mutex>

#include "executor.h"
#include "status.h"

namespace rwkv {

namespace {

// The first exception of work that several threads share, for the thread that asked for it.
class FirstFailure {
  public:
    // Does the work, unless some has failed already.
    template <class Work>
    void guard(Work&& work) noexcept {
        if (failed_.load(std::memory_order_relaxed)) return;
        try {
            work();
        } catch (...) {
            const std::lock_guard<std::mutex> lock(mutex_);
            if (!failed_.exchange(true)) exception_ = std::current_exception();
        }
    }

    void rethrow() const {
        if (exception_ != nullptr) std::rethrow_exception(exception_);
    }

  private:
    std::atomic<bool> failed_{false};
    std::mutex mutex_;
    std::exception_ptr exception_;
};

// Counts what all threads have packed, and tells it now and then.
class ProgressTeller {
  public:
    ProgressTeller(const Progress& progress, uint64_t total) : progress_(progress), total_(total) {}

    void add(uint64_t n) noexcept { done_.fetch_add(n, std::memory_order_relaxed); }

    // By one thread; a few hundred times in all.
    void tell() {
        const uint64_t done = done_.load(std::memory_order_relaxed);
        if (done < next_) return;
        next_ = done + total_ / 256;
        report(std::min(done, total_));
    }
    void tell_end() { report(total_); }

  private:
    void report(uint64_t done) {
        if (progress_.tell == nullptr || progress_.tell(progress_.data, done, total_) == 0) return;
        throw Failure(RWKV_STATUS_CANCELLED, "opening: cancelled by its progress callback");
    }

    const Progress progress_;
    const uint64_t total_;
    std::atomic<uint64_t> done_{0};
    uint64_t next_ = 0;
};

size_t panel_of(const Matrix& m) { return m.by_columns ? RWKV_COLUMN : RWKV_PANEL; }

// Rows that a thread reads and packs at once: enough that packing them is worth a read, few enough
// that what was read is still in the cache when it is packed.
size_t piece_rows(const Matrix& m) {
    constexpr size_t kBytes = size_t{1} << 18;
    const size_t panel = panel_of(m);
    const size_t fit = kBytes / std::max<size_t>(1, rwkv_row_bytes(m.type, m.n_in));
    return std::clamp(fit / panel * panel, panel, size_t{256});
}

}  // namespace

void Packer::add(Matrix& matrix, const Tensor& tensor, size_t at) {
    packings_.push_back({&matrix, &tensor, at, packed_bytes_});
    const auto size = model_.kernels.matrix[matrix.type].packed_size;
    packed_bytes_ += round_up(size(matrix.type, matrix.n_out, matrix.n_in), 64);
}

void Packer::pack(const Progress& progress) {
    model_.matrices = Memory(packed_bytes_);
    uint8_t* base = model_.matrices.data();
    size_t buffer_bytes = 0;
    for (const Packing& p : packings_) {
        const Matrix& m = *p.matrix;
        buffer_bytes = std::max(buffer_bytes, piece_rows(m) * rwkv_row_bytes(m.type, m.n_in));
    }
    std::vector<std::vector<uint8_t>> buffers(model_.n_threads, std::vector<uint8_t>(buffer_bytes));
    FirstFailure failure;
    ProgressTeller teller(progress, packed_bytes_);
    model_.executor().pool.run([&](Team& team) {
        for (const Packing& p : packings_) {
            uint8_t* const buffer = buffers[team.thread()].data();
            const auto size = model_.kernels.matrix[p.matrix->type].packed_size;
            team.for_each(p.matrix->n_out, piece_rows(*p.matrix), [&](size_t begin, size_t end) {
                failure.guard([&] {
                    pack_rows(p, begin, end, buffer, base + p.offset);
                    teller.add(size(p.matrix->type, end - begin, p.matrix->n_in));
                    // Thread 0 is the one that opens the model.
                    if (team.thread() == 0) teller.tell();
                });
            });
        }
    });
    failure.rethrow();
    teller.tell_end();
    for (const Packing& p : packings_) p.matrix->data = base + p.offset;
}

// Rows [begin, end), whole panels, of a matrix that is packed to dst. Panels lie one after another,
// so these rows are packed as if they were a matrix.
void Packer::pack_rows(const Packing& p, size_t begin, size_t end, uint8_t* buffer,
                       uint8_t* dst) const {
    const Matrix& m = *p.matrix;
    const rwkv_matrix_kernels& kernels = model_.kernels.matrix[m.type];
    const auto pack = m.by_columns ? kernels.pack_columns : kernels.pack;
    const size_t panel = panel_of(m);
    const size_t row_bytes = rwkv_row_bytes(m.type, m.n_in);
    const size_t n = end - begin;
    file_.read(*p.tensor, p.at + begin * row_bytes, n * row_bytes, buffer);
    pack(m.type, buffer, n, m.n_in, 0, (n + panel - 1) / panel,
         dst + kernels.packed_size(m.type, begin, m.n_in));
}

}  // namespace rwkv
