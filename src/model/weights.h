// The weights of a model in the form the forward pass takes them: views of mapped files or of copies made at load.
// Immutable after load.
#pragma once

#include <vector>

#include "kernels/backend.h"
#include "saif/tensor.h"

namespace saif {

struct LinearWeights {
  WeightView w;
  std::vector<float> bias;  // [out], or empty
  const float* bias_data() const { return bias.empty() ? nullptr : bias.data(); }
};

struct BlockWeights {
  std::vector<float> ln1, ln2;  // [d_model]
  LinearWeights q, k, v, o, gate, up, down;
};

struct ModelWeights {
  WeightView embedding;  // [vocab, d_model]
  std::vector<BlockWeights> blocks;
  std::vector<float> final_norm;  // [d_model]
  WeightView unembedding;         // [vocab, d_model]; the embedding where tied
  std::vector<Tensor> copies;     // what could not be used in place
};

}  // namespace saif
