// Training steps per second of SAEs on random activations: tokens/s (docs/sae_training.md).
#include <benchmark/benchmark.h>

#include "base/rng.h"
#include "saif/sae.h"

namespace saif {
namespace {

// Arguments: d_in, d_sae, k, batch.
void sae_train_step(benchmark::State& state, const char* kind) {
  SaeTrainOptions options;
  options.kind = kind;
  options.d_sae = state.range(1);
  options.k = state.range(2);
  options.batch = state.range(3);
  const int64_t d_in = state.range(0);
  Tensor x(DType::kF32, {options.batch, d_in});
  Rng rng(1);
  for (int64_t i = 0; i < x.elements(); ++i) x.as<float>()[i] = static_cast<float>(rng.normal());
  SaeTrainer trainer(d_in, options, 1000, x.f32());
  trainer.step(x.f32());
  for (auto _ : state) trainer.step(x.f32());
  state.counters["tokens/s"] =
      benchmark::Counter(static_cast<double>(state.iterations() * options.batch), benchmark::Counter::kIsRate);
}
void shapes(benchmark::internal::Benchmark* b) {
  b->Args({576, 16384, 64, 4096})->Args({2304, 16384, 64, 4096})->UseRealTime()->MeasureProcessCPUTime();
  b->Unit(benchmark::kMillisecond);
}
BENCHMARK_CAPTURE(sae_train_step, topk, "topk")->Apply(shapes);
BENCHMARK_CAPTURE(sae_train_step, batchtopk, "batchtopk")->Apply(shapes);
BENCHMARK_CAPTURE(sae_train_step, jumprelu, "jumprelu")->Apply(shapes);

}  // namespace
}  // namespace saif
