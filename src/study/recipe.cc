// Vectors of the methods and of their controls (docs/method.md, "Vectors").
#include <algorithm>
#include <cmath>
#include <cstdio>
#include <memory>
#include <set>

#include "base/hash.h"
#include "base/rng.h"
#include "saif/options.h"
#include "saif/study.h"
#include "tensor/rows.h"

namespace saif {
namespace {

const std::vector<std::string> kMethods = {"none", "prompt", "saif", "diffmean", "random", "random_latents"};

std::string short_number(double x) {
  char buffer[32];
  std::snprintf(buffer, sizeof buffer, "%g", x);
  return buffer;
}

struct Choice {
  std::vector<int32_t> latents;
  std::vector<double> strengths;  // alpha_j
};

Choice choose(const Discovery& discovery, const Sae& sae, const Recipe& recipe) {
  if (recipe.k < 1 || recipe.k > sae.config().d_sae) {
    throw Error(Errc::kInvalidArgument, "k is " + std::to_string(recipe.k) + "; expected 1 to " +
                                            std::to_string(sae.config().d_sae) + ", the latents of " + sae.path());
  }
  Discovery ranked = discovery;
  rank_latents(ranked, recipe.rank);
  if (static_cast<size_t>(recipe.k) > ranked.latents.size()) {
    throw Error(Errc::kInvalidArgument, "k is " + std::to_string(recipe.k) + ", but the study keeps " +
                                            std::to_string(ranked.latents.size()) +
                                            " latents here; run find with a larger --keep");
  }
  Choice out;
  for (size_t i = 0; i < static_cast<size_t>(recipe.k); ++i) {
    const LatentStats& s = ranked.latents[i];
    const bool active = discovery.stats == "active";
    out.latents.push_back(s.index);
    out.strengths.push_back((active ? s.mean_active : s.mean) + recipe.beta * (active ? s.std_active : s.std));
  }
  return out;
}

// In the scale of the residual stream: where the SAE normalises its input, `row_scale` is what undoing that multiplies.
std::vector<double> decode(const Sae& sae, const Choice& choice, double row_scale) {
  const Tensor rows = sae.decoder_rows(choice.latents);
  std::vector<double> v(static_cast<size_t>(sae.config().d_out), 0.0);
  for (size_t i = 0; i < choice.latents.size(); ++i) {
    const float* row = rows.f32().row(static_cast<int64_t>(i));
    for (size_t c = 0; c < v.size(); ++c) v[c] += row_scale * choice.strengths[i] * row[c];
  }
  return v;
}

// The random numbers of a control: others for every task, site and method.
Rng control_numbers(const Discovery& discovery, const Recipe& recipe) {
  const std::string name = recipe.method + " " + discovery.task + " " + discovery.site + " " + discovery.placement;
  return Rng(static_cast<uint64_t>(recipe.seed),
             std::stoull(sha256_hex(std::string_view(name)).substr(0, 16), nullptr, 16));
}

// For each chosen latent another one that fires nearly as often with the instruction, drawn among the 20 nearest.
std::vector<int32_t> random_peers(const Discovery& discovery, const std::vector<int32_t>& chosen, Rng rng) {
  std::set<int32_t> taken(chosen.begin(), chosen.end());
  std::vector<int32_t> out;
  for (const int32_t j : chosen) {
    const float rate = discovery.firing_rate[static_cast<size_t>(j)];
    std::vector<std::pair<float, int32_t>> near;
    for (size_t i = 0; i < discovery.firing_rate.size(); ++i) {
      const auto index = static_cast<int32_t>(i);
      if (!taken.contains(index)) near.emplace_back(std::abs(discovery.firing_rate[i] - rate), index);
    }
    if (near.empty())
      throw Error(Errc::kInvalidArgument, "the dictionary is too small for a control of random latents");
    const size_t n = std::min<size_t>(20, near.size());
    std::partial_sort(near.begin(), near.begin() + static_cast<std::ptrdiff_t>(n), near.end());
    out.push_back(near[rng.below(n)].second);
    taken.insert(out.back());
  }
  return out;
}

std::vector<double> random_direction(size_t d, Rng rng) {
  std::vector<double> v(d);
  for (double& x : v) x = rng.normal();
  return v;
}

void check_recipe(const Recipe& recipe) {
  if (std::find(kMethods.begin(), kMethods.end(), recipe.method) == kMethods.end()) {
    std::string message = "method \"" + recipe.method + "\" is unknown; expected one of";
    for (const std::string& m : kMethods) message += " " + m;
    throw Error(Errc::kInvalidArgument, message);
  }
  if (recipe.method == "none" || recipe.method == "prompt") {
    throw Error(Errc::kInvalidArgument, "method " + recipe.method +
                                            " has no vector; expected saif, diffmean, random or "
                                            "random_latents");
  }
  for (const auto& [name, value] : {std::pair("beta", recipe.beta), {"scale", recipe.scale}, {"decay", recipe.decay}}) {
    if (!std::isfinite(value)) throw Error(Errc::kInvalidArgument, std::string(name) + " is not a finite number");
  }
  if (recipe.decay < 0) {
    throw Error(Errc::kInvalidArgument, "decay is " + short_number(recipe.decay) + "; expected 0 or more");
  }
}

}  // namespace

std::string label_of(const Recipe& r) {
  if (r.method == "none") return "none";
  if (r.method == "prompt") return "prompt " + r.placement;
  std::string out = r.method + " L" + std::to_string(r.layer);
  if (r.method != "diffmean") out += " k" + std::to_string(r.k) + " b" + short_number(r.beta);
  out += " x" + short_number(r.scale);
  if (r.rank != "specific_mean" && r.method != "diffmean") out += " " + r.rank;
  if (r.decay > 0) out += " decay" + short_number(r.decay);
  if (r.op != "add") out += " " + r.op;
  if (r.norm_preserving) out += " norm";
  if (r.placement != "post") out += " " + r.placement;
  return out;
}

SteeringVector build_vector(const Discovery& discovery, const Sae& sae, const Recipe& recipe) {
  check_recipe(recipe);
  std::vector<double> v;
  Json latents = Json::array(), strengths = Json::array();
  if (recipe.method == "diffmean") {
    v.assign(discovery.diffmean.begin(), discovery.diffmean.end());
  } else {
    Choice choice = choose(discovery, sae, recipe);
    v = decode(sae, choice, discovery.row_scale);
    const double norm = norm_of(v);
    if (recipe.method == "random_latents") {
      choice.latents = random_peers(discovery, choice.latents, control_numbers(discovery, recipe));
      v = decode(sae, choice, discovery.row_scale);
    } else if (recipe.method == "random") {
      v = random_direction(v.size(), control_numbers(discovery, recipe));
    }
    const double now = norm_of(v);
    if (now > 0) {
      for (double& x : v) x *= norm / now;  // controls have the dose of the vector they control
    }
    if (recipe.method != "random") {
      latents = Json(choice.latents);
      strengths = Json(choice.strengths);
    }
  }
  SteeringVector out;
  out.site = discovery.site;
  out.vector.assign(v.begin(), v.end());
  out.scale = recipe.scale;
  out.decay = recipe.decay;
  out.op = parse_edit_op(recipe.op, "the recipe's op");
  out.norm_preserving = recipe.norm_preserving;
  out.origin = Json::object({{"task", discovery.task},
                             {"recipe", options_to_json(recipe)},
                             {"placement", discovery.placement},
                             {"latents", latents},
                             {"strengths", strengths},
                             {"sae_sha256", discovery.sae_sha256}});
  if (!std::isfinite(out.norm())) {
    throw Error(Errc::kInvalidArgument, "the vector is not finite: beta is " + short_number(recipe.beta));
  }
  if (out.norm() <= 0) {
    throw Error(Errc::kRefused, "the " + recipe.method + " vector of task " + discovery.task + " at " + discovery.site +
                                    " is zero: it would change nothing");
  }
  return out;
}

Vectors build_vectors(const Discovery& discovery, const Sae& sae, const Recipe& recipe, size_t contents) {
  if (recipe.method == "none" || recipe.method == "prompt") return {};
  if (recipe.draws < 0) {
    throw Error(Errc::kInvalidArgument,
                "draws is " + std::to_string(recipe.draws) + "; expected 1 or more, or 0 for one per prompt");
  }
  const bool random = recipe.method == "random" || recipe.method == "random_latents";
  const size_t draws = recipe.draws == 0 ? contents : std::min(contents, static_cast<size_t>(recipe.draws));
  Vectors out;
  Recipe draw = recipe;
  for (size_t i = 0; i < (random ? draws : 1); ++i, ++draw.seed) {
    out.push_back(std::make_shared<SteeringVector>(build_vector(discovery, sae, draw)));
  }
  return out;
}

}  // namespace saif
