// What a family file gives: an Architecture and the place of every tensor. A family reads a config and maps names; it
// holds no arithmetic. To add one: a file that defines `const Family k...`, and a line in registry.cc.
#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "model/config_reader.h"
#include "model/tensor_source.h"
#include "saif/model.h"

namespace saif {

enum class TensorRole {
  kEmbedding,    // [vocab, d_model]
  kUnembedding,  // [vocab, d_model]
  kFinalNorm,    // [d_model]
  kLn1,          // [d_model]
  kLn2,          // [d_model]
  kQ,            // [n_heads * d_head, d_model]
  kK,            // [n_kv_heads * d_head, d_model]
  kV,            // [n_kv_heads * d_head, d_model]
  kO,            // [d_model, n_heads * d_head]
  kGate,         // [d_mlp, d_model]
  kUp,           // [d_mlp, d_model]
  kDown,         // [d_model, d_mlp]
  kQBias,        // the biases: as many as their matrix has rows
  kKBias,
  kVBias,
  kOBias,
  kGateBias,
  kUpBias,
  kDownBias,
};

struct TensorSlot {
  TensorRole role;
  int layer = -1;
  std::string name;  // in the checkpoint
  // The rows of each head are stored as pairs (0, d/2), (1, d/2 + 1), ...: undone when bound.
  bool paired_rows = false;
};

struct IgnoredTensors {
  std::string suffix;  // names that end so
  std::string reason;
};

struct ModelPlan {
  Architecture arch;
  std::vector<TensorSlot> tensors;
  std::vector<IgnoredTensors> ignored;
};

struct Family {
  std::string_view name;
  std::vector<std::string_view> model_types;         // config.json's model_type
  std::vector<std::string_view> gguf_architectures;  // general.architecture
  // The readers hold every key but model_type; for GGUF the keys that begin with the architecture's name, without it.
  ModelPlan (*from_config)(ConfigReader& config, const std::string& model_type, const TensorSource& tensors);
  ModelPlan (*from_gguf)(ConfigReader& config, const TensorSource& tensors);
};

// Throw kUnsupported listing the families that are known.
const Family& family_of_model_type(const std::string& model_type);
const Family& family_of_gguf(const std::string& architecture);

// For family files.

// Keys of every Transformers config that do not change a forward pass, and those that only one value is implemented of.
void read_common_keys(ConfigReader& config);
// Throws kBadFormat when the dimensions contradict each other or the tensors cannot be that many blocks.
void check_dimensions(const std::string& source, const Architecture& arch, const TensorSource& tensors);
// rope_theta, rope_scaling (Transformers 4) or rope_parameters (5).
RopeSpec read_rope(ConfigReader& config);
// The name in Architecture::activation of a Transformers activation; throws kUnsupported.
std::string read_activation(ConfigReader& config, std::string_view key);

}  // namespace saif
