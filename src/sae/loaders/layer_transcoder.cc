#include "sae/loaders/layer_transcoder.h"

#include <map>
#include <regex>
#include <tuple>

#include "base/file.h"
#include "sae/loaders/tensor_set.h"

namespace saif {
namespace {

std::string config_file(const std::string& path) {
  const size_t slash = path.find_last_of('/');
  return (slash == std::string::npos ? "" : path.substr(0, slash + 1)) + "config.yaml";
}

// "layer_7.safetensors" -> "7"
std::string layer_of(const std::string& path) {
  static const std::regex pattern(R"(layer_(\d{1,4})\.safetensors)");
  std::smatch match;
  const std::string name = path.substr(path.find_last_of('/') + 1);
  return std::regex_match(name, match, pattern) ? match[1].str() : "";
}

// Lines "key: value" of a flat YAML file, as JSON strings.
Json read_flat_yaml(const std::string& file) {
  const std::string text = read_file(file);
  Json out = Json::object();
  for (size_t begin = 0; begin < text.size();) {
    const size_t end = std::min(text.find('\n', begin), text.size());
    std::string line = text.substr(begin, end - begin);
    begin = end + 1;
    while (!line.empty() && (line.back() == '\r' || line.back() == ' ')) line.pop_back();
    if (line.empty() || line[0] == '#') continue;
    const size_t colon = line.find(": ");
    if (line[0] == ' ' || line[0] == '-' || colon == std::string::npos) {
      throw Error(Errc::kUnsupported, file + ": line " + Json(line.substr(0, 80)).dump() + "; expected \"key: value\"");
    }
    std::string value = line.substr(colon + 2);
    if (value.size() >= 2 && (value[0] == '"' || value[0] == '\'') && value.back() == value[0]) {
      value = value.substr(1, value.size() - 2);
    }
    out[line.substr(0, colon)] = value;
  }
  return out;
}

std::string site_of(KeySet& keys, const std::string& key, const std::string& layer) {
  static const std::map<std::string, std::string> kHooks = {{"mlp.hook_in", "ln2.hook_normalized"},
                                                            {"ln2.hook_normalized", "ln2.hook_normalized"},
                                                            {"hook_resid_mid", "hook_resid_mid"},
                                                            {"mlp.hook_out", "hook_mlp_out"},
                                                            {"hook_mlp_out", "hook_mlp_out"}};
  const std::string hook = keys.string(key);
  const auto at = kHooks.find(hook);
  if (at == kHooks.end()) keys.fail(Errc::kUnsupported, "\"" + key + "\" is \"" + hook + "\", no site that saif knows");
  return "blocks." + layer + "." + at->second;
}

}  // namespace

bool is_layer_transcoder(const std::string& path) {
  return !layer_of(path).empty() && file_exists(path) && file_exists(config_file(path));
}

SaeSource load_layer_transcoder(const std::string& path, const SaeLoadOptions& options) {
  SaeSource source;
  SaeConfig& config = source.config;
  source.path = path;
  source.files = {config_file(path), path};
  source.fast = options.fast;
  config.format = "layer_transcoder";
  KeySet keys(config_file(path), read_flat_yaml(config_file(path)));
  keys.require_value("model_kind", "transcoder_set", "other kinds are not supported");
  config.model = keys.string("model_name", "");
  config.transcoder = true;
  config.site = site_of(keys, "feature_input_hook", layer_of(path));
  config.site_out = site_of(keys, "feature_output_hook", layer_of(path));
  keys.ignore({"scan", "repo_id", "revision"}, config.metadata);
  keys.finish();
  config.kind = SaeKind::kStandard;
  config.apply_b_dec_to_input = false;
  const auto file = std::make_shared<SafetensorsFile>(SafetensorsFile::open(path));
  source.owner = file;
  TensorSet tensors(*file);
  std::tie(config.d_sae, config.d_in) = tensors.size_of_matrix("W_enc");
  config.d_out = tensors.size_of_matrix("W_dec").second;
  source.w_enc = tensors.matrix("W_enc", {config.d_sae, config.d_in});
  source.encoder_rows = true;
  source.b_enc = tensors.vector("b_enc", config.d_sae);
  source.w_dec = tensors.matrix("W_dec", {config.d_sae, config.d_out});
  source.b_dec = tensors.vector("b_dec", config.d_out);
  tensors.finish();
  return source;
}

}  // namespace saif
