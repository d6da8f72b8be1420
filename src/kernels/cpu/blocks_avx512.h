// BF16 products with matrices of GGUF's blocks, widened in registers.
#pragma once

#include "kernels/cpu/linear.h"

namespace saif::cpu {

const BlockKernel* block_kernel_avx512(GgmlType type);  // nullptr: the type has none

}  // namespace saif::cpu
