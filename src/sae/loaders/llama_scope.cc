#include "sae/loaders/llama_scope.h"

#include <cmath>

#include "base/file.h"
#include "sae/loaders/tensor_set.h"

namespace saif {
namespace {

constexpr const char* kConfig = "/hyperparams.json";
constexpr const char* kWeights = "/checkpoints/final.safetensors";

const std::vector<std::string> kTraining = {"device",
                                            "seed",
                                            "dtype",
                                            "bias_init_method",
                                            "decoder_exactly_fixed_norm",
                                            "init_decoder_norm",
                                            "init_encoder_norm",
                                            "init_encoder_with_decoder_transpose",
                                            "lp",
                                            "l1_coefficient",
                                            "l1_coefficient_warmup_steps",
                                            "top_k",
                                            "k_warmup_steps",
                                            "use_batch_norm_mse",
                                            "use_ghost_grads",
                                            "tp_size",
                                            "ddp_size",
                                            "sae_pretrained_name_or_path",
                                            "strict_loading",
                                            "remove_gradient_parallel_to_decoder_directions"};

struct Options {
  double scale_in = 1, scale_out = 1;  // sqrt(d) / average norm of the activations
  float threshold = 0;                 // in raw scale
  bool decoder_norm = true, decoder_bias = true;
};

Options read_config(KeySet& keys, SaeConfig& config) {
  Options out;
  config.kind = SaeKind::kJumpRelu;
  keys.require_value("act_fn", "jumprelu", "other activations of this format are not supported");
  keys.require_value("apply_decoder_bias_to_pre_encoder", false, "it is not supported in this format");
  keys.require_value("use_glu_encoder", false, "it is not supported in this format");
  config.apply_b_dec_to_input = false;
  config.d_in = config.d_out = keys.size("d_model");
  const double latents = keys.number("expansion_factor", 0) * static_cast<double>(config.d_in);
  if (!keys.contains("d_sae") && (latents < 1 || latents > 1 << 30)) {
    keys.fail(Errc::kBadFormat, "\"expansion_factor\" gives no number of latents");
  }
  config.d_sae = keys.contains("d_sae") ? keys.size("d_sae") : static_cast<int64_t>(latents);
  config.site = keys.string("hook_point_in");
  const std::string site_out = keys.string("hook_point_out", config.site);
  config.transcoder = site_out != config.site;
  if (config.transcoder) config.site_out = site_out;
  out.threshold = static_cast<float>(keys.number("jump_relu_threshold"));
  if (out.threshold < 0) keys.fail(Errc::kUnsupported, "\"jump_relu_threshold\" is negative; expected at least 0");
  out.decoder_bias = keys.boolean("use_decoder_bias", true);
  out.decoder_norm = keys.boolean("sparsity_include_decoder_norm", true);
  const std::string norm = keys.string("norm_activation", "dataset-wise");
  if (norm != "dataset-wise") {
    keys.fail(Errc::kUnsupported, "norm_activation \"" + norm + "\" is not supported; expected dataset-wise");
  }
  const Json* averages = keys.find("dataset_average_activation_norm");
  if (averages == nullptr) keys.fail(Errc::kBadFormat, "\"dataset_average_activation_norm\" is missing");
  KeySet inner(keys.file() + ", dataset_average_activation_norm", *averages);
  const double in = inner.number("in"), reconstructed = inner.number("out");
  if (in <= 0 || reconstructed <= 0) inner.fail(Errc::kBadFormat, "a norm is not positive");
  config.metadata["dataset_average_activation_norm"] = *averages;
  config.metadata["jump_relu_threshold"] = out.threshold;
  out.scale_in = std::sqrt(static_cast<double>(config.d_in)) / in;
  out.scale_out = std::sqrt(static_cast<double>(config.d_out)) / reconstructed;
  keys.ignore(kTraining, config.metadata);
  keys.finish();
  return out;
}

}  // namespace

bool is_llama_scope(const std::string& path) { return file_exists(path + kConfig) && file_exists(path + kWeights); }

// In raw space: b_enc / s_in, b_dec / s_out, W_dec s_in / s_out; then the decoder's norms go into the encoder, after
// which the latents meet the threshold.
SaeSource load_llama_scope(const std::string& path, const SaeLoadOptions& options) {
  SaeSource source;
  SaeConfig& config = source.config;
  source.path = path;
  source.files = {path + kConfig, path + kWeights};
  source.fast = options.fast;
  config.format = "llama_scope";
  KeySet keys(path + kConfig, read_json_file(path + kConfig));
  const Options o = read_config(keys, config);
  const auto file = std::make_shared<SafetensorsFile>(SafetensorsFile::open(path + kWeights));
  source.owner = file;
  TensorSet tensors(*file);
  const auto latents = static_cast<size_t>(config.d_sae);
  source.w_enc = tensors.matrix("encoder.weight", {config.d_sae, config.d_in});
  source.encoder_rows = true;
  source.b_enc = tensors.vector("encoder.bias", config.d_sae);
  set_linear_decoder(source, tensors.matrix("decoder.weight", {config.d_out, config.d_sae}));
  source.b_dec.assign(static_cast<size_t>(config.d_out), 0.0f);
  if (o.decoder_bias) source.b_dec = tensors.vector("decoder.bias", config.d_out);
  tensors.finish();
  for (float& v : source.b_enc) v = static_cast<float>(v / o.scale_in);
  for (float& v : source.b_dec) v = static_cast<float>(v / o.scale_out);
  source.decoder_scale = static_cast<float>(o.scale_in / o.scale_out);
  source.threshold.assign(latents, o.threshold);
  if (!o.decoder_norm) return source;
  source.latent_scale = row_norms(source.w_dec);
  for (float& v : source.latent_scale) v *= source.decoder_scale;
  source.decoder_row_scale = source.latent_scale;
  for (float& v : source.decoder_row_scale) v = v > 0 ? 1.0f / v : 0.0f;
  return source;
}

}  // namespace saif
