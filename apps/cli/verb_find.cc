#include <filesystem>

#include "saif/task.h"
#include "study_tools.h"
#include "verbs.h"

namespace saif::cli {
namespace {

struct Options {
  std::string model = "smollm2", out, contents, dtype = "auto";
  std::vector<std::string> saes, tasks;
  bool no_check = false;
  FindOptions find;
};

std::string tokens_text(const std::vector<TokenWeight>& tokens, size_t n) {
  std::string out;
  for (size_t i = 0; i < std::min(n, tokens.size()); ++i) out += (i ? " " : "") + Json(tokens[i].token).dump();
  return out;
}

void print_discovery(const Discovery& d, int k) {
  print_line(d.task + " at " + d.site + ", instruction " + d.placement + ", " + std::to_string(d.pairs) + " pairs");
  std::vector<std::vector<std::string>> rows = {
      {"latent", "C", "95 %", "unrelated", "mean", "std", "density", "logit lens"}};
  for (size_t i = 0; i < std::min(d.latents.size(), static_cast<size_t>(k)); ++i) {
    const LatentStats& s = d.latents[i];
    rows.push_back({std::to_string(s.index), format_number(s.sensitivity, 2),
                    format_number(s.ci.low, 2) + "-" + format_number(s.ci.high, 2),
                    format_number(s.sensitivity_unrelated, 2), format_number(s.mean, 1), format_number(s.std, 1),
                    format_number(s.density, 3), tokens_text(s.top, 5)});
  }
  print_line(format_table(rows));
  std::string halves;
  if (d.stability_contents >= 0) halves += " contents " + format_number(d.stability_contents, 2);
  if (d.stability_wordings >= 0) halves += " wordings " + format_number(d.stability_wordings, 2);
  if (!halves.empty()) {
    print_line("Jaccard index of the " + std::to_string(k) + " best of one half and of the other:" + halves);
  }
  print_line("");
}

Json layer_json(const Discovery& d, int k) {
  Json full = d.to_json();
  Json latents = Json::array();
  for (size_t i = 0; i < std::min(d.latents.size(), static_cast<size_t>(k)); ++i)
    latents.push_back(d.latents[i].to_json());
  Json out = Json::object();
  for (const char* key :
       {"task", "site", "placement", "sae", "rank", "stats", "contents", "variants", "pairs", "stability"}) {
    out[key] = full.at(key);
  }
  out["latents"] = latents;
  return out;
}

// A study has one model and, at each layer, one SAE; tasks and SAEs of earlier calls stay.
Json merged_manifest(const Study& study, Json manifest, const std::vector<Task>& tasks) {
  const Json before = study.manifest();
  if (const Json* model = before.find("model")) {
    if (model->at("sha256").as_string() != manifest.at("model").at("sha256").as_string()) {
      throw Error(Errc::kMismatch, study.folder() + ": is a study of " + model->at("path").as_string() + ", not of " +
                                       manifest.at("model").at("path").as_string() + "; choose another --out");
    }
  }
  if (const Json* saes = before.find("saes")) {
    for (const Json& old : saes->items()) {
      const std::string site = old.at("site").as_string(), sha256 = old.at("sha256").as_string();
      bool known = false;
      for (const Json& now : manifest.at("saes").items()) {
        known = known || now.at("sha256").as_string() == sha256;
        if (layer_of(now.at("site").as_string()) == layer_of(site) && now.at("sha256").as_string() != sha256) {
          throw Error(Errc::kMismatch, study.folder() + ": has another SAE at layer " + std::to_string(layer_of(site)) +
                                           ", " + old.at("path").as_string() + "; choose another --out");
        }
      }
      if (!known) manifest["saes"].push_back(old);
    }
  }
  for (const char* key : {"tasks", "options_of"}) {
    if (const Json* earlier = before.find(key)) manifest[key] = *earlier;
  }
  for (const Task& task : tasks) {
    manifest["tasks"][task.name] = std::filesystem::absolute(task.path).string();
    manifest["options_of"][task.name] = manifest.at("options");
  }
  return manifest;
}

void find(const Context& context, Options& o) {
  o.find.seed = context.seed;
  std::vector<Task> tasks;
  for (const std::string& name : o.tasks) {
    tasks.push_back(load_task(name));
    for (size_t i = 0; i + 1 < tasks.size(); ++i) {
      if (tasks[i].name == tasks.back().name) throw UsageError("find: task " + tasks.back().name + " is named twice");
    }
  }
  const std::vector<Content> contents = of_split(load_contents(o.contents), Split::kDiscovery);
  const auto saes = load_saes(sae_paths(o.saes));
  const Loaded loaded = load_for_study(o.model, o.dtype);
  check_find(*loaded.engine, saes, contents, o.find);
  check_saes(context, *loaded.engine, saes, !o.no_check);
  const auto study = Study::open(o.out, Study::Mode::kCreateOrOpen);
  Json options = options_to_json(o.find);
  options["contents_file"] = o.contents;
  study->set_manifest(merged_manifest(*study, make_manifest(loaded, saes, options), tasks));

  const auto results = find_latents(*loaded.engine, saes, tasks, contents, o.find, context.control);
  Json layers = Json::array();
  for (const FindResult& result : results) {
    for (const Discovery& d : result.discoveries) {
      study->save_discovery(d);
      layers.push_back(layer_json(d, o.find.k));
      if (!context.json) print_discovery(d, o.find.k);
    }
  }
  const TokenCounts tokens = results.front().tokens;
  if (context.json) {
    print_json(Json::object(
        {{"layers", layers}, {"tokens", Json::object({{"naive", tokens.naive}, {"computed", tokens.computed}})}}));
  } else {
    print_line("tokens: " + std::to_string(tokens.computed) + " computed where prompt by prompt it would be " +
               std::to_string(tokens.naive));
  }
}

}  // namespace

void add_find(CLI::App& root, Context& context) {
  auto o = std::make_shared<Options>();
  CLI::App* verb = add_verb(root, context, "find", "Find the latents of an instruction, ranked, per SAE");
  verb->add_option("--model", o->model, "folder, .gguf file or short name")->capture_default_str();
  verb->add_option("--sae", o->saes, "SAE folders or files (several: several layers); default: the bundled ones");
  verb->add_option("--task", o->tasks, "names in data/tasks, or task files")->required()->delimiter(',');
  verb->add_option("--out", o->out, "the study folder")->required();
  verb->add_option("--contents-file", o->contents, "contents (JSON lines) in place of the bundled ones");
  verb->add_flag("--no-check", o->no_check, "use the SAEs even when the acceptance check fails");
  verb->add_option("--seed", context.seed, "of bootstrap intervals")->capture_default_str();
  add_options(verb, o->find, {"seed"});
  add_dtype_flag(verb, o->dtype);
  verb->callback([o, &context] { find(context, *o); });
}

}  // namespace saif::cli
