// `saif sae train`: documents to SAEs on disk, resumable at every step.
#include <algorithm>
#include <chrono>
#include <cmath>
#include <cstdio>
#include <optional>

#include "base/file.h"
#include "sae/activations.h"
#include "sae/evaluate.h"
#include "sae/train_files.h"
#include "sae/trainer_state.h"
#include "saif/options.h"
#include "saif/sae.h"

namespace saif {
namespace {

constexpr int64_t kSampleRows = 8192;  // that initialise an SAE

std::string note_of(const SaeTrainer::StepStats& stats, double tokens_per_s) {
  char text[96];
  std::snprintf(text, sizeof text, "L0 %.1f  FVU %.3f  dead %.3f  %.0f tok/s", stats.l0, stats.fvu, stats.dead,
                tokens_per_s);
  return text;
}

// Options without what may differ between the SAEs of one run.
std::string common_of(SaeTrainOptions options) {
  options.kind.clear();
  options.d_sae = options.k = 0;
  return options_to_json(options).dump();
}

// One SAE to train.
struct Job {
  SaeSpot spot;
  SaeTrainOptions options;
  size_t in = 0, out = 0;    // indices of the activations' sites
  std::string name, folder;  // of its state; where it goes
};

// Held-out text at one spot, for all its SAEs.
struct HeldOut {
  SaeSpot spot;
  Tensor x, y;               // rows of spot.site and, for transcoders, of spot.out
  std::vector<double> mean;  // of the target
  ScoredText text;           // not for transcoders
  Mat<const float> target() const { return spot.out ? y.f32() : x.f32(); }
};

// One call of train_saes.
class Run {
 public:
  Run(Engine& engine, std::span<const SaeSpot> spots, std::span<const SaeTrainOptions> variants, std::string out,
      const Control& control)
      : engine_(engine),
        spots_(spots.begin(), spots.end()),
        variants_(variants.begin(), variants.end()),
        out_(std::move(out)),
        control_(control) {}

  std::vector<SaeTrainResult> train(std::span<const std::vector<int32_t>> documents) {
    check(documents);
    plan();
    const TrainSplit split = split_documents(documents, common(), engine_.model().architecture().context);
    claim_folder(documents);
    std::vector<SaeTrainResult> results;
    for (const Job& job : jobs_) {
      if (held_out_ && !(held_out_->spot == job.spot)) held_out_.reset();  // its rows need not wait through training
      results.push_back(file_exists(job.folder + "/metrics.json") ? read_result(job) : train_one(job, split));
    }
    ActivationCache::remove(cache_request());
    return results;
  }

 private:
  const SaeTrainOptions& common() const { return variants_.front(); }
  std::string checkpoint_folder() const { return out_ + "/checkpoint"; }
  std::string state_of(const Job& job) const { return checkpoint_folder() + "/" + job.name + ".state.safetensors"; }
  ActivationCache::Request cache_request() const {
    return {checkpoint_folder(), sites_, common().skip_first, common().activations == "memory"};
  }

  void check(std::span<const std::vector<int32_t>> documents) const {
    if (spots_.empty()) throw Error(Errc::kInvalidArgument, "sae train: no site is named; expected one or more");
    if (variants_.empty()) throw Error(Errc::kInvalidArgument, "sae train: no options are given");
    if (documents.empty()) throw Error(Errc::kInvalidArgument, "sae train: the corpus has no documents");
    for (size_t i = 0; i < spots_.size(); ++i) {
      const int64_t width = width_of(spots_[i].site);
      if (spots_[i].out) width_of(*spots_[i].out);
      for (const SaeTrainOptions& options : variants_) {
        check_train_options(options, width);
        if (spots_[i].out) check_transcoder_options(options);
      }
      if (std::count(spots_.begin(), spots_.end(), spots_[i]) > 1) {
        throw Error(Errc::kInvalidArgument, "sae train: site " + spots_[i].site.name() + " is named twice");
      }
    }
    for (const SaeTrainOptions& options : variants_) {
      if (common_of(options) != common_of(common())) {
        throw Error(Errc::kInvalidArgument, "sae train: SAEs of one run may differ in kind, d-sae and k only");
      }
    }
  }

