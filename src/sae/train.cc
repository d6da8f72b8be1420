// `saif sae train`: documents to SAEs on disk, resumable at every step.
#include <algorithm>
#include <chrono>
#include <cmath>
#include <cstdio>
#include <fstream>

#include "base/file.h"
#include "base/hash.h"
#include "base/rng.h"
#include "sae/activations.h"
#include "sae/trainer_state.h"
#include "saif/options.h"
#include "saif/sae.h"

namespace saif {
namespace {

constexpr int64_t kSampleRows = 8192;         // that initialise an SAE
constexpr int64_t kEvaluationTokens = 32768;  // of held-out documents, at most
constexpr int64_t kLogEvery = 10;             // steps per line of training_log.jsonl

struct Split {
  std::vector<std::vector<int32_t>> train, held_out;
};

// Documents cut to `context`; each is held out or not by its own random number, so that more documents leave the
// others where they are.
Split split_documents(std::span<const std::vector<int32_t>> documents, const SaeTrainOptions& options, int64_t limit) {
  Split split;
  const auto context = static_cast<size_t>(std::min(options.context, limit));
  for (size_t i = 0; i < documents.size(); ++i) {
    if (documents[i].size() < 2) continue;
    std::vector<int32_t> ids(documents[i].begin(),
                             documents[i].begin() + static_cast<int64_t>(std::min(context, documents[i].size())));
    const bool held = Rng(static_cast<uint64_t>(options.seed), i).uniform() < options.held_out;
    (held ? split.held_out : split.train).push_back(std::move(ids));
  }
  if (options.held_out > 0 && split.held_out.empty() && split.train.size() > 1) {
    split.held_out.push_back(std::move(split.train.back()));
    split.train.pop_back();
  }
  int64_t tokens = 0;
  for (size_t i = 0; i < split.held_out.size(); ++i) {
    tokens += static_cast<int64_t>(split.held_out[i].size());
    if (tokens > kEvaluationTokens && i > 0) split.held_out.resize(i);
  }
  return split;
}

std::string hash_of(std::span<const std::vector<int32_t>> documents) {
  std::string joined;
  for (const std::vector<int32_t>& d : documents) {
    joined += std::to_string(d.size()) + ":";
    joined.append(reinterpret_cast<const char*>(d.data()), d.size() * sizeof(int32_t));
  }
  return sha256_hex(std::string_view(joined));
}

// A line of training_log.jsonl per kLogEvery steps. Lines behind the step at which a run resumes are dropped.
class TrainingLog {
 public:
  TrainingLog(std::string path, int64_t steps_done) : path_(std::move(path)) {
    if (!file_exists(path_)) return;
    std::string kept, line;
    std::ifstream in(path_);
    while (std::getline(in, line)) {
      const Result<Json> entry = parse_json(line);
      if (entry.ok() && entry.value().is_object() && entry.value().at("step").as_int() <= steps_done)
        kept += line + "\n";
    }
    write_file_atomically(path_, kept);
  }

  void add(const Json& entry) {
    std::ofstream out(path_, std::ios::app);
    out << entry.dump() << "\n";
    out.flush();
    if (!out) throw Error(Errc::kIo, path_ + ": cannot be written; free space and start again to resume");
  }

 private:
  std::string path_;
};

std::string note_of(const SaeTrainer::StepStats& stats, double tokens_per_s) {
  char text[96];
  std::snprintf(text, sizeof text, "L0 %.1f  FVU %.3f  dead %.3f  %.0f tok/s", stats.l0, stats.fvu, stats.dead,
                tokens_per_s);
  return text;
}

// One call of train_saes.
class Run {
 public:
  Run(Engine& engine, std::span<const Site> sites, const SaeTrainOptions& options, std::string out,
      const Control& control)
      : engine_(engine),
        sites_(sites.begin(), sites.end()),
        options_(options),
        out_(std::move(out)),
        control_(control) {}

