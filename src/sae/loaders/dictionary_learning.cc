#include "sae/loaders/dictionary_learning.h"

#include <cmath>
#include <regex>

#include "base/file.h"
#include "formats/torch_file.h"
#include "sae/loaders/tensor_set.h"
#include "sae/loaders/torch_pt.h"

namespace saif {
namespace {

constexpr const char* kWeights = "/ae.pt";

std::string weights_file(const std::string& path) { return path.ends_with(kWeights) ? path : path + kWeights; }

// "resid_post_layer_8", or a module's name.
std::string site_of(const std::string& submodule) {
  static const std::regex pattern(R"((resid_post|mlp_out|attn_out|attention_out)_layer_(\d{1,4}))");
  std::smatch match;
  if (!std::regex_match(submodule, match, pattern)) return site_of_module(submodule);
  const std::string block = "blocks." + match[2].str() + ".";
  if (match[1] == "resid_post") return block + "hook_resid_post";
  return block + (match[1] == "mlp_out" ? "hook_mlp_out" : "hook_attn_out");
}

class Reader {
 public:
  Reader(KeySet& trainer, TensorSet& tensors, SaeSource& source)
      : trainer_(trainer), tensors_(tensors), source_(source), config_(source.config) {}

  void read() {
    const std::string name = trainer_.string("dict_class");
    config_.d_in = config_.d_out = trainer_.size("activation_dim");
    config_.d_sae = trainer_.size("dict_size");
    config_.model = trainer_.string("lm_name", "");
    config_.site = site_of(trainer_.string("submodule_name", ""));
    config_.metadata["dict_class"] = name;
    if (name == "AutoEncoder") return read_autoencoder();
    if (name == "AutoEncoderNew") return read_autoencoder_new();
    if (name == "AutoEncoderTopK") return read_topk();
    if (name == "BatchTopKSAE") return read_batch_topk();
    if (name == "MatryoshkaBatchTopKSAE") return read_matryoshka();
    if (name == "JumpReluAutoEncoder") return read_jumprelu();
    if (name == "GatedAutoEncoder") return read_gated();
    trainer_.fail(Errc::kUnsupported,
                  "dict_class \"" + name +
                      "\" is not supported; expected AutoEncoder, AutoEncoderNew, AutoEncoderTopK, BatchTopKSAE, "
                      "MatryoshkaBatchTopKSAE, JumpReluAutoEncoder or GatedAutoEncoder");
  }

 private:
  void linear_weights() {
    source_.w_enc = tensors_.matrix("encoder.weight", {config_.d_sae, config_.d_in});
    source_.encoder_rows = true;
    set_linear_decoder(source_, tensors_.matrix("decoder.weight", {config_.d_out, config_.d_sae}));
  }

  void canonical_weights() {
    source_.w_enc = tensors_.matrix("W_enc", {config_.d_in, config_.d_sae});
    source_.w_dec = tensors_.matrix("W_dec", {config_.d_sae, config_.d_out});
    source_.b_enc = tensors_.vector("b_enc", config_.d_sae);
    source_.b_dec = tensors_.vector("b_dec", config_.d_out);
  }

  // The library brings the decoder rows to unit norm when it loads, and the encoder and its bias the other way.
  void read_autoencoder() {
    config_.kind = SaeKind::kStandard;
    linear_weights();
    source_.b_enc = tensors_.vector("encoder.bias", config_.d_sae);
    source_.b_dec = tensors_.vector("bias", config_.d_out);
    source_.latent_scale = row_norms(source_.w_dec);
    source_.decoder_row_scale = source_.latent_scale;
    for (float& v : source_.decoder_row_scale) v = v > 0 ? 1.0f / v : 0.0f;
  }

  void read_autoencoder_new() {
    config_.kind = SaeKind::kStandard;
    config_.apply_b_dec_to_input = false;
    linear_weights();
    source_.b_enc = tensors_.vector("encoder.bias", config_.d_sae);
    source_.b_dec = tensors_.vector("decoder.bias", config_.d_out);
  }

  void read_topk() {
    config_.kind = SaeKind::kTopK;
    linear_weights();
    source_.b_enc = tensors_.vector("encoder.bias", config_.d_sae);
    source_.b_dec = tensors_.vector("b_dec", config_.d_out);
    config_.k = read_k();
    tensors_.ignore("threshold");  // only used where the caller asks for it
  }

