// SAELens' cfg.json.
#include <algorithm>
#include <cstdlib>

#include "sae/loaders/sae_lens.h"

namespace saif {
namespace {

// Keys of versions before 6 that describe the training run and cannot change a result.
const std::vector<std::string> kLegacyTraining = {"dataset_path",
                                                  "dataset_trust_remote_code",
                                                  "streaming",
                                                  "is_dataset_tokenized",
                                                  "context_size",
                                                  "seqpos_slice",
                                                  "use_cached_activations",
                                                  "cached_activations_path",
                                                  "n_batches_in_buffer",
                                                  "training_tokens",
                                                  "total_training_tokens",
                                                  "total_training_steps",
                                                  "store_batch_size",
                                                  "store_batch_size_prompts",
                                                  "tokens_per_buffer",
                                                  "train_batch_size",
                                                  "train_batch_size_tokens",
                                                  "seed",
                                                  "b_dec_init_method",
                                                  "expansion_factor",
                                                  "from_pretrained_path",
                                                  "l1_coefficient",
                                                  "l1_warm_up_steps",
                                                  "lp_norm",
                                                  "lr",
                                                  "lr_end",
                                                  "lr_scheduler_name",
                                                  "lr_warm_up_steps",
                                                  "lr_decay_steps",
                                                  "n_restart_cycles",
                                                  "adam_beta1",
                                                  "adam_beta2",
                                                  "use_ghost_grads",
                                                  "ghost_grads",
                                                  "feature_sampling_window",
                                                  "feature_sampling_method",
                                                  "feature_reinit_scale",
                                                  "dead_feature_window",
                                                  "dead_feature_threshold",
                                                  "dead_feature_estimation_method",
                                                  "resample_batches",
                                                  "mse_loss_normalization",
                                                  "decoder_orthogonal_init",
                                                  "decoder_heuristic_init",
                                                  "init_encoder_as_decoder_transpose",
                                                  "normalize_sae_decoder",
                                                  "scale_sparsity_penalty_by_decoder_norm",
                                                  "noise_scale",
                                                  "sae_lens_version",
                                                  "sae_lens_training_version",
                                                  "n_eval_batches",
                                                  "n_eval_seqs",
                                                  "eval_batch_size_prompts",
                                                  "eval_every_n_wandb_logs",
                                                  "n_checkpoints",
                                                  "checkpoint_path",
                                                  "verbose",
                                                  "log_to_wandb",
                                                  "wandb_project",
                                                  "wandb_entity",
                                                  "wandb_id",
                                                  "wandb_log_frequency",
                                                  "run_name",
                                                  "autocast",
                                                  "autocast_lm",
                                                  "compile_llm",
                                                  "compile_sae",
                                                  "llm_compilation_mode",
                                                  "sae_compilation_mode",
                                                  "act_store_device",
                                                  "model_class_name",
                                                  "model_kwargs",
                                                  "model_from_pretrained_kwargs",
                                                  "model_batch_size",
                                                  "prepend_bos",
                                                  "exclude_special_tokens",
                                                  "hook_layer",
                                                  "hook_point_layer",
                                                  "hook_eval",
                                                  "neuronpedia_id",
                                                  "log_optimizer",
                                                  "d_out",
                                                  "sparsity_penalty",
                                                  "finetuning_tokens",
                                                  "finetuning_method",
                                                  "hook_points",
                                                  "d_head",
                                                  "cls",
                                                  "jumprelu_init_threshold",
                                                  "jumprelu_bandwidth",
                                                  "n_batches_for_norm_estimate",
                                                  "use_eps_for_decoder_normalization",
                                                  "resume",
                                                  "decoder_heuristic_init_norm",
                                                  "log_activations_store_to_wandb",
                                                  "log_optimizer_state_to_wandb",
                                                  "log_weights_to_wandb",
                                                  "disable_concat_sequences",
                                                  "sequence_separator_token",
                                                  "output_path",
                                                  "hook_layer_out",
                                                  "hf_hook_name",
                                                  "hf_hook_name_out"};

// Keys that version 6 adds to the configuration of a training checkpoint; none changes a result.
std::vector<std::string> training_keys(SaeKind kind) {
  switch (kind) {
    case SaeKind::kStandard:
      return {"decoder_init_norm", "l1_coefficient", "lp_norm", "l1_warm_up_steps"};
    case SaeKind::kGated:
      return {"decoder_init_norm", "l1_coefficient", "l1_warm_up_steps"};
    case SaeKind::kTopK:
    case SaeKind::kAbsTopK:
      return {"decoder_init_norm", "use_sparse_activations", "aux_loss_coefficient"};
    case SaeKind::kJumpRelu:
      return {"decoder_init_norm",        "jumprelu_init_threshold",
              "jumprelu_bandwidth",       "jumprelu_sparsity_loss_mode",
              "l0_coefficient",           "l0_warm_up_steps",
              "pre_act_loss_coefficient", "jumprelu_tanh_scale",
              "jumprelu_ste_to_input",    "target_l0"};
    case SaeKind::kMatchingPursuit:
      return {"decoder_init_norm"};
    case SaeKind::kGroupMax:
      break;
  }
  return {};
}

class ConfigReader {
 public:
  ConfigReader(const std::string& file, const Json& json) : keys_(file, json) {}

