#include <charconv>

#include "saif/task.h"
#include "study_tools.h"
#include "verbs.h"

namespace saif::cli {
namespace {

struct Options {
  std::string study, task, layers = "all", contents, dtype = "auto";
  SweepOptions sweep;
  EvalOptions eval;
};

std::vector<int> parse_layers(const std::string& text) {
  if (text == "all") return {};
  std::vector<int> out;
  for (const int32_t layer : parse_ids(text, "--layer")) out.push_back(layer);
  return out;
}

void run_sweep(const Context& context, Options& o) {
  o.sweep.layer = parse_layers(o.layers);
  OpenStudy open = open_study(o.study, o.dtype);
  const Task task = load_study_task(*open.study, choose_task(*open.study, o.task));
  const SweepResult result = sweep(*open.study, *open.loaded.engine, open.saes, task, load_contents(o.contents),
                                   o.sweep, o.eval, context.control);
  if (context.json) return print_json(result.to_json());
  std::vector<std::vector<std::string>> table = {{"cell", "n", "checker", "strict", "loose"}};
  for (const auto& cell : result.cells) {
    table.push_back({label_of(cell.result.recipe), std::to_string(cell.result.strict.n),
                     format_number(cell.result.checker.value(), 2), share_text(cell.result.strict),
                     format_number(cell.result.loose.value(), 2)});
  }
  print_line(format_table(table));
  print_line("\nbest on the tuning split: " + label_of(result.best) + ", strict " +
             share_text(result.best_tuning.strict) + " (n " + std::to_string(result.best_tuning.strict.n) + ")");
  print_line("the same on the test split:  strict " + share_text(result.best_test.strict) + " (n " +
             std::to_string(result.best_test.strict.n) + ")");
  print_line(std::to_string(result.computed) + " cells computed, " + std::to_string(result.reused) +
             " read from the study");
}

}  // namespace

void add_sweep(CLI::App& root, Context& context) {
  auto o = std::make_shared<Options>();
  CLI::App* verb = add_verb(root, context, "sweep",
                            "Search settings on the tuning split, then test the best; started again it resumes");
  verb->add_option("study", o->study, "the study folder")->required();
  verb->add_option("--task", o->task, "the task, when the study has several");
  verb->add_option("--layer", o->layers, "all, or blocks: 14,18,24")->capture_default_str();
  verb->add_option("--contents-file", o->contents, "contents (JSON lines) in place of the bundled ones");
  add_options(verb, o->sweep, {"layer"});
  add_options(verb, o->eval.decode, {"seed"});
  add_dtype_flag(verb, o->dtype);
  verb->callback([o, &context] { run_sweep(context, *o); });
}

}  // namespace saif::cli
