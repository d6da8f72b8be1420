// A study on disk and sweeps over settings.
//
//   STUDY/manifest.json       model, SAEs, task, options, hashes, seed: from which the study is reproduced
//   STUDY/results.sqlite      discoveries, cells, answers, grades; every write is a transaction
//   STUDY/vectors/*.safetensors
//   STUDY/report.html
//
// A killed run started again with the same options goes on where it was; nothing finished is computed twice.
// A Study is for one thread at a time; several processes may read one that another writes.
#pragma once

#include <memory>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "saif/study.h"

namespace saif {

// One study folder. One process writes at a time (a lock is held while open for writing).
class Study {
 public:
  enum class Mode { kCreateOrOpen, kOpen, kReadOnly };
  static std::unique_ptr<Study> open(const std::string& folder, Mode mode);
  virtual ~Study() = default;

  virtual const std::string& folder() const = 0;
  virtual Json manifest() const = 0;
  virtual void set_manifest(const Json& manifest) = 0;

  virtual void save_discovery(const Discovery& discovery) = 0;  // replaces the one of the same (task, site, placement)
  virtual std::vector<Discovery> discoveries(const std::string& task = "") const = 0;
  virtual std::vector<std::string> tasks() const = 0;

  // Cells: one (task, split, contents, recipe, conditions). key: a hash of all of them (cell_key).
  struct CellRow {
    std::string key, task, split;
    Json conditions;      // cell_conditions; null in studies of saif before 0.2
    MethodResult result;  // cells() leaves its answers out
  };
  virtual bool has_cell(const std::string& key) const = 0;
  virtual void save_cell(const CellRow& cell) = 0;  // replaces the one of the same key
  virtual MethodResult cell(const std::string& key) const = 0;
  virtual std::vector<CellRow> cells(const std::string& task = "", const std::string& split = "") const = 0;

  // What a latent stands for: LatentExplanation::to_json with the SAE's hash as "sae_sha256". Replaces the one of the
  // same (task, SAE, latent); empty where there is none.
  virtual void save_explanation(const std::string& task, const Json& explanation) = 0;
  virtual Json explanation(const std::string& task, const std::string& sae_sha256, int32_t index) const = 0;
};

// What answers depend on beside task, contents and recipe: the model and how it was loaded and prompted, decoding, the
// grader.
Json cell_conditions(const Engine& engine, const DecodeOptions& decode);
// A hash of everything that determines a cell; of the vectors their values. Perplexity is none of it: it is added to a
// cell that lacks it.
std::string cell_key(const Task& task, const Recipe& recipe, const Vectors& vectors, std::span<const Content> contents,
                     const Json& conditions);

// Cells of one task on the same contents, in the order asked: those already in the study are read from it (and scored,
// if options.perplexity and they were not), the others are answered in one call of the engine and stored as they
// finish.
struct CellRequest {
  Recipe recipe;
  Vectors vectors;
};
struct CellDone {
  Study::CellRow row;     // with answers
  bool computed = false;  // and not read from the study
};
std::vector<CellDone> run_cells(Study& study, Engine& engine, const Task& task, std::span<const CellRequest> requests,
                                std::span<const Content> contents, const std::string& split, const EvalOptions& options,
                                const Control& control);

// Whether a setting is preferred: larger strict share; ties: loose, checker, then the smaller scale, then the smaller
// k.
bool better(const MethodResult& a, const MethodResult& b);
// The best setting of a method among the cells that were run on the most contents (under these conditions, where not
// null); none: the method was not swept.
std::optional<Recipe> tuned_recipe(std::span<const Study::CellRow> tuning, const std::string& method,
                                   const std::string& placement, const Json& conditions = {});

struct SweepOptions {
  std::vector<int> k = {1, 5, 15, 30};
  std::vector<double> beta = {0.0, 1.0};
  std::vector<double> scale = {0.75, 1.0, 1.25, 1.5, 2.0};
  std::vector<int> layer;  // empty: every layer of the study
  std::vector<std::string> rank = {"specific_mean"};
  std::vector<double> decay = {0.0};
  std::vector<std::string> placement = {"post"};  // of the discovery
  std::vector<std::string> op = {"add"};          // add, project
  bool norm_preserving = false;                   // also tried with the edited row scaled back to its norm
  std::string method = "saif";
  // coordinate: layer, strength, decay and k together, then one axis at a time from the best so far; random: settings
  // drawn at random, then one axis at a time; full: every combination.
  std::string order = "coordinate";
  int rounds = 2;     // of the search; the first of `random` is the drawn settings
  int trials = 120;   // settings drawn (random)
  int64_t seed = 0;   // of the drawing
  int contents = 24;  // tuning contents per cell
  int screen = 0;     // a large stage is run on so few contents first, its best fifth on all; 0: never
  int confirm = 5;    // best cells run again on all tuning contents
  template <typename V>
  void describe(V& v) {
    v("k", k, "latents in the vector");
    v("beta", beta, "alpha = mean + beta * deviation");
    v("scale", scale, "strengths");
    v("layer", layer, "blocks; none given: all of the study");
    v("rank", rank, "rankings");
    v("decay", decay, "decays over generated tokens");
    v("placement", placement, "placements of the discovery: post, pre");
    v("op", op, "edits: add, project");
    v("norm-preserving", norm_preserving, "also try edits that keep the row's norm");
    v("method", method, "saif or diffmean");
    v("order", order, "coordinate, random or full");
    v("rounds", rounds, "of the search, unless full");
    v("trials", trials, "settings drawn at random");
    v("seed", seed, "of the drawing");
    v("contents", contents, "tuning contents per cell; 0 is all");
    v("screen", screen, "contents of a first pass over a large stage, whose best fifth goes on; 0: none");
    v("confirm", confirm, "best cells run again on all tuning contents");
  }
};

struct SweepResult {
  std::vector<Study::CellRow> cells;  // on the tuning split
  Recipe best;                        // by `better`, on all tuning contents
  MethodResult best_tuning, best_test;
  int64_t computed = 0, reused = 0;  // cells
  Json to_json() const;
};

// Grid on the tuning split, then the best cell on the test split. Answers of all cells of a stage share one call of the
// engine, forked after the prompt.
SweepResult sweep(Study& study, Engine& engine, std::span<const std::shared_ptr<const Sae>> saes, const Task& task,
                  std::span<const Content> contents, const SweepOptions& options, const EvalOptions& eval,
                  const Control& control);

// --- report ---------------------------------------------------------------------------------------------------------

// What a report shows: tables as JSON, in the layout that the demo and the study verbs write (docs/report.md).
// One self-contained HTML file (no network), written atomically.
void write_report(const std::string& path, const Json& report);
// Writes folder/training.html: curves of metrics.jsonl and densities of metrics.json, as train_saes left them there.
void write_training_page(const std::string& folder);
Json report_of_study(const Study& study);
// The main plot alone, as an SVG picture with its own background.
std::string success_plot_svg(const Json& report);
void write_success_plot(const std::string& path, const Json& report);

}  // namespace saif