  SaeConfig read() {
    const Json* metadata = keys_.find("metadata");
    if (metadata != nullptr && !metadata->is_object()) {
      keys_.fail(Errc::kBadFormat, "\"metadata\" is " + metadata->dump() + "; expected an object");
    }
    config_.format = "sae_lens";
    legacy_ = metadata == nullptr || is_old_version(*metadata);
    config_.d_in = keys_.size("d_in");
    config_.d_sae = keys_.size("d_sae");
    config_.d_out = config_.d_in;
    read_architecture();
    config_.apply_b_dec_to_input = keys_.boolean("apply_b_dec_to_input", !config_.transcoder);
    read_normalize();
    if (metadata != nullptr) read_metadata(*metadata);
    if (legacy_) {
      read_legacy();
    } else if (!config_.transcoder) {
      keys_.ignore(training_keys(config_.kind), config_.metadata);
    }
    read_reshape();
    if (config_.transcoder) finish_transcoder();
    Json unused = Json::object();
    keys_.ignore({"device", "dtype"}, unused);  // where it was trained; what the file's tensors say themselves
    keys_.finish();
    return config_;
  }

 private:
  static bool is_old_version(const Json& metadata) {
    const Json* version = metadata.find("sae_lens_version");
    return version != nullptr && version->is_string() && std::atoi(version->as_string().c_str()) < 6;
  }

  void read_architecture() {
    if (!legacy_ && !keys_.contains("architecture")) {
      keys_.fail(Errc::kBadFormat, "\"architecture\" is missing; expected standard, topk, jumprelu, gated, ...");
    }
    const std::string name = keys_.string("architecture", "standard");
    const std::string base = strip_transcoder(name);
    if (base == "standard" || base == "topk" || base == "jumprelu" || base == "gated" || base == "abstopk" ||
        base == "matching_pursuit") {
      config_.kind = kind_of(base);
    } else {
      refuse_architecture(name);
    }
    if (legacy_) read_activation_function();
    if (config_.kind == SaeKind::kTopK || config_.kind == SaeKind::kAbsTopK) read_k(base);
    if (config_.kind == SaeKind::kMatchingPursuit) read_pursuit();
  }

  // "jumprelu_skip_transcoder" -> "jumprelu", noting the rest.
  std::string strip_transcoder(const std::string& name) {
    const std::vector<std::pair<std::string, std::string>> names = {{"transcoder", "standard"},
                                                                    {"skip_transcoder", "standard"},
                                                                    {"jumprelu_transcoder", "jumprelu"},
                                                                    {"jumprelu_skip_transcoder", "jumprelu"}};
    for (const auto& [transcoder, base] : names) {
      if (name != transcoder) continue;
      config_.transcoder = true;
      config_.undo_normalization = false;
      config_.skip = name.find("skip") != std::string::npos;
      return base;
    }
    return name;
  }

  static SaeKind kind_of(const std::string& base) {
    for (const SaeKind kind :
         {SaeKind::kTopK, SaeKind::kJumpRelu, SaeKind::kGated, SaeKind::kAbsTopK, SaeKind::kMatchingPursuit}) {
      if (base == name_of(kind)) return kind;
    }
    return SaeKind::kStandard;
  }

  [[noreturn]] void refuse_architecture(const std::string& name) const {
    std::string why;
    if (name == "temporal") why = ": it attends to earlier positions of a sequence, and saif encodes rows one by one";
    if (name == "batchtopk" || name == "matryoshka_batchtopk" || name == "matryoshka") {
      why = ": it is a training checkpoint; SAELens' save_inference_model writes it as jumprelu";
    }
    keys_.fail(Errc::kUnsupported,
               "architecture \"" + name + "\" is not supported" + why +
                   "; saif reads standard, topk, jumprelu, gated, abstopk, matching_pursuit, transcoder, "
                   "skip_transcoder, jumprelu_transcoder and jumprelu_skip_transcoder");
  }

  // Before 6 the activation function stood beside the architecture and overruled it.
  void read_activation_function() {
    std::string name = keys_.string("activation_fn_str", "relu");
    name = keys_.string("activation_fn", name);
    if (name == "topk" && config_.kind == SaeKind::kStandard) {
      config_.kind = SaeKind::kTopK;
    } else if (name != "relu" && !(name == "topk" && config_.kind == SaeKind::kTopK)) {
      keys_.fail(Errc::kUnsupported, "activation_fn \"" + name + "\" with architecture " + name_of(config_.kind) +
                                         " is not supported; expected relu or topk");
    }
  }

