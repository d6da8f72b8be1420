#include "kernels/cpu/tiles.h"

#include <algorithm>

#include "base/check.h"
#include "base/parallel.h"

namespace saif::cpu {

namespace {

constexpr int64_t kPartTiles = 18;                // inputs of a panel's part: 36 KB, which stay in L1
constexpr int64_t kBlockTiles = kPanelSteps / 2;  // the same of blocks, of whole chunks of 256 inputs
constexpr int64_t kTaskPanels = 8;                // that share x's part out of L2, at most
constexpr int64_t kSmallBytes = 1 << 20;   // of x, all of which stays in L2: few panels do, and little memory for sums
constexpr int64_t kTaskRows = 512;         // of whose inputs a part stays in L2: 590 KB
constexpr int64_t kFewRows = 32;           // for them weights arrive from memory more slowly than they are used
constexpr int64_t kFewTiles = 6;           // inputs of a panel's part then
constexpr int64_t kFewBytes = 128 << 10;   // weights of a task then
constexpr int64_t kPackedShare = 1;        // quarters of what is fetched ahead for few rows: while a panel is packed
constexpr int64_t kSerialWork = 1 << 18;   // multiply-adds below which waking threads costs more
constexpr int64_t kSerialRound = 1 << 13;  // inputs that one thread rounds sooner than all meet at a barrier

int64_t ceil_div(int64_t a, int64_t b) { return (a + b - 1) / b; }
int64_t panels_of(const WeightView& w) { return ceil_div(w.out, kPanelOutputs); }

// One of the matrices' panels: outputs [first, first + 32) of a part, or fewer at its end.
struct Panel {
  const LinearPart* part = nullptr;
  int64_t first = 0;

  int64_t outputs() const { return std::min(kPanelOutputs, part->w.out - first); }
  WeightTile tile() const { return tile_of(part->w, first, outputs()); }
  const float* bias() const { return part->bias != nullptr ? part->bias + first : nullptr; }
};

// The work of a call: panels, so many to a task, with rows, so many groups to a task.
struct Plan {
  int64_t panels, k_tiles;
  int64_t part_tiles, k_parts;
  int64_t task_panels, blocks;  // panels = about blocks * task_panels
  int64_t task_groups, row_chunks;
  bool few;
  bool in_place;  // whole panels are not packed
  int threads;

