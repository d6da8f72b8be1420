// The whole study on SmolLM2 in a minute and a half: find, steer and test ten instructions live, at the settings that a
// committed study fixed on the tuning split.
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <chrono>
#include <cstring>
#include <filesystem>
#include <map>

#include "saif/task.h"
#include "study_tools.h"
#include "verbs.h"

namespace saif::cli {
namespace {

using Clock = std::chrono::steady_clock;

struct Options {
  std::string json_file, model = "smollm2", settings, report = "report.html", svg, dtype = "auto";
  int contents = 0, prompted = 0, controls = 0;
};

// One task of the committed study: the settings of the steering methods.
struct TaskPlan {
  Task task;
  Recipe saif, diffmean, random;
};

struct Plan {
  Json file;
  FindOptions find;
  EvalOptions eval;
  int contents = 0, prompted = 0, controls = 0;  // test prompts: none and saif; prompt; diffmean and random
  std::vector<TaskPlan> tasks;
};

const char* const kMethods[] = {"none", "prompt", "saif", "diffmean", "random"};

const Json& need(const Json& object, const char* key, const std::string& path) {
  const Json* value = object.find(key);
  if (value == nullptr) {
    throw Error(Errc::kBadFormat,
                path + ": has no \"" + key + "\"; expected a study's settings, such as data/studies/smollm2.json");
  }
  return *value;
}

Plan read_plan(const Options& o) {
  const std::string path = o.settings.empty() ? data_directory() + "/studies/smollm2.json" : o.settings;
  Plan plan;
  plan.file = read_json_file(path);
  plan.find = options_from_json<FindOptions>(need(plan.file, "find", path), path + ": find");
  plan.eval.decode = options_from_json<DecodeOptions>(need(plan.file, "decode", path), path + ": decode");
  plan.contents = o.contents > 0 ? o.contents : need(plan.file, "contents", path).as<int>();
  plan.prompted = o.prompted > 0 ? o.prompted : need(plan.file, "prompted", path).as<int>();
  plan.controls = o.controls > 0 ? o.controls : need(plan.file, "controls", path).as<int>();
  for (const Json& entry : need(plan.file, "tasks", path).items()) {
    TaskPlan& t = plan.tasks.emplace_back();
    t.task = load_task(need(entry, "name", path + ": a task").as_string());
    t.saif = options_from_json<Recipe>(need(entry, "saif", path + ": a task"), path + ": saif");
    t.diffmean = options_from_json<Recipe>(need(entry, "diffmean", path + ": a task"), path + ": diffmean");
    t.random = t.saif;
    t.random.method = "random";
  }
  return plan;
}

// The bundled SAEs of the layers that some recipe uses.
std::vector<std::shared_ptr<const Sae>> needed_saes(const Plan& plan) {
  std::map<int, std::string> wanted;  // layer -> a task that is steered there
  for (const TaskPlan& t : plan.tasks) {
    for (const int layer : {t.saif.layer, t.diffmean.layer}) wanted.emplace(layer, t.task.name);
  }
  std::vector<std::shared_ptr<const Sae>> out;
  for (auto& sae : load_saes(sae_paths({}))) {
    const int layer = layer_of(sae->config().site);
    if (!wanted.contains(layer)) continue;
    wanted.erase(layer);
    out.push_back(std::move(sae));
  }
  if (wanted.empty()) return out;
  throw Error(Errc::kNotFound, "the committed study steers " + wanted.begin()->second + " at block " +
                                   std::to_string(wanted.begin()->first) +
                                   ", for which no SAE is bundled; run make study");
}

const Discovery& at_layer(const FindResult& found, int layer) {
  const auto it = std::find_if(found.discoveries.begin(), found.discoveries.end(),
                               [&](const Discovery& d) { return layer_of(d.site) == layer; });
  if (it == found.discoveries.end()) throw Error(Errc::kInternal, "no discovery at block " + std::to_string(layer));
  return *it;
}

struct Outcome {
  std::vector<FindResult> found;
  std::vector<MethodResult> results;  // [task][method]
  TokenCounts tokens;
};

Outcome run_study(const Context& context, Engine& engine, const Plan& plan,
                  const std::vector<std::shared_ptr<const Sae>>& saes) {
  Outcome out;
  const std::vector<Content> contents = load_contents();
  std::vector<Task> tasks;
  for (const TaskPlan& t : plan.tasks) tasks.push_back(t.task);
  say(context, "finding the latents of " + std::to_string(tasks.size()) + " instructions");
  out.found = find_latents(engine, saes, tasks, of_split(contents, Split::kDiscovery), plan.find, context.control);
  out.tokens = out.found.front().tokens;
  say(context, "  " + std::to_string(out.tokens.computed) + " tokens computed where prompt by prompt it would be " +
                   std::to_string(out.tokens.naive));

  std::vector<Content> test = of_split(contents, Split::kTest);
  test.resize(std::min(test.size(), static_cast<size_t>(plan.contents)));
  say(context, "steering and testing on " + std::to_string(test.size()) +
                   " prompts that never mention the instruction, with controls");
  std::vector<EvalRequest> requests;
  for (size_t t = 0; t < plan.tasks.size(); ++t) {
    const TaskPlan& p = plan.tasks[t];
    const auto vectors = [&](const Recipe& recipe, int prompts) {
      const Discovery& d = at_layer(out.found[t], recipe.layer);
      const auto sae =
          std::find_if(saes.begin(), saes.end(), [&](const auto& s) { return s->sha256() == d.sae_sha256; });
      return build_vectors(d, **sae, recipe, static_cast<size_t>(prompts));
    };
    Recipe none, prompt;
    none.method = "none";
    prompt.method = "prompt";
    requests.push_back({&p.task, none, {}});
    requests.push_back({&p.task, prompt, {}, plan.prompted});
    requests.push_back({&p.task, p.saif, vectors(p.saif, plan.contents)});
    for (const Recipe& recipe : {p.diffmean, p.random}) {
      requests.push_back({&p.task, recipe, vectors(recipe, plan.controls), plan.controls});
    }
  }
  out.results = evaluate(engine, requests, test, plan.eval, context.control);
  return out;
}

const MethodResult& result_of(const Outcome& outcome, size_t task, size_t method) {
  return outcome.results[task * std::size(kMethods) + method];
}

Json task_json(const Plan& plan, const Outcome& outcome, size_t t) {
  const Recipe& r = plan.tasks[t].saif;
  Json out = Json::object({{"name", plan.tasks[t].task.name},
                           {"layer", r.layer},
                           {"k", r.k},
                           {"beta", r.beta},
                           {"scale", r.scale},
                           {"n", result_of(outcome, t, 0).strict.n},
                           {"n_prompt", result_of(outcome, t, 1).strict.n},
                           {"n_controls", result_of(outcome, t, 4).strict.n}});
  for (size_t m = 0; m < std::size(kMethods); ++m) {
    const MethodResult& result = result_of(outcome, t, m);
    const std::string name = kMethods[m];
    const Interval ci = result.strict.ci();
    out[name + "_checker"] = result.checker.value();
    out[name + "_strict"] = result.strict.value();
    out[name + "_loose"] = result.loose.value();
    out[name + "_ci"] = Json(std::vector<double>{ci.low, ci.high});
  }
  const PairedTest against = compare_strict(result_of(outcome, t, 2), result_of(outcome, t, 4));
  out["saif_against_random_p"] = against.p;
  return out;
}

std::string one_line(std::string text, size_t width) {
  for (char& c : text) {
    if (c == '\n' || c == '\r' || c == '\t') c = ' ';
  }
  if (text.size() <= width) return text;
  text.resize(width);
  while (!text.empty() && (static_cast<unsigned char>(text.back()) & 0xC0) == 0x80) text.pop_back();
  if (!text.empty() && static_cast<unsigned char>(text.back()) >= 0xC0) text.pop_back();
  return text + "…";
}

// A content on which steering works and the plain answer does not, so that the reader sees the difference.
size_t telling_example(const Outcome& outcome, size_t task) {
  const auto& steered = result_of(outcome, task, 2).answers;
  const auto& plain = result_of(outcome, task, 0).answers;
  const size_t n = result_of(outcome, task, 1).answers.size();  // the prompted answer is shown beside them
  for (size_t c = 0; c < std::min(n, steered.size()); ++c) {
    if (steered[c].verdict.strict && !plain[c].verdict.checker) return c;
  }
  return 0;
}

// Where saif and another method differ on the same prompts (McNemar, p < .05), in one sentence.
std::string who_wins(const Plan& plan, const Outcome& outcome, size_t method, const std::string& name) {
  std::string wins, losses;
  size_t open = 0;
  for (size_t t = 0; t < plan.tasks.size(); ++t) {
    const PairedTest test = compare_strict(result_of(outcome, t, 2), result_of(outcome, t, method));
    std::string* list = test.p >= 0.05 ? nullptr : test.only_first > test.only_second ? &wins : &losses;
    if (list == nullptr) {
      ++open;
      continue;
    }
    *list += (list->empty() ? "" : ", ") + plan.tasks[t].task.name;
  }
  return "saif against " + name + ": better on " + (wins.empty() ? "none" : wins) + "; worse on " +
         (losses.empty() ? "none" : losses) + "; no difference shown on " + std::to_string(open);
}

void print_outcome(const Plan& plan, const Outcome& outcome) {
  std::vector<std::vector<std::string>> table = {
      {"instruction", "setting", "none", "prompted", "saif [95 %]", "diff. of means", "random"}};
  for (size_t t = 0; t < plan.tasks.size(); ++t) {
    const Recipe& r = plan.tasks[t].saif;
    const auto value = [&](size_t m) { return format_number(result_of(outcome, t, m).strict.value(), 2); };
    table.push_back(
        {plan.tasks[t].task.title,
         "block " + std::to_string(r.layer) + ", k " + std::to_string(r.k) + ", x" + format_number(r.scale, 2),
         value(0), value(1), share_text(result_of(outcome, t, 2).strict), value(3), value(4)});
  }
  print_line("\nShare of answers that follow the instruction and are fluent (strict), n = " +
             std::to_string(result_of(outcome, 0, 0).strict.n) + " per instruction (" +
             std::to_string(result_of(outcome, 0, 1).strict.n) + " prompted, " +
             std::to_string(result_of(outcome, 0, 4).strict.n) + " in the last two columns):\n");
  print_line(format_table(table));
  print_line("\nOn the same prompts (McNemar, p < .05):");
  print_line("  " + who_wins(plan, outcome, 1, "prompting"));
  print_line("  " + who_wins(plan, outcome, 3, "difference of means"));
  print_line("  " + who_wins(plan, outcome, 4, "a random direction"));
  print_line("\nThe same prompt three ways:");
  for (const size_t t : {size_t{0}, size_t{4}, size_t{7}}) {
    if (t >= plan.tasks.size()) continue;
    const size_t c = telling_example(outcome, t);
    const Answer& plain = result_of(outcome, t, 0).answers[c];
    print_line("\n  " + plan.tasks[t].task.title + ": \"" + plain.prompt + "\"");
    print_line("    plain     " + one_line(plain.text, 110));
    print_line("    prompted  " + one_line(result_of(outcome, t, 1).answers[c].text, 110));
    print_line("    steered   " + one_line(result_of(outcome, t, 2).answers[c].text, 110));
  }
}

Json report_json(const Plan& plan, const Outcome& outcome, const Json& manifest, double seconds) {
  Json tasks = Json::array(), examples = Json::array(), latents = Json::array();
  for (size_t t = 0; t < plan.tasks.size(); ++t) {
    const TaskPlan& p = plan.tasks[t];
    Json rows = Json::array();
    for (size_t m = 0; m < std::size(kMethods); ++m) {
      Json row = result_of(outcome, t, m).to_json();
      if (m != 2) {
        row["against_saif"] = compare_strict(result_of(outcome, t, 2), result_of(outcome, t, m)).to_json();
      }
      rows.push_back(row);
    }
    tasks.push_back(Json::object({{"task", p.task.name}, {"title", p.task.title}, {"rows", rows}}));

    const size_t c = telling_example(outcome, t);
    Json answers = Json::array();
    for (const size_t m : {size_t{0}, size_t{1}, size_t{2}}) {
      const Answer& a = result_of(outcome, t, m).answers[c];
      const char* const labels[] = {"no instruction", "prompted", "steered (saif)"};
      answers.push_back(Json::object({{"label", labels[m]}, {"text", a.text}, {"strict", a.verdict.strict}}));
    }
    examples.push_back(Json::object({{"task", p.task.name},
                                     {"title", p.task.title},
                                     {"prompt", result_of(outcome, t, 0).answers[c].prompt},
                                     {"answers", answers}}));
    Discovery d = at_layer(outcome.found[t], p.saif.layer);
    rank_latents(d, p.saif.rank);
    Json list = Json::array();
    for (size_t i = 0; i < std::min(d.latents.size(), static_cast<size_t>(p.saif.k)); ++i) {
      list.push_back(d.latents[i].to_json());
    }
    latents.push_back(
        Json::object({{"task", p.task.name}, {"title", p.task.title}, {"site", d.site}, {"latents", list}}));
  }
  Json out = Json::object({{"title", "What makes SmolLM2 follow an instruction"},
                           {"subtitle", "saif demo: ten instructions found, steered and tested in " +
                                            format_number(seconds, 0) + " seconds"},
                           {"manifest", manifest},
                           {"tasks", tasks},
                           {"examples", examples},
                           {"latents", latents}});
  for (const char* key : {"sweep", "placement", "claims", "training"}) {
    if (const Json* section = plan.file.find(key)) out[key] = *section;
  }
  return out;
}

// Before minutes of work: a file that cannot be written at their end.
void check_outputs(const Options& o) {
  for (const std::string& path : {o.json_file, o.report, o.svg}) {
    if (path.empty() || path == "-") continue;
    const std::string folder = std::filesystem::absolute(path).parent_path().string();
    if (::access(folder.c_str(), W_OK) != 0) {
      throw Error(Errc::kIo, path + ": cannot be written: " + folder + ": " + std::strerror(errno));
    }
  }
}

void demo(const Context& context, const Options& o) {
  check_outputs(o);
  const auto start = Clock::now();
  const Plan plan = read_plan(o);
  const auto saes = needed_saes(plan);
  say(context, "loading " + o.model);
  const Loaded loaded = load_for_study(o.model, o.dtype);
  check_saes(context, *loaded.engine, saes, true);
  const Outcome outcome = run_study(context, *loaded.engine, plan, saes);
  const double seconds = std::chrono::duration<double>(Clock::now() - start).count();

  Json tasks = Json::array();
  for (size_t t = 0; t < plan.tasks.size(); ++t) tasks.push_back(task_json(plan, outcome, t));
  const Json json =
      Json::object({{"seconds", seconds},
                    {"tokens", Json::object({{"naive", outcome.tokens.naive}, {"computed", outcome.tokens.computed}})},
                    {"tasks", tasks}});
  if (!o.json_file.empty() && o.json_file != "-") write_json_file(o.json_file, json);
  const Json manifest = make_manifest(
      loaded, saes,
      Json::object({{"find", options_to_json(plan.find)}, {"decode", options_to_json(plan.eval.decode)}}));
  const Json tables = report_json(plan, outcome, manifest, seconds);
  if (!o.report.empty()) write_report(o.report, tables);
  if (!o.svg.empty()) write_success_plot(o.svg, tables);
  if (o.json_file == "-") return print_json(json);
  print_outcome(plan, outcome);
  print_line("\n" + format_number(seconds, 0) + " seconds. Plots, intervals, latents: " +
             (o.report.empty() ? "(no report asked for)" : std::filesystem::absolute(o.report).string()));
}

}  // namespace

void add_demo(CLI::App& root, Context& context) {
  auto o = std::make_shared<Options>();
  CLI::App* verb = add_verb(root, context, "demo", "The whole study on SmolLM2 with the bundled SAEs", false);
  verb->add_option("--json", o->json_file, "write the figures to this file; - is stdout");
  verb->add_option("--model", o->model, "folder, .gguf file or short name")->capture_default_str();
  verb->add_option("--settings", o->settings, "a study's settings (JSON) in place of data/studies/smollm2.json");
  verb->add_option("--contents", o->contents, "test prompts per instruction; 0 is what the study says")
      ->capture_default_str();
  verb->add_option("--prompted", o->prompted, "test prompts with the instruction; 0 is what the study says")
      ->capture_default_str();
  verb->add_option("--controls", o->controls, "test prompts of diffmean and random; 0 is what the study says")
      ->capture_default_str();
  verb->add_option("--report", o->report, "where the report goes; \"\" writes none")->capture_default_str();
  verb->add_option("--svg", o->svg, "write the plot of success by method to this file as well");
  add_dtype_flag(verb, o->dtype);
  verb->callback([o, &context] { demo(context, *o); });
}

}  // namespace saif::cli
