#include "sae/loaders/sae_lens.h"

#include <algorithm>
#include <cmath>
#include <cstdlib>

#include "base/file.h"
#include "formats/safetensors.h"
#include "saif/options.h"

namespace saif {
namespace {

constexpr const char* kConfigFile = "cfg.json";
constexpr const char* kWeightsFile = "sae_weights.safetensors";
constexpr const char* kScalerFile = "activation_scaler.json";

// Keys of every architecture that cannot change a result: `device` is where it was trained, `dtype` what the file's
// tensors say themselves.
const std::vector<std::string> kIrrelevantKeys = {"device", "dtype"};
const std::vector<std::string> kUsedKeys = {
    "d_in",    "d_sae", "architecture", "apply_b_dec_to_input", "normalize_activations", "reshape_activations",
    "metadata"};
const std::vector<std::string> kTopKKeys = {"k", "rescale_acts_by_decoder_norm"};

[[noreturn]] void fail(Errc code, const std::string& file, const std::string& message) {
  throw Error(code, file + ": " + message);
}

// Reads one cfg.json; `file` is the name with which messages begin.
class ConfigReader {
 public:
  ConfigReader(std::string file, Json json) : file_(std::move(file)), json_(std::move(json)) {}

  SaeConfig read() {
    if (!json_.is_object()) fail(Errc::kBadFormat, file_, "expected a JSON object");
    SaeConfig config;
    config.format = "sae_lens";
    require_version();
    config.kind = read_architecture();
    refuse_unknown_keys(config.kind);
    config.d_in = read_size("d_in");
    config.d_sae = read_size("d_sae");
    config.d_out = config.d_in;
    config.apply_b_dec_to_input = read_bool("apply_b_dec_to_input", true);
    config.normalize = read_normalize();
    read_reshape(config);
    if (config.kind == SaeKind::kTopK) read_topk(config);
    read_metadata(config);
    return config;
  }

 private:
  const Json* find(const std::string& key) const {
    const Json* value = json_.find(key);
    return value != nullptr && value->is_null() ? nullptr : value;
  }

  void require_version() const {
    const Json* metadata = find("metadata");
    if (metadata == nullptr || !metadata->is_object()) {
      fail(Errc::kUnsupported, file_,
           "there is no \"metadata\", so SAELens before 6.0 wrote it; saif reads SAELens 6: load it there and save it "
           "again");
    }
    const Json* version = metadata->find("sae_lens_version");
    if (version == nullptr || !version->is_string()) return;
    const std::string& text = version->as_string();
    if (std::atoi(text.c_str()) < 6) {
      fail(Errc::kUnsupported, file_,
           "written by SAELens " + text + "; saif reads version 6: load it there and save it again");
    }
  }

  SaeKind read_architecture() const {
    const Json* value = find("architecture");
    if (value == nullptr)
      fail(Errc::kBadFormat, file_, "\"architecture\" is missing; expected standard, topk or jumprelu");
    const std::string& name = string_of("architecture", *value);
    if (name == "standard") return SaeKind::kStandard;
    if (name == "topk") return SaeKind::kTopK;
    if (name == "jumprelu") return SaeKind::kJumpRelu;
    fail(Errc::kUnsupported, file_,
         "architecture \"" + name +
             "\" is not supported; saif reads standard, topk and jumprelu "
             "(batchtopk and matryoshka SAEs are saved as jumprelu)");
  }

  void refuse_unknown_keys(SaeKind kind) const {
    std::vector<std::string> known = kUsedKeys;
    known.insert(known.end(), kIrrelevantKeys.begin(), kIrrelevantKeys.end());
    if (kind == SaeKind::kTopK) known.insert(known.end(), kTopKKeys.begin(), kTopKKeys.end());
    for (const auto& [key, value] : json_.members()) {
      if (std::find(known.begin(), known.end(), key) != known.end()) continue;
      const std::string near = nearest_name(key, known);
      fail(Errc::kUnsupported, file_,
           "key \"" + key + "\" is not known for this architecture, so its effect cannot be honoured" +
               (near.empty() ? "" : "; did you mean \"" + near + "\"?"));
    }
  }

