#include <algorithm>
#include <set>

#include "saif/options.h"
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
  std::set<std::string> given;  // options of the recipe that stand on the command line
  EvalOptions eval;
};

// A recipe with the values of these options taken from another.
Recipe with(const Recipe& recipe, const std::set<std::string>& names, const Recipe& from) {
  Json out = options_to_json(recipe);
  const Json given = options_to_json(from);
  for (const std::string& name : names) out[name] = given.at(name);
  return options_from_json<Recipe>(out, "recipe");
}

struct Settings {
  std::vector<Recipe> recipes;  // of the methods asked for, in order
  std::string untuned;          // methods that were swept for no setting of their own while saif was
};

// saif and a difference of means each have the best setting of a sweep of their own; the controls, and a method that
// was not swept, have saif's. Flags win over what was found, and with a layer given nothing else is taken from a sweep.
Settings settings_of(const Study& study, const std::string& task, const Options& o, const Json& conditions) {
  const auto tuning = study.cells(task, "tuning");
  const auto tuned = [&](const std::string& method) {
    return o.given.contains("layer") ? std::nullopt : tuned_recipe(tuning, method, o.recipe.placement, conditions);
  };
  const std::optional<Recipe> saif = tuned("saif");
  Recipe base = saif ? with(*saif, o.given, o.recipe) : o.recipe;
  if (base.layer < 0) base.layer = layer_of(choose_discovery(study, task, -1, base.placement).site);
  Settings out;
  for (const std::string& name : o.methods) {
    Recipe r = base;
    r.method = name == "prompt_pre" || name == "prompt_post" ? "prompt" : name;
    if (r.method == "diffmean") {
      if (const auto own = tuned("diffmean")) {
        r = with(*own, o.given, o.recipe);
      } else if (saif) {
        out.untuned = "diffmean";
      }
    }
    if (r.method == "prompt") r.placement = name == "prompt_pre" ? "pre" : "post";
    if (r.method == "none" || r.method == "prompt") r.layer = -1;
    out.recipes.push_back(r);
  }
  return out;
}

Json row_json(const MethodResult& r, const MethodResult* saif) {
  Json row = r.to_json();
  if (saif && &r != saif) row["against_saif"] = compare_strict(*saif, r).to_json();
  return row;
}

std::vector<MethodResult> run(const Context& context, OpenStudy& open, const Task& task,
                              const std::vector<Recipe>& recipes, const std::vector<Content>& contents,
                              const Options& o) {
  std::vector<CellRequest> requests;
  for (const Recipe& recipe : recipes) {
    CellRequest& request = requests.emplace_back(CellRequest{recipe, {}});
    if (recipe.method == "none" || recipe.method == "prompt") continue;
    const Discovery d = choose_discovery(*open.study, task.name, recipe.layer, recipe.placement);
    request.vectors = build_vectors(d, sae_of(open, d), recipe, contents.size());
  }
  std::vector<MethodResult> out;
  for (CellDone& cell :
       run_cells(*open.study, *open.loaded.engine, task, requests, contents, o.split, o.eval, context.control)) {
    out.push_back(std::move(cell.row.result));
  }
  return out;
}

void eval(const Context& context, Options& o) {
  o.eval.perplexity = !o.no_perplexity;
  OpenStudy open = open_study(o.study, o.dtype);
  const Task task = load_study_task(*open.study, choose_task(*open.study, o.task));
  std::vector<Content> contents = of_split(load_contents(o.contents), parse_split(o.split));
  if (o.limit > 0 && static_cast<int64_t>(contents.size()) > o.limit) contents.resize(static_cast<size_t>(o.limit));
  const Settings settings = settings_of(*open.study, task.name, o, cell_conditions(*open.loaded.engine, o.eval.decode));
  const auto results = run(context, open, task, settings.recipes, contents, o);
  if (!settings.untuned.empty()) {
    say(context, settings.untuned + " has saif's setting, which was not tuned for it; saif sweep " + o.study +
                     " --task " + task.name + " --method " + settings.untuned + " finds its own");
  }

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
      {"method", "n", "checker", "strict", "loose", "quality", "perplexity", "repetition", "saif - this", "p"}};
  for (const MethodResult& r : results) {
    const bool other = saif && &r != saif;
    const PairedTest against = other ? compare_strict(*saif, r) : PairedTest{};
    table.push_back({label_of(r.recipe), std::to_string(r.strict.n), format_number(r.checker.value(), 2),
                     share_text(r.strict), format_number(r.loose.value(), 2), format_number(r.quality, 2),
                     r.perplexity > 0 ? format_number(r.perplexity, 1) : "", format_number(r.repetition, 2),
                     other ? format_number(against.difference, 2) + " [" + format_number(against.ci.low, 2) + ", " +
                                 format_number(against.ci.high, 2) + "]"
                           : "",
                     other ? format_number(against.p, 4) : ""});
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
  verb->callback([o, verb, &context] {
    for (const auto& [name, value] : options_to_json(o->recipe).members()) {
      const CLI::Option* option = verb->get_option_no_throw("--" + name);
      if (name != "method" && option != nullptr && option->count() > 0) o->given.insert(name);
    }
    eval(context, *o);
  });
}

}  // namespace saif::cli
