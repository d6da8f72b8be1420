// Qwen-Scope: layerN.sae.pt, both matrices transposed. The authors' code keeps the k largest values as they are.
#include <filesystem>
#include <regex>
#include <tuple>

#include "base/file.h"
#include "sae/loaders/torch_pt.h"

namespace saif {
namespace {

// k and model from the repository's name, "SAE-Res-Qwen3-8B-Base-W64K-L0_50"; k from config.json beside, too.
void read_place(const std::string& path, SaeConfig& config) {
  const std::string where = std::filesystem::absolute(path).lexically_normal().generic_string();
  static const std::regex repository(R"(SAE-Res-([A-Za-z0-9.\-]{1,80})-W\d+K-L0_(\d{1,6}))");
  static const std::regex layer(R"(/layer(\d{1,4})\.sae\.pt$)");
  std::smatch match;
  std::string said;  // and where
  if (const auto name = last_match(where, repository)) {
    config.model = "Qwen/" + (*name)[1].str();
    config.k = std::stoll((*name)[2].str());
    said = "the repository's name says L0_" + (*name)[2].str();
  }
  if (std::regex_search(where, match, layer)) config.site = "blocks." + match[1].str() + ".hook_resid_post";
  const std::string file = where.substr(0, where.find_last_of('/')) + "/config.json";
  if (!file_exists(file)) return;
  KeySet keys(file, read_json_file(file));
  for (const char* key : {"k", "top_k"}) {
    if (!keys.contains(key)) continue;
    const int64_t k = keys.size(key);
    if (config.k > 0 && config.k != k) {
      keys.fail(Errc::kBadFormat,
                std::string(key) + " is " + std::to_string(k) + ", but " + said + "; expected one number");
    }
    config.k = k;
    said = std::string(key) + " is " + std::to_string(k);
  }
}

}  // namespace

void load_qwen_scope(TensorSet& tensors, SaeSource& source) {
  SaeConfig& config = source.config;
  config.format = "qwen_scope";
  config.kind = SaeKind::kTopK;
  config.keep_negative = true;
  config.apply_b_dec_to_input = false;
  std::tie(config.d_sae, config.d_in) = tensors.size_of_matrix("W_enc");
  config.d_out = config.d_in;
  read_place(source.path, config);
  if (config.k < 1 || config.k > config.d_sae) {
    throw Error(Errc::kBadFormat,
                source.path + ": k is " + (config.k < 1 ? "not known" : std::to_string(config.k)) +
                    "; expected it in the repository's name (L0_50), or \"k\" in config.json beside, of at most " +
                    std::to_string(config.d_sae));
  }
  source.w_enc = tensors.matrix("W_enc", {config.d_sae, config.d_in});
  source.encoder_rows = true;
  source.b_enc = tensors.vector("b_enc", config.d_sae);
  set_linear_decoder(source, tensors.matrix("W_dec", {config.d_out, config.d_sae}));
  source.b_dec = tensors.vector("b_dec", config.d_out);
}

}  // namespace saif
