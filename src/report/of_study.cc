// A study folder as a report. Which cell stands for a method is decided on the tuning split, never on the test split:
// the best tuned setting where there was a search, else the setting evaluated last.
#include <algorithm>
#include <map>
#include <optional>

#include "report/style.h"
#include "report/values.h"
#include "saif/options.h"
#include "saif/sweep.h"
#include "saif/task.h"

namespace saif {
namespace {

using CellRow = Study::CellRow;

constexpr const char* kOrder[] = {"none", "prompt", "prompt_pre", "saif", "diffmean", "random", "random_latents"};

std::string key_of(const CellRow& cell) { return report::method_key(cell.result.to_json()); }

std::string recipe_text(const Recipe& recipe) { return options_to_json(recipe).dump(); }

std::string title_of_task(const std::string& name) {
  try {
    return load_task(name).title;
  } catch (const Error&) {
    return name;  // a task file that is no longer where it was
  }
}

struct TaskCells {
  std::string task, title;
  std::vector<CellRow> test, tuning;
  std::map<std::string, size_t> chosen;  // method key -> index in test
};

// Rows of one table were made alike: under the conditions of the cell evaluated last. The others are shown apart.
TaskCells cells_of(const Study& study, const std::string& task) {
  TaskCells out{task, title_of_task(task), study.cells(task, "test"), study.cells(task, "tuning"), {}};
  if (out.test.empty()) return out;
  const Json conditions = out.test.back().conditions;
  const auto alike = [&](const CellRow& cell) { return cell.conditions.dump() == conditions.dump(); };
  for (size_t i = 0; i < out.test.size(); ++i) {
    if (out.test[i].result.strict.n == 0 || !alike(out.test[i])) continue;
    const auto [at, added] = out.chosen.emplace(key_of(out.test[i]), i);
    // Later cells replace earlier ones of as many prompts; a quick look at a few prompts replaces nothing.
    if (!added && out.test[i].result.strict.n >= out.test[at->second].result.strict.n) at->second = i;
  }
  for (const char* method : {"saif", "diffmean"}) {
    const std::optional<Recipe> best = tuned_recipe(out.tuning, method, "post", conditions);
    if (!best) continue;
    for (size_t i = 0; i < out.test.size(); ++i) {
      if (alike(out.test[i]) && recipe_text(out.test[i].result.recipe) == recipe_text(*best)) out.chosen[method] = i;
    }
  }
  return out;
}

bool same_prompts(const MethodResult& a, const MethodResult& b) {
  return std::equal(a.answers.begin(), a.answers.end(), b.answers.begin(), b.answers.end(),
                    [](const Answer& x, const Answer& y) { return x.content_id == y.content_id; });
}

Json row_of(const MethodResult& result, const MethodResult* saif) {
  Json row = result.to_json();
  if (saif && !saif->answers.empty() && same_prompts(result, *saif)) {
    row["against_saif"] = compare_strict(*saif, result).to_json();
  }
  return row;
}

using Answered = std::map<std::string, MethodResult>;  // chosen cells by method key, answers included

Json task_json(const TaskCells& cells, const Answered& answered) {
  const auto saif = answered.find("saif");
  const MethodResult* const base = saif == answered.end() ? nullptr : &saif->second;
  Json rows = Json::array();
  const auto add = [&](const std::string& key, const MethodResult& result) {
    rows.push_back(row_of(result, key == "saif" ? nullptr : base));
  };
  for (const char* key : kOrder) {
    if (const auto found = answered.find(key); found != answered.end()) add(found->first, found->second);
  }
  for (size_t i = 0; i < cells.test.size(); ++i) {
    const auto chosen = cells.chosen.find(key_of(cells.test[i]));
    if (chosen != cells.chosen.end() && chosen->second == i) continue;
    Json row = cells.test[i].result.to_json();
    row["extra"] = true;
    rows.push_back(row);
  }
  return Json::object({{"task", cells.task}, {"title", cells.title}, {"rows", rows}});
}

// A prompt on which steering works and the plain answer does not, so that the reader sees the difference.
size_t telling_example(const Answered& answered) {
  const auto steered = answered.find("saif"), plain = answered.find("none");
  if (steered == answered.end()) return 0;
  const auto& answers = steered->second.answers;
  for (size_t i = 0; i < answers.size(); ++i) {
    const bool failed =
        plain == answered.end() || (i < plain->second.answers.size() && !plain->second.answers[i].verdict.checker);
    if (answers[i].verdict.strict && failed) return i;
  }
  return 0;
}

std::optional<Json> example_json(const TaskCells& cells, const Answered& answered) {
  const size_t i = telling_example(answered);
  std::string id, prompt;
  Json answers = Json::array();
  for (const char* key : {"saif", "none", "prompt", "diffmean"}) {
    const auto found = answered.find(key);
    if (found == answered.end() || i >= found->second.answers.size()) continue;
    const Answer& a = found->second.answers[i];
    if (id.empty()) id = a.content_id;
    if (a.content_id != id) continue;
    if (prompt.empty() || found->first == "none") prompt = a.prompt;
    const std::string label = found->first == "saif" ? "steered (saif)" : std::string(report::look_of(key).name);
    answers.push_back(Json::object({{"label", label}, {"text", a.text}, {"strict", a.verdict.strict}}));
  }
  if (answers.size() == 0) return std::nullopt;
  if (answers.size() > 1 && answered.contains("saif")) {  // the steered answer reads best after the plain ones
    std::rotate(answers.items().begin(), answers.items().begin() + 1,
                answers.items().begin() + std::min<std::ptrdiff_t>(3, static_cast<std::ptrdiff_t>(answers.size())));
  }
  return Json::object({{"task", cells.task}, {"title", cells.title}, {"prompt", prompt}, {"answers", answers}});
}

// Cells of the search; a setting run again on more contents counts with those.
Json sweep_json(const TaskCells& cells) {
  std::map<std::string, const MethodResult*> best;
  std::vector<std::string> order;
  for (const CellRow& cell : cells.tuning) {
    const auto [at, added] = best.emplace(recipe_text(cell.result.recipe), &cell.result);
    if (added) order.push_back(at->first);
    if (cell.result.strict.n > at->second->strict.n) at->second = &cell.result;
  }
  Json out = Json::array();
  for (const std::string& key : order) out.push_back(best.at(key)->to_json());
  return Json::object({{"task", cells.task}, {"title", cells.title}, {"cells", out}});
}

std::optional<Json> placement_json(const TaskCells& cells) {
  std::map<std::pair<std::string, std::string>, const MethodResult*> found;
  for (const CellRow& cell : cells.test) {
    const std::string& method = cell.result.recipe.method;
    if (method == "prompt" || method == "saif") found[{method, cell.result.recipe.placement}] = &cell.result;
  }
  for (const char* method : {"saif", "prompt"}) {
    const auto chosen = cells.chosen.find(method);
    if (chosen == cells.chosen.end()) continue;
    const MethodResult& r = cells.test[chosen->second].result;
    found[{method, r.recipe.placement}] = &r;
  }
  Json rows = Json::array();
  bool both = false;
  for (const char* method : {"prompt", "saif"}) {
    both = both || (found.contains({method, "post"}) && found.contains({method, "pre"}));
    for (const char* placement : {"post", "pre"}) {
      const auto at = found.find({method, placement});
      if (at == found.end()) continue;
      Json row = at->second->to_json();
      row["label"] =
          std::string(method) == "prompt" ? "prompted, " + at->first.second : "saif, found with " + at->first.second;
      rows.push_back(row);
    }
  }
  if (!both) return std::nullopt;
  return Json::object({{"task", cells.task}, {"title", cells.title}, {"rows", rows}});
}

// The latents that steer; before any steering, those of every site.
void add_latents(Json& out, const Study& study, const TaskCells& cells) {
  const auto chosen = cells.chosen.find("saif");
  const Recipe* recipe = chosen == cells.chosen.end() ? nullptr : &cells.test[chosen->second].result.recipe;
  for (Discovery& d : study.discoveries(cells.task)) {
    size_t shown = 15;
    if (recipe) {
      if (Site::parse(d.site).layer != recipe->layer || d.placement != recipe->placement) continue;
      rank_latents(d, recipe->rank);
      shown = static_cast<size_t>(std::clamp(recipe->k, 1, 30));
    }
    Json latents = Json::array();
    for (size_t i = 0; i < std::min(shown, d.latents.size()); ++i) {
      Json latent = d.latents[i].to_json();
      const Json explained = study.explanation(cells.task, d.sae_sha256, d.latents[i].index);
      if (!explained.is_null()) latent["explained"] = explained;
      latents.push_back(latent);
    }
    out.push_back(Json::object({{"task", cells.task},
                                {"title", cells.title},
                                {"site", d.site},
                                {"placement", d.placement},
                                {"latents", latents}}));
  }
}

}  // namespace

Json report_of_study(const Study& study) {
  Json tasks = Json::array(), examples = Json::array(), sweeps = Json::array(), placement = Json::array(),
       latents = Json::array();
  const std::vector<std::string> names = study.tasks();
  for (const std::string& name : names) {
    const TaskCells cells = cells_of(study, name);
    Answered answered;
    for (const auto& [key, i] : cells.chosen) answered.emplace(key, study.cell(cells.test[i].key));
    if (!cells.chosen.empty()) tasks.push_back(task_json(cells, answered));
    if (const auto example = example_json(cells, answered)) examples.push_back(*example);
    if (!cells.tuning.empty()) sweeps.push_back(sweep_json(cells));
    if (const auto both = placement_json(cells)) placement.push_back(*both);
    add_latents(latents, study, cells);
  }
  const Json manifest = study.manifest();
  const Json* model = manifest.find("model");
  const std::string name = model ? report::text(*model, "name") : "";
  Json out = Json::object({{"title", "What makes " + (name.empty() ? "a model" : name) + " follow an instruction"},
                           {"subtitle", "A study of " + std::to_string(names.size()) +
                                            (names.size() == 1 ? " instruction" : " instructions")},
                           {"tasks", tasks},
                           {"examples", examples},
                           {"sweep", sweeps},
                           {"placement", placement},
                           {"latents", latents}});
  for (const char* key : {"claims", "training"}) {
    if (const Json* section = manifest.find(key)) out[key] = *section;
  }
  out["manifest"] = manifest;
  return out;
}

}  // namespace saif
