// Absorption of the first letter (Chanin et al. 2024, "A is for absorption"; measure after SAEBench, Karvonen et al.
// 2025): the latent that stands for a letter is silent on some words, whose own latents carry the letter instead.
#include "study/absorption.h"

#include <algorithm>
#include <cmath>
#include <map>
#include <set>

#include "base/parallel.h"
#include "base/rng.h"
#include "study/json.h"
#include "study/logistic.h"
#include "study/vocabulary.h"
#include "tensor/rows.h"

namespace saif {
namespace {

constexpr int kLetters = 26;
constexpr size_t kMinLetters = 5;
constexpr size_t kMainLatents = 5;   // of a letter, at most
constexpr size_t kCandidates = 200;  // among which they are chosen
constexpr int64_t kSplitWords = 3;   // of the letter on which a further one fires, at least: below, it stands for words
constexpr size_t kExamples = 5;
// Names the task, so that the model has a reason to know the letter.
constexpr const char* kPrefix =
    "house has the first letter: H\nmarble has the first letter: M\ndoctor has the first letter: D\n";

double f1_of(int64_t hits, int64_t false_alarms, int64_t positives) {
  return hits ? 2.0 * static_cast<double>(hits) / static_cast<double>(hits + false_alarms + positives) : 0.0;
}

// Firing of some latents on the training words.
struct Detector {
  std::vector<uint8_t> fires;  // [n] on words of either split
  double f1 = 0;
};

Detector with(const Detector& base, const std::vector<size_t>& rows, const LetterWords& words, int letter) {
  Detector out = base;
  for (const size_t r : rows) out.fires[r] = 1;
  int64_t hits = 0, false_alarms = 0, positives = 0;
  for (size_t i = 0; i < words.words.size(); ++i) {
    if (words.test[i]) continue;
    const bool positive = words.letter[i] == letter;
    positives += positive;
    hits += positive && out.fires[i];
    false_alarms += !positive && out.fires[i];
  }
  out.f1 = f1_of(hits, false_alarms, positives);
  return out;
}

// Rows on which each latent fires.
using Firing = std::map<int32_t, std::vector<size_t>>;

Firing firing_of(const SparseLatents& latents) {
  Firing out;
  for (int64_t r = 0; r < latents.rows(); ++r) {
    for (int64_t e = latents.row_offsets[static_cast<size_t>(r)]; e < latents.row_offsets[static_cast<size_t>(r) + 1];
         ++e) {
      if (latents.values[static_cast<size_t>(e)] > 0) {
        out[latents.indices[static_cast<size_t>(e)]].push_back(static_cast<size_t>(r));
      }
    }
  }
  return out;
}

// The best detector of the letter and those that add to it, greedily.
std::vector<int32_t> main_latents(const Firing& firing, const LetterWords& words, int letter, double gain,
                                  Detector& detector) {
  detector.fires.assign(words.words.size(), 0);
  std::vector<std::pair<int64_t, int32_t>> order;  // false alarms less hits
  std::map<int32_t, int64_t> hits_of;
  for (const auto& [latent, rows] : firing) {
    int64_t balance = 0, hits = 0;
    for (const size_t r : rows) {
      if (words.test[r]) continue;
      balance += words.letter[r] == letter ? -1 : 1;
      hits += words.letter[r] == letter;
    }
    if (hits > 0) order.emplace_back(balance, latent);
    hits_of[latent] = hits;
  }
  std::sort(order.begin(), order.end());
  order.resize(std::min(order.size(), kCandidates));
  std::vector<int32_t> out;
  while (out.size() < kMainLatents) {
    Detector best;
    int32_t chosen = -1;
    for (const auto& [balance, latent] : order) {
      if (!out.empty() && hits_of.at(latent) < kSplitWords) continue;
      Detector next = with(detector, firing.at(latent), words, letter);
      if (chosen < 0 || next.f1 > best.f1) {
        best = std::move(next);
        chosen = latent;
      }
    }
    if (chosen < 0 || best.f1 <= detector.f1 + (out.empty() ? 0.0 : gain)) break;
    detector = std::move(best);
    out.push_back(chosen);
  }
  return out;
}

// The dense probe of a letter as a unit direction, and which words it says yes to.
struct LetterProbe {
  std::vector<double> direction;  // [d_in]
  std::vector<uint8_t> says_yes;  // [n]
};

LetterProbe probe_letter(Mat<const float> rows, const LetterWords& words, int letter) {
  std::vector<int64_t> train;
  std::vector<uint8_t> positive;
  for (size_t i = 0; i < words.words.size(); ++i) {
    if (words.test[i]) continue;
    train.push_back(static_cast<int64_t>(i));
    positive.push_back(words.letter[i] == letter);
  }
  const LogisticModel model =
      fit_logistic(rows_of(rows, train).f32(), positive, {.l2 = 1.0 / static_cast<double>(train.size())});
  LetterProbe out;
  const double norm = norm_of(model.weights);
  for (const double w : model.weights) out.direction.push_back(norm > 0 ? w / norm : 0.0);
  for (int64_t i = 0; i < rows.rows(); ++i) out.says_yes.push_back(model.score(rows.row_span(i)) > 0);
  return out;
}

std::vector<double> mean_of_training(Mat<const float> rows, const LetterWords& words) {
  std::vector<double> mean(static_cast<size_t>(rows.cols()), 0.0);
  double n = 0;
  for (int64_t i = 0; i < rows.rows(); ++i) {
    if (words.test[static_cast<size_t>(i)]) continue;
    ++n;
    for (int64_t c = 0; c < rows.cols(); ++c) mean[static_cast<size_t>(c)] += rows(i, c);
  }
  for (double& m : mean) m /= std::max(n, 1.0);
  return mean;
}

struct Context {
  const Sae& sae;
  Mat<const float> rows;
  const LetterWords& words;
  const AbsorptionOptions& options;
  SparseLatents latents;
  Firing firing;
  std::vector<double> mean;  // of the training words' rows
};

// Whether a latent other than the letter's carries enough of the row along the probe.
bool is_absorbed(const Context& c, size_t word, const std::vector<double>& direction) {
  double along = 0;
  for (size_t k = 0; k < direction.size(); ++k) {
    along += (c.rows(static_cast<int64_t>(word), static_cast<int64_t>(k)) - c.mean[k]) * direction[k];
  }
  if (along <= 0) return false;
  const int64_t begin = c.latents.row_offsets[word], end = c.latents.row_offsets[word + 1];
  if (begin == end) return false;
  const std::span<const int32_t> active(c.latents.indices.data() + begin, static_cast<size_t>(end - begin));
  const Tensor decoder = c.sae.decoder_rows(active);
  double most = 0, cosine = 0;
  for (int64_t i = 0; i < end - begin; ++i) {
    double product = 0, squares = 0;
    for (size_t k = 0; k < direction.size(); ++k) {
      const double w = decoder.f32()(i, static_cast<int64_t>(k));
      product += w * direction[k];
      squares += w * w;
    }
    const double norm = std::sqrt(squares);
    const double given = c.latents.values[static_cast<size_t>(begin + i)] * product;
    if (given > most) {
      most = given;
      cosine = norm > 0 ? product / norm : 0.0;
    }
  }
  return cosine >= c.options.cosine && most >= c.options.share * along;
}

AbsorptionResult::Letter check_letter(const Context& c, int letter, const LetterProbe& probe) {
  AbsorptionResult::Letter out;
  out.letter = static_cast<char>('a' + letter);
  Detector detector;
  out.latents = main_latents(c.firing, c.words, letter, c.options.split_gain, detector);
  out.f1 = detector.f1;
  for (size_t i = 0; i < c.words.words.size(); ++i) {
    if (c.words.letter[i] != letter) continue;
    if (!c.words.test[i]) {
      ++out.train;
      continue;
    }
    ++out.test;
    ++out.probe.n;
    if (!probe.says_yes[i]) continue;
    ++out.probe.hits;
    ++out.silent.n;
    ++out.absorbed.n;
    if (detector.fires[i]) continue;
    ++out.silent.hits;
    if (!is_absorbed(c, i, probe.direction)) continue;
    ++out.absorbed.hits;
    if (out.examples.size() < kExamples) out.examples.push_back(c.words.words[i]);
  }
  return out;
}

Share sum_of(const std::vector<AbsorptionResult::Letter>& letters, Share AbsorptionResult::Letter::*share) {
  Share out;
  for (const auto& l : letters) {
    out.hits += (l.*share).hits;
    out.n += (l.*share).n;
  }
  return out;
}

void check(const AbsorptionOptions& options) {
  const auto refuse = [](const char* name, double value, const char* expected) {
    throw Error(Errc::kInvalidArgument,
                std::string("absorption: ") + name + " is " + Json(value).dump() + "; expected " + expected);
  };
  const auto share = [&](const char* name, double value) {
    if (!(value >= 0 && value <= 1)) refuse(name, value, "a number from 0 to 1");
  };
  if (options.min_words < 2) refuse("min_words", options.min_words, "2 or more: a word to train on and one to test on");
  if (options.words < options.min_words) refuse("words", options.words, "min_words or more");
  if (!(options.test_share > 0 && options.test_share < 1)) {
    refuse("test_share", options.test_share, "a share between 0 and 1");
  }
  share("cosine", options.cosine);
  share("share", options.share);
  share("split_gain", options.split_gain);
}

}  // namespace

LetterWords words_of_vocabulary(const Tokenizer& tokenizer, const AbsorptionOptions& options,
                                std::vector<int32_t>& ids) {
  std::vector<std::vector<std::pair<std::string, int32_t>>> found(kLetters);
  for (int64_t id = 0; id < tokenizer.vocab_size(); ++id) {
    const auto token = static_cast<int32_t>(id);
    const std::string word = vocabulary_word(tokenizer, token);
    if (!word.empty()) found[static_cast<size_t>(word[0] - 'a')].emplace_back(word, token);
  }
  LetterWords out;
  ids.clear();
  for (int letter = 0; letter < kLetters; ++letter) {
    auto& words = found[static_cast<size_t>(letter)];
    if (static_cast<int>(words.size()) < options.min_words) continue;
    Rng rng(static_cast<uint64_t>(options.seed), static_cast<uint64_t>(letter));
    shuffle(words, rng);
    words.resize(std::min(words.size(), static_cast<size_t>(options.words)));
    const auto n = static_cast<int64_t>(words.size());  // both parts of them have a word
    const auto tested = static_cast<size_t>(
        std::clamp<int64_t>(std::lround(options.test_share * static_cast<double>(n)), 1, std::max<int64_t>(1, n - 1)));
    for (size_t i = 0; i < words.size(); ++i) {
      out.words.push_back(words[i].first);
      out.letter.push_back(letter);
      out.test.push_back(i < tested);
      ids.push_back(words[i].second);
    }
  }
  return out;
}

AbsorptionResult absorption_of(const Sae& sae, Mat<const float> rows, const LetterWords& words,
                               const AbsorptionOptions& options) {
  AbsorptionResult out;
  const std::set<int> letters(words.letter.begin(), words.letter.end());
  if (letters.size() < kMinLetters) {
    out.skipped = std::to_string(letters.size()) + " letters have " + std::to_string(options.min_words) +
                  " words that are one token; expected " + std::to_string(kMinLetters) + " or more";
    return out;
  }
  Context context{sae, rows, words, options, sae.encode(rows), {}, mean_of_training(rows, words)};
  context.firing = firing_of(context.latents);
  const std::vector<int> order(letters.begin(), letters.end());
  std::vector<LetterProbe> probes(order.size());
  parallel_for(static_cast<int64_t>(order.size()), 1, [&](int64_t begin, int64_t end) {
    for (auto i = static_cast<size_t>(begin); i < static_cast<size_t>(end); ++i) {
      probes[i] = probe_letter(rows, words, order[i]);
    }
  });
  for (size_t i = 0; i < order.size(); ++i) out.letters.push_back(check_letter(context, order[i], probes[i]));
  return out;
}

AbsorptionResult first_letter_absorption(const Sae& sae, Engine& engine, const AbsorptionOptions& options,
                                         const Control& control) {
  check(options);
  std::vector<int32_t> ids;
  const LetterWords words = words_of_vocabulary(engine.tokenizer(), options, ids);
  if (ids.empty()) return absorption_of(sae, {}, words, options);
  std::vector<int32_t> prefix = engine.tokenizer().encode(kPrefix, {});
  std::vector<std::vector<int32_t>> prompts;
  for (const int32_t id : ids) {
    prompts.push_back(prefix);
    prompts.back().push_back(id);
  }
  const Site site = Site::parse(sae.config().site, static_cast<int>(engine.model().architecture().n_layers));
  const Engine::Capture capture = engine.capture(prompts, {&site, 1}, true, control);
  return absorption_of(sae, capture.sites.front().second.f32(), words, options);
}

Share AbsorptionResult::probe() const { return sum_of(letters, &Letter::probe); }
Share AbsorptionResult::silent() const { return sum_of(letters, &Letter::silent); }
Share AbsorptionResult::absorbed() const { return sum_of(letters, &Letter::absorbed); }

Json AbsorptionResult::to_json() const {
  if (!skipped.empty()) return Json::object({{"skipped", skipped}});
  Json by_letter = Json::array();
  for (const Letter& l : letters) {
    by_letter.push_back(Json::object({{"letter", l.letter},
                                      {"train", l.train},
                                      {"test", l.test},
                                      {"probe", share_json(l.probe)},
                                      {"latents", Json(l.latents)},
                                      {"f1", l.f1},
                                      {"silent", share_json(l.silent)},
                                      {"absorbed", share_json(l.absorbed)},
                                      {"examples", Json(l.examples)}}));
  }
  return Json::object({{"probe", share_json(probe())},
                       {"silent", share_json(silent())},
                       {"absorbed", share_json(absorbed())},
                       {"by_letter", by_letter}});
}

}  // namespace saif