  int64_t read_size(const std::string& key) const {
    const Json* value = find(key);
    if (value == nullptr) fail(Errc::kBadFormat, file_, "\"" + key + "\" is missing");
    if (!value->is_number())
      fail(Errc::kBadFormat, file_, "\"" + key + "\" is " + value->dump() + "; expected a whole number");
    const double number = value->as_double();
    if (number != std::floor(number) || number < 1 || number > 1 << 30) {
      fail(Errc::kBadFormat, file_, "\"" + key + "\" is " + value->dump() + "; expected a whole number from 1 to 2^30");
    }
    return static_cast<int64_t>(number);
  }

  bool read_bool(const std::string& key, bool otherwise) const {
    const Json* value = find(key);
    if (value == nullptr) return otherwise;
    if (!value->is_bool())
      fail(Errc::kBadFormat, file_, "\"" + key + "\" is " + value->dump() + "; expected true or false");
    return value->as_bool();
  }

  const std::string& string_of(const std::string& key, const Json& value) const {
    if (!value.is_string()) fail(Errc::kBadFormat, file_, "\"" + key + "\" is " + value.dump() + "; expected a string");
    return value.as_string();
  }

  std::string read_normalize() const {
    const Json* value = find("normalize_activations");
    if (value == nullptr) return "none";
    const std::string& name = string_of("normalize_activations", *value);
    for (const char* known : {"none", "constant_norm_rescale", "layer_norm", "expected_average_only_in"}) {
      if (name == known) return name;
    }
    fail(Errc::kUnsupported, file_,
         "normalize_activations \"" + name +
             "\" is not supported; saif reads none, constant_norm_rescale, layer_norm and expected_average_only_in");
  }

  void read_reshape(SaeConfig& config) const {
    const Json* value = find("reshape_activations");
    const std::string name = value == nullptr ? "none" : string_of("reshape_activations", *value);
    if (name != "none" && name != "hook_z") {
      fail(Errc::kUnsupported, file_, "reshape_activations \"" + name + "\" is not supported; expected none or hook_z");
    }
    config.metadata["reshape_activations"] = name;  // hook_z rows are flat [n_heads * d_head] everywhere in saif
  }

  void read_topk(SaeConfig& config) const {
    if (find("k") == nullptr) fail(Errc::kBadFormat, file_, "\"k\" is missing, which architecture topk needs");
    config.k = read_size("k");
    if (config.k > config.d_sae) {
      fail(
          Errc::kBadFormat, file_,
          "k is " + std::to_string(config.k) + ", more than the " + std::to_string(config.d_sae) + " latents of d_sae");
    }
    config.rescale_acts_by_decoder_norm = read_bool("rescale_acts_by_decoder_norm", false);
  }

  void read_metadata(SaeConfig& config) const {
    for (const auto& [key, value] : json_.at("metadata").members()) {
      if (key == "hook_name" && value.is_string()) {
        config.site = value.as_string();
      } else if (key == "model_name" && value.is_string()) {
        config.model = value.as_string();
      } else if (key == "hook_head_index" && !value.is_null()) {
        fail(Errc::kUnsupported, file_,
             "hook_head_index " + value.dump() + ": SAEs of a single head are not supported");
      } else if (key == "l0" && value.is_number()) {
        config.published_l0 = value.as_double();
      } else if (key == "fvu" && value.is_number()) {
        config.published_fvu = value.as_double();
      }
      config.metadata[key] = value;
    }
  }

  std::string file_;
  Json json_;
};

// The tensors of sae_weights.safetensors as a closed world.
class WeightsReader {
 public:
  WeightsReader(const SafetensorsFile& file, const SaeConfig& config) : file_(file), config_(config) {}

  void read(SaeSource& source) {
    refuse_unknown_tensors();
    const int64_t d_in = config_.d_in, d_sae = config_.d_sae, d_out = config_.d_out;
    source.w_enc = matrix("W_enc", {d_in, d_sae});
    source.w_dec = matrix("W_dec", {d_sae, d_out});
    source.b_enc = vector("b_enc", d_sae);
    source.b_dec = vector("b_dec", d_out);
    if (config_.kind == SaeKind::kJumpRelu) source.threshold = vector("threshold", d_sae);
  }

