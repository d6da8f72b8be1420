// y = x w^T by panels of outputs. Each output element is summed along `in` in one accumulator from the first input to
// the last, so that rows per call, threads and blocking never change a bit of a result.
//
// Kernels see 32-bit "units" along `in`: one float32, or a pair of bfloat16. A panel is `lanes` outputs, packed as
// [n_units][lanes]; a block is up to `panels` panels, packed as [n_units][panels of the block][lanes].
#pragma once

#include <cstdint>
#include <functional>
#include <span>
#include <vector>

#include "kernels/backend.h"
#include "kernels/cpu/isa.h"

namespace saif::cpu {

constexpr int64_t kUnitBlock = 16;  // n_units is padded with zeros to a multiple of it

// Rows [0, rows) of a weight matrix [*, in], row-major, as in WeightView. Only a BlockKernel sees `blocks`.
struct WeightTile {
  const void* data = nullptr;
  DType dtype = DType::kF32;
  int64_t rows = 0, in = 0;
  std::optional<GgmlType> blocks = std::nullopt;
};

// Rows [first, first + rows) of a matrix.
inline WeightTile tile_of(const WeightView& w, int64_t first, int64_t rows) {
  return {static_cast<const std::byte*>(w.data) + first * w.row_bytes(), w.dtype, rows, w.in, w.blocks};
}

// Where the sums of a block go: y[r * stride + c], c < cols.
struct LinearOutput {
  float* y = nullptr;
  int64_t stride = 0, cols = 0;
  const float* bias = nullptr;
  bool accumulate = false;
};

// Rows of x as units: [rows][n_units]. `sums`, where a BlockKernel wants it: [rows][n_units / 8], of 8 units each.
struct UnitRows {
  const uint32_t* data = nullptr;
  int64_t rows = 0, n_units = 0;
  const float* sums = nullptr;
};
constexpr int64_t kSumUnits = 8;

// Weights that the thread is likely to pack next: `multiply` asks for them while it computes. 0 bytes: none.
struct Ahead {
  const char* data = nullptr;
  int64_t bytes = 0;
};

// Products with tiles of one type of blocks, read as they are stored; whole panels only, up to `panels`. A weight is
// scale * code + offset: the codes, exact in bfloat16, are multiplied, and a scale meets the sum of its block.
struct BlockKernel {
  // sums: scratch [x.rows][w.rows], 64-byte aligned
  void (*multiply)(const UnitRows& x, const WeightTile& w, const LinearOutput& out, const Ahead& ahead, float* sums);
  void (*direct)(const UnitRows& x, const WeightTile& w, const LinearOutput& out);  // up to direct_rows; any w.rows
};

struct LinearKernel {
  int64_t lanes;   // outputs of a panel
  int64_t panels;  // panels of a block, at most
  int64_t inputs_per_unit;
  int64_t direct_rows;  // up to so many rows `direct` is the better way; 0: never
  void (*round)(const float* x, int64_t n, uint32_t* units, int64_t n_units);  // writes n_units, zeros past x
  void (*pack)(const WeightTile& w, int64_t n_units, uint32_t* packed);
  void (*multiply)(const UnitRows& x, const uint32_t* packed, const LinearOutput& out, const Ahead& ahead);
  void (*direct)(const UnitRows& x, const WeightTile& w, const LinearOutput& out);  // any number of w.rows
  const BlockKernel* (*blocks)(GgmlType type);  // nullptr, or returns it: the tile is widened before use
  // Of n_units units, for UnitRows::sums; where there are `blocks`.
  void (*sum)(const uint32_t* units, int64_t n_units, float* sums) = nullptr;
};

struct LinearKernels {
  const LinearKernel* f32;
  const LinearKernel* bf16;
};
LinearKernels linear_kernels(Isa isa);
LinearKernels linear_kernels_avx512(Isa isa);   // x86 only
LinearKernels linear_kernels_generic(Isa isa);  // kGeneric, kAvx2

// 64-byte aligned memory that only grows.
class Scratch {
 public:
  template <typename T>
  T* get(int64_t n) {
    const auto bytes = n * static_cast<int64_t>(sizeof(T));
    if (memory_.empty() || static_cast<int64_t>(memory_.bytes()) < bytes) {
      memory_ = Tensor();
      memory_ = Tensor(DType::kU8, {bytes + bytes / 4 + 64});
    }
    return static_cast<T*>(memory_.data());
  }

 private:
  Tensor memory_;
};

struct TaskScratch {
  Scratch packed;  // the block of a task, or its sums
  Scratch wide;    // its weights, where the kernel cannot read them as they are stored
  Scratch row;     // of x, before it is rounded
  Scratch tiles;   // of a gated MLP: what the task's block of gate and of up gives
};

// Rows of x, each made when it is rounded: into `scratch` [cols], or anywhere else.
struct RowSource {
  int64_t rows = 0, cols = 0;
  std::function<const float*(int64_t row, float* scratch)> row;
};

// What of a gated MLP comes before its last product. combine(gate, up, y): y = act(gate) * up; y may be gate.
struct GatedProducts {
  LinearPart gate, up;  // without y
  std::function<void(Mat<const float>, Mat<const float>, Mat<float>)> combine;
};

// Compute::kInt8 is none of its types.
class Linear {
 public:
  explicit Linear(Isa isa) : kernels_(linear_kernels(isa)) {}
  void run(const RowSource& x, std::span<const LinearPart> parts, Compute compute);

  // Whether so many rows are few: then each weight is read from memory for them alone, and run_gated gains nothing.
  bool are_few(int64_t rows, Compute compute) const { return rows <= kernel_of(compute).direct_rows; }
  // `down` of the combined products of x, of which only a tile per thread exists before it is rounded.
  void run_gated(const RowSource& x, const GatedProducts& products, const LinearPart& down, Compute compute);

 private:
  const LinearKernel& kernel_of(Compute compute) const {
    return compute == Compute::kBf16 ? *kernels_.bf16 : *kernels_.f32;
  }

  LinearKernels kernels_;
  // Units and the sums of a call's x, and of the combined products of run_gated.
  Scratch units_, sums_, hidden_, hidden_sums_;
  std::vector<TaskScratch> scratch_;  // one per thread
};

}  // namespace saif::cpu
