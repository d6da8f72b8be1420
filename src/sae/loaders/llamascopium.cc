#include <algorithm>
#include <cfloat>
#include <cmath>

#include "base/file.h"
#include "sae/loaders/llama_scope.h"
#include "sae/loaders/tensor_set.h"
#include "sae/loaders/torch_pt.h"

namespace saif {
namespace {

constexpr const char* kConfig = "/config.json";
constexpr const char* kWeights = "/sae_weights.safetensors";
constexpr const char* kTorchWeights = "/sae_weights.pt";
constexpr const char* kAverageNorm = "dataset_average_activation_norm.";

struct Options {
  bool decoder_norm = true, decoder_bias = true, dataset_norm = false;
  std::string site_out;
};

SaeKind read_kind(KeySet& keys) {
  const std::string name = keys.string("act_fn");
  if (name == "relu") return SaeKind::kStandard;
  if (name == "topk") return SaeKind::kTopK;
  if (name == "jumprelu") return SaeKind::kJumpRelu;
  keys.fail(Errc::kUnsupported, "act_fn \"" + name + "\" is not supported; expected relu, topk or jumprelu");
}

Options read_config(KeySet& keys, SaeConfig& config) {
  Options out;
  keys.require_value("sae_type", "sae", "other dictionaries than sae are not supported");
  keys.require_value("apply_decoder_bias_to_pre_encoder", false, "it is not supported in this format");
  config.apply_b_dec_to_input = false;
  config.kind = read_kind(keys);
  config.d_in = config.d_out = keys.size("d_model");
  const double latents = keys.number("expansion_factor") * static_cast<double>(config.d_in);
  if (latents < 1 || latents > 1 << 30) keys.fail(Errc::kBadFormat, "\"expansion_factor\" gives no number of latents");
  config.d_sae = keys.size("d_sae", static_cast<int64_t>(latents));
  config.site = keys.string("hook_point_in");
  out.site_out = keys.string("hook_point_out", config.site);
  config.transcoder = out.site_out != config.site;
  if (config.transcoder) config.site_out = out.site_out;
  config.glu = keys.boolean("use_glu_encoder", false);
  out.decoder_bias = keys.boolean("use_decoder_bias", true);
  out.decoder_norm = keys.boolean("sparsity_include_decoder_norm", true);
  if (config.kind == SaeKind::kTopK) {
    config.k = keys.size("top_k");
    if (config.k > config.d_sae) keys.fail(Errc::kBadFormat, "\"top_k\" is more than the number of latents");
    config.rank_by_decoder_norm = out.decoder_norm;
  }
  const std::string norm = keys.string("norm_activation", "dataset-wise");
  if (norm != "dataset-wise" && norm != "inference") {
    keys.fail(Errc::kUnsupported,
              "norm_activation \"" + norm + "\" is not supported; expected dataset-wise or inference");
  }
  out.dataset_norm = norm == "dataset-wise";
  config.metadata["norm_activation"] = norm;
  config.metadata["sparsity_include_decoder_norm"] = out.decoder_norm;
  keys.ignore({"top_k", "dtype", "device", "use_triton_kernel", "sparsity_threshold_for_triton_spmm_kernel",
               "jumprelu_threshold_window", "jump_relu_threshold", "sae_pretrained_name_or_path"},
              config.metadata);
  keys.finish();
  return out;
}

void read_weights(TensorSet& tensors, const Options& o, SaeSource& source) {
  SaeConfig& config = source.config;
  if (tensors.contains("encoder.weight")) {  // R1-distill
    config.format = "llama_scope_r1_distill";
    source.w_enc = tensors.matrix("encoder.weight", {config.d_sae, config.d_in});
    source.encoder_rows = true;
    source.b_enc = tensors.vector("encoder.bias", config.d_sae);
    set_linear_decoder(source, tensors.matrix("decoder.weight", {config.d_out, config.d_sae}));
  } else {
    source.w_enc = tensors.matrix("W_E", {config.d_in, config.d_sae});
    source.b_enc = tensors.vector("b_E", config.d_sae);
    source.w_dec = tensors.matrix("W_D", {config.d_sae, config.d_out});
    if (config.glu) {
      source.w_glu = tensors.matrix("W_E_glu", {config.d_in, config.d_sae}, ", which use_glu_encoder needs");
      source.b_glu = tensors.vector("b_E_glu", config.d_sae);
    }
  }
  source.b_dec.assign(static_cast<size_t>(config.d_out), 0.0f);
  if (o.decoder_bias) {
    source.b_dec = tensors.vector(tensors.contains("decoder.bias") ? "decoder.bias" : "b_D", config.d_out);
  }
}

// h |decoder row| > exp(log threshold), as a threshold of h. A zero row never fires.
void read_threshold(TensorSet& tensors, bool decoder_norm, SaeSource& source) {
  const bool plain = tensors.contains("log_jumprelu_threshold");
  source.threshold = tensors.vector(plain ? "log_jumprelu_threshold" : "activation_function.log_jumprelu_threshold",
                                    source.config.d_sae, ", which act_fn jumprelu needs");
  const std::vector<float> norms = decoder_norm ? row_norms(source.w_dec) : std::vector<float>();
  for (size_t j = 0; j < source.threshold.size(); ++j) {
    const double threshold = std::exp(static_cast<double>(source.threshold[j]));
    const double norm = decoder_norm ? norms[j] : 1.0;
    source.threshold[j] = norm > 0 ? static_cast<float>(std::min(threshold / norm, double{FLT_MAX})) : FLT_MAX;
  }
}

// Latents stay in the scale of the normalised input; the reconstruction goes back.
void apply_dataset_norm(TensorSet& tensors, const std::string& site_out, SaeSource& source) {
  const SaeConfig& config = source.config;
  const double in = tensors.scalar(kAverageNorm + config.site), out = tensors.scalar(kAverageNorm + site_out);
  if (in <= 0 || out <= 0) throw Error(Errc::kBadFormat, tensors.path() + ": " + kAverageNorm + "* is not positive");
  const double scale_out = std::sqrt(static_cast<double>(config.d_out)) / out;
  source.encoder_scale = static_cast<float>(std::sqrt(static_cast<double>(config.d_in)) / in);
  source.decoder_scale = static_cast<float>(1.0 / scale_out);
  for (float& v : source.b_dec) v = static_cast<float>(v / scale_out);
}

}  // namespace

bool is_llamascopium(const std::string& path) {
  return file_exists(path + kConfig) && (file_exists(path + kWeights) || file_exists(path + kTorchWeights));
}

SaeSource load_llamascopium(const std::string& path, const SaeLoadOptions& options) {
  SaeSource source;
  source.path = path;
  source.fast = options.fast;
  source.config.format = "llamascopium";
  KeySet keys(path + kConfig, read_json_file(path + kConfig));
  const Options o = read_config(keys, source.config);
  const bool torch = !file_exists(path + kWeights);
  const std::string file = path + (torch ? kTorchWeights : kWeights);
  source.files = {path + kConfig, file};
  TensorArchive archive;
  if (torch) {
    const TorchFile opened = TorchFile::open(file).dictionary("sae");
    require_no_others(opened);
    archive = opened.tensors();
  } else {
    const auto opened = std::make_shared<SafetensorsFile>(SafetensorsFile::open(file));
    for (const std::string& name : opened->names()) archive.tensors.emplace_back(name, opened->at(name));
    archive.owner = opened;
  }
  source.owner = archive.owner;
  TensorSet tensors(file, archive.tensors);
  read_weights(tensors, o, source);
  if (source.config.kind == SaeKind::kJumpRelu) read_threshold(tensors, o.decoder_norm, source);
  if (o.dataset_norm) apply_dataset_norm(tensors, o.site_out, source);
  for (const auto& [name, view] : archive.tensors) {
    if (name.starts_with(kAverageNorm)) tensors.ignore(name);  // left over where it is folded in already
  }
  tensors.finish();
  return source;
}

}  // namespace saif
