// Any bytes as an SAE. The first byte chooses the format, the others are its configuration and, behind a zero byte, its
// weights. What loads can encode and decode a row.
#include <array>

#include "fuzz_folder.h"
#include "saif/sae.h"

namespace {

struct Layout {
  const char *folder, *config, *weights;  // paths in the folder; config "": none
  bool file;                              // the loader is given the weights file
};
constexpr std::array kLayouts = {
    Layout{"sae_lens", "cfg.json", "sae_weights.safetensors", false},
    Layout{"layers.3", "cfg.json", "sae.safetensors", false},
    Layout{"gemma-scope-2b-pt-res/layer_12/width_16k/average_l0_17", "", "params.npz", false},
    Layout{"gemma2", "config.json", "params.safetensors", false},
    Layout{"llama_scope", "hyperparams.json", "checkpoints/final.safetensors", false},
    Layout{"llamascopium", "config.json", "sae_weights.safetensors", false},
    Layout{"dictionary_learning", "config.json", "ae.pt", false},
    Layout{"layer_transcoder", "config.yaml", "layer_3.safetensors", true},
    Layout{"pt", "", "Llama-3.1-8B-Instruct-SAE-l19.pth", true},
    Layout{"qwen/L0_50", "", "layer3.sae.pt", true},
};
constexpr int64_t kMaxWeights = 1 << 20;

void use(const saif::Sae& sae) {
  const saif::SaeConfig& config = sae.config();
  (void)config.to_json();
  if (config.d_in * config.d_sae > kMaxWeights || config.max_iterations > 64) return;
  saif::Tensor x(saif::DType::kF32, {2, config.d_in});
  for (int64_t i = 0; i < x.elements(); ++i) x.as<float>()[i] = static_cast<float>(i % 7) - 3.0f;
  const saif::SparseLatents latents = sae.encode(x.f32());
  (void)sae.decode(latents, x.f32());
  const std::array<int32_t, 1> last = {static_cast<int32_t>(config.d_sae - 1)};
  (void)sae.decoder_rows(last);
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  if (size < 1) return 0;
  const Layout& layout = kLayouts[data[0] % kLayouts.size()];
  const std::span<const uint8_t> rest(data + 1, size - 1);
  static const saif::fuzz::Folder folder("sae");
  const std::string path = folder.path() + "/" + layout.folder;
  const bool configured = layout.config[0] != '\0';
  const auto [config, weights] = configured ? saif::fuzz::split(rest) : std::pair(std::span<const uint8_t>(), rest);
  if (configured) folder.write(std::string(layout.folder) + "/" + layout.config, config);
  folder.write(std::string(layout.folder) + "/" + layout.weights, weights);
  try {
    use(*saif::Sae::load(layout.file ? path + "/" + layout.weights : path));
  } catch (const saif::Error&) {
  }
  return 0;
}

extern "C" size_t LLVMFuzzerCustomMutator(uint8_t* data, size_t size, size_t max_size, unsigned int seed) {
  return saif::fuzz::mutate_text({data, max_size}, size, 1, seed);
}
