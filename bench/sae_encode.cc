// Rows per second into sparse latents at the size of Gemma Scope's SAEs, weights in bfloat16, beside the bare product
// of the same matrices: what choosing the active latents costs. Medians of runs in turn.

#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <cstdio>
#include <filesystem>
#include <string>
#include <vector>

#include "base/rng.h"
#include "kernels/backend.h"
#include "saif/sae.h"

namespace {

constexpr int64_t kIn = 2304, kRows = 512;
constexpr int kTurns = 21;

saif::Tensor normal(std::vector<int64_t> shape, double scale, uint64_t seed) {
  saif::Tensor t(saif::DType::kF32, std::move(shape));
  saif::Rng rng(seed);
  for (int64_t i = 0; i < t.elements(); ++i) t.as<float>()[i] = static_cast<float>(scale * rng.normal());
  return t;
}

template <class Body>
double seconds_of(const Body& body) {
  const auto start = std::chrono::steady_clock::now();
  body();
  return std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
}

double median(std::vector<double> v) {
  std::nth_element(v.begin(), v.begin() + static_cast<ptrdiff_t>(v.size() / 2), v.end());
  return v[v.size() / 2];
}

// About 64 of the latents fire.
std::string make_sae(saif::SaeKind kind, int64_t d_sae) {
  const std::string folder =
      (std::filesystem::temp_directory_path() / ("saif-encode-" + std::to_string(getpid()))).string();
  saif::SaeConfig config;
  config.kind = kind;
  config.d_in = config.d_out = kIn;
  config.d_sae = d_sae;
  config.k = 64;
  saif::SaeWeights weights;
  weights.w_enc = normal({d_sae, kIn}, 1.0 / 48, 1);
  weights.w_dec = normal({d_sae, kIn}, 1.0 / 48, 2);
  weights.b_enc = saif::Tensor::zeros(saif::DType::kF32, {d_sae});
  weights.b_dec = saif::Tensor::zeros(saif::DType::kF32, {kIn});
  weights.threshold = saif::Tensor(saif::DType::kF32, {d_sae});
  std::fill_n(weights.threshold.as<float>(), d_sae, d_sae > 16384 ? 3.1F : 2.66F);
  saif::Sae::from_weights(config, std::move(weights))->save(folder, saif::DType::kBf16);
  return folder;
}

}  // namespace

int main() {
  const auto backend = saif::make_cpu_backend();
  const saif::Tensor x = normal({kRows, kIn}, 1.0, 3);
  std::printf("%-10s %7s %10s %10s %7s %6s\n", "kind", "d_sae", "rows/s", "product", "share", "l0");
  for (const int64_t d_sae : {16384, 65536}) {
    const saif::Tensor w = convert(normal({d_sae, kIn}, 1.0 / 48, 1).view(), saif::DType::kBf16);
    saif::Tensor h(saif::DType::kF32, {kRows, d_sae});
    const saif::LinearPart part{{w.data(), saif::DType::kBf16, d_sae, kIn}, nullptr, h.f32(), false};
    for (const saif::SaeKind kind : {saif::SaeKind::kJumpRelu, saif::SaeKind::kTopK}) {
      const std::string folder = make_sae(kind, d_sae);
      const auto sae = saif::Sae::load(folder, {.fast = true});
      double l0 = 0;
      const auto encode = [&] { l0 = sae->encode(x.f32()).mean_l0(); };
      const auto product = [&] { backend->linear(x.f32(), {&part, 1}, saif::Compute::kBf16); };
      encode();
      std::vector<double> bare, whole, share;
      for (int i = 0; i < kTurns; ++i) {  // in turn, so that both meet the same neighbours
        bare.push_back(seconds_of(product));
        whole.push_back(seconds_of(encode));
        share.push_back(bare.back() / whole.back());
      }
      std::filesystem::remove_all(folder);
      std::printf("%-10s %7lld %10.0f %10.0f %6.0f%% %6.1f\n", name_of(kind), static_cast<long long>(d_sae),
                  kRows / median(whole), kRows / median(bare), 100 * median(share), l0);
    }
  }
  return 0;
}
