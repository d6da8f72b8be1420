// Writes the folder that SAELens 6's own load_from_disk reads.
#include <cerrno>
#include <cstdio>
#include <cstring>

#include "base/file.h"
#include "formats/safetensors.h"
#include "sae/source.h"

namespace saif {
namespace {

// The version whose format this is.
constexpr const char* kSaeLensVersion = "6.54.12";

const char* architecture_of(SaeKind kind) {
  switch (kind) {
    case SaeKind::kStandard:
      return "standard";
    case SaeKind::kTopK:
      return "topk";
    case SaeKind::kJumpRelu:
      return "jumprelu";
  }
  return "";
}

Json metadata_json(const SaeConfig& config) {
  Json out = Json::object();
  out["sae_lens_version"] = kSaeLensVersion;
  out["sae_lens_training_version"] = Json();
  for (const auto& [key, value] : config.metadata.members()) {
    if (key != "reshape_activations") out[key] = value;
  }
  if (!config.model.empty() || !out.contains("model_name")) out["model_name"] = config.model;
  if (!config.site.empty() || !out.contains("hook_name")) out["hook_name"] = config.site;
  if (!out.contains("hook_head_index")) out["hook_head_index"] = Json();
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
  if (config.kind == SaeKind::kTopK) {
    out["k"] = config.k;
    out["rescale_acts_by_decoder_norm"] = config.rescale_acts_by_decoder_norm;
  }
  out["architecture"] = architecture_of(config.kind);
  out["metadata"] = metadata_json(config);
  return out;
}

}  // namespace

void write_sae_lens(const std::string& folder, const SaeConfig& config, const SaeLensTensors& tensors, DType dtype) {
  if (dtype != DType::kF32 && dtype != DType::kBf16) {
    throw Error(Errc::kUnsupported,
                "an SAE cannot be saved as " + std::string(name_of(dtype)) + "; expected F32 or BF16");
  }
  make_directories(folder);
  // Without cfg.json the folder is no SAE: an interrupted save cannot pass for a whole one.
  const std::string config_file = folder + "/cfg.json";
  if (std::remove(config_file.c_str()) != 0 && errno != ENOENT) {
    throw Error(Errc::kIo, config_file + ": cannot be replaced: " + std::strerror(errno));
  }
  std::vector<std::pair<std::string, Tensor>> converted;
  converted.emplace_back("W_dec", convert(tensors.w_dec.view(), dtype));
  converted.emplace_back("W_enc", convert(tensors.w_enc.view(), dtype));
  converted.emplace_back("b_dec", convert(tensors.b_dec.view(), dtype));
  converted.emplace_back("b_enc", convert(tensors.b_enc.view(), dtype));
  if (!tensors.threshold.empty()) converted.emplace_back("threshold", convert(tensors.threshold.view(), dtype));
  std::vector<NamedTensor> named;
  named.reserve(converted.size());
  for (const auto& [name, tensor] : converted) named.push_back({name, tensor.view()});
  write_safetensors(folder + "/sae_weights.safetensors", named);
  write_json_file(config_file, config_json(config, dtype));
}

}  // namespace saif
