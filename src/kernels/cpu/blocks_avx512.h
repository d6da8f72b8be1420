// BF16 products with matrices of GGUF's blocks, widened in registers.
#pragma once

#include "kernels/cpu/linear.h"

namespace saif::cpu {

const BlockKernel* block_kernel_avx512(GgmlType type);  // nullptr: the type has none
// `direct` to the bits of products on tiles (tiles.h), which sum the first and the second of 16 pairs apart.
const BlockKernel* block_kernel_as_tiles(GgmlType type);

}  // namespace saif::cpu
