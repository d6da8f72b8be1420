// Explaining a study's latents: what `saif explain` and `saif report --explain` share.
#pragma once

#include <string>
#include <utility>
#include <vector>

#include "study_tools.h"

namespace saif::cli {

// Explains latents of discoveries of one task, and keeps what was found in the study. corpus: a file of texts to look
// at them in, "" for prompts of the task. In the order of `wanted`: one list per discovery.
std::vector<std::vector<LatentExplanation>> explain_and_keep(
    const Context& context, const OpenStudy& open, const std::string& task,
    const std::vector<std::pair<const Discovery*, std::vector<int32_t>>>& wanted, const std::string& corpus,
    const ExplainOptions& options);

}  // namespace saif::cli
