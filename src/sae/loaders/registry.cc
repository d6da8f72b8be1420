// The formats saif reads: one line each, asked in this order.
#include <array>

#include "base/file.h"
#include "sae/loaders/dictionary_learning.h"
#include "sae/loaders/gemma_scope.h"
#include "sae/loaders/layer_transcoder.h"
#include "sae/loaders/llama_scope.h"
#include "sae/loaders/sae_lens.h"
#include "sae/loaders/sparsify.h"
#include "sae/loaders/torch_pt.h"

namespace saif {
namespace {

constexpr std::array kLoaders = {
    SaeLoader{"sae_lens", is_sae_lens, load_sae_lens},
    SaeLoader{"gemma_scope", is_gemma_scope, load_gemma_scope},
    SaeLoader{"gemma_scope_2", is_gemma_scope_2, load_gemma_scope_2},
    SaeLoader{"sparsify", is_sparsify, load_sparsify},
    SaeLoader{"dictionary_learning", is_dictionary_learning, load_dictionary_learning},
    SaeLoader{"llama_scope", is_llama_scope, load_llama_scope},
    SaeLoader{"llamascopium", is_llamascopium, load_llamascopium},
    SaeLoader{"layer_transcoder", is_layer_transcoder, load_layer_transcoder},
    SaeLoader{"goodfire, deepseek_r1, openai, qwen_scope, gpt2_hook_z", is_torch_pt, load_torch_pt},
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