  void read_k(const std::string& architecture) {
    const Json* arguments = legacy_ ? keys_.find("activation_fn_kwargs") : nullptr;
    if (arguments != nullptr) {
      KeySet inner(keys_.file() + ", activation_fn_kwargs", *arguments);
      config_.k = inner.size("k");
      inner.finish();
    } else {
      if (!keys_.contains("k")) {
        keys_.fail(Errc::kBadFormat, "\"k\" is missing, which architecture " + architecture + " needs");
      }
      config_.k = keys_.size("k");
    }
    if (config_.k > config_.d_sae) {
      keys_.fail(Errc::kBadFormat, "k is " + std::to_string(config_.k) + ", more than the " +
                                       std::to_string(config_.d_sae) + " latents of d_sae");
    }
    config_.rescale_acts_by_decoder_norm = keys_.boolean("rescale_acts_by_decoder_norm", false);
  }

  void read_pursuit() {
    config_.max_iterations = keys_.size("max_iterations", config_.d_in);
    if (keys_.is_null("residual_threshold")) {
      keys_.fail(Errc::kBadFormat, "\"residual_threshold\" is null; expected a number");
    }
    config_.residual_threshold = keys_.number("residual_threshold", 1e-2);
    config_.stop_on_duplicate_support = keys_.boolean("stop_on_duplicate_support", true);
  }

  void read_normalize() {
    const Json* value = keys_.find("normalize_activations");
    if (value == nullptr) return;
    if (legacy_ && value->is_bool()) {
      config_.normalize = value->as_bool() ? "expected_average_only_in" : "none";
      return;
    }
    config_.normalize = keys_.string("normalize_activations");
    for (const char* known : {"none", "constant_norm_rescale", "layer_norm", "expected_average_only_in"}) {
      if (config_.normalize == known) return;
    }
    keys_.fail(Errc::kUnsupported, "normalize_activations \"" + config_.normalize +
                                       "\" is not supported; saif reads none, constant_norm_rescale, layer_norm and "
                                       "expected_average_only_in");
  }

  // hook_z rows are flat [n_heads * d_head] everywhere in saif. Before 6 the hook's name alone turned the reshape on.
  void read_reshape() {
    const bool implied = legacy_ && config_.site.find("hook_z") != std::string::npos;
    const std::string name = keys_.string("reshape_activations", implied ? "hook_z" : "none");
    if (name != "none" && name != "hook_z") {
      keys_.fail(Errc::kUnsupported, "reshape_activations \"" + name + "\" is not supported; expected none or hook_z");
    }
    if (name == "hook_z" && !config_.site.empty() && !config_.site.ends_with("_z")) {
      keys_.fail(Errc::kBadFormat, "reshape_activations is hook_z, but hook_name is \"" + config_.site +
                                       "\", whose rows have no heads; expected an attn.hook_z");
    }
    config_.metadata["reshape_activations"] = name;
  }

  void read_metadata(const Json& metadata) {
    for (const auto& [key, value] : metadata.members()) {
      if (key == "hook_name" && value.is_string()) {
        config_.site = value.as_string();
      } else if (key == "hook_name_out" && value.is_string()) {
        config_.site_out = value.as_string();
      } else if (key == "model_name" && value.is_string()) {
        config_.model = value.as_string();
      } else if (key == "hook_head_index" && !value.is_null()) {
        refuse_head(value);
      } else if (key == "l0" && value.is_number()) {
        config_.published_l0 = value.as_double();
      } else if (key == "fvu" && value.is_number()) {
        config_.published_fvu = value.as_double();
      }
      config_.metadata[key] = value;
    }
  }

  [[noreturn]] void refuse_head(const Json& value) const {
    keys_.fail(Errc::kUnsupported, "hook_head_index " + value.dump() + ": SAEs of a single head are not supported");
  }

  void read_legacy() {
    const std::string hook = keys_.string("hook_point", "");
    const std::string site = keys_.string("hook_name", hook);
    const std::string model = keys_.string("model_name", "");
    if (!site.empty()) config_.site = site;
    if (!model.empty()) config_.model = model;
    read_output_hook();
    for (const char* key : {"hook_point_head_index", "hook_head_index", "hook_head_index_out"}) {
      if (const Json* value = keys_.find(key)) refuse_head(*value);
    }
    if (keys_.boolean("finetuning_scaling_factor", false)) config_.metadata["finetuning_scaling_factor"] = true;
    if (config_.kind != SaeKind::kTopK) {
      keys_.require_value("activation_fn_kwargs", Json::object(), "it is known for top-k only");
    }
    keys_.ignore(kLegacyTraining, config_.metadata);
  }

  void read_output_hook() {
    const std::string out = keys_.string("hook_name_out", "");
    if (config_.transcoder) {
      if (!out.empty()) config_.site_out = out;
    } else if (!out.empty() && out != config_.site) {
      keys_.fail(Errc::kUnsupported, "hook_name_out \"" + out + "\" is not hook_name \"" + config_.site +
                                         "\", but the architecture is no transcoder's");
    }
  }

  void finish_transcoder() {
    config_.d_out = keys_.size("d_out", config_.d_in);
    keys_.require_value("apply_b_dec_to_input", false, "a transcoder's b_dec belongs to its output");
  }

  KeySet keys_;
  SaeConfig config_;
  bool legacy_ = false;
};

}  // namespace

SaeConfig read_sae_lens_config(const std::string& file, const Json& json) { return ConfigReader(file, json).read(); }

}  // namespace saif
