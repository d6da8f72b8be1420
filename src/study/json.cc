// Study records as JSON and back: what --json prints and what the study folder stores.
#include "study/json.h"

namespace saif {

Json interval_json(const Interval& i) { return Json(std::vector<double>{i.low, i.high}); }

Json share_json(const Share& share, const char* value_name) {
  return Json::object({{value_name, share.value()}, {"n", share.n}, {"ci", interval_json(share.ci())}});
}

Json tokens_json(const std::vector<TokenWeight>& tokens) {
  Json out = Json::array();
  for (const TokenWeight& t : tokens) out.push_back(Json::object({{"token", t.token}, {"logit", t.logit}}));
  return out;
}

namespace {

std::vector<TokenWeight> tokens_from(const Json& json) {
  std::vector<TokenWeight> out;
  for (const Json& t : json.items()) out.push_back({t.at("token").as_string(), t.at("logit").as_double()});
  return out;
}

std::vector<float> floats_from(const Json& json) {
  std::vector<float> out;
  for (const Json& x : json.items()) out.push_back(static_cast<float>(x.as_double()));
  return out;
}

// Visits the numbers of a LatentStats under their names, const or not.
template <typename Stats, typename Visit>
void numbers(Stats& s, const Visit& visit) {
  visit("sensitivity", s.sensitivity);
  visit("rate_pos", s.rate_pos);
  visit("rate_neg", s.rate_neg);
  visit("rate_unrelated", s.rate_unrelated);
  visit("sensitivity_unrelated", s.sensitivity_unrelated);
  visit("specificity", s.specificity);
  visit("mean", s.mean);
  visit("std", s.std);
  visit("mean_active", s.mean_active);
  visit("std_active", s.std_active);
  visit("mean_neg", s.mean_neg);
  visit("density", s.density);
  visit("score", s.score);
  visit("q_value", s.q_value);
}

}  // namespace

Json LatentStats::to_json() const {
  Json out = Json::object({{"index", index}});
  numbers(*this, [&](const char* name, double value) { out[name] = value; });
  out["ci"] = interval_json(ci);
  out["flags"] = Json(flags);
  out["top"] = tokens_json(top);
  out["bottom"] = tokens_json(bottom);
  return out;
}

LatentStats LatentStats::from_json(const Json& json) {
  LatentStats out;
  out.index = json.at("index").as<int32_t>();
  numbers(out, [&](const char* name, double& value) { value = json.at(name).as_double(); });
  out.ci = {json.at("ci")[0].as_double(), json.at("ci")[1].as_double()};
  for (const Json& f : json.at("flags").items()) out.flags.push_back(f.as_string());
  out.top = tokens_from(json.at("top"));
  out.bottom = tokens_from(json.at("bottom"));
  return out;
}

namespace {
Json or_null(double share) { return share >= 0 ? Json(share) : Json(); }
}  // namespace

Json Discovery::to_json() const {
  Json list = Json::array();
  for (const LatentStats& s : latents) list.push_back(s.to_json());
  return Json::object({{"task", task},
                       {"site", site},
                       {"placement", placement},
                       {"sae", sae_path},
                       {"sae_sha256", sae_sha256},
                       {"rank", rank},
                       {"stats", stats},
                       {"contents", contents},
                       {"variants", variants},
                       {"pairs", pairs},
                       {"stability", Json::object({{"contents", or_null(stability_contents)},
                                                   {"wordings", or_null(stability_wordings)}})},
                       {"latents", list},
                       {"diffmean", Json(diffmean)},
                       {"mean_neg", Json(mean_neg)},
                       {"row_scale", row_scale},
                       {"firing_rate", Json(firing_rate)}});
}

Discovery Discovery::from_json(const Json& json) {
  Discovery out;
  out.task = json.at("task").as_string();
  out.site = json.at("site").as_string();
  out.placement = json.at("placement").as_string();
  out.sae_path = json.at("sae").as_string();
  out.sae_sha256 = json.at("sae_sha256").as_string();
  out.rank = json.at("rank").as_string();
  out.stats = json.at("stats").as_string();
  out.contents = json.at("contents").as_int();
  out.variants = json.at("variants").as_int();
  out.pairs = json.at("pairs").as_int();
  for (const Json& s : json.at("latents").items()) out.latents.push_back(LatentStats::from_json(s));
  if (const Json* stability = json.find("stability")) {
    const auto share = [](const Json& j) { return j.is_null() ? -1.0 : j.as_double(); };
    out.stability_contents = share(stability->at("contents"));
    out.stability_wordings = share(stability->at("wordings"));
  }
  out.diffmean = floats_from(json.at("diffmean"));
  out.mean_neg = floats_from(json.at("mean_neg"));
  if (const Json* scale = json.find("row_scale")) out.row_scale = scale->as_double();
  out.firing_rate = floats_from(json.at("firing_rate"));
  return out;
}

Json PairedTest::to_json() const {
  return Json::object({{"n", n},
                       {"only_saif", only_first},
                       {"only_this", only_second},
                       {"mcnemar_p", p},
                       {"difference", difference},
                       {"difference_ci", interval_json(ci)}});
}

Json MethodResult::to_json() const {
  Json out = Json::object({{"method", recipe.method},
                           {"layer", recipe.layer},
                           {"k", recipe.k},
                           {"beta", recipe.beta},
                           {"scale", recipe.scale},
                           {"rank", recipe.rank},
                           {"decay", recipe.decay},
                           {"op", recipe.op},
                           {"norm_preserving", recipe.norm_preserving},
                           {"placement", recipe.placement},
                           {"site", site},
                           {"n", strict.n}});
  const auto share = [&](const std::string& name, const Share& s) {
    out[name] = s.value();
    out[name + "_hits"] = s.hits;
    out[name + "_ci"] = interval_json(s.ci());
  };
  share("checker", checker);
  share("strict", strict);
  share("loose", loose);
  out["quality"] = quality;
  out["perplexity"] = perplexity > 0 ? Json(perplexity) : Json();
  out["distinct2"] = distinct2;
  out["repetition"] = repetition;
  out["empty"] = empty;
  out["vector_norm"] = vector_norm;
  return out;
}

}  // namespace saif
