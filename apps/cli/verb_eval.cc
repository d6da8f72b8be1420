#include <algorithm>

#include "saif/task.h"
#include "study_tools.h"
#include "verbs.h"

namespace saif::cli {
namespace {

struct Options {
  std::string study, task, split = "test", contents, dtype = "auto";
  std::vector<std::string> methods = {"none", "prompt", "prompt_pre", "saif", "diffmean", "random", "random_latents"};
  int64_t limit = 0;
  bool no_perplexity = false;
  Recipe recipe;
  EvalOptions eval;
};

// The recipes of the methods asked for: the best cell of an earlier sweep where no layer was given, else the flags.
std::vector<Recipe> recipes_of(const Study& study, const std::string& task, const Options& o) {
  Recipe base = o.recipe;
  if (base.layer < 0) {
    const MethodResult* best = nullptr;
    const auto cells = study.cells(task, "tuning");
    for (const auto& cell : cells) {
      const MethodResult& r = cell.result;
      if (r.recipe.method != "saif") continue;
      if (!best || r.strict.n > best->strict.n ||
          (r.strict.n == best->strict.n && r.strict.value() > best->strict.value())) {
        best = &r;
      }
    }
    base = best ? best->recipe : base;
    if (!best) base.layer = layer_of(choose_discovery(study, task, -1, base.placement).site);
  }
  std::vector<Recipe> out;
  for (const std::string& name : o.methods) {
    Recipe r = base;
    r.method = name == "prompt_pre" || name == "prompt_post" ? "prompt" : name;
    if (r.method == "prompt") r.placement = name == "prompt_pre" ? "pre" : "post";
    if (r.method == "none" || r.method == "prompt") {
      r.layer = -1;
    }
    out.push_back(r);
  }
  return out;
}

Json row_json(const MethodResult& r, const MethodResult* saif) {
  Json row = r.to_json();
  if (saif && &r != saif) {
    const PairedTest test = compare_strict(*saif, r);
    row["against_saif"] =
        Json::object({{"only_saif", test.only_first}, {"only_this", test.only_second}, {"mcnemar_p", test.p}});
  }
  return row;
}

std::vector<MethodResult> evaluate_missing(const Context& context, OpenStudy& open, const Task& task,
                                           const std::vector<Recipe>& recipes, const std::vector<Content>& contents,
                                           const Options& o) {
  std::vector<MethodResult> results(recipes.size());
  std::vector<EvalRequest> requests;
  std::vector<size_t> where;
  std::vector<std::string> keys;
  for (size_t i = 0; i < recipes.size(); ++i) {
    const bool steered = recipes[i].method != "none" && recipes[i].method != "prompt";
    std::string source;
    Vectors vectors;
    if (steered) {
      const Discovery d = choose_discovery(*open.study, task.name, recipes[i].layer, recipes[i].placement);
      vectors = build_vectors(d, sae_of(open, d), recipes[i]);
      source = d.to_json().dump();
    }
    keys.push_back(cell_key(task, recipes[i], contents, o.eval, open.loaded.model->sha256(), source));
    if (open.study->has_cell(keys.back())) {
      results[i] = open.study->cell(keys.back());
      continue;
    }
    requests.push_back({&task, recipes[i], std::move(vectors)});
    where.push_back(i);
  }
  if (requests.empty()) return results;
  evaluate(*open.loaded.engine, requests, contents, o.eval, context.control, [&](size_t i, const MethodResult& result) {
    results[where[i]] = result;
    open.study->save_cell(keys[where[i]], task.name, o.split, result);
  });
  return results;
}

void eval(const Context& context, Options& o) {
  o.eval.perplexity = !o.no_perplexity;
  OpenStudy open = open_study(o.study, o.dtype);
  const Task task = load_study_task(*open.study, choose_task(*open.study, o.task));
  std::vector<Content> contents = of_split(load_contents(o.contents), parse_split(o.split));
  if (o.limit > 0 && static_cast<int64_t>(contents.size()) > o.limit) contents.resize(static_cast<size_t>(o.limit));
  const std::vector<Recipe> recipes = recipes_of(*open.study, task.name, o);
  const auto results = evaluate_missing(context, open, task, recipes, contents, o);

  const MethodResult* saif = nullptr;
  for (const MethodResult& r : results) {
    if (r.recipe.method == "saif") saif = &r;
  }
  if (context.json) {
    Json rows = Json::array();
    for (const MethodResult& r : results) rows.push_back(row_json(r, saif));
    return print_json(Json::object({{"task", task.name}, {"split", o.split}, {"rows", rows}}));
  }
  std::vector<std::vector<std::string>> table = {
      {"method", "n", "checker", "strict", "loose", "quality", "perplexity", "repetition", "p against saif"}};
  for (const MethodResult& r : results) {
    table.push_back({label_of(r.recipe), std::to_string(r.strict.n), format_number(r.checker.value(), 2),
                     share_text(r.strict), format_number(r.loose.value(), 2), format_number(r.quality, 2),
                     r.perplexity > 0 ? format_number(r.perplexity, 1) : "", format_number(r.repetition, 2),
                     saif && &r != saif ? format_number(compare_strict(*saif, r).p, 4) : ""});
  }
  print_line(format_table(table));
}

}  // namespace

void add_eval(CLI::App& root, Context& context) {
  auto o = std::make_shared<Options>();
  CLI::App* verb = add_verb(root, context, "eval", "Success and quality of methods and controls on a split");
  verb->add_option("study", o->study, "the study folder")->required();
  verb->add_option("--task", o->task, "the task, when the study has several");
  verb->add_option("--method", o->methods, "none, prompt, prompt_pre, saif, diffmean, random, random_latents")
      ->delimiter(',')
      ->capture_default_str();
  verb->add_option("--split", o->split, "test, tuning or discovery")->capture_default_str();
  verb->add_option("--contents-file", o->contents, "contents (JSON lines) in place of the bundled ones");
  verb->add_option("--limit", o->limit, "use the first N contents; 0 is all")->capture_default_str();
  verb->add_flag("--no-perplexity", o->no_perplexity, "skip the perplexity of the answers");
  add_options(verb, o->recipe, {"method"});
  add_options(verb, o->eval.decode, {"seed"});
  add_dtype_flag(verb, o->dtype);
  verb->callback([o, &context] { eval(context, *o); });
}

}  // namespace saif::cli