  // Of ae.pt, which early versions saved without it, and of the trainer: one number.
  int64_t read_k() {
    const int64_t k = tensors_.contains("k") ? tensors_.integer("k") : trainer_.size("k");
    const int64_t stated = trainer_.size("k", k);
    if (k != stated) {
      trainer_.fail(Errc::kBadFormat, "k is " + std::to_string(stated) + ", but ae.pt says " + std::to_string(k) +
                                          "; expected one number");
    }
    if (k < 1 || k > config_.d_sae) {
      trainer_.fail(Errc::kBadFormat, "k is " + std::to_string(k) + "; expected 1 to " + std::to_string(config_.d_sae));
    }
    return k;
  }

  void read_batch_topk() {
    linear_weights();
    source_.b_enc = tensors_.vector("encoder.bias", config_.d_sae);
    source_.b_dec = tensors_.vector("b_dec", config_.d_out);
    read_threshold();
  }

  void read_matryoshka() {
    canonical_weights();
    read_threshold();
    // All groups are active: they say only whether the file is whole.
    const std::vector<int64_t> groups = tensors_.integers("group_sizes");
    int64_t sum = 0;
    bool fit = true;
    for (const int64_t group : groups) {
      fit = fit && group >= 1 && group <= config_.d_sae;
      if (fit) sum += group;
    }
    if (fit && sum == config_.d_sae) return;
    throw Error(Errc::kBadFormat, tensors_.path() + ": tensor \"group_sizes\" " +
                                      (fit ? "sums to " + std::to_string(sum) : "has sizes that are none") +
                                      "; expected the " + std::to_string(config_.d_sae) + " latents");
  }

  // One number for all latents; -1 means that training never set it, and relu is left.
  void read_threshold() {
    const float threshold = tensors_.scalar("threshold");
    if (tensors_.contains("k")) (void)read_k();  // of the batch, in training
    config_.kind = threshold < 0 ? SaeKind::kStandard : SaeKind::kJumpRelu;
    config_.metadata["threshold"] = threshold;
    if (threshold < 0) {
      config_.metadata["warning"] = "the threshold was never set in training: latents are relu alone, far too many";
    } else {
      source_.threshold.assign(static_cast<size_t>(config_.d_sae), threshold);
    }
  }

  void read_jumprelu() {
    config_.kind = SaeKind::kJumpRelu;
    config_.apply_b_dec_to_input = false;
    canonical_weights();
    source_.threshold = tensors_.vector("threshold", config_.d_sae);
  }

  void read_gated() {
    config_.kind = SaeKind::kGated;
    linear_weights();
    source_.b_enc.assign(static_cast<size_t>(config_.d_sae), 0.0f);
    source_.b_dec = tensors_.vector("decoder_bias", config_.d_out);
    source_.gate_bias = tensors_.vector("gate_bias", config_.d_sae);
    source_.magnitude_bias = tensors_.vector("mag_bias", config_.d_sae);
    source_.magnitude_scale = tensors_.vector("r_mag", config_.d_sae);
    for (float& v : source_.magnitude_scale) v = std::exp(v);
  }

  KeySet& trainer_;
  TensorSet& tensors_;
  SaeSource& source_;
  SaeConfig& config_;
};

}  // namespace

bool is_dictionary_learning(const std::string& path) { return file_exists(weights_file(path)); }

SaeSource load_dictionary_learning(const std::string& path, const SaeLoadOptions& options) {
  const std::string file = weights_file(path);
  const std::string config_file = file.substr(0, file.size() - std::string(kWeights).size()) + "/config.json";
  KeySet keys(config_file, read_json_file(config_file));
  const Json* trainer = keys.find("trainer");
  if (trainer == nullptr) keys.fail(Errc::kBadFormat, "\"trainer\" is missing; expected it with dict_class");
  TorchFile opened = TorchFile::open(file, options.verify);
  if (opened.has_dictionary("ae")) opened = opened.dictionary("ae");  // a checkpoint, with its optimizer
  require_no_others(opened);
  const TensorArchive archive = opened.tensors();
  SaeSource source;
  source.path = path;
  source.files = {config_file, file};
  source.owner = archive.owner;
  source.fast = options.fast;
  source.config.format = "dictionary_learning";
  TensorSet tensors(file, archive.tensors);
  KeySet trainer_keys(config_file + ", trainer", *trainer);
  Reader(trainer_keys, tensors, source).read();
  tensors.finish();
  source.config.metadata["trainer"] = *trainer;  // the class says the arithmetic; the rest is the training's
  return source;
}

}  // namespace saif
