// OpenAI's GPT-2 autoencoders. With TopK the input is layer-normalised and the reconstruction brought back.
#include <algorithm>
#include <regex>
#include <tuple>

#include "sae/loaders/torch_pt.h"

namespace saif {
namespace {

// ".../gpt2-small/resid_post_mlp_v5_32k/autoencoders/6.pt"
void read_path(const std::string& path, SaeConfig& config) {
  static const std::regex place(
      R"(/(mlp_post_act|resid_delta_attn|resid_post_attn|resid_delta_mlp|resid_post_mlp)[^/]*/autoencoders/(\d{1,4})\.pt$)");
  static const std::vector<std::pair<std::string, std::string>> kSites = {{"mlp_post_act", "mlp.hook_post"},
                                                                          {"resid_delta_attn", "hook_attn_out"},
                                                                          {"resid_post_attn", "hook_resid_mid"},
                                                                          {"resid_delta_mlp", "hook_mlp_out"},
                                                                          {"resid_post_mlp", "hook_resid_post"}};
  std::smatch match;
  if (!std::regex_search(path, match, place)) return;
  config.model = "gpt2";
  for (const auto& [name, site] : kSites) {
    if (match[1] == name) config.site = "blocks." + match[2].str() + "." + site;
  }
}

void read_activation(const TorchFile& file, SaeConfig& config) {
  require_no_others(file, {"activation", "activation_state_dict"});
  KeySet keys(file.path(), file.plain());
  if (std::ranges::count(file.others(), "activation") > 0 && !keys.contains("activation")) {
    keys.fail(Errc::kBadFormat, "\"activation\" cannot be read; expected a name");
  }
  const std::string activation = keys.string("activation", "ReLU");  // as the authors' code takes it
  config.kind = SaeKind::kStandard;
  if (activation == "ReLU") {
    keys.require_value("activation_state_dict", Json::object(), "ReLU has no parameters");
  } else if (activation == "TopK" && file.has_dictionary("activation_state_dict")) {
    KeySet inner(file.path() + ": activation_state_dict", *keys.find("activation_state_dict"));
    config.kind = SaeKind::kTopK;
    config.k = inner.size("k");
    const std::string after = inner.string("postact_fn", "ReLU");
    if (after != "ReLU" && after != "Identity") {
      inner.fail(Errc::kUnsupported, "postact_fn \"" + after + "\" is not supported; expected ReLU or Identity");
    }
    config.keep_negative = after == "Identity";
    inner.finish();
    config.normalize = "layer_norm";
  } else {
    keys.fail(Errc::kUnsupported, "activation \"" + activation + "\" is not supported; expected ReLU or TopK with k");
  }
}

}  // namespace

void load_openai(TensorSet& tensors, const TorchFile& file, SaeSource& source) {
  SaeConfig& config = source.config;
  config.format = "openai";
  std::tie(config.d_sae, config.d_in) = tensors.size_of_matrix("encoder.weight");
  config.d_out = config.d_in;
  read_activation(file, config);
  if (config.k > config.d_sae) {
    throw Error(Errc::kBadFormat, file.path() + ": k is " + std::to_string(config.k) + ", more than the " +
                                      std::to_string(config.d_sae) + " latents");
  }
  source.w_enc = tensors.matrix("encoder.weight", {config.d_sae, config.d_in});
  source.encoder_rows = true;
  source.b_enc = tensors.vector("latent_bias", config.d_sae);
  set_linear_decoder(source, tensors.matrix("decoder.weight", {config.d_out, config.d_sae}));
  source.b_dec = tensors.vector("pre_bias", config.d_out);
  for (const char* name : {"stats_last_nonzero", "latents_activation_frequency", "latents_mean_square"}) {
    tensors.ignore(name);  // statistics of the training
  }
  read_path(source.path, config);
}

}  // namespace saif
