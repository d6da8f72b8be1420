#include "sae/loaders/sae_lens.h"

#include <cmath>

#include "base/file.h"
#include "formats/safetensors.h"

namespace saif {
namespace {

constexpr const char* kConfigFile = "cfg.json";
constexpr const char* kWeightsFile = "sae_weights.safetensors";
constexpr const char* kScalerFile = "activation_scaler.json";
constexpr const char* kWhiteningFile = "activation_whitening.safetensors";

[[noreturn]] void fail(Errc code, const std::string& file, const std::string& message) {
  throw Error(code, file + ": " + message);
}

// Reads the tensors of sae_weights.safetensors as a closed world.
void read_weights(TensorSet& tensors, SaeSource& source) {
  const SaeConfig& config = source.config;
  const int64_t d_in = config.d_in, d_sae = config.d_sae, d_out = config.d_out;
  const std::string needs = std::string(", which architecture ") + name_of(config.kind) + " needs";
  const auto size = static_cast<size_t>(d_sae);
  if (tensors.all_ones("scaling_factor")) tensors.ignore("scaling_factor");  // early versions wrote it without using it
  source.w_dec = tensors.matrix("W_dec", {d_sae, d_out});
  source.b_dec = tensors.vector("b_dec", d_out);
  if (config.kind == SaeKind::kMatchingPursuit) {
    source.w_enc = source.w_dec;
    source.encoder_rows = true;
    source.b_enc.assign(size, 0.0f);
    // Tied: what is not taken off at the input is not added to the output.
    if (!config.apply_b_dec_to_input) source.b_dec.assign(source.b_dec.size(), 0.0f);
    return tensors.finish();
  }
  source.w_enc = tensors.matrix("W_enc", {d_in, d_sae});
  if (config.kind == SaeKind::kGated) {
    source.b_enc.assign(size, 0.0f);
    source.gate_bias = tensors.vector("b_gate", d_sae, needs);
    source.magnitude_bias = tensors.vector("b_mag", d_sae, needs);
    source.magnitude_scale = tensors.vector("r_mag", d_sae, needs);
    for (float& v : source.magnitude_scale) v = std::exp(v);
  } else {
    source.b_enc = tensors.vector("b_enc", d_sae);
  }
  if (config.kind == SaeKind::kJumpRelu) source.threshold = tensors.vector("threshold", d_sae, needs);
  if (config.skip) source.w_skip = tensors.matrix("W_skip", {d_out, d_in}, ", which a skip transcoder needs");
  tensors.finish();
}

double read_scaler(const std::string& folder) {
  KeySet keys(folder + "/" + kScalerFile, read_json_file(folder + "/" + kScalerFile));
  const double factor = keys.number("scaling_factor");
  const std::string reason = "whitening of the activations is not supported";
  keys.require_value("has_whitening", false, reason);
  const std::string matrices = folder + "/" + kWhiteningFile;
  if (!keys.contains("has_whitening") && file_exists(matrices)) {
    fail(Errc::kUnsupported, matrices, "expected no such file: " + reason);
  }
  keys.finish();
  return factor;
}

// The factor of expected_average_only_in: the caller's, or activation_scaler.json's beside the weights.
double find_scaling_factor(const std::string& folder, const SaeLoadOptions& options) {
  double factor = 0;
  const std::string scaler = folder + "/" + kScalerFile;
  if (options.norm_scaling_factor) {
    factor = *options.norm_scaling_factor;
  } else if (file_exists(scaler)) {
    factor = read_scaler(folder);
  } else {
    fail(Errc::kRefused, folder + "/" + kConfigFile,
         "normalize_activations is expected_average_only_in, but its norm_scaling_factor is "
         "neither given nor in " +
             std::string(kScalerFile) + "; without it every latent would be wrong: give the factor");
  }
  if (!std::isfinite(factor) || factor <= 0) {
    fail(Errc::kInvalidArgument, folder,
         "norm_scaling_factor is " + std::to_string(factor) + "; expected a positive number");
  }
  return factor;
}

// x*s enters, x^/s leaves: W_enc *= s, W_dec /= s, b_dec /= s; latents stay in the normalised scale.
void fold_scaling_factor(SaeSource& source, double factor) {
  source.encoder_scale = static_cast<float>(factor);
  source.decoder_scale = static_cast<float>(1.0 / factor);
  for (float& b : source.b_dec) b = static_cast<float>(b / factor);
  source.config.metadata["norm_scaling_factor"] = factor;
  source.config.normalize = "none";
}

}  // namespace

bool is_sae_lens(const std::string& path) {
  const bool weights = file_exists(path + "/" + kWeightsFile);
  // Other formats have a weights file of this name, too, and a config.json beside it.
  if (file_exists(path + "/" + kConfigFile)) return weights || !file_exists(path + "/sae.safetensors");
  return weights && !file_exists(path + "/config.json");
}

SaeSource load_sae_lens(const std::string& path, const SaeLoadOptions& options) {
  SaeSource source;
  const std::string config_file = path + "/" + kConfigFile, weights_file = path + "/" + kWeightsFile;
  source.path = path;
  source.files = {config_file, weights_file};
  source.fast = options.fast;
  source.config = read_sae_lens_config(config_file, read_json_file(config_file));
  const auto file = std::make_shared<SafetensorsFile>(SafetensorsFile::open(weights_file));
  TensorSet tensors(*file);
  const Json* factors = source.config.metadata.find("finetuning_scaling_factor");
  if (factors != nullptr && factors->is_bool() && factors->as_bool() && !tensors.all_ones("scaling_factor")) {
    fail(Errc::kUnsupported, config_file,
         "\"finetuning_scaling_factor\" is true; expected false: a scaling of the latents is not supported");
  }
  read_weights(tensors, source);
  source.owner = file;
  if (source.config.normalize == "expected_average_only_in") {
    if (source.config.kind == SaeKind::kMatchingPursuit || source.config.transcoder) {
      fail(Errc::kUnsupported, config_file,
           "normalize_activations expected_average_only_in is not supported for matching pursuit and transcoders");
    }
    fold_scaling_factor(source, find_scaling_factor(path, options));
  }
  return source;
}

}  // namespace saif