  std::vector<SaeTrainResult> train(std::span<const std::vector<int32_t>> documents) {
    check(documents);
    const Split split = split_documents(documents, options_, engine_.model().architecture().context);
    claim_folder(documents);
    std::vector<SaeTrainResult> results;
    for (size_t s = 0; s < sites_.size(); ++s) {
      if (file_exists(folder_of(s) + "/metrics.json")) {
        results.push_back(read_result(s));
      } else {
        results.push_back(train_site(s, split));
      }
    }
    ActivationCache::remove(cache_request());
    return results;
  }

 private:
  std::string checkpoint_folder() const { return out_ + "/checkpoint"; }
  std::string folder_of(size_t s) const { return sites_.size() == 1 ? out_ : out_ + "/" + sites_[s].name(); }
  std::string state_of(size_t s) const { return checkpoint_folder() + "/" + sites_[s].name() + ".state.safetensors"; }
  ActivationCache::Request cache_request() const { return {checkpoint_folder(), sites_, options_.skip_first}; }

  void check(std::span<const std::vector<int32_t>> documents) const {
    if (sites_.empty()) throw Error(Errc::kInvalidArgument, "sae train: no site is named; expected one or more");
    for (size_t i = 0; i < sites_.size(); ++i) {
      const int64_t width = engine_.model().architecture().width(sites_[i]);
      if (width <= 0)
        throw Error(Errc::kInvalidArgument,
                    "sae train: site " + sites_[i].name() + " has no fixed width; choose another");
      check_train_options(options_, width);
      if (std::find(sites_.begin(), sites_.begin() + static_cast<int64_t>(i), sites_[i]) !=
          sites_.begin() + static_cast<int64_t>(i)) {
        throw Error(Errc::kInvalidArgument, "sae train: site " + sites_[i].name() + " is named twice");
      }
    }
    if (documents.empty()) throw Error(Errc::kInvalidArgument, "sae train: the corpus has no documents");
  }

