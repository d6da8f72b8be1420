// Writes the folder that SAELens 6's own load_from_disk reads.
#include <cmath>

#include "sae/writer.h"

namespace saif {
namespace {

// The version whose format this is.
constexpr const char* kSaeLensVersion = "6.54.12";

// SAELens' name of this arithmetic; throws kUnsupported where it has none.
std::string architecture_of(const SaeConfig& config) {
  const auto refuse = [](const std::string& what) {
    return Error(Errc::kUnsupported, "SAELens 6 has no architecture for " + what + ", so this SAE cannot be saved");
  };
  if (config.kind == SaeKind::kGroupMax) throw refuse("groupmax");
  if (config.keep_negative) throw refuse("top-k without relu");
  if (config.rank_by_decoder_norm) throw refuse("top-k ranked by decoder norm with unscaled latents");
  if (config.glu) throw refuse("a gated linear encoder");
  if (!config.transcoder && config.skip) throw refuse("a skip connection around an autoencoder");
  if (!config.transcoder) return name_of(config.kind);
  std::string skip = config.skip ? "skip_transcoder" : "transcoder";
  if (config.kind == SaeKind::kStandard && !config.apply_b_dec_to_input) return skip;
  if (config.kind == SaeKind::kJumpRelu && !config.apply_b_dec_to_input) return "jumprelu_" + skip;
  throw refuse(std::string(name_of(config.kind)) + " transcoders");
}

Json metadata_json(const SaeConfig& config) {
  Json out = Json::object();
  out["sae_lens_version"] = kSaeLensVersion;
  out["sae_lens_training_version"] = Json();
  for (const auto& [key, value] : config.metadata.members()) {
    if (key != "reshape_activations" && key != "sae_lens_version") out[key] = value;
  }
  if (!config.model.empty() || !out.contains("model_name")) out["model_name"] = config.model;
  if (!config.site.empty() || !out.contains("hook_name")) out["hook_name"] = config.site;
  if (!out.contains("hook_head_index")) out["hook_head_index"] = Json();
  if (config.transcoder) out["hook_name_out"] = config.site_out;
  if (config.published_l0) out["l0"] = *config.published_l0;
  if (config.published_fvu) out["fvu"] = *config.published_fvu;
  return out;
}

Json config_json(const SaeConfig& config, DType dtype) {
  const Json* reshape = config.metadata.find("reshape_activations");
  Json out = Json::object();
  out["d_in"] = config.d_in;
  out["d_sae"] = config.d_sae;
  out["dtype"] = dtype == DType::kBf16 ? "bfloat16" : "float32";
  out["device"] = "cpu";
  out["apply_b_dec_to_input"] = config.apply_b_dec_to_input;
  out["normalize_activations"] = config.normalize;
  out["reshape_activations"] = reshape != nullptr && reshape->is_string() ? *reshape : Json("none");
  if (config.transcoder) out["d_out"] = config.d_out;
  if (config.kind == SaeKind::kTopK || config.kind == SaeKind::kAbsTopK) {
    out["k"] = config.k;
    out["rescale_acts_by_decoder_norm"] = config.rescale_acts_by_decoder_norm;
  }
  if (config.kind == SaeKind::kMatchingPursuit) {
    out["residual_threshold"] = config.residual_threshold;
    out["max_iterations"] = config.max_iterations;
    out["stop_on_duplicate_support"] = config.stop_on_duplicate_support;
  }
  out["architecture"] = architecture_of(config);
  out["metadata"] = metadata_json(config);
  return out;
}

std::vector<std::pair<std::string, Tensor>> tensors_of(const SaeSource& source) {
  std::vector<std::pair<std::string, Tensor>> out;
  out.emplace_back("W_dec", folded_decoder(source));
  out.emplace_back("b_dec", to_tensor(source.b_dec));
  const SaeKind kind = source.config.kind;
  if (kind == SaeKind::kMatchingPursuit) return out;
  out.emplace_back("W_enc", folded_encoder(source));
  if (kind == SaeKind::kGated) {
    std::vector<float> r_mag = source.magnitude_scale;
    for (float& v : r_mag) v = std::log(v);
    out.emplace_back("b_gate", to_tensor(source.gate_bias));
    out.emplace_back("r_mag", to_tensor(r_mag));
    out.emplace_back("b_mag", to_tensor(source.magnitude_bias));
  } else {
    out.emplace_back("b_enc", to_tensor(folded_bias(source)));
  }
  if (kind == SaeKind::kJumpRelu) out.emplace_back("threshold", to_tensor(source.threshold));
  if (source.config.skip) out.emplace_back("W_skip", to_f32(source.w_skip));
  return out;
}

}  // namespace

void write_sae_lens(const std::string& folder, const SaeSource& source, DType dtype) {
  const Json config = config_json(source.config, dtype);
  begin_folder(folder, dtype);
  write_weights(folder + "/sae_weights.safetensors", tensors_of(source), dtype);
  write_json_file(folder + "/cfg.json", config);
}

}  // namespace saif
