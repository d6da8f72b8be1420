// Cells of a study: what determines one, which are there already, which is best.
#include <algorithm>
#include <bit>
#include <tuple>

#include "base/hash.h"
#include "kernels/backend.h"
#include "saif/options.h"
#include "saif/sweep.h"

namespace saif {
namespace {

// Raised when an answer may be graded otherwise than before.
constexpr int kGrader = 1;

// A prompt whose tokens show the chat template and the tokenizer.
constexpr const char* kProbe = "Say \"naïve café\": 3 + 4?\n北京";

std::string hash_of(const std::string& text) { return sha256_hex(std::string_view(text)); }

bool wants_score(const MethodResult& result) {
  return std::any_of(result.answers.begin(), result.answers.end(),
                     [](const Answer& a) { return a.perplexity <= 0 && !a.text.empty(); });
}

// Answers of earlier versions were stored without their tokens.
bool can_score(const MethodResult& result) {
  return std::none_of(result.answers.begin(), result.answers.end(),
                      [](const Answer& a) { return a.ids.empty() && !a.text.empty(); });
}

}  // namespace

Json cell_conditions(const Engine& engine, const DecodeOptions& decode) {
  const Model& model = engine.model();
  const std::string prompt = Json(prompt_ids(engine.tokenizer(), kProbe)).dump();
  return Json::object({{"decode", options_to_json(decode)},
                       {"model", model.sha256()},
                       {"architecture", hash_of(model.architecture().to_json().dump())},
                       {"prompt", hash_of(prompt)},
                       {"dtype", model.dtype()},
                       {"bytes_per_weight", model.bytes_per_weight()},
                       {"kernels", make_cpu_backend()->name()},
                       {"grader", kGrader}});
}

std::string cell_key(const Task& task, const Recipe& recipe, const Vectors& vectors, std::span<const Content> contents,
                     const Json& conditions) {
  Json texts = Json::array(), values = Json::array();
  for (const Content& c : contents) texts.push_back(c.id + "\t" + c.text);
  for (const auto& v : vectors) {
    values.push_back(v->site);
    values.push_back(sha256_hex(std::as_bytes(std::span(v->vector))));
  }
  return hash_of(Json::object({{"task", task.sha256},
                               {"recipe", options_to_json(recipe)},
                               {"vectors", values},
                               {"contents", texts},
                               {"conditions", conditions}})
                     .dump())
      .substr(0, 32);
}

std::vector<CellDone> run_cells(Study& study, Engine& engine, const Task& task, std::span<const CellRequest> requests,
                                std::span<const Content> contents, const std::string& split, const EvalOptions& options,
                                const Control& control) {
  const Json conditions = cell_conditions(engine, options.decode);
  std::vector<CellDone> out;
  std::vector<EvalRequest> missing;
  std::vector<size_t> where, unscored;
  for (const CellRequest& request : requests) {
    const std::string key = cell_key(task, request.recipe, request.vectors, contents, conditions);
    CellDone& cell = out.emplace_back(CellDone{{key, task.name, split, conditions, {}}, false});
    if (study.has_cell(key)) cell.row.result = study.cell(key);
    const bool score = options.perplexity && wants_score(cell.row.result);
    cell.computed = cell.row.result.answers.empty() || (score && !can_score(cell.row.result));
    if (cell.computed) {
      missing.push_back({&task, request.recipe, request.vectors});
      where.push_back(out.size() - 1);
    }
    if (options.perplexity && (cell.computed || score)) unscored.push_back(out.size() - 1);
  }
  if (!missing.empty()) {  // kept as they finish: perplexities come after all answers
    EvalOptions answers = options;
    answers.perplexity = false;
    evaluate(engine, missing, contents, answers, control, [&](size_t i, const MethodResult& result) {
      out[where[i]].row.result = result;
      study.save_cell(out[where[i]].row);
    });
  }
  if (unscored.empty()) return out;
  std::vector<MethodResult> scored;
  for (const size_t i : unscored) scored.push_back(out[i].row.result);
  measure_perplexity(engine, scored, contents, control);
  for (size_t i = 0; i < unscored.size(); ++i) {
    out[unscored[i]].row.result = std::move(scored[i]);
    study.save_cell(out[unscored[i]].row);
  }
  return out;
}

bool better(const MethodResult& a, const MethodResult& b) {
  const auto rank = [](const MethodResult& m) {
    return std::tuple(m.strict.value(), m.loose.value(), m.checker.value(), -m.recipe.scale, -m.recipe.k);
  };
  return rank(a) > rank(b);
}

std::optional<Recipe> tuned_recipe(std::span<const Study::CellRow> tuning, const std::string& method,
                                   const std::string& placement, const Json& conditions) {
  const MethodResult* best = nullptr;
  for (const Study::CellRow& cell : tuning) {
    const MethodResult& r = cell.result;
    if (r.recipe.method != method || r.recipe.placement != placement) continue;
    if (!conditions.is_null() && !cell.conditions.is_null() && cell.conditions.dump() != conditions.dump()) continue;
    if (!best || r.strict.n > best->strict.n || (r.strict.n == best->strict.n && better(r, *best))) best = &r;
  }
  return best ? std::optional(best->recipe) : std::nullopt;
}

}  // namespace saif
