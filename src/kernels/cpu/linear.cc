#include "kernels/cpu/linear.h"

#include <algorithm>

#include "base/check.h"
#include "base/parallel.h"

namespace saif::cpu {

namespace {

int64_t ceil_div(int64_t a, int64_t b) { return (a + b - 1) / b; }

// The work of a call: each part cut into blocks of outputs and chunks of rows, numbered through all parts.
struct Plan {
  const LinearKernel& kernel;
  std::span<const LinearPart> parts;
  int64_t rows, cols, n_units;
  bool direct;
  int64_t block;      // outputs per task
  int64_t row_chunk;  // rows per task
  int64_t row_chunks;
  int64_t n_tasks;
  int threads;
};

constexpr int64_t kDirectBytes = 64 << 10;  // weights per task of the direct way
// The same of blocks: a task's first panels are not fetched ahead, and that costs more where the rest is so small.
constexpr int64_t kDirectBlockBytes = 256 << 10;
constexpr int64_t kMinRowChunk = 64;
constexpr int64_t kSerialWork = 1 << 16;   // multiply-adds below which waking threads costs more
constexpr int64_t kSerialRound = 1 << 13;  // inputs that one thread rounds sooner than all meet at a barrier

// Outputs per task of the direct way.
int64_t direct_block(const LinearKernel& kernel, std::span<const LinearPart> parts, int threads) {
  const WeightView& first = parts.front().w;
  bool blocks = false;
  int64_t outputs = 0;
  for (const LinearPart& part : parts) {
    blocks = blocks || part.w.blocks;
    outputs += part.w.out;
  }
  if (blocks) {  // read two panels at a time; tasks enough for the threads to end together
    const int64_t pair = 2 * kernel.lanes;
    return ceil_div(std::min(kDirectBlockBytes / first.row_bytes() + 1, ceil_div(outputs, 4 * threads)), pair) * pair;
  }
  const int64_t panel_bytes = kernel.lanes * first.row_bytes();
  return kernel.lanes * std::max<int64_t>(1, kDirectBytes / panel_bytes);
}

int64_t units_of(const LinearKernel& kernel, int64_t cols) {
  return ceil_div(ceil_div(cols, kernel.inputs_per_unit), kUnitBlock) * kUnitBlock;
}

Plan make_plan(const LinearKernel& kernel, int64_t rows, int64_t cols, std::span<const LinearPart> parts) {
  Plan plan{kernel, parts, rows, cols, units_of(kernel, cols), rows <= kernel.direct_rows, 0, 0, 0, 0, max_threads()};
  if (plan.direct) {
    plan.block = direct_block(kernel, parts, plan.threads);
  } else {
    plan.block = kernel.lanes * kernel.panels;
  }
  int64_t blocks = 0;
  for (const LinearPart& part : parts) blocks += ceil_div(part.w.out, plan.block);
  const int64_t wanted = ceil_div(4 * plan.threads, std::max<int64_t>(blocks, 1));
  plan.row_chunks = std::clamp<int64_t>(wanted, 1, std::max<int64_t>(1, rows / kMinRowChunk));
  plan.row_chunk = ceil_div(ceil_div(rows, plan.row_chunks), 8) * 8;
  plan.row_chunks = ceil_div(rows, plan.row_chunk);
  plan.n_tasks = blocks * plan.row_chunks;
  return plan;
}

// A block of outputs: its part, its first output and its weights. No part when the task is past the last one.
struct Block {
  const LinearPart* part = nullptr;
  int64_t first = 0;
  WeightTile tile;
};

Block block_of(const Plan& plan, int64_t task) {
  if (task >= plan.n_tasks) return {};
  int64_t block = task / plan.row_chunks;
  const LinearPart* part = plan.parts.data();
  while (block >= ceil_div(part->w.out, plan.block)) block -= ceil_div((part++)->w.out, plan.block);
  const int64_t first = block * plan.block;
  return {part, first, tile_of(part->w, first, std::min(plan.block, part->w.out - first))};
}

int64_t row_bytes(const WeightTile& tile) {
  return WeightView{tile.data, tile.dtype, tile.rows, tile.in, tile.blocks}.row_bytes();
}

// Rows [first, first + rows) of a tile, widened to its dtype where they are blocks.
WeightTile widen(const WeightTile& tile, int64_t first, int64_t rows, Scratch& scratch) {
  const auto* data = static_cast<const std::byte*>(tile.data) + first * row_bytes(tile);
  if (!tile.blocks) return {data, tile.dtype, rows, tile.in};
  auto* wide = scratch.get<std::byte>(rows * tile.in * static_cast<int64_t>(size_of(tile.dtype)));
  dequantize_tile(*tile.blocks, data, rows * tile.in, tile.dtype, wide);
  return {wide, tile.dtype, rows, tile.in};
}

// fn(part, its first row, its rows) for the whole panels of a tile of blocks, and for the rest, filled up with zeros.
template <class Fn>
void by_whole_panels(const LinearKernel& kernel, const WeightTile& tile, Scratch& scratch, const Fn& fn) {
  const int64_t rest = tile.rows % kernel.lanes, first = tile.rows - rest;
  WeightTile part = tile;
  part.rows = first;
  if (first > 0) fn(part, 0, first);
  if (rest == 0) return;
  const int64_t bytes = rest * row_bytes(tile), all = kernel.lanes * row_bytes(tile);
  auto* filled = scratch.get<std::byte>(all);
  std::copy_n(static_cast<const std::byte*>(tile.data) + first * row_bytes(tile), bytes, filled);
  std::fill(filled + bytes, filled + all, std::byte{0});
  part.data = filled;
  part.rows = kernel.lanes;
  fn(part, first, rest);
}

// The kernel that reads the tile as it is stored.
const BlockKernel* block_kernel(const LinearKernel& kernel, const WeightTile& tile) {
  return tile.blocks && kernel.blocks != nullptr ? kernel.blocks(*tile.blocks) : nullptr;
}

// Of a call's products, of which kernels that read blocks want the sums of x.
bool wants_sums(const LinearKernel& kernel, std::span<const LinearPart> parts) {
  return kernel.blocks != nullptr && std::ranges::any_of(parts, [&](const LinearPart& part) {
           return part.w.blocks && kernel.blocks(*part.w.blocks) != nullptr;
         });
}

LinearOutput outputs_from(const LinearOutput& out, int64_t first, int64_t cols) {
  return {out.y + first, out.stride, cols, out.bias != nullptr ? out.bias + first : nullptr, out.accumulate};
}

void run_direct(const LinearKernel& kernel, const UnitRows& x, const WeightTile& tile, const LinearOutput& out,
                Scratch& wide) {
  if (!tile.blocks) return kernel.direct(x, tile, out);
  if (const BlockKernel* stored = block_kernel(kernel, tile)) {
    const auto direct = [&](const WeightTile& part, int64_t first, int64_t rows) {
      stored->direct(x, part, outputs_from(out, first, rows));
    };
    return by_whole_panels(kernel, tile, wide, direct);
  }
  // A panel at a time, so that what was widened is multiplied from the nearest cache.
  for (int64_t row = 0; row < tile.rows; row += kernel.lanes) {
    const int64_t rows = std::min(kernel.lanes, tile.rows - row);
    kernel.direct(x, widen(tile, row, rows, wide), outputs_from(out, row, rows));
  }
}

int64_t first_row(const Plan& plan, int64_t task) { return (task % plan.row_chunks) * plan.row_chunk; }

// All rows of a call, and room for their sums where a part wants them.
struct Units {
  uint32_t* data = nullptr;
  float* sums = nullptr;
};

UnitRows rows_of(const Plan& plan, int64_t task, const Units& units) {
  const int64_t first = first_row(plan, task);
  return {units.data + first * plan.n_units, std::min(plan.row_chunk, plan.rows - first), plan.n_units,
          units.sums != nullptr ? units.sums + first * (plan.n_units / kSumUnits) : nullptr};
}

LinearOutput output_of(const Block& block, Mat<float> y) {
  const float* bias = block.part->bias;
  return {y.data(), y.stride(), block.tile.rows, bias != nullptr ? bias + block.first : nullptr,
          block.part->accumulate};
}

// The block of which a thread is likely to take a task after this one: threads in step take every such task.
Block next_block(const Plan& plan, int64_t task) { return block_of(plan, task + plan.threads); }

// Of many rows: the block is packed, and what is likely to be packed next is asked for.
void multiply(const Plan& plan, const UnitRows& x, const Block& block, Mat<float> y, const Block& next,
              TaskScratch& scratch) {
  const LinearKernel& kernel = plan.kernel;
  const WeightTile& tile = block.tile;
  const LinearOutput out = output_of(block, y);
  const Ahead ahead{static_cast<const char*>(next.tile.data),
                    next.part != nullptr ? next.tile.rows * next.part->w.row_bytes() : 0};
  if (const BlockKernel* stored = block_kernel(kernel, tile)) {
    auto* sums = scratch.packed.get<float>(x.rows * plan.block);
    const auto product = [&](const WeightTile& part, int64_t first, int64_t rows) {
      stored->multiply(x, part, outputs_from(out, first, rows), ahead, sums);
    };
    return by_whole_panels(kernel, tile, scratch.wide, product);
  }
  auto* packed = scratch.packed.get<uint32_t>(plan.n_units * plan.block);
  kernel.pack(widen(tile, 0, tile.rows, scratch.wide), plan.n_units, packed);
  kernel.multiply(x, packed, out, ahead);
}

void run_task(const Plan& plan, int64_t task, const Units& units, TaskScratch& scratch) {
  const Block block = block_of(plan, task);
  const UnitRows x = rows_of(plan, task, units);
  const int64_t first = first_row(plan, task);
  const Mat<float> y =
      block.part->y.rows_range(first, first + x.rows).cols_range(block.first, block.first + block.tile.rows);
  if (plan.direct) return run_direct(plan.kernel, x, block.tile, output_of(block, y), scratch.wide);
  multiply(plan, x, block, y, next_block(plan, task), scratch);
}

// The rows and outputs of a task of `plan`, which is that of gate, of both products, combined and rounded into
// `hidden`, [rows][hidden_units].
void run_gated_task(const Plan& plan, const GatedProducts& products, int64_t task, const Units& units,
                    TaskScratch& scratch, const Units& hidden) {
  const Block gate = block_of(plan, task);
  const Block up{&products.up, gate.first, tile_of(products.up.w, gate.first, gate.tile.rows)};
  const UnitRows x = rows_of(plan, task, units);
  auto* tiles = scratch.tiles.get<float>(2 * x.rows * plan.block);
  const Mat<float> gated(tiles, x.rows, gate.tile.rows, plan.block);
  const Mat<float> upped(tiles + x.rows * plan.block, x.rows, gate.tile.rows, plan.block);
  multiply(plan, x, gate, gated, up, scratch);
  multiply(plan, x, up, upped, next_block(plan, task), scratch);
  products.combine(gated, upped, gated);

  const int64_t hidden_units = units_of(plan.kernel, products.gate.w.out);
  const int64_t first = gate.first / plan.kernel.inputs_per_unit;
  const bool last = gate.first + gate.tile.rows == products.gate.w.out;  // also writes the zeros after it
  const int64_t n = last ? hidden_units - first : gate.tile.rows / plan.kernel.inputs_per_unit;
  for (int64_t r = 0; r < x.rows; ++r) {
    const int64_t at = (first_row(plan, task) + r) * hidden_units + first;
    plan.kernel.round(gated.row(r), gated.cols(), hidden.data + at, n);
    if (hidden.sums != nullptr) plan.kernel.sum(hidden.data + at, n, hidden.sums + at / kSumUnits);
  }
}

// round(row, scratch) for each of n_rounds rows, then run(task, scratch) for each task of the plan.
template <class Round, class Run>
void sweep(const Plan& plan, int64_t n_rounds, const Round& round, const Run& run, std::vector<TaskScratch>& scratch) {
  scratch.resize(std::max(scratch.size(), static_cast<size_t>(plan.threads)));
  int64_t outputs = 0;
  for (const LinearPart& part : plan.parts) outputs += part.w.out;
  const bool parallel = plan.threads > 1 && !omp_in_parallel() && plan.rows * plan.cols * outputs > kSerialWork;
  const bool round_here = !parallel || n_rounds * plan.cols <= kSerialRound;
  for (int64_t r = 0; round_here && r < n_rounds; ++r) round(r, scratch[0]);
  if (!parallel) {
    for (int64_t t = 0; t < plan.n_tasks; ++t) run(t, scratch[0]);
    return;
  }
  FirstError errors;
  TaskRuns runs(plan.n_tasks, plan.threads);
#pragma omp parallel num_threads(plan.threads)
  {
    TaskScratch& mine = scratch[static_cast<size_t>(omp_get_thread_num())];
    if (!round_here) {
#pragma omp for schedule(static)
      for (int64_t r = 0; r < n_rounds; ++r) errors.run([&] { round(r, mine); });
    }
    if (plan.direct) {  // neighbours in memory to the same thread, which fetches ahead
      for (int64_t t = 0; (t = runs.take(omp_get_thread_num())) >= 0;) errors.run([&] { run(t, mine); });
    } else {
#pragma omp for schedule(dynamic, 1) nowait
      for (int64_t t = 0; t < plan.n_tasks; ++t) errors.run([&] { run(t, mine); });
    }
  }
  errors.rethrow();
}

// What sweep() rounds: a row of x into its units.
auto rounding(const Plan& plan, const RowSource& x, const Units& units) {
  return [&plan, &x, &units](int64_t r, TaskScratch& scratch) {
    const float* row = x.row(r, scratch.row.get<float>(x.cols));
    uint32_t* to = units.data + r * plan.n_units;
    plan.kernel.round(row, x.cols, to, plan.n_units);
    if (units.sums != nullptr) plan.kernel.sum(to, plan.n_units, units.sums + r * (plan.n_units / kSumUnits));
  };
}

// Room for rows of so many units, of which these products are taken.
Units room_for(const LinearKernel& kernel, int64_t rows, int64_t n_units, std::span<const LinearPart> parts,
               Scratch& units, Scratch& sums) {
  return {units.get<uint32_t>(rows * n_units),
          wants_sums(kernel, parts) ? sums.get<float>(rows * (n_units / kSumUnits)) : nullptr};
}

}  // namespace

LinearKernels linear_kernels(Isa isa) {
#if defined(__x86_64__)
  if (isa == Isa::kAvx512 || isa == Isa::kAvx512Bf16 || isa == Isa::kAmx) return linear_kernels_avx512(isa);
#endif
  return linear_kernels_generic(isa);
}

void Linear::run(const RowSource& x, std::span<const LinearPart> parts, Compute compute) {
  if (x.rows == 0 || parts.empty()) return;
  const Plan plan = make_plan(kernel_of(compute), x.rows, x.cols, parts);
  const Units units = room_for(plan.kernel, plan.rows, plan.n_units, parts, units_, sums_);
  const auto run = [&](int64_t task, TaskScratch& scratch) { run_task(plan, task, units, scratch); };
  sweep(plan, x.rows, rounding(plan, x, units), run, scratch_);
}

void Linear::run_gated(const RowSource& x, const GatedProducts& products, const LinearPart& down, Compute compute) {
  if (x.rows == 0) return;
  const LinearKernel& kernel = kernel_of(compute);
  const Plan plan = make_plan(kernel, x.rows, x.cols, {&products.gate, 1});
  SAIF_CHECK(!plan.direct, "run_gated of few rows");
  const LinearPart both[] = {products.gate, products.up};
  const Units units = room_for(kernel, plan.rows, plan.n_units, both, units_, sums_);
  const Units hidden =
      room_for(kernel, plan.rows, units_of(kernel, products.gate.w.out), {&down, 1}, hidden_, hidden_sums_);
  const auto gated = [&](int64_t task, TaskScratch& scratch) {
    run_gated_task(plan, products, task, units, scratch, hidden);
  };
  sweep(plan, x.rows, rounding(plan, x, units), gated, scratch_);

  const Plan last = make_plan(kernel, x.rows, down.w.in, {&down, 1});
  const auto run = [&](int64_t task, TaskScratch& scratch) { run_task(last, task, hidden, scratch); };
  sweep(
      last, 0, [](int64_t, TaskScratch&) {}, run, scratch_);
}

}  // namespace saif::cpu