  // The folder belongs to one set of options, sites, documents and model.
  void claim_folder(std::span<const std::vector<int32_t>> documents) const {
    make_directories(checkpoint_folder());
    Json run = Json::object();
    run["options"] = options_to_json(options_);
    run["model"] = engine_.model().name();
    run["model_sha256"] = engine_.model().sha256();
    run["documents"] = documents.size();
    run["documents_sha256"] = hash_of(documents);
    Json names = Json::array();
    for (const Site& site : sites_) names.push_back(site.name());
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

  ActivationCache& cache(const Split& split) {
    if (!cache_)
      cache_ =
          std::make_unique<ActivationCache>(ActivationCache::build(engine_, split.train, cache_request(), control_));
    if (cache_->rows() == 0)
      throw Error(Errc::kInvalidArgument, "sae train: the corpus has no tokens beyond the first ones of its documents");
    return *cache_;
  }

  int64_t steps_for(int64_t rows) const {
    auto tokens = static_cast<int64_t>(std::floor(options_.epochs * static_cast<double>(rows)));
    if (options_.max_tokens > 0) tokens = std::min(tokens, options_.max_tokens);
    return tokens / options_.batch;
  }

  SaeTrainResult train_site(size_t s, const Split& split) {
    const ActivationCache& rows = cache(split);
    const int64_t total = steps_for(rows.rows()), width = rows.width(s);
    ShuffledOrder order(rows.rows(), options_.buffer, options_.seed);
    const auto batch_of = [&](int64_t begin, int64_t n) {
      std::vector<int64_t> picked(static_cast<size_t>(n));
      order.fill(begin, picked);
      Tensor x(DType::kF32, {n, width});
      rows.gather(s, picked, x.f32());
      return x;
    };
    SaeTrainer trainer(width, options_, total, batch_of(0, std::min(rows.rows(), kSampleRows)).f32());
    if (file_exists(state_of(s))) trainer.load_state(state_of(s));
    make_directories(folder_of(s));
    TrainingLog log(folder_of(s) + "/training_log.jsonl", trainer.steps_done());
    double seconds = 0;
    int64_t here = 0;
    while (trainer.steps_done() < total) {
      stop_if_asked(trainer, s);
      const Tensor x = batch_of(trainer.steps_done() * options_.batch, options_.batch);
      const auto start = std::chrono::steady_clock::now();
      const SaeTrainer::StepStats stats = trainer.step(x.f32());
      seconds += std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
      const double rate = static_cast<double>(++here * options_.batch) / seconds;
      report(log, s, trainer.steps_done(), total, stats, rate);
      if (trainer.steps_done() % options_.checkpoint_every == 0) trainer.save_state(state_of(s));
    }
    SaeTrainResult result;
    result.steps = total;
    result.tokens = total * options_.batch;
    result.tokens_per_s = seconds > 0 ? static_cast<double>(here * options_.batch) / seconds : 0.0;
    if (here > 0) trainer.save_state(state_of(s));
    finish(trainer, s, split, result);
    return result;
  }

  void stop_if_asked(const SaeTrainer& trainer, size_t s) const {
    if (!control_.stop_requested()) return;
    trainer.save_state(state_of(s));
    control_.check("training of " + sites_[s].name() + " at step " + std::to_string(trainer.steps_done()) +
                   " (saved: the same command resumes)");
  }

  void report(TrainingLog& log, size_t s, int64_t step, int64_t total, const SaeTrainer::StepStats& stats,
              double rate) const {
    control_.report({"train " + sites_[s].name(), step, total, note_of(stats, rate)});
    if (step % kLogEvery != 0 && step != total) return;
    Json entry = Json::object();
    entry["step"] = step;
    entry["tokens"] = step * options_.batch;
    entry["loss"] = stats.loss;
    entry["auxiliary_loss"] = stats.auxiliary_loss;
    entry["fvu"] = stats.fvu;
    entry["l0"] = stats.l0;
    entry["dead"] = stats.dead;
    entry["tokens_per_s"] = rate;
    log.add(entry);
  }

  // Saves, evaluates what was saved, and writes the measured L0 and FVU into its configuration.
  void finish(const SaeTrainer& trainer, size_t s, const Split& split, SaeTrainResult& result) {
    result.folder = folder_of(s);
    result.rows = cache(split).rows();
    for (const auto& document : split.train) result.corpus_tokens += static_cast<int64_t>(document.size());
    const std::string config_file = result.folder + "/cfg.json";
    trainer.snapshot(sites_[s].name(), engine_.model().name())
        ->save(result.folder, options_.dtype == "f32" ? DType::kF32 : DType::kBf16);
    if (!split.held_out.empty()) {
      result.evaluation = evaluate_sae(*Sae::load(result.folder), engine_, split.held_out, control_);
      Json config = read_json_file(config_file);
      config["metadata"]["l0"] = result.evaluation.fidelity.l0;
      config["metadata"]["fvu"] = result.evaluation.fidelity.fvu;
      config["metadata"]["training_options"] = options_to_json(options_);
      write_json_file(config_file, config);
    }
    write_json_file(result.folder + "/metrics.json", result.to_json());
    std::remove(state_of(s).c_str());
  }

  SaeTrainResult read_result(size_t s) const {
    const Json json = read_json_file(folder_of(s) + "/metrics.json");
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
    result.folder = folder_of(s);
    result.tokens_per_s = number("tokens_per_s");
    result.steps = json.at("steps").as_int();
    result.tokens = json.at("training_tokens").as_int();
    result.corpus_tokens = json.at("corpus_tokens").as_int();
    result.rows = json.at("rows").as_int();
    return result;
  }

  Engine& engine_;
  std::vector<Site> sites_;
  SaeTrainOptions options_;
  std::string out_;
  const Control& control_;
  std::unique_ptr<ActivationCache> cache_;
};

}  // namespace

std::vector<SaeTrainResult> train_saes(Engine& engine, std::span<const Site> sites,
                                       std::span<const std::vector<int32_t>> documents, const SaeTrainOptions& options,
                                       const std::string& out, const Control& control) {
  return Run(engine, sites, options, out, control).train(documents);
}

}  // namespace saif
