// Goodfire's Llama SAEs and DeepSeek-R1's: torch Linear modules, relu, b_dec not subtracted.
#include <regex>
#include <tuple>

#include "sae/loaders/torch_pt.h"

namespace saif {

void load_torch_linear(TensorSet& tensors, SaeSource& source) {
  SaeConfig& config = source.config;
  const bool goodfire = tensors.contains("encoder_linear.weight");
  const std::string encoder = goodfire ? "encoder_linear" : "encoder",
                    decoder = goodfire ? "decoder_linear" : "decoder";
  config.format = goodfire ? "goodfire" : "deepseek_r1";
  config.kind = SaeKind::kStandard;
  config.apply_b_dec_to_input = false;
  std::tie(config.d_sae, config.d_in) = tensors.size_of_matrix(encoder + ".weight");
  config.d_out = config.d_in;
  source.w_enc = tensors.matrix(encoder + ".weight", {config.d_sae, config.d_in});
  source.encoder_rows = true;
  source.b_enc = tensors.vector(encoder + ".bias", config.d_sae);
  set_linear_decoder(source, tensors.matrix(decoder + ".weight", {config.d_out, config.d_sae}));
  source.b_dec = tensors.vector(decoder + ".bias", config.d_out);
  // "Llama-3.1-8B-Instruct-SAE-l19.pth"
  static const std::regex name(R"(([A-Za-z0-9.\-]{1,80})-SAE-l(\d{1,4})\.pth?$)");
  std::smatch match;
  const std::string file = source.path.substr(source.path.find_last_of('/') + 1);
  if (!std::regex_match(file, match, name)) return;
  config.model = match[1].str();
  config.site = "blocks." + match[2].str() + ".hook_resid_post";
}

}  // namespace saif
