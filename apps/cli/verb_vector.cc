#include "study_tools.h"
#include "verbs.h"

namespace saif::cli {
namespace {

struct Options {
  std::string study, task, out;
  Recipe recipe;
};

void make_vector(const Context& context, Options& o) {
  const auto study = Study::open(o.study, Study::Mode::kReadOnly);
  const std::string task = choose_task(*study, o.task);
  const Discovery discovery = choose_discovery(*study, task, o.recipe.layer, o.recipe.placement);
  o.recipe.layer = layer_of(discovery.site);
  const auto sae = Sae::load(discovery.sae_path, {.verify = false});
  if (sae->sha256() != discovery.sae_sha256) {
    throw Error(Errc::kMismatch,
                discovery.sae_path + ": the SAE is not the one the study was made with; run saif find again");
  }
  const SteeringVector vector = build_vector(discovery, *sae, o.recipe);
  vector.save(o.out);
  if (context.json) {
    return print_json(Json::object(
        {{"norm", vector.norm()}, {"latents", vector.origin.at("latents")}, {"site", vector.site}, {"path", o.out}}));
  }
  print_line(o.out + ": " + label_of(o.recipe) + " at " + vector.site + ", norm " + format_number(vector.norm(), 2));
  print_line("use it: saif run smollm2 --chat -p \"Tell me about bees.\" --steer " + o.out);
}

}  // namespace

void add_vector(CLI::App& root, Context& context) {
  auto o = std::make_shared<Options>();
  CLI::App* verb = add_verb(root, context, "vector", "Build a steering vector from a study");
  verb->add_option("study", o->study, "the study folder")->required();
  verb->add_option("--task", o->task, "the task, when the study has several");
  verb->add_option("--out", o->out, "the vector file (safetensors)")->required();
  add_options(verb, o->recipe);
  verb->callback([o, &context] { make_vector(context, *o); });
}

}  // namespace saif::cli