  int64_t n_tasks() const { return blocks * row_chunks; }
};

// As many panels to a task as can be while the threads end together.
int64_t panels_per_task(int64_t panels, int64_t chunks, int64_t at_most, int threads) {
  int64_t best = 1, least = INT64_MAX;
  for (int64_t n = 1; n <= at_most; ++n) {
    const int64_t rounds = ceil_div(ceil_div(panels, n) * chunks, threads) * n;
    if (rounds > least) continue;
    least = rounds;
    best = n;
  }
  return best;
}

bool any_blocks(std::span<const LinearPart> parts) {
  return std::ranges::any_of(parts, [](const LinearPart& part) { return part.w.blocks.has_value(); });
}

bool can_stay_in_place(std::span<const LinearPart> parts) {
  return std::ranges::all_of(parts, [](const LinearPart& part) {
    return !part.w.blocks && part.w.dtype == DType::kBf16 && part.w.in % kTileInputs == 0;
  });
}

Plan make_plan(const TileRows& x, std::span<const LinearPart> parts, int64_t panels, int64_t row_bytes) {
  Plan plan{};
  plan.panels = panels;
  plan.k_tiles = x.k_tiles;
  plan.few = x.rows <= kFewRows;
  plan.in_place = plan.few && can_stay_in_place(parts);
  plan.k_parts = plan.in_place ? 1 : ceil_div(x.k_tiles, plan.few ? kFewTiles : kPartTiles);
  plan.part_tiles = ceil_div(x.k_tiles, plan.k_parts);
  if (any_blocks(parts)) {
    plan.part_tiles = kBlockTiles;
    plan.k_parts = ceil_div(x.k_tiles, kBlockTiles);
  }
  plan.threads = max_threads();
  const int64_t wanted = ceil_div(2 * plan.threads, std::max<int64_t>(panels, 1));
  const int64_t least = ceil_div(x.rows, kTaskRows), most = std::max<int64_t>(1, x.groups / 4);
  plan.row_chunks = std::max(least, std::min(wanted, most));
  plan.task_groups = ceil_div(ceil_div(x.groups, plan.row_chunks), 2) * 2;
  plan.row_chunks = ceil_div(x.groups, plan.task_groups);
  if (plan.few) {
    const int64_t most_panels =
        std::min(kFewBytes / (kPanelOutputs * row_bytes) + 1, ceil_div(panels, 4 * plan.threads));
    plan.task_panels = panels_per_task(panels, plan.row_chunks, most_panels, plan.threads);
  } else {
    const bool small = x.groups * x.k_tiles * x.tile_words() * 4 <= kSmallBytes;
    plan.task_panels = panels_per_task(panels, plan.row_chunks, small ? 2 : kTaskPanels, plan.threads);
  }
  plan.blocks = ceil_div(panels, plan.task_panels);
  return plan;
}

TileRange part_of(const Plan& plan, int64_t k_part) {
  const int64_t first = k_part * plan.part_tiles;
  return {first, std::min(plan.part_tiles, plan.k_tiles - first)};
}

// Of blocks before chunks: what one task leaves in a core's L2 is another's x.
int64_t block_of(const Plan& plan, int64_t task) { return task % plan.blocks; }
TileRows rows_of(const Plan& plan, const TileRows& x, int64_t task) {
  const int64_t group = task / plan.blocks * plan.task_groups;
  return x.from(group, std::min(plan.task_groups * x.width, x.rows - group * x.width));
}

TilesAhead ahead_of(const Panel& panel, const TileRange& range) {
  if (panel.part == nullptr || range.count <= 0) return {};
  const WeightView& w = panel.part->w;
  const int64_t row = w.row_bytes(), begin = range.first * kTileInputs;
  const int64_t inputs = std::min(range.count * kTileInputs, w.in - begin);
  const auto* data = static_cast<const char*>(w.data) + panel.first * row + begin * row / w.in;
  return {data, row, panel.outputs(), ceil_div(inputs * row / w.in, 64)};
}

// Products of a task's panels with its rows: sums [panel][panel_sums]. `next` is likely to be this thread's next one.
void multiply(const TileKernel& kernel, const Plan& plan, const TileRows& x, std::span<const Panel> panels,
              const Panel& next, TaskScratch& scratch, float* sums) {
  const int64_t weights = kPanelOutputs * kTileInputs * plan.part_tiles, scales = kPanelOutputs * kPanelSteps;
  auto* room = scratch.packed.get<float>(weights / 2 + 2 * scales);
  const PackedPanel packed{reinterpret_cast<uint16_t*>(room), room + weights / 2, room + weights / 2 + scales};
  for (int64_t k = 0; k < plan.k_parts; ++k) {
    const TileRange range = part_of(plan, k);
    if (range.count <= 0) break;
    for (size_t p = 0; p < panels.size(); ++p) {
      TilesAhead ahead;
      if (p + 1 < panels.size()) {
        ahead = ahead_of(panels[p + 1], range);
      } else if (k + 1 < plan.k_parts) {
        ahead = ahead_of(panels[0], part_of(plan, k + 1));
      } else {
        ahead = ahead_of(next, part_of(plan, 0));
      }
      const WeightTile tile = panels[p].tile();
      float* to = sums + static_cast<int64_t>(p) * x.panel_sums();
      if (plan.in_place && tile.rows == kPanelOutputs) {
        kernel.multiply_in_place(x, tile, ahead, to);
        continue;
      }
      // Memory is to be read all the time: of few rows while a panel is packed and, for a shorter time, multiplied.
      const int64_t while_packed = plan.few ? ahead.rows * kPackedShare / 4 : 0;
      const TilesAhead first{ahead.data, ahead.row_bytes, while_packed, ahead.lines};
      const TilesAhead rest{ahead.data + while_packed * ahead.row_bytes, ahead.row_bytes, ahead.rows - while_packed,
                            ahead.lines};
      kernel.pack_panel(tile, range, first, packed);
      kernel.multiply(x, tile, range, packed, rest, to);
    }
  }
}

// The panels of a task, through all parts, and the first one of the task that this thread is likely to take next.
struct TaskPanels {
  std::vector<Panel> panels;
  Panel next;
};

TaskPanels panels_of_task(const Plan& plan, std::span<const LinearPart> parts, int64_t task) {
  const auto find = [&](int64_t panel) {
    const LinearPart* part = parts.data();
    while (panel >= panels_of(part->w)) panel -= panels_of((part++)->w);
    return Panel{part, panel * kPanelOutputs};
  };
  TaskPanels out;
  const int64_t first = block_of(plan, task) * plan.task_panels;
  for (int64_t p = first; p < std::min(plan.panels, first + plan.task_panels); ++p) out.panels.push_back(find(p));
  const int64_t next = task + (plan.few ? 1 : plan.threads);
  if (next < plan.n_tasks()) out.next = find(block_of(plan, next) * plan.task_panels);
  return out;
}

void store_panel(const TileKernel& kernel, const Plan& plan, const TileRows& x, int64_t task, const Panel& panel,
                 const float* sums) {
  const int64_t first = task / plan.blocks * plan.task_groups * x.width;
  const Mat<float> y = panel.part->y.rows_range(first, first + x.rows);
  kernel.store(x, sums, {y.data() + panel.first, y.stride(), panel.outputs(), panel.bias(), panel.part->accumulate});
}

// A group of 16 rows of x.
void pack_group(const TileKernel& kernel, const RowSource& x, const TileRows& tiles, int64_t group,
                TaskScratch& scratch) {
  const int64_t first = group * tiles.width, n = std::min(tiles.width, x.rows - first);
  auto* made = scratch.row.get<float>(n * x.cols);
  const float* rows[kTileRows] = {};
  for (int64_t r = 0; r < n; ++r) rows[r] = x.row(first + r, made + r * x.cols);
  auto* units = scratch.wide.get<uint32_t>(kTileRows * tiles.k_tiles * kTileInputs / 2);
  kernel.pack_rows(rows, n, x.cols, tiles.from(group, n), units);
}

// For products with these parts.
TileRows room_for(int64_t rows, int64_t cols, std::span<const LinearPart> parts, Scratch& scratch, Scratch& sums) {
  TileRows out;
  out.rows = rows;
  out.width = rows == 1 ? 1 : kTileRows;
  out.groups = ceil_div(rows, out.width);
  out.k_tiles = ceil_div(cols, kTileInputs);
  out.data = scratch.get<uint32_t>(out.groups * out.k_tiles * out.tile_words());
  if (any_blocks(parts)) out.sums = sums.get<float>(out.groups * 2 * out.k_tiles * kTileRows);
  return out;
}

// While a thread multiplies.
class Registers {
 public:
  explicit Registers(const TileKernel& kernel) : kernel_(kernel) {}
  ~Registers() { kernel_.release(); }
  Registers(const Registers&) = delete;
  Registers& operator=(const Registers&) = delete;

