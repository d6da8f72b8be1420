// Writes the folder that sparsify's SparseCoder.load_from_disk reads.
#include <cmath>
#include <filesystem>

#include "base/file.h"
#include "sae/writer.h"

namespace saif {
namespace {

void require_expressible(const SaeConfig& config) {
  const auto refuse = [](const std::string& what) {
    return Error(Errc::kUnsupported, "sparsify has no setting for " + what +
                                         ", so this SAE cannot be saved in its format; use sae_lens instead");
  };
  if (config.kind != SaeKind::kTopK && config.kind != SaeKind::kGroupMax) {
    throw refuse(std::string("architecture ") + name_of(config.kind));
  }
  if (config.keep_negative) throw refuse("top-k without relu");
  if (config.rank_by_decoder_norm) throw refuse("top-k ranked by decoder norm with unscaled latents");
  if (config.glu) throw refuse("a gated linear encoder");
  if (config.normalize != "none") throw refuse("normalize_activations " + config.normalize);
}

// "blocks.7.hook_resid_post" -> "layers.7": the module whose output is reconstructed.
std::string hookpoint_of(const SaeConfig& config) {
  const Json* known = config.metadata.find("hookpoint");
  if (known != nullptr && known->is_string() && !known->as_string().empty()) return known->as_string();
  const std::string& name = config.transcoder ? config.site_out : config.site;
  Site site;
  try {
    site = Site::parse(name);
  } catch (const Error&) {
    site.layer = -1;
  }
  std::string layer = "layers." + std::to_string(site.layer);
  if (site.layer >= 0 && site.kind == SiteKind::kResidPost) return layer;
  if (site.layer >= 0 && site.kind == SiteKind::kMlpOut) return layer + ".mlp";
  if (site.layer >= 0 && site.kind == SiteKind::kAttnOut) return layer + ".self_attn";
  throw Error(Errc::kUnsupported, "sparsify names an SAE by the module whose output it reconstructs, and \"" + name +
                                      "\" is no module's output; expected hook_resid_post, hook_mlp_out or "
                                      "hook_attn_out of a block");
}

// Latents times their decoder row's norm, the row divided by it: what rescale_acts_by_decoder_norm computes.
void fold_decoder_norms(Mat<float> encoder, std::vector<float>& bias, Mat<float> decoder) {
  for (int64_t j = 0; j < decoder.rows(); ++j) {
    double square = 0;
    for (int64_t c = 0; c < decoder.cols(); ++c) square += static_cast<double>(decoder(j, c)) * decoder(j, c);
    const auto norm = static_cast<float>(std::sqrt(square));
    for (int64_t c = 0; c < encoder.cols(); ++c) encoder(j, c) *= norm;
    bias[static_cast<size_t>(j)] *= norm;
    for (int64_t c = 0; norm > 0 && c < decoder.cols(); ++c) decoder(j, c) /= norm;
  }
}

}  // namespace

std::string write_sparsify(const std::string& folder, const SaeSource& source, DType dtype) {
  const SaeConfig& config = source.config;
  require_expressible(config);
  const std::string hookpoint = hookpoint_of(config);
  const auto last = std::filesystem::absolute(folder + "/.").lexically_normal().parent_path().filename();
  std::string out = last == hookpoint ? folder : folder + "/" + hookpoint;
  Tensor encoder = transposed(folded_encoder(source).view()), decoder = folded_decoder(source);
  std::vector<float> bias = folded_bias(source);
  if (config.rescale_acts_by_decoder_norm) fold_decoder_norms(encoder.f32(), bias, decoder.f32());
  for (int64_t j = 0; !config.transcoder && !config.apply_b_dec_to_input && j < config.d_sae; ++j) {
    // sparsify always subtracts b_dec: (x - b_dec) W + (b + b_dec W) = x W + b
    double product = 0;
    for (int64_t c = 0; c < config.d_in; ++c) {
      product += static_cast<double>(encoder.f32()(j, c)) * source.b_dec[static_cast<size_t>(c)];
    }
    bias[static_cast<size_t>(j)] += static_cast<float>(product);
  }
  begin_folder(out, dtype);
  std::vector<std::pair<std::string, Tensor>> tensors;
  tensors.emplace_back("encoder.weight", std::move(encoder));
  tensors.emplace_back("encoder.bias", to_tensor(bias));
  tensors.emplace_back("W_dec", std::move(decoder));
  tensors.emplace_back("b_dec", to_tensor(source.b_dec));
  if (config.skip) tensors.emplace_back("W_skip", to_f32(source.w_skip));
  write_weights(out + "/sae.safetensors", tensors, dtype);
  // normalize_decoder describes training; the rows are used as they are.
  write_json_file(out + "/cfg.json",
                  Json::object({{"activation", config.kind == SaeKind::kTopK ? "topk" : "groupmax"},
                                {"expansion_factor", std::max<int64_t>(1, config.d_sae / config.d_in)},
                                {"normalize_decoder", false},
                                {"num_latents", config.d_sae},
                                {"k", config.k},
                                {"multi_topk", false},
                                {"skip_connection", config.skip},
                                {"transcode", config.transcoder},
                                {"d_in", config.d_in}}));
  return out;
}

}  // namespace saif
