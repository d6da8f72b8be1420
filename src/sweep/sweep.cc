// Which setting steers best: a grid on the tuning split, then the winner once on the test split.
#include "saif/sweep.h"

#include <algorithm>
#include <cmath>
#include <map>
#include <set>

#include "base/check.h"
#include "base/rng.h"
#include "saif/options.h"

namespace saif {
namespace {

int layer_of(const std::string& site) { return Site::parse(site).layer; }

// What a sweep of one task needs at hand.
class Runner {
 public:
  Runner(Study& study, Engine& engine, std::span<const std::shared_ptr<const Sae>> saes, const Task& task,
         const EvalOptions& eval, const Control& control)
      : study_(study), engine_(engine), task_(task), eval_(eval), control_(control) {
    for (Discovery& d : study.discoveries(task.name)) {
      const auto sae =
          std::find_if(saes.begin(), saes.end(), [&](const auto& s) { return s->sha256() == d.sae_sha256; });
      if (sae == saes.end()) continue;
      const Key key(layer_of(d.site), d.placement);
      const auto [at, added] = sources_.emplace(key, Source{std::move(d), *sae});
      if (!added) {
        throw Error(Errc::kInvalidArgument, study.folder() + ": two SAEs of task " + task.name + " at layer " +
                                                std::to_string(key.first) + ", one at " + at->second.discovery.site +
                                                "; a setting names a layer, so make a study for each");
      }
    }
    if (sources_.empty()) {
      throw Error(Errc::kNotFound, study.folder() + ": holds no discovery of task " + task.name +
                                       " for these SAEs; run saif find first");
    }
  }

  std::vector<int> layers() const {
    std::set<int> out;
    for (const auto& [key, source] : sources_) out.insert(key.first);
    return {out.begin(), out.end()};
  }

  // All recipes over the contents; those already in the study are read from it. Answers of the others share one call.
  std::vector<Study::CellRow> run(std::span<const Recipe> recipes, std::span<const Content> contents,
                                  const std::string& split) {
    std::vector<CellRequest> requests;
    for (const Recipe& recipe : recipes) requests.push_back({recipe, vectors_of(recipe, contents.size())});
    std::vector<Study::CellRow> out;
    for (CellDone& cell : run_cells(study_, engine_, task_, requests, contents, split, eval_, control_)) {
      if (counted_.insert(cell.row.key).second) ++(cell.computed ? computed : reused);  // stages meet earlier cells
      out.push_back(std::move(cell.row));
    }
    return out;
  }

  int64_t computed = 0, reused = 0;

 private:
  using Key = std::pair<int, std::string>;
  struct Source {
    Discovery discovery;
    std::shared_ptr<const Sae> sae;
  };

  Vectors vectors_of(const Recipe& recipe, size_t contents) const {
    const auto found = sources_.find({recipe.layer, recipe.placement});
    if (found != sources_.end()) return build_vectors(found->second.discovery, *found->second.sae, recipe, contents);
    std::string message = study_.folder() + ": no discovery of task " + task_.name + " at layer " +
                          std::to_string(recipe.layer) + " (placement " + recipe.placement + "); the study has layers";
    for (const int layer : layers()) message += " " + std::to_string(layer);
    throw Error(Errc::kNotFound, message);
  }

