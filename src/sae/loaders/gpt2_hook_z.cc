// Attention-output SAEs of GPT-2: X.pt in canonical names, X_cfg.json beside; relu, b_dec subtracted, heads flat.
#include "sae/loaders/torch_pt.h"

namespace saif {

std::string hook_z_config_file(const std::string& path) { return path.substr(0, path.find_last_of('.')) + "_cfg.json"; }

void load_gpt2_hook_z(TensorSet& tensors, SaeSource& source) {
  SaeConfig& config = source.config;
  const std::string file = hook_z_config_file(source.path);
  KeySet keys(file, read_json_file(file));
  source.files.insert(source.files.begin(), file);
  config.format = "gpt2_hook_z";
  config.kind = SaeKind::kStandard;
  config.d_in = config.d_out = keys.size("act_size");
  config.d_sae = keys.size("dict_size");
  config.site = keys.string("act_name");
  config.model = keys.string("model_name", "");
  keys.require_value("head", "cat", "SAEs of a single head are not supported");
  keys.ignore({"layer",       "site",
               "seed",        "batch_size",
               "buffer_mult", "lr",
               "num_tokens",  "l1_coeff",
               "beta1",       "beta2",
               "dict_mult",   "seq_len",
               "enc_dtype",   "remove_rare_dir",
               "device",      "model_batch_size",
               "buffer_size", "buffer_batches",
               "num_batches", "train_name"},
              config.metadata);
  keys.finish();
  source.w_enc = tensors.matrix("W_enc", {config.d_in, config.d_sae});
  source.w_dec = tensors.matrix("W_dec", {config.d_sae, config.d_out});
  source.b_enc = tensors.vector("b_enc", config.d_sae);
  source.b_dec = tensors.vector("b_dec", config.d_out);
}

}  // namespace saif