  int64_t width_of(const Site& site) const {
    const int64_t width = engine_.model().architecture().width(site);
    if (width > 0) return width;
    throw Error(Errc::kInvalidArgument, "sae train: site " + site.name() + " has no fixed width; choose another");
  }

  size_t index_of(const Site& site) {
    const auto at = std::find(sites_.begin(), sites_.end(), site);
    const auto index = static_cast<size_t>(at - sites_.begin());
    if (at == sites_.end()) sites_.push_back(site);
    return index;
  }

  void plan() {
    for (const SaeSpot& spot : spots_) {
      for (const SaeTrainOptions& options : variants_) {
        Job job{spot, options, index_of(spot.site), 0, spot.site.name(), out_};
        job.out = spot.out ? index_of(*spot.out) : job.in;
        if (spot.out) job.name += "-" + spot.out->name();
        if (spots_.size() > 1) job.folder += "/" + job.name;
        if (variants_.size() > 1) {
          const std::string variant =
              options.kind + "-" + std::to_string(options.d_sae) + "-k" + std::to_string(options.k);
          job.folder += "/" + variant;
          job.name += "." + variant;
        }
        for (const Job& other : jobs_) {
          if (other.name == job.name) {
            throw Error(Errc::kInvalidArgument, "sae train: " + job.name + " is asked for twice");
          }
        }
        jobs_.push_back(std::move(job));
      }
    }
  }

  // The folder belongs to one set of options, sites, documents and model.
  void claim_folder(std::span<const std::vector<int32_t>> documents) const {
    make_directories(checkpoint_folder());
    Json run = Json::object();
    Json options = Json::array(), names = Json::array();
    for (const SaeTrainOptions& variant : variants_) options.push_back(options_to_json(variant));
    for (const SaeSpot& spot : spots_) names.push_back(spot.site.name() + (spot.out ? " > " + spot.out->name() : ""));
    run["options"] = options;
    run["model"] = engine_.model().name();
    run["model_sha256"] = engine_.model().sha256();
    run["documents"] = documents.size();
    run["documents_sha256"] = hash_of_documents(documents);
    run["sites"] = names;
    const std::string file = checkpoint_folder() + "/run.json";
    if (!file_exists(file)) {
      write_json_file(file, run);
      return;
    }
    const Json before = read_json_file(file);
    for (const auto& [key, value] : run.members()) {
      const Json* old = before.find(key);
      if (old != nullptr && old->dump() == value.dump()) continue;
      throw Error(Errc::kMismatch, out_ + " was begun with other " + key + " (" +
                                       (old == nullptr ? "none" : old->dump()) + " where this run has " + value.dump() +
                                       "); use the same or another folder");
    }
  }

  ActivationCache& cache(const TrainSplit& split) {
    if (!cache_)
      cache_ =
          std::make_unique<ActivationCache>(ActivationCache::build(engine_, split.train, cache_request(), control_));
    if (cache_->rows() == 0)
      throw Error(Errc::kInvalidArgument, "sae train: the corpus has no tokens beyond the first ones of its documents");
    return *cache_;
  }

  int64_t steps_for(int64_t rows) const {
    auto tokens = static_cast<int64_t>(std::floor(common().epochs * static_cast<double>(rows)));
    if (common().max_tokens > 0) tokens = std::min(tokens, common().max_tokens);
    return tokens / common().batch;
  }

  static SaeTrainer make_trainer(const Job& job, int64_t total, const Tensor& x, const Tensor& y) {
    if (job.spot.out) return {job.options, total, x.f32(), y.f32()};
    return {x.shape()[1], job.options, total, x.f32()};
  }

