// Instruction sets that the kernels are compiled for; each backend object is bound to one.
#pragma once

#include <cstdint>

namespace saif::cpu {

enum class Isa { kGeneric, kAvx2, kAvx512, kAvx512Bf16 };

}  // namespace saif::cpu
