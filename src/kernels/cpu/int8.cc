#include "kernels/cpu/int8.h"

#include <algorithm>

#include "base/parallel.h"

namespace saif::cpu {

namespace {

constexpr int64_t kFewRows = 8;            // decoded anew for each call of the kernel
constexpr int64_t kBlockOutputs = 32;      // of a task with many rows: decoded, they stay in L2
constexpr int64_t kTaskBytes = 128 << 10;  // of a task with few rows
constexpr int64_t kSerialWork = 1 << 17;   // multiply-adds below which waking threads costs more

int64_t ceil_div(int64_t a, int64_t b) { return (a + b - 1) / b; }

int64_t outputs_per_task(std::span<const LinearPart> parts, int64_t rows, int threads) {
  if (rows > kFewRows) return kBlockOutputs;
  int64_t outputs = 0;
  for (const LinearPart& part : parts) outputs += part.w.out;
  const int64_t by_bytes = kTaskBytes / parts.front().w.row_bytes() + 1;
  return ceil_div(std::min(by_bytes, ceil_div(outputs, 4 * threads)), 4) * 4;
}

}  // namespace

Int8Rows Int8Linear::room_for(int64_t rows, int64_t in) {
  const int64_t n = ceil_div(in, kInt8Chunk) * kInt8Chunk;
  return {rows,
          n,
          codes_.get<int8_t>(rows * n),
          offsets_.get<int32_t>(rows * n / 4),
          scales_.get<float>(rows * n / 4),
          sums_.get<float>(rows * n / 16)};
}

void Int8Linear::run(const RowSource& x, std::span<const LinearPart> parts) {
  if (x.rows == 0 || parts.empty()) return;
  const int64_t rows = x.rows;
  const Int8Rows in = room_for(rows, x.cols);
  const int threads = max_threads();
  const int64_t block = outputs_per_task(parts, rows, threads);
  int64_t n_tasks = 0, outputs = 0;
  for (const LinearPart& part : parts) {
    n_tasks += ceil_div(part.w.out, block);
    outputs += part.w.out;
  }
  scratch_.resize(std::max(scratch_.size(), static_cast<size_t>(threads)));
  const auto run_task = [&](int64_t task, TaskScratch& scratch) {
    const LinearPart* part = parts.data();
    while (task >= ceil_div(part->w.out, block)) task -= ceil_div((part++)->w.out, block);
    const int64_t first = task * block, count = std::min(block, part->w.out - first);
    const WeightTile tile = tile_of(part->w, first, count);
    const LinearOutput out{part->y.data() + first, part->y.stride(), count,
                           part->bias != nullptr ? part->bias + first : nullptr, part->accumulate};
    void* decoded = rows > kFewRows ? scratch.packed.get<std::byte>(count * kernel_->scratch_bytes(in.n)) : nullptr;
    kernel_->multiply(in, tile, out, decoded);
  };
  const bool parallel = threads > 1 && !omp_in_parallel() && rows * x.cols * outputs > kSerialWork;
  const auto round = [&](int64_t r, TaskScratch& scratch) {
    kernel_->round(x.row(r, scratch.row.get<float>(x.cols)), x.cols, in.from(r, 1));
  };
  if (!parallel || rows == 1) {
    for (int64_t r = 0; r < rows; ++r) round(r, scratch_[0]);
  }
  if (!parallel) {
    for (int64_t t = 0; t < n_tasks; ++t) run_task(t, scratch_[0]);
    return;
  }
  FirstError errors;
  TaskRuns runs(n_tasks, threads);
#pragma omp parallel num_threads(threads)
  {
    TaskScratch& scratch = scratch_[static_cast<size_t>(omp_get_thread_num())];
    if (rows > 1) {
#pragma omp for schedule(static)
      for (int64_t r = 0; r < rows; ++r) errors.run([&] { round(r, scratch); });
    }
    for (int64_t t = 0; (t = runs.take(omp_get_thread_num())) >= 0;) errors.run([&] { run_task(t, scratch); });
  }
  errors.rethrow();
}

}  // namespace saif::cpu
