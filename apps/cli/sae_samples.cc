#include "sae_samples.h"

#include <filesystem>

#include "saif/task.h"

namespace saif::cli {
namespace {

Json recipe_of(const SampleOptions& o, int64_t seed, const Engine& engine) {
  return Json::object({{"model_sha256", engine.model().sha256()},
                       {"prompts", read_prompts(o.prompts)},
                       {"tokens", o.tokens},
                       {"temperature", o.temperature},
                       {"seed", seed}});
}

std::vector<std::vector<int32_t>> read_samples(const std::string& path, const Json& recipe) {
  const Json samples = read_json_file(path);
  if (samples.at("recipe").dump() != recipe.dump()) {
    throw Error(Errc::kMismatch,
                path + ": made of another model, other prompts or with other settings; use the same or another folder");
  }
  std::vector<std::vector<int32_t>> documents;
  for (const Json& ids : samples.at("documents").items()) {
    std::vector<int32_t>& document = documents.emplace_back();
    for (const Json& id : ids.items()) document.push_back(token_id(id, path));
  }
  return documents;
}

}  // namespace

void add_sample_flags(CLI::App* verb, SampleOptions& o) {
  verb->add_option(
      "--prompts", o.prompts,
      "in place of --corpus: the model answers these prompts (a line each, or JSON lines with \"prompt\"), "
      "and its transcripts are the corpus, kept in samples.json");
  verb->add_option("--sample-tokens", o.tokens, "new tokens of an answer at most")->capture_default_str();
  verb->add_option("--temperature", o.temperature, "of the answers; 0 is greedy")->capture_default_str();
}

std::vector<std::vector<int32_t>> sample_documents(const SampleOptions& o, int64_t seed, Engine& engine,
                                                   const std::string& folder, const Control& control) {
  const std::string path = folder + "/samples.json";
  const Json recipe = recipe_of(o, seed, engine);
  if (std::filesystem::exists(path)) return read_samples(path, recipe);
  std::vector<GenerateRequest> requests;
  for (const std::string& text : read_prompts(o.prompts)) {
    GenerateRequest& request = requests.emplace_back();
    request.ids = prompt_ids(engine.tokenizer(), text);
    request.max_new_tokens = o.tokens;
    request.sampling.temperature = o.temperature;
    request.sampling.seed = seed;
  }
  const auto answers = engine.generate(requests, control);
  std::vector<std::vector<int32_t>> documents;
  Json list = Json::array();
  for (size_t i = 0; i < requests.size(); ++i) {
    std::vector<int32_t>& ids = documents.emplace_back(std::move(requests[i].ids));
    ids.insert(ids.end(), answers[i].ids.begin(), answers[i].ids.end());
    list.push_back(ids);
  }
  std::filesystem::create_directories(folder);
  write_json_file(path, Json::object({{"recipe", recipe}, {"documents", list}}));
  return documents;
}

}  // namespace saif::cli
