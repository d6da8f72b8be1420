#include "explaining.h"

#include <algorithm>

#include "saif/task.h"

namespace saif::cli {
namespace {

std::shared_ptr<const Sae> shared_sae_of(const OpenStudy& open, const Discovery& discovery) {
  const Sae& sae = sae_of(open, discovery);
  for (const auto& candidate : open.saes) {
    if (candidate.get() == &sae) return candidate;
  }
  throw Error(Errc::kInternal, "the study's SAE is none of the study's");
}

std::vector<std::vector<int32_t>> documents_of(const OpenStudy& open, const std::string& corpus, const Task& task) {
  const Tokenizer& tokenizer = *open.loaded.tokenizer;
  std::vector<std::vector<int32_t>> documents;
  if (corpus.empty()) {
    documents = explanation_documents(tokenizer, task, of_split(load_contents(), Split::kDiscovery));
  } else {
    for (const std::string& text : read_prompts(corpus)) {
      documents.push_back(tokenizer.encode(text, {.add_special = true, .parse_special = true}));
    }
  }
  const auto context = static_cast<size_t>(open.loaded.model->architecture().context);
  for (auto& document : documents) document.resize(std::min(document.size(), context));
  std::erase_if(documents, [](const auto& document) { return document.empty(); });
  return documents;
}

}  // namespace

std::vector<std::vector<LatentExplanation>> explain_and_keep(
    const Context& context, const OpenStudy& open, const std::string& task,
    const std::vector<std::pair<const Discovery*, std::vector<int32_t>>>& wanted, const std::string& corpus,
    const ExplainOptions& options) {
  std::vector<ExplainSet> sets;
  for (const auto& [discovery, latents] : wanted) sets.push_back({shared_sae_of(open, *discovery), latents});
  const Task study_task = load_study_task(*open.study, task);
  auto out = explain_latents(*open.loaded.engine, sets, documents_of(open, corpus, study_task),
                             instruction_words(study_task), options, context.control);
  for (size_t s = 0; s < out.size(); ++s) {
    for (const LatentExplanation& e : out[s]) {
      Json json = e.to_json();
      json["sae_sha256"] = sets[s].sae->sha256();
      open.study->save_explanation(task, json);
    }
  }
  return out;
}

}  // namespace saif::cli
