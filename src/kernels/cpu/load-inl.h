// Loads that widen to float32, per Highway target.
#if defined(SAIF_KERNELS_CPU_LOAD_INL_H_) == defined(HWY_TARGET_TOGGLE)  // NOLINT(llvm-header-guard)
#ifdef SAIF_KERNELS_CPU_LOAD_INL_H_
#undef SAIF_KERNELS_CPU_LOAD_INL_H_
#else
#define SAIF_KERNELS_CPU_LOAD_INL_H_
#endif

#include <hwy/highway.h>

#include "saif/tensor.h"

HWY_BEFORE_NAMESPACE();
namespace saif::cpu::HWY_NAMESPACE {

// Elements [i, i + lanes) of an array of kType, as float32.
template <DType kType, class D>
HWY_INLINE hwy::HWY_NAMESPACE::Vec<D> load_f32(D d, const void* data, int64_t i) {
  namespace hn = hwy::HWY_NAMESPACE;
  if constexpr (kType == DType::kF32) {
    return hn::LoadU(d, static_cast<const float*>(data) + i);
  } else if constexpr (kType == DType::kBf16) {
    const hn::Rebind<uint16_t, D> half;
    const hn::RebindToUnsigned<D> bits;
    const auto v = hn::PromoteTo(bits, hn::LoadU(half, static_cast<const uint16_t*>(data) + i));
    return hn::BitCast(d, hn::ShiftLeft<16>(v));
  } else {
    const hn::Rebind<hwy::float16_t, D> half;
    return hn::PromoteTo(d, hn::LoadU(half, reinterpret_cast<const hwy::float16_t*>(data) + i));
  }
}

template <DType kType>
HWY_INLINE float load_one(const void* data, int64_t i) {
  if constexpr (kType == DType::kF32) return static_cast<const float*>(data)[i];
  if constexpr (kType == DType::kBf16) return bf16_to_f32(static_cast<const uint16_t*>(data)[i]);
  return f16_to_f32(static_cast<const uint16_t*>(data)[i]);
}

// Rounded to the nearest bfloat16, ties to even; NaN stays NaN.
template <class D>
HWY_INLINE hwy::HWY_NAMESPACE::Vec<D> round_bf16(D d, hwy::HWY_NAMESPACE::Vec<D> v) {
  namespace hn = hwy::HWY_NAMESPACE;
  const hn::RebindToUnsigned<D> bits;
  const auto u = hn::BitCast(bits, v);
  const auto odd = hn::And(hn::ShiftRight<16>(u), hn::Set(bits, 1));
  const auto up = hn::And(hn::Add(u, hn::Add(odd, hn::Set(bits, 0x7fff))), hn::Set(bits, 0xffff0000U));
  return hn::IfThenElse(hn::IsNaN(v), v, hn::BitCast(d, up));
}

}  // namespace saif::cpu::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#endif