  SaeTrainResult train_one(const Job& job, const TrainSplit& split) {
    const ActivationCache& rows = cache(split);
    const int64_t total = steps_for(rows.rows()), batch = job.options.batch;
    ShuffledOrder order(rows.rows(), job.options.buffer, job.options.seed);
    const auto batch_of = [&](size_t site, int64_t begin, int64_t n) {
      std::vector<int64_t> picked(static_cast<size_t>(n));
      order.fill(begin, picked);
      Tensor x(DType::kF32, {n, rows.width(site)});
      rows.gather(site, picked, x.f32());
      return x;
    };
    const int64_t sample = std::min(rows.rows(), kSampleRows);
    SaeTrainer trainer = make_trainer(job, total, batch_of(job.in, 0, sample), batch_of(job.out, 0, sample));
    if (file_exists(state_of(job))) trainer.load_state(state_of(job));
    make_directories(job.folder);
    MetricsTable table(job.folder + "/metrics.jsonl", trainer.steps_done());
    double seconds = 0;
    int64_t here = 0;
    while (trainer.steps_done() < total) {
      stop_if_asked(trainer, job);
      const int64_t begin = trainer.steps_done() * batch;
      const Tensor x = batch_of(job.in, begin, batch);
      const Tensor y = job.spot.out ? batch_of(job.out, begin, batch) : Tensor();
      const auto start = std::chrono::steady_clock::now();
      const SaeTrainer::StepStats stats = job.spot.out ? trainer.step(x.f32(), y.f32()) : trainer.step(x.f32());
      seconds += std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
      report(table, job, {trainer.steps_done(), total, static_cast<double>(++here * batch) / seconds}, stats);
      if (trainer.steps_done() % job.options.checkpoint_every == 0) trainer.save_state(state_of(job));
    }
    SaeTrainResult result;
    result.steps = total;
    result.tokens = total * batch;
    result.tokens_per_s = seconds > 0 ? static_cast<double>(here * batch) / seconds : 0.0;
    if (here > 0) trainer.save_state(state_of(job));
    finish(trainer, job, split, result);
    return result;
  }

  void stop_if_asked(const SaeTrainer& trainer, const Job& job) const {
    if (!control_.stop_requested()) return;
    trainer.save_state(state_of(job));
    control_.check("training of " + job.name + " at step " + std::to_string(trainer.steps_done()) +
                   " (saved: the same command resumes)");
  }

  struct Progressed {
    int64_t step = 0, total = 0;
    double rate = 0;  // tokens/s
  };
  void report(MetricsTable& table, const Job& job, const Progressed& at, const SaeTrainer::StepStats& stats) const {
    control_.report({"train " + job.name, at.step, at.total, note_of(stats, at.rate)});
    if (at.step % job.options.log_every != 0 && at.step != at.total) return;
    table.add(Json::object({{"step", at.step},
                            {"tokens", at.step * job.options.batch},
                            {"loss", stats.loss},
                            {"auxiliary_loss", stats.auxiliary_loss},
                            {"penalty", stats.penalty},
                            {"fvu", stats.fvu},
                            {"l0", stats.l0},
                            {"dead", stats.dead},
                            {"tokens_per_s", at.rate}}));
  }

  // Saves, evaluates what was saved, and writes the measured L0 and FVU into its configuration.
  void finish(const SaeTrainer& trainer, const Job& job, const TrainSplit& split, SaeTrainResult& result) {
    result.folder = job.folder;
    result.site = job.spot.site.name();
    result.rows = cache(split).rows();
    for (const auto& document : split.train) result.corpus_tokens += static_cast<int64_t>(document.size());
    const std::string config_file = result.folder + "/cfg.json";
    trainer.snapshot(result.site, engine_.model().name(), job.spot.out ? job.spot.out->name() : "")
        ->save(result.folder, job.options.dtype == "f32" ? DType::kF32 : DType::kBf16);
    if (!split.held_out.empty()) {
      evaluate(job, split, *Sae::load(result.folder), result);
      Json config = read_json_file(config_file);
      config["metadata"]["l0"] = result.evaluation.fidelity.l0;
      config["metadata"]["fvu"] = result.evaluation.fidelity.fvu;
      config["metadata"]["training_options"] = options_to_json(job.options);
      write_json_file(config_file, config);
    }
    write_json_file(result.folder + "/metrics.json", result.to_json());
    std::remove(state_of(job).c_str());
  }

