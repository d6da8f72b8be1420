#include <algorithm>
#include <array>
#include <charconv>
#include <optional>

#include "base/check.h"
#include "saif/model.h"

namespace saif {
namespace {

struct SiteName {
  SiteKind kind;
  std::string_view name;  // of a block's site: what follows "blocks.L."
  bool in_block;
};

constexpr std::array kSites = {
    SiteName{SiteKind::kEmbed, "hook_embed", false},
    SiteName{SiteKind::kPosEmbed, "hook_pos_embed", false},
    SiteName{SiteKind::kResidPre, "hook_resid_pre", true},
    SiteName{SiteKind::kLn1, "ln1.hook_normalized", true},
    SiteName{SiteKind::kQ, "attn.hook_q", true},
    SiteName{SiteKind::kK, "attn.hook_k", true},
    SiteName{SiteKind::kV, "attn.hook_v", true},
    SiteName{SiteKind::kPattern, "attn.hook_pattern", true},
    SiteName{SiteKind::kZ, "attn.hook_z", true},
    SiteName{SiteKind::kAttnOut, "hook_attn_out", true},
    SiteName{SiteKind::kResidMid, "hook_resid_mid", true},
    SiteName{SiteKind::kLn2, "ln2.hook_normalized", true},
    SiteName{SiteKind::kMlpPre, "mlp.hook_pre", true},
    SiteName{SiteKind::kMlpPost, "mlp.hook_post", true},
    SiteName{SiteKind::kMlpOut, "hook_mlp_out", true},
    SiteName{SiteKind::kResidPost, "hook_resid_post", true},
    SiteName{SiteKind::kFinalNorm, "ln_final.hook_normalized", false},
    SiteName{SiteKind::kLogits, "logits", false},
};

// Levenshtein distance.
size_t edit_distance(std::string_view a, std::string_view b) {
  std::vector<size_t> row(b.size() + 1);
  for (size_t j = 0; j <= b.size(); ++j) row[j] = j;
  for (size_t i = 1; i <= a.size(); ++i) {
    size_t diagonal = std::exchange(row[0], i);
    for (size_t j = 1; j <= b.size(); ++j) {
      const size_t replaced = diagonal + (a[i - 1] == b[j - 1] ? 0 : 1);
      diagonal = std::exchange(row[j], std::min({row[j] + 1, row[j - 1] + 1, replaced}));
    }
  }
  return row[b.size()];
}

struct Split {
  int layer = -1;         // -1: no "blocks.L." prefix
  std::string_view rest;  // what follows it
};

// Of "blocks.24.hook_q": 24 and "hook_q".
Split split_layer(std::string_view name) {
  constexpr std::string_view kPrefix = "blocks.";
  if (!name.starts_with(kPrefix)) return {-1, name};
  const std::string_view tail = name.substr(kPrefix.size());
  int layer = -1;
  const auto [end, error] = std::from_chars(tail.data(), tail.data() + tail.size(), layer);
  if (error != std::errc() || layer < 0 || end == tail.data() + tail.size() || *end != '.') return {-1, name};
  return {layer, tail.substr(static_cast<size_t>(end - tail.data()) + 1)};
}

std::string full_name(const SiteName& site, int layer) {
  return site.in_block ? "blocks." + std::to_string(layer) + "." + std::string(site.name) : std::string(site.name);
}

}  // namespace

std::string Site::name() const {
  for (const SiteName& site : kSites) {
    if (site.kind == kind) return full_name(site, layer);
  }
  internal::check_failed("known site", __FILE__, __LINE__, "");
}

Site Site::parse(std::string_view name, int n_layers) {
  const auto [layer, rest] = split_layer(name);
  for (const SiteName& site : kSites) {
    if (site.name != rest || site.in_block != (layer >= 0)) continue;
    if (n_layers > 0 && layer >= n_layers) {
      throw Error(Errc::kNotFound, "site \"" + std::string(name) + "\": there is no block " + std::to_string(layer) +
                                       "; the model has " + std::to_string(n_layers) + " blocks, 0 to " +
                                       std::to_string(n_layers - 1));
    }
    return {site.kind, site.in_block ? layer : -1};
  }
  std::string nearest;
  size_t least = SIZE_MAX;
  for (const SiteName& site : kSites) {
    const std::string candidate = full_name(site, std::max(layer, 0));
    const size_t distance = edit_distance(candidate, name);
    if (distance < least) {
      least = distance;
      nearest = candidate;
    }
  }
  throw Error(Errc::kNotFound, "no site is called \"" + std::string(name) + "\"; the nearest is \"" + nearest + "\"");
}

int64_t Architecture::width(const Site& site) const {
  switch (site.kind) {
    case SiteKind::kQ:
    case SiteKind::kZ:
      return n_heads * d_head;
    case SiteKind::kK:
    case SiteKind::kV:
      return n_kv_heads * d_head;
    case SiteKind::kPattern:
      return 0;
    case SiteKind::kMlpPre:
    case SiteKind::kMlpPost:
      return d_mlp;
    case SiteKind::kLogits:
      return vocab;
    default:
      return d_model;
  }
}

bool Architecture::computes(const Site& site) const {
  const bool in_block = site.layer >= 0 && site.layer < static_cast<int>(layers.size());
  switch (site.kind) {
    case SiteKind::kPosEmbed:
      return learned_positions;
    case SiteKind::kLn1:
      return pre_norms;
    case SiteKind::kLn2:
      return pre_norms && !shared_norm;
    case SiteKind::kResidMid:
      return !parallel_block;
    case SiteKind::kMlpPre:
    case SiteKind::kMlpPost:
      return !in_block || !layers[static_cast<size_t>(site.layer)].experts;
    default:
      return true;
  }
}

int64_t Architecture::rope_context() const {
  for (const LayerSpec& layer : layers) {
    if (layer.rope.scaling == "longrope") return layer.rope.original_context;
  }
  return 0;
}

namespace {

Json rope_json(const RopeSpec& rope) {
  if (rope.rotary_dim == 0) return nullptr;
  Json json = Json::object({{"theta", rope.theta}, {"rotary_dim", rope.rotary_dim}, {"scaling", rope.scaling}});
  if (rope.scaling != "none") json["factor"] = rope.factor;
  if (rope.scaling == "llama3") {
    json["low_freq_factor"] = rope.low_freq_factor;
    json["high_freq_factor"] = rope.high_freq_factor;
  }
  if (rope.scaling == "yarn") {
    json["beta_fast"] = rope.beta_fast;
    json["beta_slow"] = rope.beta_slow;
    json["truncate"] = rope.truncate;
  }
  if (rope.original_context > 0) json["original_context"] = rope.original_context;
  if (rope.attention_factor != 1.0) json["attention_factor"] = rope.attention_factor;
  if (!rope.frequency_divisors.empty()) json["frequency_divisors"] = rope.frequency_divisors;
  if (!rope.long_divisors.empty()) json["long_divisors"] = rope.long_divisors;
  return json;
}

}  // namespace

Json Architecture::to_json() const {
  Json json = Json::object({{"family", family},
                            {"d_model", d_model},
                            {"n_layers", n_layers},
                            {"n_heads", n_heads},
                            {"n_kv_heads", n_kv_heads},
                            {"d_head", d_head},
                            {"d_mlp", d_mlp},
                            {"vocab", vocab},
                            {"context", context},
                            {"norm", norm == NormKind::kRms ? "rms" : "layer"},
                            {"norm_eps", norm_eps},
                            {"norm_offset", norm_offset},
                            {"pre_norms", pre_norms},
                            {"post_norms", post_norms},
                            {"parallel_block", parallel_block},
                            {"shared_norm", shared_norm},
                            {"gated_mlp", gated_mlp},
                            {"embed_scale", embed_scale},
                            {"residual_scale", residual_scale},
                            {"logit_scale", logit_scale},
                            {"attention_softcap", attention_softcap},
                            {"logit_softcap", logit_softcap},
                            {"tied_embeddings", tied_embeddings},
                            {"activation", activation}});
  Json blocks = Json::array();
  for (const LayerSpec& layer : layers) {
    Json block = Json::object(
        {{"window", layer.window}, {"rope", rope_json(layer.rope)}, {"attention_scale", layer.attention_scale}});
    if (n_experts > 0) block["experts"] = layer.experts;
    blocks.push_back(std::move(block));
  }
  if (n_experts > 0) {
    json["n_experts"] = n_experts;
    json["experts_per_token"] = experts_per_token;
    json["d_expert"] = d_expert;
  }
  json["layers"] = std::move(blocks);
  return json;
}

}  // namespace saif
