#include <algorithm>
#include <optional>

#include "sae_corpus.h"
#include "sae_samples.h"
#include "saif/sae.h"
#include "saif/sweep.h"
#include "saif/tensor.h"
#include "verbs.h"

namespace saif::cli {
namespace {

// --- encode

struct EncodeOptions {
  std::string sae, in, out, tensor = "x";
  bool dense = false, no_check = false;
};

Tensor find_input(const EncodeOptions& o, int64_t d_in) {
  std::string names;
  for (auto& [name, tensor] : read_tensor_file(o.in)) {
    names += " " + name;
    if (name != o.tensor) continue;
    if (tensor.shape().size() != 2 || tensor.shape()[1] != d_in) {
      throw Error(Errc::kMismatch, o.in + ": tensor \"" + name + "\" is " + tensor.view().shape_text() +
                                       "; this SAE reads [n, " + std::to_string(d_in) + "]");
    }
    return to_f32(tensor.view());
  }
  throw Error(Errc::kNotFound, o.in + ": no tensor \"" + o.tensor + "\"; it holds" + names + " (choose with --tensor)");
}

Tensor densify(const SparseLatents& latents, int64_t d_sae) {
  Tensor dense = Tensor::zeros(DType::kF32, {latents.rows(), d_sae});
  for (int64_t r = 0; r < latents.rows(); ++r) {
    for (int64_t i = latents.row_offsets[static_cast<size_t>(r)]; i < latents.row_offsets[static_cast<size_t>(r) + 1];
         ++i) {
      dense.f32()(r, latents.indices[static_cast<size_t>(i)]) = latents.values[static_cast<size_t>(i)];
    }
  }
  return dense;
}

void encode(const Context& context, const EncodeOptions& o) {
  const auto sae = Sae::load(o.sae);
  const Tensor x = find_input(o, sae->config().d_in);
  // What a transcoder reconstructs is not in the file.
  std::optional<double> fvu;
  if (!sae->config().transcoder) fvu = measure_fidelity(*sae, x.f32()).fvu;
  const SparseLatents latents = sae->encode(x.f32());
  const Tensor recon = sae->decode(latents, x.f32());
  const auto entries = static_cast<int64_t>(latents.indices.size());
  std::vector<NamedTensor> tensors = {{"indices", {DType::kI32, {entries}, latents.indices.data()}},
                                      {"values", {DType::kF32, {entries}, latents.values.data()}},
                                      {"row_offsets", {DType::kI64, {latents.rows() + 1}, latents.row_offsets.data()}},
                                      {"recon", recon.view()}};
  Tensor dense;
  if (o.dense) {
    dense = densify(latents, sae->config().d_sae);
    tensors.push_back({"latents", dense.view()});
  }
  write_tensor_file(o.out, tensors);
  if (!o.no_check && fvu && !(*fvu <= 0.5)) {
    say(context, "note: FVU is " + format_number(*fvu, 2) + " on this input; is it from the SAE's site?");
  }
  if (context.json) return print_json(Json::object({{"l0", latents.mean_l0()}, {"fvu", fvu ? Json(*fvu) : Json()}}));
  print_line("L0 " + format_number(latents.mean_l0(), 2) + (fvu ? "  FVU " + format_number(*fvu, 4) : ""));
}

void add_encode(CLI::App& sae, Context& context) {
  auto o = std::make_shared<EncodeOptions>();
  CLI::App* verb = add_verb(sae, context, "encode", "Latents and reconstruction of activations in a file");
  verb->add_option("sae", o->sae, "SAE folder or file")->required();
  verb->add_option("--in", o->in, "safetensors with the activations [n, d_in]")->required();
  verb->add_option("--out", o->out, "safetensors to write: indices, values, row_offsets, recon")->required();
  verb->add_option("--tensor", o->tensor, "name of the activations")->capture_default_str();
  verb->add_flag("--dense", o->dense, "also write latents [n, d_sae]");
  verb->add_flag("--no-check", o->no_check, "skip the acceptance check");
  verb->callback([o, &context] { encode(context, *o); });
}

// --- train

struct TrainArguments {
  CorpusOptions corpus;
  SampleOptions samples;
  std::vector<std::string> sites, sites_out, kinds = {SaeTrainOptions().kind};
  std::vector<int64_t> widths = {SaeTrainOptions().d_sae}, ks = {SaeTrainOptions().k};
  std::string out;
  SaeTrainOptions train;
};

std::vector<SaeSpot> spots_of(const TrainArguments& o, int n_layers) {
  if (!o.sites_out.empty() && o.sites_out.size() != o.sites.size()) {
    throw UsageError("sae train: " + std::to_string(o.sites_out.size()) + " sites after --site-out for " +
                     std::to_string(o.sites.size()) + " after --site; a transcoder needs one of each");
  }
  std::vector<SaeSpot> spots;
  for (size_t i = 0; i < o.sites.size(); ++i) {
    SaeSpot& spot = spots.emplace_back(SaeSpot{Site::parse(o.sites[i], n_layers), {}});
    if (!o.sites_out.empty()) spot.out = Site::parse(o.sites_out[i], n_layers);
  }
  return spots;
}

// Every kind with every width and k.
std::vector<SaeTrainOptions> variants_of(const TrainArguments& o) {
  std::vector<SaeTrainOptions> variants;
  for (const std::string& kind : o.kinds) {
    for (const int64_t d_sae : o.widths) {
      for (const int64_t k : o.ks) {
        SaeTrainOptions& options = variants.emplace_back(o.train);
        options.kind = kind;
        options.d_sae = d_sae;
        options.k = k;
      }
    }
  }
  return variants;
}

void train(const Context& context, const TrainArguments& o) {
  if (o.samples.prompts.empty() == o.corpus.corpus.empty()) {
    throw UsageError("sae train: give the documents with --corpus or prompts for the model's own with --prompts");
  }
  const Loaded loaded = load_for_study(o.corpus.model, o.corpus.dtype);
  const auto spots = spots_of(o, static_cast<int>(loaded.model->architecture().n_layers));
  const auto documents = o.samples.prompts.empty()
                             ? read_documents(o.corpus, *loaded.tokenizer, o.train.context)
                             : sample_documents(o.samples, o.train.seed, *loaded.engine, o.out, context.control);
  const auto results = train_saes(*loaded.engine, spots, documents, variants_of(o), o.out, context.control);
  for (const SaeTrainResult& result : results) {
    write_training_page(result.folder);
    if (context.json) {
      Json line = Json::object({{"site", result.site}, {"folder", result.folder}});
      const Json numbers = result.to_json();
      for (const auto& [key, value] : numbers.members()) line[key] = value;
      print_json(line);
    } else {
      const SaeEvaluation& e = result.evaluation;
      print_line(result.site + ": L0 " + format_number(e.fidelity.l0, 1) + "  FVU " + format_number(e.fidelity.fvu, 4) +
                 "  dead " + format_number(100 * e.fidelity.dead, 1) + "%  loss recovered " +
                 format_number(e.loss_recovered, 3) + "  -> " + result.folder);
    }
  }
}

void add_train(CLI::App& sae, Context& context) {
  auto o = std::make_shared<TrainArguments>();
  CLI::App* verb = add_verb(sae, context, "train", "Train SAEs on a model's activations; started again it resumes");
  add_corpus_flags(verb, o->corpus);
  verb->get_option("--corpus")->required(false);
  add_sample_flags(verb, o->samples);
  verb->add_option("--site", o->sites, "blocks.24.hook_resid_post; several from one pass")->required()->delimiter(',');
  verb->add_option("--site-out", o->sites_out, "transcoders: what each --site is to give, blocks.24.hook_mlp_out")
      ->delimiter(',');
  verb->add_option("--out", o->out, "folder to write: SAE, metrics.jsonl, metrics.json, training.html")->required();
  verb->add_option("--kind", o->kinds,
                   "relu, topk, batchtopk, jumprelu, gated, matryoshka (on batchtopk) or matryoshka-topk; several from "
                   "one pass, as of --d-sae and --k")
      ->delimiter(',')
      ->capture_default_str();
  verb->add_option("--d-sae", o->widths, "latents")->delimiter(',')->capture_default_str();
  verb->add_option("--k", o->ks,
                   "active latents per token: of each (topk), in the mean (batchtopk), aimed at (jumprelu), half of "
                   "those at the start (relu, gated)")
      ->delimiter(',')
      ->capture_default_str();
  add_options(verb, o->train, {"dtype", "kind", "d-sae", "k"});
  verb->add_option("--save-dtype", o->train.dtype, "of the saved weights: f32 or bf16")->capture_default_str();
  verb->callback([o, &context] { train(context, *o); });
}

// --- export

struct ExportArguments {
  std::string sae, out, format = "sae_lens", dtype = "f32";
};

void export_verb(const Context& context, const ExportArguments& o) {
  const auto sae = Sae::load(o.sae);
  const std::string folder = sae->save_as(o.format, o.out, o.dtype == "bf16" ? DType::kBf16 : DType::kF32);
  if (context.json) return print_json(Json::object({{"path", folder}, {"format", o.format}}));
  print_line(folder);
}

void add_export(CLI::App& sae, Context& context) {
  auto o = std::make_shared<ExportArguments>();
  CLI::App* verb = add_verb(sae, context, "export", "Write an SAE of any format as one that other tools read");
  verb->add_option("sae", o->sae, "SAE folder or file")->required();
  verb->add_option("--out", o->out, "folder to write; sparsify's named after the site lies in it")->required();
  verb->add_option("--format", o->format, "sae_lens or sparsify")
      ->check(CLI::IsMember({"sae_lens", "sparsify"}))
      ->capture_default_str();
  verb->add_option("--dtype", o->dtype, "of the weights: f32 or bf16")
      ->check(CLI::IsMember({"f32", "bf16"}))
      ->capture_default_str();
  verb->callback([o, &context] { export_verb(context, *o); });
}

}  // namespace

void add_sae(CLI::App& root, Context& context) {
  CLI::App* sae = root.add_subcommand("sae", "Encode with, train and evaluate sparse autoencoders");
  sae->require_subcommand(1);
  add_encode(*sae, context);
  add_train(*sae, context);
  add_sae_eval(*sae, context);
  add_export(*sae, context);
}

}  // namespace saif::cli