  Study& study_;
  Engine& engine_;
  const Task& task_;
  EvalOptions eval_;
  const Control& control_;
  std::map<Key, Source> sources_;
  std::set<std::string> counted_;
};

using Axis = std::pair<std::string, std::vector<Json>>;

template <typename T>
std::vector<Json> as_json(const std::vector<T>& values) {
  return {values.begin(), values.end()};
}

// The first four (three for diffmean) depend on each other most and are searched together.
size_t joint_axes(const SweepOptions& o) { return o.method == "diffmean" ? 3 : 4; }

std::vector<Axis> axes_of(const SweepOptions& o, const std::vector<int>& layers) {
  std::vector<Axis> axes = {{"layer", as_json(layers)}, {"scale", as_json(o.scale)}, {"decay", as_json(o.decay)}};
  if (o.method != "diffmean") {
    axes.push_back({"k", as_json(o.k)});
    axes.push_back({"rank", as_json(o.rank)});
    axes.push_back({"beta", as_json(o.beta)});
  }
  axes.push_back({"op", as_json(o.op)});
  axes.push_back({"placement", as_json(o.placement)});
  if (o.norm_preserving) axes.push_back({"norm-preserving", {Json(false), Json(true)}});
  for (const Axis& axis : axes) {
    if (axis.second.empty()) throw Error(Errc::kInvalidArgument, "no value to try for " + axis.first + "; give one");
  }
  return axes;
}

// Strengths around the best so far, for the rounds after the first.
Axis around(double scale) {
  Axis axis = {"scale", {}};
  for (const double factor : {0.8, 0.9, 1.0, 1.1, 1.25}) {
    axis.second.emplace_back(std::round(scale * factor * 1000) / 1000);
  }
  return axis;
}

Recipe with(const Recipe& recipe, const std::string& axis, const Json& value) {
  Json json = options_to_json(recipe);
  json[axis] = value;
  return options_from_json<Recipe>(json, "recipe");
}

std::vector<Recipe> product(const std::vector<Recipe>& recipes, const Axis& axis) {
  std::vector<Recipe> out;
  for (const Recipe& r : recipes) {
    for (const Json& value : axis.second) out.push_back(with(r, axis.first, value));
  }
  return out;
}

// `start` with a random value on every axis of `axes`; settings drawn twice are dropped.
std::vector<Recipe> draw(const Recipe& start, std::span<const Axis> axes, const SweepOptions& o) {
  Rng rng(static_cast<uint64_t>(o.seed), 0);
  std::vector<Recipe> out;
  std::set<std::string> seen;
  for (int i = 0; i < o.trials; ++i) {
    Recipe recipe = start;
    for (const Axis& axis : axes) recipe = with(recipe, axis.first, axis.second[rng.below(axis.second.size())]);
    if (seen.insert(options_to_json(recipe).dump()).second) out.push_back(recipe);
  }
  return out;
}

const MethodResult& best_of(const std::vector<Study::CellRow>& cells) {
  SAIF_CHECK(!cells.empty(), "the best of no cells");
  return std::min_element(cells.begin(), cells.end(),
                          [](const auto& a, const auto& b) { return better(a.result, b.result); })
      ->result;
}

void check_options(const SweepOptions& o) {
  if (o.order != "coordinate" && o.order != "full" && o.order != "random") {
    throw Error(Errc::kInvalidArgument, "order \"" + o.order + "\" is unknown; expected coordinate, random or full");
  }
  if (o.trials < 1) throw Error(Errc::kInvalidArgument, "trials is " + std::to_string(o.trials) + "; at least 1");
  if (o.contents < 0) {
    throw Error(Errc::kInvalidArgument, "contents is " + std::to_string(o.contents) + "; at least 1, or 0 for all");
  }
  if (o.rounds < 1) throw Error(Errc::kInvalidArgument, "rounds is " + std::to_string(o.rounds) + "; at least 1");
  if (o.method != "saif" && o.method != "diffmean") {
    throw Error(Errc::kInvalidArgument, "method \"" + o.method + "\" cannot be swept; expected saif or diffmean");
  }
}

// The cells of a search: those run on all of its contents compete, the others were screened out.
struct Cells {
  std::vector<Study::CellRow> finished, screened;
  std::set<std::string> seen;
};

void run_stage(Runner& runner, const SweepOptions& o, std::vector<Recipe> recipes, std::span<const Content> contents,
               Cells& cells) {
  constexpr size_t kSmall = 12;  // stages of fewer cells are not screened
  const auto collect = [&](std::vector<Study::CellRow>& to, std::span<Study::CellRow> rows) {
    for (Study::CellRow& row : rows) {
      if (cells.seen.insert(row.key).second) to.push_back(std::move(row));
    }
  };
  if (o.screen > 0 && static_cast<size_t>(o.screen) < contents.size() && recipes.size() > kSmall) {
    auto rows = runner.run(recipes, contents.first(static_cast<size_t>(o.screen)), "tuning");
    std::sort(rows.begin(), rows.end(), [](const auto& a, const auto& b) { return better(a.result, b.result); });
    const size_t kept = std::max(kSmall / 2, recipes.size() / 5);
    recipes.clear();
    for (size_t i = 0; i < kept; ++i) recipes.push_back(rows[i].result.recipe);
    collect(cells.screened, std::span(rows).subspan(kept));
  }
  auto rows = runner.run(recipes, contents, "tuning");
  collect(cells.finished, rows);
}

// Every cell of the tuning grid, in the order in which they were run.
Cells search(Runner& runner, const SweepOptions& o, std::span<const Content> contents) {
  const std::vector<int> layers = o.layer.empty() ? runner.layers() : o.layer;
  const std::vector<Axis> axes = axes_of(o, layers);
  Recipe start;
  start.method = o.method;
  for (const Axis& axis : axes) start = with(start, axis.first, axis.second[axis.second.size() / 2]);
  Cells cells;
  const auto stage = [&](const std::vector<Recipe>& recipes) { run_stage(runner, o, recipes, contents, cells); };
  const auto best = [&] { return best_of(cells.finished).recipe; };
  if (o.order == "full") {
    std::vector<Recipe> grid = {start};
    for (const Axis& axis : axes) grid = product(grid, axis);
    stage(grid);
    return cells;
  }
  // Edit, placement and norm are not drawn, and tried last.
  const size_t late = o.norm_preserving ? 3 : 2;
  start.op = o.op.front();
  start.placement = o.placement.front();
  start.norm_preserving = false;
  for (int round = 0; round < o.rounds; ++round) {
    if (round == 0 && o.order == "random") {
      stage(draw(start, std::span(axes).first(axes.size() - late), o));
    } else if (round == 0) {
      std::vector<Recipe> grid = {start};
      for (size_t a = 0; a < joint_axes(o); ++a) grid = product(grid, axes[a]);
      stage(grid);
    } else {
      stage(product(product({best()}, around(best().scale)), axes[2]));
      stage(product({best()}, axes[0]));
      if (joint_axes(o) > 3) stage(product({best()}, axes[3]));
    }
    if (round == 0 && o.order == "random") continue;
    for (size_t a = joint_axes(o); a < axes.size(); ++a) stage(product({best()}, axes[a]));
  }
  return cells;
}

}  // namespace

Json SweepResult::to_json() const {
  Json list = Json::array();
  for (const Study::CellRow& row : cells) list.push_back(row.result.to_json());
  return Json::object({{"cells", list},
                       {"best", Json::object({{"recipe", options_to_json(best)},
                                              {"tuning", best_tuning.to_json()},
                                              {"test", best_test.to_json()}})},
                       {"computed", computed},
                       {"reused", reused}});
}

SweepResult sweep(Study& study, Engine& engine, std::span<const std::shared_ptr<const Sae>> saes, const Task& task,
                  std::span<const Content> contents, const SweepOptions& options, const EvalOptions& eval,
                  const Control& control) {
  check_options(options);
  const std::vector<Content> tuning = of_split(contents, Split::kTuning);
  const std::vector<Content> test = of_split(contents, Split::kTest);
  if (tuning.empty() || test.empty())
    throw Error(Errc::kInvalidArgument, "the contents have no tuning or no test split");
  Runner runner(study, engine, saes, task, eval, control);
  const size_t n =
      options.contents > 0 ? std::min(tuning.size(), static_cast<size_t>(options.contents)) : tuning.size();
  SweepResult out;
  Cells cells = search(runner, options, std::span(tuning).first(n));
  std::vector<Study::CellRow> finalists = cells.finished;
  out.cells = std::move(cells.finished);
  out.cells.insert(out.cells.end(), std::make_move_iterator(cells.screened.begin()),
                   std::make_move_iterator(cells.screened.end()));
  std::sort(finalists.begin(), finalists.end(),
            [](const auto& a, const auto& b) { return better(a.result, b.result); });
  finalists.resize(std::min(finalists.size(), static_cast<size_t>(std::max(options.confirm, 1))));
  std::vector<Recipe> recipes;
  for (const auto& f : finalists) recipes.push_back(f.result.recipe);
  out.best_tuning = best_of(runner.run(recipes, tuning, "tuning"));
  out.best = out.best_tuning.recipe;
  out.best_test = runner.run({&out.best, 1}, test, "test").front().result;
  out.computed = runner.computed;
  out.reused = runner.reused;
  return out;
}

}  // namespace saif