 private:
  void refuse_unknown_tensors() const {
    std::vector<std::string> known = {"W_enc", "W_dec", "b_enc", "b_dec"};
    if (config_.kind == SaeKind::kJumpRelu) known.emplace_back("threshold");
    for (const std::string& name : file_.names()) {
      if (std::find(known.begin(), known.end(), name) != known.end()) continue;
      if (name == "scaling_factor" && all_ones(file_.at(name))) continue;  // early versions wrote it without using it
      fail(Errc::kUnsupported, file_.path(),
           "tensor \"" + name + "\" " + file_.at(name).shape_text() +
               " is not known for this architecture, so its effect cannot be honoured");
    }
  }

  static bool all_ones(const TensorView& view) {
    if (view.dtype != DType::kF32 && view.dtype != DType::kBf16 && view.dtype != DType::kF16) return false;
    const Tensor values = to_f32(view);
    const auto* data = values.as<float>();
    return std::all_of(data, data + values.elements(), [](float v) { return v == 1.0f; });
  }

  TensorView matrix(const std::string& name, const std::vector<int64_t>& shape) const {
    const TensorView* view = file_.find(name);
    TensorView expected;
    expected.shape = shape;
    if (view == nullptr) {
      std::string reason = name == "threshold" ? ", which architecture jumprelu needs" : "";
      fail(Errc::kBadFormat, file_.path(),
           "tensor \"" + name + "\" is missing" + reason + "; expected shape " + expected.shape_text());
    }
    if (view->dtype != DType::kF32 && view->dtype != DType::kBf16 && view->dtype != DType::kF16) {
      fail(Errc::kUnsupported, file_.path(),
           "tensor \"" + name + "\" has dtype " + name_of(view->dtype) + "; expected F32, BF16 or F16");
    }
    if (view->shape != shape) {
      fail(Errc::kBadFormat, file_.path(),
           "tensor \"" + name + "\" has shape " + view->shape_text() + "; expected " + expected.shape_text() +
               " from d_in " + std::to_string(config_.d_in) + " and d_sae " + std::to_string(config_.d_sae));
    }
    return *view;
  }

  std::vector<float> vector(const std::string& name, int64_t size) const {
    const TensorView view = matrix(name, {size});
    require_finite(view, file_.path(), name);
    const Tensor values = to_f32(view);
    return {values.as<float>(), values.as<float>() + size};
  }

  const SafetensorsFile& file_;
  const SaeConfig& config_;
};

// The factor of expected_average_only_in: the caller's, or activation_scaler.json's beside the weights.
double find_scaling_factor(const std::string& folder, const SaeLoadOptions& options) {
  double factor = 0;
  const std::string scaler = folder + "/" + kScalerFile;
  if (options.norm_scaling_factor) {
    factor = *options.norm_scaling_factor;
  } else if (file_exists(scaler)) {
    const Json json = read_json_file(scaler);
    const Json* value = json.find("scaling_factor");
    if (value == nullptr || !value->is_number())
      fail(Errc::kBadFormat, scaler, "\"scaling_factor\" is missing or no number");
    factor = value->as_double();
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
  return file_exists(path + "/" + kConfigFile) || file_exists(path + "/" + kWeightsFile);
}

SaeSource load_sae_lens(const std::string& path, const SaeLoadOptions& options) {
  SaeSource source;
  const std::string config_file = path + "/" + kConfigFile, weights_file = path + "/" + kWeightsFile;
  source.path = path;
  source.files = {config_file, weights_file};
  source.fast = options.fast;
  source.config = ConfigReader(config_file, read_json_file(config_file)).read();
  const auto file = std::make_shared<SafetensorsFile>(SafetensorsFile::open(weights_file));
  WeightsReader(*file, source.config).read(source);
  source.owner = file;
  if (source.config.normalize == "expected_average_only_in") {
    fold_scaling_factor(source, find_scaling_factor(path, options));
  }
  return source;
}

}  // namespace saif
