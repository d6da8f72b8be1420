// exp and what is made of it, per Highway target. Every lane takes the same steps whatever its neighbours hold.
#if defined(SAIF_KERNELS_CPU_MATH_INL_H_) == defined(HWY_TARGET_TOGGLE)  // NOLINT(llvm-header-guard)
#ifdef SAIF_KERNELS_CPU_MATH_INL_H_
#undef SAIF_KERNELS_CPU_MATH_INL_H_
#else
#define SAIF_KERNELS_CPU_MATH_INL_H_
#endif

#include <hwy/highway.h>

#include <cmath>

HWY_BEFORE_NAMESPACE();
namespace saif::cpu::HWY_NAMESPACE {

// e^x: relative error about 1e-7 on [-87, 88]; 0 below (also for -infinity), e^88 above; NaN stays NaN.
template <class D, class V = hwy::HWY_NAMESPACE::Vec<D>>
HWY_INLINE V fast_exp(D d, V x) {
  namespace hn = hwy::HWY_NAMESPACE;
  const hn::RebindToSigned<D> integers;
  const auto low = hn::Set(d, -87.0f);
  const auto tiny = hn::Lt(x, low);
  const V clamped = hn::IfThenElse(tiny, low, hn::IfThenElse(hn::Gt(x, hn::Set(d, 88.0f)), hn::Set(d, 88.0f), x));
  const V n = hn::Round(hn::Mul(clamped, hn::Set(d, 1.44269504088896341f)));
  const V r = hn::NegMulAdd(n, hn::Set(d, -2.12194440e-4f), hn::NegMulAdd(n, hn::Set(d, 0.693359375f), clamped));
  V p = hn::MulAdd(hn::Set(d, 1.9875691500e-4f), r, hn::Set(d, 1.3981999507e-3f));
  p = hn::MulAdd(p, r, hn::Set(d, 8.3334519073e-3f));
  p = hn::MulAdd(p, r, hn::Set(d, 4.1665795894e-2f));
  p = hn::MulAdd(p, r, hn::Set(d, 1.6666665459e-1f));
  p = hn::MulAdd(p, r, hn::Set(d, 5.0000001201e-1f));
  p = hn::Add(hn::MulAdd(p, hn::Mul(r, r), r), hn::Set(d, 1.0f));
  const auto exponent = hn::ShiftLeft<23>(hn::Add(hn::ConvertTo(integers, n), hn::Set(integers, 127)));
  const V result = hn::Mul(p, hn::BitCast(d, exponent));
  return hn::IfThenElse(tiny, hn::Zero(d), result);
}

// (1 - e^-2|x|) / (1 + e^-2|x|) with x's sign; below 1/4 the odd series, where the quotient would cancel.
template <class D, class V = hwy::HWY_NAMESPACE::Vec<D>>
HWY_INLINE V fast_tanh(D d, V x) {
  namespace hn = hwy::HWY_NAMESPACE;
  const V a = hn::Abs(x), one = hn::Set(d, 1.0f);
  const V e = fast_exp(d, hn::Mul(a, hn::Set(d, -2.0f)));
  const V far = hn::CopySign(hn::Div(hn::Sub(one, e), hn::Add(one, e)), x);
  const V s = hn::Mul(x, x);
  V p = hn::MulAdd(s, hn::Set(d, -1382.0f / 155925.0f), hn::Set(d, 62.0f / 2835.0f));
  p = hn::MulAdd(p, s, hn::Set(d, -17.0f / 315.0f));
  p = hn::MulAdd(p, s, hn::Set(d, 2.0f / 15.0f));
  p = hn::MulAdd(p, s, hn::Set(d, -1.0f / 3.0f));
  const V near = hn::MulAdd(hn::Mul(p, s), x, x);
  return hn::IfThenElse(hn::Lt(a, hn::Set(d, 0.25f)), near, far);
}

// Abramowitz and Stegun 7.1.26: absolute error 1.5e-7.
template <class D, class V = hwy::HWY_NAMESPACE::Vec<D>>
HWY_INLINE V fast_erf(D d, V x) {
  namespace hn = hwy::HWY_NAMESPACE;
  const V a = hn::Abs(x), one = hn::Set(d, 1.0f);
  const V t = hn::Div(one, hn::MulAdd(a, hn::Set(d, 0.3275911f), one));
  V p = hn::MulAdd(t, hn::Set(d, 1.061405429f), hn::Set(d, -1.453152027f));
  p = hn::MulAdd(p, t, hn::Set(d, 1.421413741f));
  p = hn::MulAdd(p, t, hn::Set(d, -0.284496736f));
  p = hn::MulAdd(p, t, hn::Set(d, 0.254829592f));
  const V e = fast_exp(d, hn::Neg(hn::Mul(a, a)));
  return hn::CopySign(hn::NegMulAdd(hn::Mul(p, t), e, one), x);
}

}  // namespace saif::cpu::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#endif
