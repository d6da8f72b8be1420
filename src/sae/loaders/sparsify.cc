#include "sae/loaders/sparsify.h"

#include <filesystem>

#include "base/file.h"
#include "sae/loaders/tensor_set.h"

namespace saif {
namespace {

constexpr const char* kConfig = "/cfg.json";
constexpr const char* kWeights = "/sae.safetensors";

void read_config(KeySet& keys, SaeConfig& config) {
  const std::string activation = keys.string("activation", "topk");
  if (activation != "topk" && activation != "groupmax") {
    keys.fail(Errc::kUnsupported, "activation \"" + activation + "\" is not supported; expected topk or groupmax");
  }
  keys.require_value("signed", false, "selection by magnitude is not supported");
  config.kind = activation == "topk" ? SaeKind::kTopK : SaeKind::kGroupMax;
  config.d_in = keys.size("d_in");
  const int64_t factor = keys.size("expansion_factor", 32);
  const bool given = keys.contains("num_latents") && keys.number("num_latents") != 0;
  config.d_sae = given ? keys.size("num_latents") : factor * config.d_in;
  config.k = keys.size("k", 32);
  if (config.k > config.d_sae || (config.kind == SaeKind::kGroupMax && config.d_sae % config.k != 0)) {
    keys.fail(Errc::kBadFormat, "k is " + std::to_string(config.k) + ", which does not fit " +
                                    std::to_string(config.d_sae) + " latents of " + activation);
  }
  config.transcoder = keys.boolean("transcode", false);
  config.apply_b_dec_to_input = !config.transcoder;
  config.skip = keys.boolean("skip_connection", false);
  keys.ignore({"normalize_decoder", "multi_topk"}, config.metadata);  // of the training; the files are as they are used
  keys.finish();
}

// The folder's name is the module whose output is encoded; a transcoder goes from its input to its output.
void read_hookpoint(const std::string& path, SaeConfig& config) {
  const std::string name = std::filesystem::absolute(path + "/.").lexically_normal().parent_path().filename().string();
  config.metadata["hookpoint"] = name;
  const std::string site = site_of_module(name);
  if (!config.transcoder) {
    config.site = site;
  } else if (site.ends_with(".hook_mlp_out")) {
    config.site = site.substr(0, site.size() - std::string("hook_mlp_out").size()) + "ln2.hook_normalized";
    config.site_out = site;
  }
}

}  // namespace

bool is_sparsify(const std::string& path) { return file_exists(path + kConfig) && file_exists(path + kWeights); }

SaeSource load_sparsify(const std::string& path, const SaeLoadOptions& options) {
  SaeSource source;
  SaeConfig& config = source.config;
  source.path = path;
  source.files = {path + kConfig, path + kWeights};
  source.fast = options.fast;
  config.format = "sparsify";
  KeySet keys(path + kConfig, read_json_file(path + kConfig));
  read_config(keys, config);
  read_hookpoint(path, config);
  const auto file = std::make_shared<SafetensorsFile>(SafetensorsFile::open(path + kWeights));
  source.owner = file;
  TensorSet tensors(*file);
  config.d_out = config.transcoder ? tensors.size_of_matrix("W_dec").second : config.d_in;
  source.w_enc = tensors.matrix("encoder.weight", {config.d_sae, config.d_in});
  source.encoder_rows = true;
  source.b_enc = tensors.vector("encoder.bias", config.d_sae);
  source.w_dec = tensors.matrix("W_dec", {config.d_sae, config.d_out});
  source.b_dec = tensors.vector("b_dec", config.d_out);
  if (config.skip)
    source.w_skip = tensors.matrix("W_skip", {config.d_out, config.d_in}, ", which skip_connection needs");
  tensors.finish();
  return source;
}

}  // namespace saif
