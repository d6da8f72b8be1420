// What the study verbs share: opening a study's model and SAEs, manifests.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "app.h"
#include "saif/sae.h"
#include "saif/sweep.h"
#include "saif/task.h"

namespace saif::cli {

// Paths of the SAEs an argument means: each a folder or file; "" or "bundled" is every SAE bundled for SmolLM2.
std::vector<std::string> sae_paths(const std::vector<std::string>& arguments);
std::vector<std::shared_ptr<const Sae>> load_saes(const std::vector<std::string>& paths);
// The acceptance check of each: what was measured goes to stderr, a refusal throws unless `enforce` is off.
void check_saes(const Context& context, Engine& engine, const std::vector<std::shared_ptr<const Sae>>& saes,
                bool enforce);

Json make_manifest(const Loaded& loaded, const std::vector<std::shared_ptr<const Sae>>& saes, const Json& options);

// A study with the model and SAEs its manifest names.
struct OpenStudy {
  std::unique_ptr<Study> study;
  Loaded loaded;
  std::vector<std::shared_ptr<const Sae>> saes;
};
OpenStudy open_study(const std::string& folder, const std::string& dtype);

// The study's only task, or the one named.
std::string choose_task(const Study& study, const std::string& name);
// The task of that name: from the file it was found with, else from the bundled ones.
Task load_study_task(const Study& study, const std::string& name);
// The discovery at a layer (-1: the deepest) and placement; throws kNotFound naming what there is.
Discovery choose_discovery(const Study& study, const std::string& task, int layer, const std::string& placement);
const Sae& sae_of(const OpenStudy& open, const Discovery& discovery);
int layer_of(const std::string& site);

std::string share_text(const Share& share, int decimals = 2);  // "0.93 [0.86, 0.97]"

}  // namespace saif::cli
