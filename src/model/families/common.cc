#include <map>

#include "model/families/family.h"

namespace saif {

void read_common_keys(ConfigReader& config) {
  config.ignore({"dtype", "torch_dtype"}, "each tensor carries its own type");
  config.ignore({"transformers_version", "_name_or_path", "_commit_hash", "transformers.js_config", "unsloth_version",
                 "unsloth_fixed", "is_llama_config"},
                "where the file comes from");
  config.ignore({"use_cache", "_attn_implementation_autoset", "_flash_attn_2_enabled", "pretraining_tp",
                 "chunk_size_feed_forward", "torchscript", "return_dict", "output_attentions", "output_hidden_states"},
                "how Transformers runs, not what it computes");
  config.ignore({"initializer_range", "attention_dropout", "hidden_dropout", "resid_pdrop", "attn_pdrop", "embd_pdrop"},
                "training only");
  config.ignore({"bos_token_id", "eos_token_id", "pad_token_id", "unk_token_id", "sep_token_id"},
                "read with the tokenizer");
  config.ignore({"id2label", "label2id", "problem_type", "task_specific_params"}, "classification only");
  config.require("quantization_config", nullptr, "the tensors would have to be dequantised");
  config.require("is_encoder_decoder", false, "decoders only");
  config.require("add_cross_attention", false, "decoders only");
  config.require("pruned_heads", Json::object(), "all heads are computed");
  config.require("rope_interleaved", false, "rotation pairs are halves of a head");
}

void check_dimensions(const std::string& source, const Architecture& arch, const TensorSource& tensors) {
  const auto refuse = [&](const std::string& found, const std::string& expected) {
    throw Error(Errc::kBadFormat, source + ": found " + found + ", expected " + expected);
  };
  if (arch.n_heads % arch.n_kv_heads != 0) {
    refuse(std::to_string(arch.n_heads) + " heads on " + std::to_string(arch.n_kv_heads) + " key-value heads",
           "a multiple");
  }
  if (arch.d_head % 2 != 0) refuse("heads of odd width " + std::to_string(arch.d_head), "an even one to rotate");
  if (arch.norm_eps < 0) refuse("norm epsilon " + std::to_string(arch.norm_eps), "no negative one");
  if (arch.n_layers > static_cast<int64_t>(tensors.tensors().size())) {
    refuse(std::to_string(arch.n_layers) + " blocks",
           "no more blocks than there are tensors (" + std::to_string(tensors.tensors().size()) + ")");
  }
}

namespace {

// The scaling fields, spelled alike in both versions but for the type's key.
void read_scaling(ConfigReader& scaling, RopeSpec& rope) {
  const std::string type = scaling.text("rope_type", scaling.text("type", "default"));
  scaling.find("type");
  if (type == "default") {
    rope.scaling = "none";
  } else if (type == "linear" || type == "llama3") {
    rope.scaling = type;
    rope.factor = scaling.number("factor");
    if (rope.factor < 1.0) scaling.fail("factor", std::to_string(rope.factor), "at least 1");
  } else {
    throw Error(Errc::kUnsupported, scaling.source() + ": rope_type \"" + type +
                                        "\" is not implemented; implemented are default, linear, llama3");
  }
  if (type == "llama3") {
    rope.low_freq_factor = scaling.number("low_freq_factor");
    rope.high_freq_factor = scaling.number("high_freq_factor");
    rope.original_context = scaling.size("original_max_position_embeddings");
    if (rope.low_freq_factor <= 0 || rope.high_freq_factor <= rope.low_freq_factor) {
      scaling.fail("high_freq_factor", std::to_string(rope.high_freq_factor),
                   "more than low_freq_factor, which is above 0");
    }
  } else {
    scaling.ignore({"original_max_position_embeddings"}, "not used by this rope_type");
  }
}

}  // namespace

RopeSpec read_rope(ConfigReader& config) {
  RopeSpec rope;
  rope.theta = config.number("rope_theta", 10000.0);
  ConfigReader old_scaling = config.nested("rope_scaling");
  ConfigReader parameters = config.nested("rope_parameters");
  if (config.present("rope_parameters")) {
    const double theta = parameters.number("rope_theta");
    if (config.present("rope_theta") && theta != rope.theta) {
      config.fail("rope_theta", std::to_string(rope.theta), "rope_parameters' rope_theta " + std::to_string(theta));
    }
    if (config.present("rope_scaling")) {
      throw Error(Errc::kBadFormat, config.source() + ": found rope_scaling and rope_parameters, expected one of them");
    }
    rope.theta = theta;
    parameters.require("partial_rotary_factor", 1.0, "whole heads are rotated");
    read_scaling(parameters, rope);
    parameters.finish();
  } else {
    read_scaling(old_scaling, rope);
    old_scaling.finish();
  }
  if (rope.theta <= 0) config.fail("rope_theta", std::to_string(rope.theta), "a positive number");
  return rope;
}

std::string read_activation(ConfigReader& config, std::string_view key) {
  static const std::map<std::string, std::string> kNames = {{"silu", "silu"},
                                                            {"swish", "silu"},
                                                            {"gelu", "gelu_erf"},
                                                            {"gelu_new", "gelu_tanh"},
                                                            {"gelu_pytorch_tanh", "gelu_tanh"},
                                                            {"relu", "relu"}};
  const std::string found = config.text(key);
  const auto it = kNames.find(found);
  if (it == kNames.end()) config.fail(key, "\"" + found + "\"", "silu, gelu, gelu_new, gelu_pytorch_tanh or relu");
  return it->second;
}

}  // namespace saif
