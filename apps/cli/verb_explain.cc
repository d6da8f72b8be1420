#include <algorithm>
#include <cmath>

#include "explaining.h"
#include "verbs.h"

namespace saif::cli {
namespace {

struct Options {
  std::string study, task, latent, corpus, placement = "post", dtype = "auto";
  int k = 10;
  ExplainOptions explain;
};

// "24:1234" -> layer and latent.
std::pair<int, int> parse_latent(const std::string& text) {
  const size_t colon = text.find(':');
  if (colon == std::string::npos)
    throw UsageError("--latent is \"" + text + "\"; expected LAYER:LATENT, such as 24:1234");
  return {parse_ids(text.substr(0, colon), "--latent").front(), parse_ids(text.substr(colon + 1), "--latent").front()};
}

std::string join(const std::vector<TokenWeight>& tokens) {
  std::string out;
  for (const TokenWeight& t : tokens) out += (out.empty() ? "" : " ") + Json(t.token).dump();
  return out;
}

using Wanted = std::vector<std::pair<const Discovery*, std::vector<int32_t>>>;

Wanted choose_latents(const std::vector<Discovery>& discoveries, const Options& o) {
  Wanted wanted;
  for (const Discovery& d : discoveries) {
    if (d.placement != o.placement) continue;
    std::vector<int32_t> chosen;
    if (o.latent.empty()) {
      for (size_t i = 0; i < std::min(d.latents.size(), static_cast<size_t>(std::max(o.k, 0))); ++i)
        chosen.push_back(d.latents[i].index);
    } else {
      const auto [layer, index] = parse_latent(o.latent);
      if (layer_of(d.site) != layer) continue;
      chosen.push_back(index);
    }
    if (!chosen.empty()) wanted.emplace_back(&d, std::move(chosen));
  }
  return wanted;
}

LatentStats stats_of(const Discovery& d, int32_t index) {
  for (const LatentStats& s : d.latents) {
    if (s.index == index) return s;
  }
  LatentStats none;
  none.index = index;
  return none;
}

// One bar a bin, its height by the logarithm of the count.
std::string bars(const LatentExplanation& e) {
  constexpr const char* kBars[] = {" ", "▁", "▂", "▃", "▄", "▅", "▆", "▇", "█"};
  int64_t most = 0;
  for (const auto& b : e.histogram) most = std::max(most, b.tokens);
  std::string out;
  for (const auto& b : e.histogram) {
    const double height =
        b.tokens == 0 ? 0.0 : 1 + 7 * std::log1p(static_cast<double>(b.tokens)) / std::log1p(static_cast<double>(most));
    out += kBars[static_cast<size_t>(std::clamp(height, 0.0, 8.0))];
  }
  return out;
}

// The text around the peak on one line, the peak between marks.
std::string context_line(const LatentExplanation::Context& c) {
  std::string out;
  for (size_t t = 0; t < c.tokens.size(); ++t) {
    std::string token = c.tokens[t];
    for (size_t at = 0; (at = token.find('\n', at)) != std::string::npos; at += 3) token.replace(at, 1, "↵");
    out += t == c.peak ? "«" + token + "»" : token;
  }
  return out;
}

std::string neighbours(const std::vector<LatentExplanation::Neighbour>& list) {
  std::string out;
  for (const auto& n : list) {
    out += (out.empty() ? "" : ", ") + std::to_string(n.index) + " (" + format_number(n.value, 2) + ")";
  }
  return out.empty() ? "none" : out;
}

void print_explanation(const LatentStats& stats, const LatentExplanation& e) {
  print_line(e.site + " latent " + std::to_string(e.index) + ": C " + format_number(stats.sensitivity, 2) +
             ", unrelated " + format_number(stats.sensitivity_unrelated, 2) + ", mean " + format_number(stats.mean, 1) +
             ", density " + format_number(stats.density, 4) + "\n  raises  " + join(e.lens.top) + "\n  lowers  " +
             join(e.lens.bottom));
  print_line("  fires   on " + std::to_string(e.density.hits) + " of " + std::to_string(e.density.n) + " tokens, " +
             share_text(e.density, 4) + ", up to " + format_number(e.maximum, 1) + "  |" + bars(e) + "|");
  for (const auto& c : e.contexts) print_line("  " + format_number(c.activations[c.peak], 1) + "\t" + context_line(c));
  print_line("  near    " + neighbours(e.decoder) + " by direction; " + neighbours(e.coactive) + " by firing");
  if (e.words.empty()) return print_line("");
  print_line("  words   cosine " + format_number(e.proximity, 3) + " with " + std::to_string(e.words.size()) +
             " words, p " + format_number(e.p_latents, 3) + " against random latents, " + format_number(e.p_words, 3) +
             " against random words; nearest " + Json(e.nearest_word).dump() + " " +
             format_number(e.nearest_cosine, 2) + "\n");
}

void explain(const Context& context, Options& o) {
  const OpenStudy open = open_study(o.study, o.dtype);
  const std::string task = choose_task(*open.study, o.task);
  const std::vector<Discovery> discoveries = open.study->discoveries(task);
  const Wanted wanted = choose_latents(discoveries, o);
  if (wanted.empty()) throw Error(Errc::kNotFound, o.study + ": no such latent in the study of " + task);
  const auto explained = explain_and_keep(context, open, task, wanted, o.corpus, o.explain);
  Json list = Json::array();
  for (size_t s = 0; s < wanted.size(); ++s) {
    for (const LatentExplanation& e : explained[s]) {
      const LatentStats stats = stats_of(*wanted[s].first, e.index);
      Json entry = stats.to_json();
      const Json more = e.to_json();
      for (const auto& [key, value] : more.members()) entry[key] = value;
      list.push_back(entry);
      if (!context.json) print_explanation(stats, e);
    }
  }
  if (context.json) print_json(Json::object({{"latents", list}}));
}

}  // namespace

void add_explain(CLI::App& root, Context& context) {
  auto o = std::make_shared<Options>();
  CLI::App* verb =
      add_verb(root, context, "explain",
               "What a study's latents stand for: logit lens, texts, neighbours, words; kept for the report");
  verb->add_option("study", o->study, "the study folder")->required();
  verb->add_option("--task", o->task, "the task, when the study has several");
  verb->add_option("--latent", o->latent, "one latent, LAYER:LATENT");
  verb->add_option("--placement", o->placement, "post or pre")->capture_default_str();
  verb->add_option("--k", o->k, "latents per layer")->capture_default_str();
  verb->add_option("--corpus", o->corpus,
                   "texts to look at the latents in, as for saif sae eval; default: prompts of the task");
  add_options(verb, o->explain);
  add_dtype_flag(verb, o->dtype);
  verb->callback([o, &context] { explain(context, *o); });
}

}  // namespace saif::cli
