// Rates of linear() on the shapes of SmolLM2-135M beside oneDNN's and the machine's own: the peak of the instruction
// and the read rate of memory, both measured in this run. Best of several short repetitions.

#include <algorithm>
#include <chrono>
#include <cstdio>
#include <vector>

#include "base/parallel.h"
#include "kernels/backend.h"

#if defined(__x86_64__)
#pragma GCC diagnostic ignored "-Wuninitialized"  // GCC 12: _mm512_undefined_ps in its own header
#pragma GCC diagnostic ignored "-Wmaybe-uninitialized"
#include <immintrin.h>
#endif

namespace {

using saif::Compute;
using saif::DType;

template <class Body>
double best_seconds(double budget, const Body& body) {
  double best = 1e9, total = 0.0;
  for (int i = 0; i < 3 || (total < budget && i < 200); ++i) {
    const auto start = std::chrono::steady_clock::now();
    body();
    const double s = std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
    best = std::min(best, s);
    total += s;
  }
  return best;
}

#if defined(__x86_64__)
__attribute__((target("avx512f,avx512bf16"))) float spin_bf16(int64_t n) {
  __m512 a[12];
  for (auto& v : a) v = _mm512_setzero_ps();
  const __m512bh x = (__m512bh)_mm512_set1_epi32(0x3f803f80);
  for (int64_t i = 0; i < n; ++i) {
#pragma GCC unroll 12
    for (auto& v : a) v = _mm512_dpbf16_ps(v, x, x);
  }
  float sum = 0.0f;
  for (auto& v : a) sum += _mm512_reduce_add_ps(v);
  return sum;
}

double peak_gflops() {
  if (!__builtin_cpu_supports("avx512bf16")) return 0.0;
  constexpr int64_t kSteps = 200000;
  volatile float sink = 0.0f;
  const double s = best_seconds(0.1, [&] {
#pragma omp parallel
    sink = spin_bf16(kSteps);
  });
  return 64e-9 * 12 * kSteps * saif::max_threads() / s;
}
#else
double peak_gflops() { return 0.0; }
#endif

double read_gbytes() {
  const std::vector<uint64_t> data(64 << 17, 1);
  volatile uint64_t sink = 0;
  const double s = best_seconds(0.3, [&] {
    uint64_t sum = 0;
#pragma omp parallel for simd reduction(+ : sum)
    for (size_t i = 0; i < data.size(); ++i) sum += data[i];
    sink = sum;
  });
  return 1e-9 * static_cast<double>(data.size() * 8) / s;
}

struct Shape {
  const char* name;
  int64_t out, in;
};

}  // namespace

int main() {
  const auto backend = saif::make_cpu_backend();
  const double peak = peak_gflops(), roof = read_gbytes();
  std::printf("%s, %d threads, %s; dpbf16 peak %.0f GFLOP/s, reads %.1f GB/s\n", backend->name().c_str(),
              saif::max_threads(), saif::LibraryGemm::version().c_str(), peak, roof);
  std::printf("%-8s %5s %9s %7s %8s %7s %9s\n", "shape", "rows", "GFLOP/s", "peak", "GB/s", "memory", "oneDNN");
  const Shape shapes[] = {
      {"q,o", 576, 576}, {"k,v", 192, 576}, {"gate,up", 1536, 576}, {"down", 576, 1536}, {"lm_head", 49152, 576}};
  for (const Shape& s : shapes) {
    // Copies enough that few rows find their weights in memory, as a whole model's are.
    const int64_t bytes = s.out * s.in * 2, copies = std::max<int64_t>(1, (96 << 20) / bytes);
    const std::vector<uint16_t> w(static_cast<size_t>(copies * s.out * s.in), 0x3c00);
    for (const int64_t m : {1, 8, 16, 32, 64, 128, 512}) {
      if (m == 512 && s.out > 4096) continue;
      const std::vector<float> x(static_cast<size_t>(m * s.in), 0.5f);
      const std::vector<uint16_t> xh(static_cast<size_t>(m * s.in), 0x3f00);
      std::vector<float> y(static_cast<size_t>(m * s.out));
      int64_t copy = 0;
      const auto next = [&] { return w.data() + (copy++ % copies) * s.out * s.in; };
      const double ours = best_seconds(0.15, [&] {
        const saif::LinearPart part{{next(), DType::kBf16, s.out, s.in}, nullptr, {y.data(), m, s.out}, false};
        backend->linear({x.data(), m, s.in}, {&part, 1}, Compute::kBf16);
      });
      const double theirs =
          best_seconds(0.1, [&] { saif::LibraryGemm::bf16(xh.data(), next(), y.data(), m, s.out, s.in); });
      const double flops = 2e-9 * static_cast<double>(m * s.out * s.in), gb = 1e-9 * static_cast<double>(bytes);
      std::printf("%-8s %5lld %9.1f %6.0f%% %8.1f %6.0f%% %9.1f\n", s.name, static_cast<long long>(m), flops / ours,
                  100.0 * flops / ours / peak, gb / ours, 100.0 * gb / ours / roof, flops / theirs);
    }
  }
  return 0;
}
