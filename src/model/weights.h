// The weights of a model in the form the forward pass takes them: views of mapped files or of copies made at load.
// Immutable after load.
#pragma once

#include <cstddef>
#include <vector>

#include "kernels/backend.h"
#include "saif/tensor.h"

namespace saif {

struct LinearWeights {
  WeightView w;
  std::vector<float> bias;  // [out], or empty
  // Of a query or key matrix used where it lies: each head's rows stand as neighbouring pairs, not as halves, so the
  // columns of the product have to be put back.
  bool paired = false;
  const float* bias_data() const { return bias.empty() ? nullptr : bias.data(); }
};

struct NormWeights {
  std::vector<float> weight, bias;  // [width]; bias empty where there is none
  bool present() const { return !weight.empty(); }
};

struct MlpWeights {
  LinearWeights gate, up, down;  // up is empty where the MLP has no gate: then gate is its only inner matrix
};

struct BlockWeights {
  NormWeights ln1, ln2;             // [d_model]; absent where a family norms only what a block adds
  NormWeights post_attn, post_mlp;  // [d_model], of what attention and MLP add; absent in most families
  // Of each head's query and key [d_head], or of all heads side by side; absent in most families.
  NormWeights q_norm, k_norm;
  LinearWeights q, k, v, o;
  MlpWeights mlp;
  LinearWeights router;             // [n_experts, d_model]
  std::vector<MlpWeights> experts;  // where the MLP is a mixture
};

// The memory of matrices that are not used where they lie: side by side, in pieces of up to 64 MiB, so that even small
// ones lie in the huge pages that Tensor asks for.
class WeightMemory {
 public:
  WeightMemory() = default;
  WeightMemory(WeightMemory&&) = default;
  WeightMemory& operator=(WeightMemory&&) = default;

  // Uninitialised, 64-byte aligned; stays where it is.
  std::byte* take(size_t bytes);
  size_t matrices() const { return matrices_; }
  size_t bytes() const { return bytes_; }  // taken

 private:
  std::vector<Tensor> pieces_;
  std::byte* next_ = nullptr;
  size_t left_ = 0, matrices_ = 0, bytes_ = 0;
};

struct ModelWeights {
  WeightView embedding;  // [vocab, d_model]
  WeightView positions;  // [context, d_model] where learned
  std::vector<BlockWeights> blocks;
  NormWeights final_norm;               // [d_model]
  WeightView unembedding;               // [vocab, d_model]; the embedding where tied
  std::vector<float> unembedding_bias;  // [vocab] or empty
  WeightMemory memory;                  // of what is not used in place
};

}  // namespace saif
