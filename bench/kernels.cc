// Rates of linear() on the shapes of SmolLM2-135M beside oneDNN's and the machine's own: the peak of the instruction
// and the read rate of memory, both measured in this run. Best of several short repetitions.

#include <algorithm>
#include <chrono>
#include <cstdio>
#include <string>
#include <utility>
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

struct Machine {
  double peak, roof;  // GFLOP/s, GB/s
};

constexpr int64_t kCopyBytes = 384 << 20;  // more than the last cache holds

// SmolLM2-135M's products, weights in BF16.
void bench_plain(saif::Backend& backend, const Machine& machine) {
  std::printf("%-8s %5s %9s %7s %8s %7s %9s\n", "shape", "rows", "GFLOP/s", "peak", "GB/s", "memory", "oneDNN");
  const Shape shapes[] = {
      {"q,o", 576, 576}, {"k,v", 192, 576}, {"gate,up", 1536, 576}, {"down", 576, 1536}, {"lm_head", 49152, 576}};
  for (const Shape& s : shapes) {
    // Copies enough that few rows find their weights in memory, as a whole model's are.
    const int64_t bytes = s.out * s.in * 2, copies = std::max<int64_t>(1, kCopyBytes / bytes);
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
        backend.linear({x.data(), m, s.in}, {&part, 1}, Compute::kBf16);
      });
      const double theirs =
          best_seconds(0.1, [&] { saif::LibraryGemm::bf16(xh.data(), next(), y.data(), m, s.out, s.in); });
      const double flops = 2e-9 * static_cast<double>(m * s.out * s.in), gb = 1e-9 * static_cast<double>(bytes);
      std::printf("%-8s %5lld %9.1f %6.0f%% %8.1f %6.0f%% %9.1f\n", s.name, static_cast<long long>(m), flops / ours,
                  100.0 * flops / ours / machine.peak, gb / ours, 100.0 * gb / ours / machine.roof, flops / theirs);
    }
  }
}

std::vector<std::pair<Compute, int64_t>> product(const std::vector<Compute>& ways) {
  std::vector<std::pair<Compute, int64_t>> out;
  for (const Compute way : ways) {
    for (const int64_t m : {1, 2, 4, 8, 32, 128, 512}) out.emplace_back(way, m);
  }
  return out;
}

// One matrix in BF16 and as blocks of each GGUF type, read where it lies.
void bench_blocks(saif::Backend& backend, const Machine& machine) {
  constexpr int64_t kOut = 2048, kIn = 2048;
  std::printf("%-8s %-5s %5s %9s %7s %8s %7s  (%lld x %lld)\n", "type", "x", "rows", "GFLOP/s", "peak", "GB/s",
              "memory", static_cast<long long>(kOut), static_cast<long long>(kIn));
  std::vector<Compute> ways = {Compute::kBf16};
  if (backend.has_int8()) ways.push_back(Compute::kInt8);
  for (uint32_t id = 0; id < 64; ++id) {
    const saif::GgmlTypeInfo* info = saif::find_ggml_type(id);
    if (info == nullptr || !info->can_dequantize || info->type == saif::GgmlType::kF32) continue;
    if (info->type == saif::GgmlType::kF16) continue;
    saif::WeightView view{nullptr, DType::kBf16, kOut, kIn, info->type};
    if (info->type == saif::GgmlType::kBf16) view.blocks.reset();
    const int64_t bytes = kOut * view.row_bytes(), copies = kCopyBytes / bytes;
    const std::vector<uint8_t> w(static_cast<size_t>(copies * bytes), 0x2c);
    for (const auto& [way, m] : product(view.blocks ? ways : std::vector<Compute>{Compute::kBf16})) {
      const std::vector<float> x(static_cast<size_t>(m * kIn), 0.5f);
      std::vector<float> y(static_cast<size_t>(m * kOut));
      int64_t copy = 0;
      const double s = best_seconds(0.15, [&] {
        view.data = w.data() + (copy++ % copies) * bytes;
        const saif::LinearPart part{view, nullptr, {y.data(), m, kOut}, false};
        backend.linear({x.data(), m, kIn}, {&part, 1}, way);
      });
      const double flops = 2e-9 * static_cast<double>(m * kOut * kIn), gb = 1e-9 * static_cast<double>(bytes);
      std::printf("%-8s %-5s %5lld %9.1f %6.0f%% %8.1f %6.0f%%\n", info->name, way == Compute::kInt8 ? "8 bit" : "bf16",
                  static_cast<long long>(m), flops / s, 100.0 * flops / s / machine.peak, gb / s,
                  100.0 * gb / s / machine.roof);
    }
  }
}

}  // namespace

// usage: bench_kernels [plain | blocks [ISA]]
int main(int argc, char** argv) {
  const std::string only = argc > 1 ? argv[1] : "";
  const auto backend = saif::make_cpu_backend(argc > 2 ? argv[2] : "");
  const Machine machine{peak_gflops(), read_gbytes()};
  std::printf("%s, %d threads, %s; dpbf16 peak %.0f GFLOP/s, reads %.1f GB/s\n", backend->name().c_str(),
              saif::max_threads(), saif::LibraryGemm::version().c_str(), machine.peak, machine.roof);
  if (only != "blocks") bench_plain(*backend, machine);
  if (only != "plain") bench_blocks(*backend, machine);
  return 0;
}