  const HeldOut& held_out_at(const SaeSpot& spot, const TrainSplit& split) {
    if (held_out_ && held_out_->spot == spot) return *held_out_;
    HeldOut held;
    held.spot = spot;
    held.x = fidelity_rows(engine_, split.held_out, spot.site, control_);
    if (spot.out) {
      held.y = fidelity_rows(engine_, split.held_out, *spot.out, control_);
    } else {
      held.text = score_text(engine_, split.held_out, spot.site, false, control_);
    }
    held.mean = column_means(held.target());
    return held_out_.emplace(std::move(held));
  }

  void evaluate(const Job& job, const TrainSplit& split, const Sae& sae, SaeTrainResult& result) {
    const HeldOut& held = held_out_at(job.spot, split);
    const RowFits fits = fit_rows(sae, held.x.f32(), held.target(), held.mean);
    SaeEvaluation& evaluation = result.evaluation;
    evaluation.fidelity = summary_of(sae, fits);
    if (job.spot.out) {
      evaluation.ce_clean = evaluation.ce_sae = evaluation.ce_zero = evaluation.loss_recovered = NAN;
    } else {
      measure_cost(sae, engine_, held.text, evaluation, control_);
    }
    result.density = density_histogram(fits);
  }

  static SaeTrainResult read_result(const Job& job) {
    const Json json = read_json_file(job.folder + "/metrics.json");
    SaeTrainResult result;
    const auto number = [&](const char* key) { return json.at(key).is_null() ? NAN : json.at(key).as_double(); };
    SaeEvaluation& e = result.evaluation;
    e.fidelity = {json.at("tokens").as_int(),
                  number("l0"),
                  number("fvu"),
                  number("explained_variance"),
                  number("dead"),
                  number("dense"),
                  number("decoder_norm_min"),
                  number("decoder_norm_max")};
    e.ce_clean = number("ce_clean");
    e.ce_sae = number("ce_sae");
    e.ce_zero = number("ce_zero");
    e.loss_recovered = number("loss_recovered");
    result.folder = job.folder;
    result.site = job.spot.site.name();
    if (const Json* density = json.find("density_histogram")) result.density = *density;
    result.tokens_per_s = number("tokens_per_s");
    result.steps = json.at("steps").as_int();
    result.tokens = json.at("training_tokens").as_int();
    result.corpus_tokens = json.at("corpus_tokens").as_int();
    result.rows = json.at("rows").as_int();
    return result;
  }

  Engine& engine_;
  std::vector<SaeSpot> spots_;
  std::vector<SaeTrainOptions> variants_;
  std::string out_;
  const Control& control_;
  std::vector<Job> jobs_;
  std::vector<Site> sites_;  // whose activations are captured
  std::unique_ptr<ActivationCache> cache_;
  std::optional<HeldOut> held_out_;  // of the last spot that was evaluated
};

}  // namespace

std::vector<SaeTrainResult> train_saes(Engine& engine, std::span<const SaeSpot> spots,
                                       std::span<const std::vector<int32_t>> documents,
                                       std::span<const SaeTrainOptions> variants, const std::string& out,
                                       const Control& control) {
  return Run(engine, spots, variants, out, control).train(documents);
}

std::vector<SaeTrainResult> train_saes(Engine& engine, std::span<const Site> sites,
                                       std::span<const std::vector<int32_t>> documents, const SaeTrainOptions& options,
                                       const std::string& out, const Control& control) {
  std::vector<SaeSpot> spots;
  for (const Site& site : sites) spots.push_back({site, {}});
  return train_saes(engine, spots, documents, std::span(&options, 1), out, control);
}

}  // namespace saif
