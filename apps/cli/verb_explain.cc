#include <algorithm>

#include "study_tools.h"
#include "verbs.h"

namespace saif::cli {
namespace {

struct Options {
  std::string study, task, latent, placement = "post", dtype = "auto";
  int k = 10, tokens = 10;
};

// "24:1234" -> layer and latent.
std::pair<int, int> parse_latent(const std::string& text) {
  const size_t colon = text.find(':');
  if (colon == std::string::npos)
    throw UsageError("--latent is \"" + text + "\"; expected LAYER:LATENT, such as 24:1234");
  return {parse_ids(text.substr(0, colon)).front(), parse_ids(text.substr(colon + 1)).front()};
}

std::string join(const std::vector<TokenWeight>& tokens) {
  std::string out;
  for (const TokenWeight& t : tokens) out += (out.empty() ? "" : " ") + Json(t.token).dump();
  return out;
}

void explain(const Context& context, const Options& o) {
  const OpenStudy open = open_study(o.study, o.dtype);
  const std::string task = choose_task(*open.study, o.task);
  std::vector<std::pair<const Sae*, LatentStats>> chosen;
  for (const Discovery& d : open.study->discoveries(task)) {
    if (d.placement != o.placement) continue;
    const Sae& sae = sae_of(open, d);
    if (o.latent.empty()) {
      for (size_t i = 0; i < std::min(d.latents.size(), static_cast<size_t>(o.k)); ++i)
        chosen.emplace_back(&sae, d.latents[i]);
      continue;
    }
    const auto [layer, index] = parse_latent(o.latent);
    if (layer_of(d.site) != layer) continue;
    if (index < 0 || index >= sae.config().d_sae) {
      throw Error(Errc::kInvalidArgument, "latent " + std::to_string(index) + " does not exist; the SAE at layer " +
                                              std::to_string(layer) + " has " + std::to_string(sae.config().d_sae));
    }
    LatentStats stats;
    stats.index = index;
    for (const LatentStats& s : d.latents) {
      if (s.index == index) stats = s;
    }
    chosen.emplace_back(&sae, stats);
  }
  if (chosen.empty()) throw Error(Errc::kNotFound, o.study + ": no such latent in the study of " + task);
  Json list = Json::array();
  for (auto& [sae, stats] : chosen) {
    const Tensor row = sae->decoder_rows(std::vector<int32_t>{stats.index});
    const LogitLens lens = logit_lens(*open.loaded.engine, row.f32(), o.tokens).front();
    stats.top = lens.top;
    stats.bottom = lens.bottom;
    Json entry = Json::object({{"site", sae->config().site}});
    const Json numbers = stats.to_json();
    for (const auto& [key, value] : numbers.members()) entry[key] = value;
    list.push_back(entry);
    if (context.json) continue;
    print_line(sae->config().site + " latent " + std::to_string(stats.index) + ": C " +
               format_number(stats.sensitivity, 2) + ", unrelated " + format_number(stats.sensitivity_unrelated, 2) +
               ", mean " + format_number(stats.mean, 1) + ", density " + format_number(stats.density, 4) +
               "\n  raises " + join(stats.top) + "\n  lowers " + join(stats.bottom));
  }
  if (context.json) print_json(Json::object({{"latents", list}}));
}

}  // namespace

void add_explain(CLI::App& root, Context& context) {
  auto o = std::make_shared<Options>();
  CLI::App* verb = add_verb(root, context, "explain", "What a study's latents write: logit lens and statistics");
  verb->add_option("study", o->study, "the study folder")->required();
  verb->add_option("--task", o->task, "the task, when the study has several");
  verb->add_option("--latent", o->latent, "one latent, LAYER:LATENT");
  verb->add_option("--placement", o->placement, "post or pre")->capture_default_str();
  verb->add_option("--k", o->k, "latents per layer")->capture_default_str();
  verb->add_option("--tokens", o->tokens, "tokens of the logit lens")->capture_default_str();
  add_dtype_flag(verb, o->dtype);
  verb->callback([o, &context] { explain(context, *o); });
}

}  // namespace saif::cli
