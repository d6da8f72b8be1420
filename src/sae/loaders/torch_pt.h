// Single .pt or .pth files, told apart by the tensors in them: Goodfire and DeepSeek-R1 (torch Linear names), OpenAI's
// GPT-2 autoencoders, Qwen-Scope, attention-output SAEs of GPT-2.
#pragma once

#include "formats/torch_file.h"
#include "sae/loaders/tensor_set.h"
#include "sae/source.h"

namespace saif {

bool is_torch_pt(const std::string& path);
SaeSource load_torch_pt(const std::string& path, const SaeLoadOptions& options);

// One layout each. `tensors` are those of `file`; source has path, files, owner and fast set.
void load_torch_linear(TensorSet& tensors, SaeSource& source);  // goodfire.cc
void load_openai(TensorSet& tensors, const TorchFile& file, SaeSource& source);
void load_qwen_scope(TensorSet& tensors, SaeSource& source);
void load_gpt2_hook_z(TensorSet& tensors, SaeSource& source);

// Throws kUnsupported naming the first entry of the dictionary that is neither a tensor, nor known, nor a mere record
// of the training's progress.
void require_no_others(const TorchFile& file, const std::vector<std::string>& known = {});

// The file with which X_cfg.json beside X.pt is named.
std::string hook_z_config_file(const std::string& path);

}  // namespace saif
