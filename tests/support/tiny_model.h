// Llama folders with random weights, written by a test for itself.
#pragma once

#include <gtest/gtest.h>

#include <cmath>
#include <functional>
#include <map>
#include <string>
#include <utility>
#include <vector>

#include "base/file.h"
#include "base/rng.h"
#include "formats/safetensors.h"
#include "saif/json.h"

namespace saif::test {

struct TinyModel {
  Json config;
  std::map<std::string, Tensor> tensors;

  // d_model 24, 3 blocks, 4 heads on 2, d_head 6, d_mlp 40, vocab 50, context 256.
  explicit TinyModel(uint64_t seed = 1, bool biases = false) {
    config = Json::object({{"architectures", Json::Array{"LlamaForCausalLM"}},
                           {"model_type", "llama"},
                           {"hidden_size", 24},
                           {"num_hidden_layers", 3},
                           {"num_attention_heads", 4},
                           {"num_key_value_heads", 2},
                           {"head_dim", 6},
                           {"intermediate_size", 40},
                           {"vocab_size", 50},
                           {"max_position_embeddings", 256},
                           {"rms_norm_eps", 1e-5},
                           {"rope_theta", 10000.0},
                           {"hidden_act", "silu"},
                           {"tie_word_embeddings", false}});
    Rng rng(seed);
    const auto add = [&](const std::string& name, std::vector<int64_t> shape, double mean, double deviation) {
      Tensor tensor(DType::kF32, std::move(shape));
      for (float& v : std::span(tensor.as<float>(), static_cast<size_t>(tensor.elements()))) {
        v = static_cast<float>(mean + deviation * rng.normal());
      }
      tensors.emplace(name, std::move(tensor));
    };
    const auto linear = [&](const std::string& name, int64_t out, int64_t in) {
      add(name + ".weight", {out, in}, 0.0, 1.5 / std::sqrt(static_cast<double>(in)));
      if (biases) add(name + ".bias", {out}, 0.0, 0.3);
    };
    add("model.embed_tokens.weight", {50, 24}, 0.0, 1.0);
    add("model.norm.weight", {24}, 1.0, 0.2);
    add("lm_head.weight", {50, 24}, 0.0, 0.5);
    for (int layer = 0; layer < 3; ++layer) {
      const std::string prefix = "model.layers." + std::to_string(layer) + ".";
      add(prefix + "input_layernorm.weight", {24}, 1.0, 0.2);
      add(prefix + "post_attention_layernorm.weight", {24}, 1.0, 0.2);
      linear(prefix + "self_attn.q_proj", 24, 24);
      linear(prefix + "self_attn.k_proj", 12, 24);
      linear(prefix + "self_attn.v_proj", 12, 24);
      linear(prefix + "self_attn.o_proj", 24, 24);
      linear(prefix + "mlp.gate_proj", 40, 24);
      linear(prefix + "mlp.up_proj", 40, 24);
      linear(prefix + "mlp.down_proj", 24, 40);
    }
    if (biases) {
      config["attention_bias"] = true;
      config["mlp_bias"] = true;
    }
  }

  // The folder, new in the test's temporary directory.
  std::string write(const std::string& name) const {
    const std::string folder = testing::TempDir() + "/saif_tiny_" + name;
    make_directories(folder);
    write_json_file(folder + "/config.json", config);
    std::vector<NamedTensor> named;
    for (const auto& [key, tensor] : tensors) named.push_back({key, tensor.view()});
    write_safetensors(folder + "/model.safetensors", named);
    return folder;
  }
};

}  // namespace saif::test
