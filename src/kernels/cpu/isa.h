// Instruction sets that the kernels are compiled for; each backend object is bound to one.
#pragma once

#include <cstdint>

namespace saif::cpu {

// kAmx: kAvx512Bf16, and products and attention on tile registers (tiles.h, attention.h).
enum class Isa { kGeneric, kAvx2, kAvx512, kAvx512Bf16, kAmx };

// What has no kernel for tiles.
constexpr Isa without_tiles(Isa isa) { return isa == Isa::kAmx ? Isa::kAvx512Bf16 : isa; }

}  // namespace saif::cpu

// Body of a function that returns FUNCTION() of the Highway target that belongs to `isa`; under HWY_ONCE only.
#if defined(__x86_64__)
#define SAIF_PICK_TARGET(isa, FUNCTION) \
  switch (isa) {                        \
    case ::saif::cpu::Isa::kGeneric:    \
      break;                            \
    case ::saif::cpu::Isa::kAvx2:       \
      return N_AVX2::FUNCTION();        \
    default:                            \
      return N_AVX3::FUNCTION();        \
  }                                     \
  return HWY_STATIC_DISPATCH(FUNCTION)();
#else
#define SAIF_PICK_TARGET(isa, FUNCTION) \
  static_cast<void>(isa);               \
  return HWY_STATIC_DISPATCH(FUNCTION)();
#endif