 private:
  const TileKernel& kernel_;
};

// pack(group, scratch) for each of n_packs groups of x, then run(task, scratch) for each task of the plan.
template <class Pack, class Run>
void sweep(const TileKernel& kernel, const Plan& plan, const TileRows& x, int64_t n_packs, const Pack& pack,
           const Run& run, std::vector<TaskScratch>& scratch) {
  scratch.resize(std::max(scratch.size(), static_cast<size_t>(plan.threads)));
  const int64_t work = x.rows * plan.panels * kPanelOutputs * x.k_tiles * kTileInputs;
  const bool parallel = plan.threads > 1 && !omp_in_parallel() && work > kSerialWork;
  const bool pack_here = !parallel || x.rows * x.k_tiles * kTileInputs <= kSerialRound;
  for (int64_t g = 0; pack_here && g < n_packs; ++g) pack(g, scratch[0]);
  if (!parallel) {
    const Registers registers(kernel);
    for (int64_t t = 0; t < plan.n_tasks(); ++t) run(t, scratch[0]);
    return;
  }
  FirstError errors;
  TaskRuns runs(plan.n_tasks(), plan.threads);
#pragma omp parallel num_threads(plan.threads)
  {
    TaskScratch& mine = scratch[static_cast<size_t>(omp_get_thread_num())];
    const Registers registers(kernel);
    if (!pack_here) {
#pragma omp for schedule(static)
      for (int64_t g = 0; g < n_packs; ++g) errors.run([&] { pack(g, mine); });
    }
    if (plan.few) {  // neighbours in memory to the same thread, which fetches ahead
      for (int64_t t = 0; (t = runs.take(omp_get_thread_num())) >= 0;) errors.run([&] { run(t, mine); });
    } else {
#pragma omp for schedule(dynamic, 1) nowait
      for (int64_t t = 0; t < plan.n_tasks(); ++t) errors.run([&] { run(t, mine); });
    }
  }
  errors.rethrow();
}

void run_task(const TileKernel& kernel, const Plan& plan, std::span<const LinearPart> parts, const TileRows& all,
              int64_t task, TaskScratch& scratch) {
  const TaskPanels work = panels_of_task(plan, parts, task);
  const TileRows x = rows_of(plan, all, task);
  auto* sums = scratch.tiles.get<float>(static_cast<int64_t>(work.panels.size()) * x.panel_sums());
  multiply(kernel, plan, x, work.panels, work.next, scratch, sums);
  for (const Panel& panel : work.panels) {
    store_panel(kernel, plan, x, task, panel, sums);
    sums += x.panel_sums();
  }
}

// Panels of gate and the same ones of up, combined and rounded: each is 32 inputs of the last product.
void run_gated_task(const TileKernel& kernel, const Plan& plan, const GatedProducts& products, const TileRows& all,
                    int64_t task, TaskScratch& scratch, const TileRows& hidden) {
  TaskPanels work = panels_of_task(plan, {&products.gate, 1}, task);
  const size_t n = work.panels.size();
  for (size_t p = 0; p < n; ++p) work.panels.push_back({&products.up, work.panels[p].first});
  const TileRows x = rows_of(plan, all, task);
  const int64_t size = x.panel_sums(), half = static_cast<int64_t>(n) * size;
  auto* sums = scratch.tiles.get<float>(2 * half);
  multiply(kernel, plan, x, work.panels, work.next, scratch, sums);
  for (size_t p = 0; p < 2 * n; ++p) {
    const Panel& panel = work.panels[p];
    if (panel.bias() == nullptr) continue;
    kernel.add_bias(x, panel.bias(), panel.outputs(), sums + static_cast<int64_t>(p) * size);
  }
  const Mat<float> gate(sums, half / kTileRows, kTileRows), up(sums + half, half / kTileRows, kTileRows);
  products.combine(gate, up, gate);
  const int64_t group = task / plan.blocks * plan.task_groups;
  for (size_t p = 0; p < n; ++p) {
    kernel.round(sums + static_cast<int64_t>(p) * size, hidden.from(group, x.rows),
                 work.panels[p].first / kPanelOutputs);
  }
}

int64_t all_panels(std::span<const LinearPart> parts) {
  int64_t panels = 0;
  for (const LinearPart& part : parts) panels += panels_of(part.w);
  return panels;
}

}  // namespace

void TileLinear::run(const RowSource& x, std::span<const LinearPart> parts) {
  if (x.rows == 0 || parts.empty()) return;
  const TileRows tiles = room_for(x.rows, x.cols, parts, rows_, row_sums_);
  const Plan plan = make_plan(tiles, parts, all_panels(parts), parts.front().w.row_bytes());
  const auto pack = [&](int64_t group, TaskScratch& scratch) { pack_group(*kernel_, x, tiles, group, scratch); };
  const auto run = [&](int64_t task, TaskScratch& scratch) { run_task(*kernel_, plan, parts, tiles, task, scratch); };
  sweep(*kernel_, plan, tiles, tiles.groups, pack, run, scratch_);
}

void TileLinear::run_gated(const RowSource& x, const GatedProducts& products, const LinearPart& down) {
  if (x.rows == 0) return;
  const LinearPart both[] = {products.gate, products.up};
  const TileRows tiles = room_for(x.rows, x.cols, both, rows_, row_sums_);
  const TileRows hidden = room_for(x.rows, products.gate.w.out, {&down, 1}, hidden_, hidden_sums_);
  const Plan plan = make_plan(tiles, both, panels_of(products.gate.w), 2 * products.gate.w.row_bytes());
  const auto pack = [&](int64_t group, TaskScratch& scratch) { pack_group(*kernel_, x, tiles, group, scratch); };
  const auto gated = [&](int64_t task, TaskScratch& scratch) {
    run_gated_task(*kernel_, plan, products, tiles, task, scratch, hidden);
  };
  sweep(*kernel_, plan, tiles, tiles.groups, pack, gated, scratch_);

  const Plan last = make_plan(hidden, {&down, 1}, panels_of(down.w), down.w.row_bytes());
  const auto run = [&](int64_t task, TaskScratch& scratch) {
    run_task(*kernel_, last, {&down, 1}, hidden, task, scratch);
  };
  sweep(
      *kernel_, last, hidden, 0, [](int64_t, TaskScratch&) {}, run, scratch_);
}

}  // namespace saif::cpu
