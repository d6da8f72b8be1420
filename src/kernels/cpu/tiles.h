// Products of bfloat16 on tile registers (Intel AMX): y = x w^T, both rounded to bfloat16, sums in float32.
//
// A tile of weights is 16 outputs and 32 inputs as a matrix stores them; it meets 16 rows of x, whose pairs of inputs
// stand side by side ([16 units][16 rows]), and gives sums [16 outputs][16 rows]. So no weight is transposed. A sum
// takes 32 inputs at a time, from the first to the last, whatever stands in the other rows of a tile: results are
// batch-invariant, and other ones than those of vdpbf16ps, which takes 2.
//
// GGUF's blocks of 16 or 32 inputs are multiplied code by code, exact in bfloat16; a scale meets the sum of its block,
// an offset the sum of the block's x: no weight is rounded.
//
// Two tiles of outputs (a panel) meet two groups of rows. Panels are cut along the inputs so that a panel's part stays
// in L1 while all rows of x pass by it, and sums wait in memory meanwhile.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "kernels/backend.h"
#include "kernels/cpu/linear.h"

namespace saif::cpu {

constexpr int64_t kTileOutputs = 16, kTileInputs = 32, kTileRows = 16;
constexpr int64_t kPanelOutputs = 2 * kTileOutputs;

// Rows of x: [groups][k_tiles][16 units][width], width rows to a group: 16, or 1 where there is but one row.
struct TileRows {
  uint32_t* data = nullptr;
  float* sums = nullptr;  // of 16 inputs, for products with blocks: [groups][2 k_tiles][16]
  int64_t rows = 0, groups = 0, k_tiles = 0, width = kTileRows;

  int64_t tile_words() const { return kTileInputs / 2 * width; }
  uint32_t* tile(int64_t group, int64_t k_tile) const { return data + (group * k_tiles + k_tile) * tile_words(); }
  // Sums of a panel: [groups][2][16 outputs][width]
  int64_t panel_sums() const { return groups * kPanelOutputs * width; }
  float* tile_sums(int64_t group, int64_t k_tile) const { return sums + 2 * (group * k_tiles + k_tile) * kTileRows; }
  TileRows from(int64_t group, int64_t n_rows) const {
    return {tile(group, 0), sums != nullptr ? tile_sums(group, 0) : nullptr,
            n_rows,         (n_rows + kTileRows - 1) / kTileRows,
            k_tiles,        width};
  }
};

// Inputs [32 first, 32 (first + count)) of a panel.
struct TileRange {
  int64_t first = 0, count = 0;
};

// What is fetched meanwhile: `lines` cache lines from `data` on in each of `rows` rows.
struct TilesAhead {
  const char* data = nullptr;
  int64_t row_bytes = 0, rows = 0, lines = 0;
};

// A panel as the products read it: [k_tile][2][16 outputs][32 inputs], or, of blocks, [2][steps][16][inputs of a scale]
// with scales and offsets [32 outputs][kPanelSteps], of which the blocks of a range are used.
constexpr int64_t kPanelSteps = 32;
struct PackedPanel {
  uint16_t* weights = nullptr;
  float *scales = nullptr, *offsets = nullptr;
};

struct TileKernel {
  void (*release)();  // gives back the tile registers of a thread that has multiplied
  // n rows of x (at most 16) to the tiles of a group; scratch: [16][16 k_tiles].
  void (*pack_rows)(const float* const* rows, int64_t n, int64_t cols, const TileRows& group, uint32_t* scratch);
  // Up to 32 rows of a matrix, plain or in blocks, to [range.count][32 outputs][32 inputs], zeros past its ends.
  void (*pack_panel)(const WeightTile& w, const TileRange& range, const TilesAhead& ahead, const PackedPanel& packed);
  // sums += the panel's products with all rows, sums = at the first inputs.
  void (*multiply)(const TileRows& x, const WeightTile& w, const TileRange& range, const PackedPanel& packed,
                   const TilesAhead& ahead, float* sums);
  // sums = the products with 32 rows of a matrix of bfloat16, read where they lie; `in` is a multiple of 32.
  void (*multiply_in_place)(const TileRows& x, const WeightTile& w, const TilesAhead& ahead, float* sums);
  // A panel's sums to rows of y.
  void (*store)(const TileRows& x, const float* sums, const LinearOutput& out);
  // sums of a panel += bias of its outputs
  void (*add_bias)(const TileRows& x, const float* bias, int64_t outputs, float* sums);
  // A panel's sums, rounded, to k_tile of rows of another product's x.
  void (*round)(const float* sums, const TileRows& to, int64_t k_tile);
  bool (*takes)(const WeightView& w);  // of matrices of blocks, for more than kFewBlockRows rows
};
const TileKernel* tile_kernel();  // nullptr where the CPU has no tiles, or the system does not let us use them

// So few rows meet blocks without tiles, to the same bits (blocks_avx512.h).
constexpr int64_t kFewBlockRows = 4;

class TileLinear {
 public:
  explicit TileLinear(Isa isa) : kernel_(isa == Isa::kAmx ? tile_kernel() : nullptr) {}
  bool takes(const WeightView& w) const { return kernel_ != nullptr && (!w.blocks || kernel_->takes(w)); }
  // Parts, and weights of a gated MLP, that takes() says yes to.
  void run(const RowSource& x, std::span<const LinearPart> parts);
  void run_gated(const RowSource& x, const GatedProducts& products, const LinearPart& down);

 private:
  const TileKernel* kernel_;
  Scratch rows_, row_sums_, hidden_, hidden_sums_;
  std::vector<TaskScratch> scratch_;  // one per thread
};

}  // namespace saif::cpu
