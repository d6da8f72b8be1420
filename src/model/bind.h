// From named tensors to ModelWeights, as a closed world: every tensor is bound, ignored for a reason, or an error.
#pragma once

#include <string>
#include <vector>

#include "model/families/family.h"
#include "model/tensor_source.h"
#include "model/weights.h"

namespace saif {

struct BindOptions {
  // kBf16: all matrices become bfloat16, in place where they are. kF32: plain types stay in place (products widen them
  // exactly), quantised ones become `quantised`.
  Compute compute = Compute::kF32;
  DType quantised = DType::kF32;
  // Matrices of block types stay as they are: products round a block's values to the type above as they read it, to the
  // bits of a matrix widened at load, or multiply its codes (see WeightView).
  bool keep_blocks = false;
  // Every matrix is copied, even where its type allows to use it in place.
  bool resident = false;
};

// The views point into the source's mapping, which must outlive them. Appends to `notes` what was ignored and why, and
// what was converted.
ModelWeights bind_weights(const ModelPlan& plan, const TensorSource& source, const BindOptions& options,
                          std::vector<std::string>& notes);

}  // namespace saif
