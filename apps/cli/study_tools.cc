#include "study_tools.h"

#include <algorithm>
#include <filesystem>

#include "saif/task.h"

namespace saif::cli {

namespace fs = std::filesystem;

std::vector<std::string> sae_paths(const std::vector<std::string>& arguments) {
  std::vector<std::string> out;
  for (const std::string& argument : arguments.empty() ? std::vector<std::string>{"bundled"} : arguments) {
    if (argument != "bundled") {
      out.push_back(argument);
      continue;
    }
    std::error_code ec;
    std::vector<std::string> found;
    for (const auto& entry : fs::directory_iterator(bundled_saes_directory(), ec)) {
      if (entry.is_directory() && fs::exists(entry.path() / "cfg.json")) found.push_back(entry.path().string());
    }
    if (found.empty()) {
      throw Error(Errc::kNotFound, bundled_saes_directory() + ": no bundled SAE here; train them with make saes");
    }
    std::sort(found.begin(), found.end());
    out.insert(out.end(), found.begin(), found.end());
  }
  return out;
}

std::vector<std::shared_ptr<const Sae>> load_saes(const std::vector<std::string>& paths) {
  std::vector<std::shared_ptr<const Sae>> out;
  for (const std::string& path : paths)
    out.push_back(Sae::load(fs::absolute(path).string()));  // a study outlives this folder
  std::sort(out.begin(), out.end(), [](const auto& a, const auto& b) {
    const std::string &x = a->config().site, &y = b->config().site;
    return x.size() != y.size() ? x.size() < y.size() : x < y;
  });
  return out;
}

void check_saes(const Context& context, Engine& engine, const std::vector<std::shared_ptr<const Sae>>& saes,
                bool enforce) {
  for (const auto& sae : saes) {
    AcceptanceOptions options;
    options.enforce = enforce;
    const SaeFidelity f = check_sae(*sae, engine, options, context.control);
    say(context, "checked " + sae->path() + ": L0 " + format_number(f.l0, 1) + "  FVU " + format_number(f.fvu, 3));
  }
}

Json make_manifest(const Loaded& loaded, const std::vector<std::shared_ptr<const Sae>>& saes, const Json& options) {
  Json list = Json::array();
  for (const auto& sae : saes) {
    list.push_back(Json::object(
        {{"path", fs::absolute(sae->path()).string()}, {"site", sae->config().site}, {"sha256", sae->sha256()}}));
  }
  return Json::object({{"saif", SAIF_VERSION},
                       {"model", Json::object({{"path", fs::absolute(loaded.model->path()).string()},
                                               {"name", loaded.model->name()},
                                               {"dtype", loaded.model->dtype()},
                                               {"sha256", loaded.model->sha256()}})},
                       {"saes", list},
                       {"options", options}});
}

OpenStudy open_study(const std::string& folder, const std::string& dtype) {
  OpenStudy out;
  out.study = Study::open(folder, Study::Mode::kOpen);
  const Json manifest = out.study->manifest();
  const Json* model = manifest.find("model");
  if (!model) throw Error(Errc::kBadFormat, folder + "/manifest.json: names no model; run saif find again");
  out.loaded = load_for_study(model->at("path").as_string(), dtype == "auto" ? model->at("dtype").as_string() : dtype);
  if (out.loaded.model->sha256() != model->at("sha256").as_string()) {
    throw Error(Errc::kMismatch, model->at("path").as_string() + ": the model's weights are not those the study in " +
                                     folder + " was made with; put the old file back or make a new study");
  }
  std::vector<std::string> paths;
  for (const Json& sae : manifest.at("saes").items()) paths.push_back(sae.at("path").as_string());
  out.saes = load_saes(paths);
  return out;
}

std::string choose_task(const Study& study, const std::string& name) {
  const std::vector<std::string> tasks = study.tasks();
  if (tasks.empty()) throw Error(Errc::kNotFound, study.folder() + ": holds no discovery yet; run saif find first");
  if (name.empty() && tasks.size() == 1) return tasks.front();
  if (std::find(tasks.begin(), tasks.end(), name) != tasks.end()) return name;
  std::string message = name.empty() ? study.folder() + ": holds several tasks; choose one with --task:"
                                     : study.folder() + ": holds no task " + name + "; it has";
  for (const std::string& task : tasks) message += " " + task;
  throw Error(Errc::kNotFound, message);
}

Task load_study_task(const Study& study, const std::string& name) {
  const Json manifest = study.manifest();
  const Json* files = manifest.find("tasks");
  const Json* file = files ? files->find(name) : nullptr;
  return load_task(file ? file->as_string() : name);
}

int layer_of(const std::string& site) { return Site::parse(site).layer; }

Discovery choose_discovery(const Study& study, const std::string& task, int layer, const std::string& placement) {
  std::vector<Discovery> all = study.discoveries(task);
  std::erase_if(all, [&](const Discovery& d) { return d.placement != placement; });
  std::string layers;
  for (const Discovery& d : all) layers += " " + std::to_string(layer_of(d.site));
  if (layer < 0 && !all.empty()) {
    return *std::max_element(all.begin(), all.end(), [](const Discovery& a, const Discovery& b) {
      return layer_of(a.site) < layer_of(b.site);
    });
  }
  for (Discovery& d : all) {
    if (layer_of(d.site) == layer) return std::move(d);
  }
  throw Error(Errc::kNotFound, study.folder() + ": no discovery of " + task + " at layer " + std::to_string(layer) +
                                   " with placement " + placement +
                                   "; layers there:" + (layers.empty() ? " none" : layers));
}

const Sae& sae_of(const OpenStudy& open, const Discovery& discovery) {
  for (const auto& sae : open.saes) {
    if (sae->sha256() == discovery.sae_sha256) return *sae;
  }
  throw Error(Errc::kMismatch,
              discovery.sae_path + ": the SAE is not the one the study was made with; run saif find again");
}

std::string share_text(const Share& share, int decimals) {
  const Interval ci = share.ci();
  return format_number(share.value(), decimals) + " [" + format_number(ci.low, decimals) + ", " +
         format_number(ci.high, decimals) + "]";
}

}  // namespace saif::cli
