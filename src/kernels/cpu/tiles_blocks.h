// Panels of GGUF's blocks, for tiles_amx.cc.
#pragma once

#include "kernels/cpu/tiles.h"

namespace saif::cpu::tiles {

bool takes_blocks(const WeightView& w);
// As TileKernel's; ranges begin and, before the end of a row, end at a multiple of 256 inputs.
void pack_block_panel(const WeightTile& w, const TileRange& range, const TilesAhead& ahead, const PackedPanel& packed);
void multiply_block_panel(const TileRows& x, const WeightTile& w, const TileRange& range, const PackedPanel& packed,
                          const TilesAhead& ahead, float* sums);

}  // namespace saif::cpu::tiles
