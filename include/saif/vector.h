// Steering vectors and edits: what `--steer FILE[:SCALE]` applies.
// The native file is safetensors: tensor `vector` float32 [d_model] and metadata saif.* (shared contract: saif.site
// required, saif.op default "add", saif.positions default "generated"). Vectors are plain values; an AppliedEdit is
// immutable, and engines on several threads may share it.
#pragma once

#include <memory>
#include <span>
#include <string>
#include <vector>

#include "saif/engine.h"
#include "saif/json.h"
#include "saif/sae.h"

namespace saif {

enum class EditOp {
  kAdd,      // h' = h + scale * v
  kProject,  // u = v / |v|: h' = h + (target - h.u) u, target = scale * |v|   (Stolfo et al. 2024)
};
EditOp parse_edit_op(const std::string& name, const std::string& where);  // "add", "project"; kBadFormat names `where`

struct SteeringVector {
  std::string site;  // "blocks.24.hook_resid_post"
  EditOp op = EditOp::kAdd;
  EditPositions positions = EditPositions::kGenerated;
  std::vector<float> vector;     // [d_model]
  bool norm_preserving = false;  // h' is scaled back to |h|
  double decay = 0.0;            // strength over generated tokens: scale * (1 + decay * t)^-decay_power
  double decay_power = 1.0;
  double scale = 1.0;            // default strength, multiplied by that of --steer
  Json origin = Json::object();  // method, task, latents, k, beta, SAE, study: whatever describes where it came from

  double norm() const;
  static SteeringVector load(const std::string& path);  // throws Error naming the file and what is missing
  void save(const std::string& path) const;             // atomic
};

// "FILE" or "FILE:SCALE".
struct SteerArgument {
  std::string path;
  double scale = 1.0;
};
SteerArgument parse_steer(std::string_view text);

// The edit of a vector, checked against the model: kMismatch for a wrong width, kNotFound for a layer it has not.
AppliedEdit make_edit(const SteeringVector& vector, double scale, const Architecture& architecture);

// Edits of single latents with the SAE's error kept: h' = h + sum_j (target_j - a_j(h)) W_dec[j], that is
// h + decode(a') - decode(a). Throws kUnsupported for a transcoder, kMismatch as make_edit.
enum class LatentOp { kClamp, kMinClamp, kAblate };  // a_j := value | max(a_j, value) | 0
struct LatentTarget {
  int32_t latent = 0;
  float value = 0;
};
AppliedEdit make_latent_edit(std::shared_ptr<const Sae> sae, LatentOp op, std::vector<LatentTarget> targets,
                             EditPositions positions, const Architecture& architecture);

}  // namespace saif
