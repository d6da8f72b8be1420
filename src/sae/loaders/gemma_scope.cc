#include "sae/loaders/gemma_scope.h"

#include <array>
#include <cmath>
#include <filesystem>
#include <regex>
#include <tuple>

#include "base/file.h"
#include "formats/npz.h"
#include "formats/safetensors.h"
#include "sae/loaders/tensor_set.h"

namespace saif {
namespace {

constexpr const char* kNpz = "/params.npz";
constexpr const char* kSafetensors = "/params.safetensors";

std::string full_path(const std::string& path) {
  std::string out = std::filesystem::absolute(path).lexically_normal().generic_string();
  while (out.size() > 1 && out.back() == '/') out.pop_back();
  return out;
}

// Both generations: relu(h) * [h > threshold], b_dec not subtracted. `names`: W_enc, W_dec, b_enc, b_dec.
void read_jumprelu(TensorSet& tensors, const std::array<const char*, 4>& names, SaeSource& source) {
  SaeConfig& config = source.config;
  config.kind = SaeKind::kJumpRelu;
  config.apply_b_dec_to_input = false;
  std::tie(config.d_in, config.d_sae) = tensors.size_of_matrix(names[0]);
  config.d_out = tensors.size_of_matrix(names[1]).second;
  if (!config.transcoder && config.d_out != config.d_in) {
    throw Error(Errc::kBadFormat, tensors.path() + ": tensor \"" + names[1] + "\" gives width " +
                                      std::to_string(config.d_out) + ", but an autoencoder of width " +
                                      std::to_string(config.d_in) + " was expected from its path or configuration");
  }
  source.w_enc = tensors.matrix(names[0], {config.d_in, config.d_sae});
  source.w_dec = tensors.matrix(names[1], {config.d_sae, config.d_out});
  source.b_enc = tensors.vector(names[2], config.d_sae);
  source.b_dec = tensors.vector(names[3], config.d_out);
  source.threshold = tensors.vector("threshold", config.d_sae);
}

// ".../gemma-scope-2b-pt-res/layer_12/width_16k/average_l0_17/params.npz" -> model, site, published L0. Folders above
// the repository may have such names, too.
void read_path(const std::string& path, SaeConfig& config) {
  static const std::regex model(R"(gemma-scope-(\d+b)-(pt|it)-(res|att|mlp|transcoders))");
  static const std::regex place(R"(/(?:layer_(\d{1,4})|embedding)/width_[^/]+/(?:[^/]+/)?[^/]+$)");
  static const std::regex l0(R"(/average_l0_(\d{1,6})/[^/]+$)");
  std::smatch match;
  std::string part;
  if (const auto name = last_match(path, model)) {
    config.model = "google/gemma-2-" + (*name)[1].str() + ((*name)[2] == "it" ? "-it" : "");
    part = (*name)[3].str();
  }
  config.transcoder = part == "transcoders";
  if (std::regex_search(path, match, l0)) config.published_l0 = std::stod(match[1].str());
  if (!std::regex_search(path, match, place)) return;
  if (!match[1].matched) {
    config.site = "hook_embed";
  } else if (!part.empty()) {
    const std::string block = "blocks." + match[1].str() + ".";
    if (part == "res") config.site = block + "hook_resid_post";
    if (part == "att") config.site = block + "attn.hook_z";
    if (part == "mlp") config.site = block + "hook_mlp_out";
    if (config.transcoder) {
      config.site = block + "ln2.hook_normalized";
      config.site_out = block + "hook_mlp_out";
    }
  }
}

// ".../gemma-scope-2-1b-pt/resid_post/layer_7_width_16k_l0_small", for files without config.json.
void read_path_2(const std::string& path, SaeConfig& config) {
  static const std::regex model(R"(gemma-scope-2-(\d+[mb])-(pt|it))");
  static const std::regex place(R"(/(resid_post|mlp_out|transcoder)(?:_all)?/layer_(\d{1,4})_[^/]*/[^/]+$)");
  if (const auto name = last_match(path, model)) {
    config.model = "google/gemma-3-" + (*name)[1].str() + "-" + (*name)[2].str();
  }
  std::smatch match;
  if (!std::regex_search(path, match, place)) return;
  const std::string block = "blocks." + match[2].str() + ".";
  if (match[1] == "resid_post") config.site = block + "hook_resid_post";
  if (match[1] == "mlp_out") config.site = block + "hook_mlp_out";
  if (match[1] == "transcoder") {
    config.transcoder = true;
    config.site = block + "ln2.hook_normalized";
    config.site_out = block + "hook_mlp_out";
  }
}

void read_config_2(KeySet& keys, SaeConfig& config, bool& affine) {
  const std::string architecture = keys.string("architecture");
  if (architecture != "jump_relu") {
    keys.fail(Errc::kUnsupported, "architecture \"" + architecture + "\" is not supported; expected jump_relu");
  }
  const std::string type = keys.string("type", "sae");
  if (type != "sae" && type != "transcoder") {
    keys.fail(Errc::kUnsupported, "type \"" + type + "\" is not supported; expected sae or transcoder");
  }
  config.transcoder = type == "transcoder";
  config.model = keys.string("model_name", config.model);
  const std::string in = keys.string("hf_hook_point_in"), out = keys.string("hf_hook_point_out", in);
  config.site = site_of_module(in);
  if (config.site.empty()) keys.fail(Errc::kUnsupported, "hf_hook_point_in \"" + in + "\" is no site that saif knows");
  config.site_out = config.transcoder ? site_of_module(out) : "";
  if (!config.transcoder && out != in) {
    keys.fail(Errc::kBadFormat, "type is sae, but hf_hook_point_out \"" + out + "\" is not its input \"" + in + "\"");
  }
  config.metadata["hf_hook_point_in"] = in;
  config.metadata["hf_hook_point_out"] = out;
  if (keys.contains("l0")) config.published_l0 = keys.number("l0");
  affine = keys.boolean("affine_connection", false);
  keys.ignore({"width", "dtype"}, config.metadata);  // the tensors say both
  keys.finish();
}

}  // namespace

bool is_gemma_scope(const std::string& path) { return path.ends_with(".npz") || file_exists(path + kNpz); }

SaeSource load_gemma_scope(const std::string& path, const SaeLoadOptions& options) {
  const std::string file = path.ends_with(".npz") ? path : path + kNpz;
  const TensorArchive archive = open_npz(file, options.verify);
  SaeSource source;
  source.path = path;
  source.files = {file};
  source.owner = archive.owner;
  source.fast = options.fast;
  source.config.format = "gemma_scope";
  const std::string where = full_path(file);
  read_path(where, source.config);
  TensorSet tensors(file, archive.tensors);
  read_jumprelu(tensors, {"W_enc", "W_dec", "b_enc", "b_dec"}, source);
  tensors.finish();
  if (source.config.site == "hook_embed") {
    // Trained on embeddings before Gemma multiplies them by sqrt(d): x' = x / sqrt(d), x^ = x^' sqrt(d). Its own b_dec
    // belongs to the scaled ones.
    const auto root = static_cast<float>(std::sqrt(static_cast<double>(source.config.d_in)));
    source.encoder_scale = 1.0f / root;
    source.decoder_scale = root;
    source.config.metadata["embedding_scale"] = root;
  }
  return source;
}

bool is_gemma_scope_2(const std::string& path) {
  return path.ends_with("/params.safetensors") || file_exists(path + kSafetensors);
}

SaeSource load_gemma_scope_2(const std::string& path, const SaeLoadOptions& options) {
  const std::string file = path.ends_with(".safetensors") ? path : path + kSafetensors;
  const std::string config_file = file.substr(0, file.find_last_of('/')) + "/config.json";
  const auto opened = std::make_shared<SafetensorsFile>(SafetensorsFile::open(file));
  TensorSet tensors(*opened);
  SaeSource source;
  source.path = path;
  source.files = {file};
  source.owner = opened;
  source.fast = options.fast;
  source.config.format = "gemma_scope_2";
  bool affine = tensors.contains("affine_skip_connection");
  read_path_2(full_path(file), source.config);
  if (file_exists(config_file)) {
    KeySet keys(config_file, read_json_file(config_file));
    read_config_2(keys, source.config, affine);
    source.files.insert(source.files.begin(), config_file);
  }
  read_jumprelu(tensors, {"w_enc", "w_dec", "b_enc", "b_dec"}, source);
  if (affine) {
    // [d_in, d_out] on disk: x^ += x A
    const SaeConfig& config = source.config;
    const auto skip =
        std::make_shared<Tensor>(transposed(tensors.matrix("affine_skip_connection", {config.d_in, config.d_out})));
    source.config.skip = true;
    source.w_skip = skip->view();
    source.owner = std::make_shared<std::pair<std::shared_ptr<SafetensorsFile>, std::shared_ptr<Tensor>>>(opened, skip);
  }
  tensors.finish();
  return source;
}

}  // namespace saif
