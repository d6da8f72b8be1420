// The formats saif reads: one line each, asked in this order.
#include <array>

#include "base/file.h"
#include "sae/loaders/gemma_scope.h"
#include "sae/loaders/sae_lens.h"

namespace saif {
namespace {

constexpr std::array kLoaders = {
    SaeLoader{"sae_lens", is_sae_lens, load_sae_lens},
    SaeLoader{"gemma_scope", is_gemma_scope, load_gemma_scope},
    SaeLoader{"gemma_scope_2", is_gemma_scope_2, load_gemma_scope_2},
};

const SaeLoader* find_loader(const std::string& path) {
  for (const SaeLoader& loader : kLoaders) {
    if (loader.recognises(path)) return &loader;
  }
  return nullptr;
}

}  // namespace

bool Sae::recognises(const std::string& path) { return find_loader(path) != nullptr; }

std::shared_ptr<const Sae> Sae::load(const std::string& path, const SaeLoadOptions& options) {
  if (!directory_exists(path) && !file_exists(path)) {
    throw Error(Errc::kNotFound, "SAE " + path + ": no such file or folder");
  }
  if (const SaeLoader* loader = find_loader(path)) return make_sae(loader->load(path, options), options.verify);
  std::string formats;
  for (const SaeLoader& loader : kLoaders) formats += (formats.empty() ? "" : ", ") + std::string(loader.format);
  throw Error(Errc::kUnsupported, "SAE " + path + ": its format is not one that saif reads (" + formats +
                                      "); a SAELens 6 folder holds cfg.json and sae_weights.safetensors");
}

}  // namespace saif
