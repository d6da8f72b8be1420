// What options can be trained with.
#include <algorithm>
#include <cmath>

#include "sae/trainer_impl.h"

namespace saif {
namespace {

void check_kind(const SaeTrainOptions& o) {
  const auto one_of = [](const std::string& value, std::initializer_list<const char*> names) {
    return std::any_of(names.begin(), names.end(), [&](const char* name) { return value == name; });
  };
  require_training(
      one_of(o.kind, {"relu", "topk", "batchtopk", "jumprelu", "gated", "matryoshka", "matryoshka-topk"}),
      "kind is \"" + o.kind +
          "\"; expected relu, topk, batchtopk, jumprelu, gated, matryoshka (on batchtopk) or matryoshka-topk");
  require_training(one_of(o.l0_penalty, {"target", "linear"}),
                   "l0-penalty is \"" + o.l0_penalty + "\"; expected target or linear");
  require_training(o.l1_coefficient >= 0 && o.l0_coefficient >= 0 && std::isfinite(o.l1_coefficient) &&
                       std::isfinite(o.l0_coefficient),
                   "l1-coefficient and l0-coefficient must be 0 or more");
  require_training(o.bandwidth > 0 && std::isfinite(o.bandwidth), "bandwidth must be positive");
  require_training(o.sparsity_warmup >= 0 && o.sparsity_warmup <= 1, "sparsity-warmup must be from 0 to 1");
  double before = 0;
  for (const double share : o.prefixes) {
    require_training(share > before && share <= 1,
                     "prefixes must be shares of the latents, above 0, up to 1 and increasing; found " +
                         std::to_string(share) + " behind " + std::to_string(before));
    before = share;
  }
}

}  // namespace

void require_training(bool condition, const std::string& message) {
  if (!condition) throw Error(Errc::kInvalidArgument, "sae train: " + message);
}

void check_train_options(const SaeTrainOptions& o, int64_t d_in) {
  check_kind(o);
  require_training(o.d_sae >= 1 && o.d_sae <= int64_t{1} << 24,
                   "d-sae is " + std::to_string(o.d_sae) + "; expected 1 to 2^24");
  require_training(o.k >= 1 && o.k <= o.d_sae,
                   "k is " + std::to_string(o.k) + "; expected 1 to d-sae, " + std::to_string(o.d_sae));
  require_training(o.batch >= 1, "batch is " + std::to_string(o.batch) + "; expected 1 or more");
  require_training(o.epochs > 0 && std::isfinite(o.epochs), "epochs must be positive");
  require_training(
      o.max_tokens >= 0 && o.buffer >= 1 && o.skip_first >= 0 && o.context >= 2 && o.checkpoint_every >= 1,
      "max-tokens, skip-first must be 0 or more, buffer and checkpoint-every 1 or more, context 2 or more");
  require_training(o.lr >= 0 && o.warmup >= 0 && o.decay >= 0 && o.warmup <= 1 && o.decay <= 1,
                   "lr must be 0 or more, warmup and decay from 0 to 1");
  require_training(o.beta1 >= 0 && o.beta1 < 1 && o.beta2 >= 0 && o.beta2 < 1 && o.adam_eps > 0,
                   "beta1 and beta2 must be in [0, 1), adam-eps above 0");
  require_training(o.held_out >= 0 && o.held_out < 1, "held-out must be in [0, 1)");
  require_training(o.auxiliary_k >= 0 && o.auxiliary_weight >= 0 && o.dead_after >= 1 && o.resample_every >= 0,
                   "auxiliary-k, auxiliary-weight and resample-every must be 0 or more, dead-after 1 or more");
  require_training(o.log_every >= 1, "log-every must be 1 or more");
  require_training(o.activations == "disk" || o.activations == "memory",
                   "activations is \"" + o.activations + "\"; expected disk or memory");
  require_training(o.dtype == "bf16" || o.dtype == "f32", "dtype is \"" + o.dtype + "\"; expected bf16 or f32");
  require_training(d_in >= 1, "activations have no width");
}

void check_transcoder_options(const SaeTrainOptions& o) {
  require_training(o.kind != "topk" && o.kind != "matryoshka-topk" && o.kind != "gated",
                   "kind " + o.kind + " has no transcoder in SAELens' format; use batchtopk, jumprelu or relu");
  require_training(o.resample_every == 0, "transcoders are not resampled; set resample-every to 0");
}

}  // namespace saif
