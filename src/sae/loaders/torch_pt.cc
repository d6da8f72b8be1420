#include "sae/loaders/torch_pt.h"

#include <algorithm>

#include "base/file.h"

namespace saif {

void require_no_others(const TorchFile& file, const std::vector<std::string>& known) {
  static const std::vector<std::string> kProgress = {"epoch", "step", "steps", "global_step", "loss", "seed"};
  for (const std::string& key : file.others()) {
    if (std::ranges::count(known, key) + std::ranges::count(kProgress, key) > 0) continue;
    throw Error(Errc::kUnsupported, file.path() + ": entry " + Json(key.substr(0, 160)).dump() +
                                        " is no tensor and not known, so its effect cannot be honoured");
  }
}

bool is_torch_pt(const std::string& path) {
  return (path.ends_with(".pt") || path.ends_with(".pth")) && file_exists(path);
}

SaeSource load_torch_pt(const std::string& path, const SaeLoadOptions& options) {
  const TorchFile file = TorchFile::open(path, options.verify);
  const TensorArchive archive = file.tensors();
  SaeSource source;
  source.path = path;
  source.files = {path};
  source.owner = archive.owner;
  source.fast = options.fast;
  TensorSet tensors(path, archive.tensors);
  if (tensors.contains("pre_bias")) {
    load_openai(tensors, file, source);
  } else if (tensors.contains("encoder_linear.weight") || tensors.contains("encoder.weight")) {
    load_torch_linear(tensors, source);
  } else if (tensors.contains("W_enc") && file_exists(hook_z_config_file(path))) {
    load_gpt2_hook_z(tensors, source);
  } else if (tensors.contains("W_enc") && path.ends_with(".sae.pt")) {
    load_qwen_scope(tensors, source);
  } else {
    std::string found;
    for (const auto& [name, view] : archive.tensors) {
      if (found.size() < 200) found += (found.empty() ? "" : ", ") + name;
    }
    throw Error(Errc::kUnsupported, path + ": its tensors (" + found +
                                        ") are of no layout that saif knows; expected Goodfire's, OpenAI's, "
                                        "Qwen-Scope's (layerN.sae.pt) or one with X_cfg.json beside X.pt");
  }
  tensors.finish();
  if (source.config.format != "openai") require_no_others(file);
  return source;
}

}  // namespace saif
