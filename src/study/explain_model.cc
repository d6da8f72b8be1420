// Explaining latents with a model: texts, embeddings of words, the logit lens.
#include <algorithm>
#include <cctype>
#include <map>
#include <set>

#include "base/rng.h"
#include "sae/acceptance_text.h"
#include "sae/activations.h"
#include "sae/fit.h"
#include "study/explain.h"
#include "study/json.h"
#include "study/text_units.h"
#include "study/vocabulary.h"

namespace saif {
namespace {

constexpr size_t kContents = 40;      // of the documents
constexpr size_t kPool = 1000;        // words of the vocabulary
constexpr size_t kMinTokenBytes = 3;  // of the token that stands for a word, its space left out

// Tokens that all documents begin with.
int64_t common_prefix(std::span<const std::vector<int32_t>> documents) {
  if (documents.size() < 2) return 0;
  size_t n = documents.front().size();
  for (const std::vector<int32_t>& d : documents) {
    const auto at = std::mismatch(d.begin(), d.end(), documents.front().begin(), documents.front().end());
    n = std::min(n, static_cast<size_t>(at.first - d.begin()));
  }
  return static_cast<int64_t>(n);
}

// Whole characters only: bytes of one that is cut over several tokens stand at its last token.
std::vector<std::string> texts_of(const Tokenizer& tokenizer, std::span<const int32_t> ids) {
  std::vector<std::string> out;
  std::string held;
  for (const int32_t id : ids) {
    held += tokenizer.bytes(id);
    const std::vector<uint32_t> points = code_points(held);
    const bool unfinished = !points.empty() && points.back() == 0xFFFD && held.size() < 4;
    out.push_back(unfinished ? "" : held);
    if (!unfinished) held.clear();
  }
  if (!held.empty()) out.back() = held;
  return out;
}

class Watch {
 public:
  Watch(std::span<const ExplainSet> sets, const ExplainOptions& options) : sets_(sets) {
    for (const ExplainSet& set : sets) {
      watchers_.emplace_back(set.sae->config().d_sae, set.latents, options);
      sites_.push_back(Site::parse(set.sae->config().site));
    }
  }
  void run(Engine& engine, std::span<const std::vector<int32_t>> documents, const Control& control) {
    std::vector<Site> distinct;
    for (const Site& s : sites_) {
      if (std::find(distinct.begin(), distinct.end(), s) == distinct.end()) distinct.push_back(s);
    }
    const int64_t prefix = std::max<int64_t>(1, common_prefix(documents));
    for (size_t begin = 0; begin < documents.size();) {
      const size_t end = chunk_end(documents, begin);
      const auto part = documents.subspan(begin, end - begin);
      const Engine::Capture capture = engine.capture(part, distinct, false, control);
      for (size_t s = 0; s < sets_.size(); ++s) add(engine.tokenizer(), s, capture, part, prefix);
      control.report({"explaining", static_cast<int64_t>(end), static_cast<int64_t>(documents.size()), ""});
      begin = end;
    }
  }
  LatentExplanation explanation(size_t set, size_t number) const {
    LatentExplanation out = watchers_[set].explanation(number);
    out.site = sets_[set].sae->config().site;
    return out;
  }

 private:
  void add(const Tokenizer& tokenizer, size_t s, const Engine::Capture& capture,
           std::span<const std::vector<int32_t>> documents, int64_t prefix) {
    const Mat<const float> rows = capture.at(sites_[s].name()).f32();
    for (size_t d = 0; d < documents.size(); ++d) {
      const SparseLatents latents =
          sets_[s].sae->encode(rows.rows_range(capture.row_offsets[d], capture.row_offsets[d + 1]));
      watchers_[s].add(latents, texts_of(tokenizer, documents[d]), prefix);
    }
  }
  std::span<const ExplainSet> sets_;
  std::vector<LatentWatcher> watchers_;
  std::vector<Site> sites_;
};

// Embeddings of words, centred on those of the vocabulary's.
struct WordVectors {
  std::vector<std::string> words;
  Tensor own, pool;  // [words, d], [pool, d]
};

// The first token of " word", where it is more than a fragment.
std::optional<int32_t> token_of(const Tokenizer& tokenizer, const std::string& word) {
  const std::vector<int32_t> ids = tokenizer.encode(" " + word, {.add_special = false, .parse_special = false});
  for (const int32_t id : ids) {
    const std::string bytes = tokenizer.bytes(id);
    const auto begin = bytes.find_first_not_of(' ');
    if (begin == std::string::npos) continue;  // a space of its own
    if (bytes.size() - begin < std::min(kMinTokenBytes, word.size())) return std::nullopt;
    return id;
  }
  return std::nullopt;
}

std::vector<int32_t> pool_of(const Tokenizer& tokenizer, int64_t vocab, uint64_t seed) {
  std::vector<int32_t> ids;
  for (int32_t id = 0; id < std::min(vocab, tokenizer.vocab_size()); ++id) {
    if (!vocabulary_word(tokenizer, id).empty()) ids.push_back(id);
  }
  Rng rng(seed, 7);
  shuffle(ids, rng);
  ids.resize(std::min(ids.size(), kPool));
  return ids;
}

Tensor embeddings(const Model& model, std::span<const int32_t> ids) {
  Tensor out(DType::kF32, {static_cast<int64_t>(ids.size()), model.architecture().d_model});
  for (size_t i = 0; i < ids.size(); ++i) {
    const std::vector<float> row = model.embedding_row(ids[i]);
    std::copy(row.begin(), row.end(), out.f32().row(static_cast<int64_t>(i)));
  }
  return out;
}

void subtract(Mat<float> rows, const std::vector<double>& mean) {
  for (int64_t r = 0; r < rows.rows(); ++r) {
    for (int64_t c = 0; c < rows.cols(); ++c) rows(r, c) -= static_cast<float>(mean[static_cast<size_t>(c)]);
  }
}

WordVectors word_vectors(const Engine& engine, std::span<const std::string> words, uint64_t seed) {
  WordVectors out;
  std::vector<int32_t> ids;
  std::set<int32_t> seen;
  for (const std::string& word : words) {
    const auto id = token_of(engine.tokenizer(), word);
    if (!id || *id >= engine.model().architecture().vocab || !seen.insert(*id).second) continue;
    ids.push_back(*id);
    out.words.push_back(word);
  }
  out.own = embeddings(engine.model(), ids);
  out.pool = embeddings(engine.model(), pool_of(engine.tokenizer(), engine.model().architecture().vocab, seed));
  std::vector<double> mean(static_cast<size_t>(engine.model().architecture().d_model), 0.0);
  const Mat<float> pool = out.pool.f32();
  for (int64_t r = 0; r < pool.rows(); ++r) {
    for (int64_t c = 0; c < pool.cols(); ++c)
      mean[static_cast<size_t>(c)] += pool(r, c) / static_cast<double>(pool.rows());
  }
  subtract(out.own.f32(), mean);
  subtract(pool, mean);
  return out;
}

// Decoder rows of random latents other than the explained ones.
Tensor random_rows(const Sae& sae, std::span<const int32_t> explained, const ExplainOptions& options) {
  const std::set<int32_t> taken(explained.begin(), explained.end());
  std::vector<int32_t> all;
  for (int32_t j = 0; j < sae.config().d_sae; ++j) {
    if (!taken.contains(j)) all.push_back(j);
  }
  Rng rng(static_cast<uint64_t>(options.seed), 11);
  shuffle(all, rng);
  all.resize(std::min(all.size(), static_cast<size_t>(options.draws)));
  return sae.decoder_rows(all);
}

void add_proximity(LatentExplanation& out, Mat<const float> row, Mat<const float> others, const WordVectors& words,
                   const ExplainOptions& options) {
  const Proximity p = proximity_of(
      {row, others, words.own.f32(), words.pool.f32(), options.draws, static_cast<uint64_t>(options.seed)});
  out.words = words.words;
  out.proximity = p.cosine;
  out.p_latents = p.p_latents;
  out.p_words = p.p_words;
  if (words.words.empty()) return;
  out.nearest_word = words.words[p.nearest];
  out.nearest_cosine = p.nearest_cosine;
}

void check_sets(const Engine& engine, std::span<const ExplainSet> sets) {
  for (const ExplainSet& set : sets) {
    require_fit(*set.sae, engine, "", false);
    require_latents(*set.sae, set.latents);
  }
}

// Words of ASCII letters and bytes beyond ASCII, as they are written.
std::vector<std::string> words_in(const std::string& text) {
  std::vector<std::string> out(1);
  for (const char c : text) {
    const auto byte = static_cast<unsigned char>(c);
    if (byte >= 0x80 || std::isalpha(byte) != 0) {
      out.back() += c;
    } else if (!out.back().empty()) {
      out.emplace_back();
    }
  }
  if (out.back().empty()) out.pop_back();
  return out;
}

std::set<std::string> lower_words(const std::vector<std::string>& texts) {
  std::set<std::string> out;
  for (const std::string& text : texts) {
    for (const std::string& word : words_in(text)) out.insert(lower_ascii(word));
  }
  return out;
}

std::vector<std::string> wordings_of(const Task& task) {
  std::vector<std::string> out;
  for (const Variant& v : task.variants) out.push_back(v.text);
  return out;
}

std::vector<Task> other_tasks(const Task& task) {
  std::vector<Task> out;
  for (const std::string& name : task_names()) {
    if (name != task.name) out.push_back(load_task(name));
  }
  return out;
}

}  // namespace

std::vector<std::string> instruction_words(const Task& task) {
  constexpr int kCommon = 3;
  std::map<std::string, int> elsewhere;
  for (const Task& other : other_tasks(task)) {
    for (const std::string& word : lower_words(wordings_of(other))) ++elsewhere[word];
  }
  const std::set<std::string> unrelated = lower_words(task.unrelated);
  std::map<std::string, std::string> found;  // lower case -> as last written inside a sentence
  for (const Variant& v : task.variants) {
    const std::vector<std::string> words = words_in(v.text);
    for (size_t i = 0; i < words.size(); ++i) {
      const std::string lower = lower_ascii(words[i]);
      if (lower.size() < 3 || unrelated.contains(lower)) continue;
      const auto at = elsewhere.find(lower);
      if (at != elsewhere.end() && at->second >= kCommon) continue;
      if (i == 0) {
        found.emplace(lower, lower);  // its capital is the sentence's
      } else {
        found[lower] = words[i];
      }
    }
  }
  std::vector<std::string> out;
  for (const auto& [lower, written] : found) out.push_back(written);
  return out;
}

std::vector<std::vector<int32_t>> explanation_documents(const Tokenizer& tokenizer, const Task& task,
                                                        std::span<const Content> contents) {
  std::vector<std::vector<int32_t>> out;
  const std::vector<Task> others = other_tasks(task);
  const std::vector<std::string> own = wordings_of(task);
  const auto add = [&](const Content& content, const std::string& instruction) {
    out.push_back(prompt_ids(tokenizer, place(content.text, instruction, Placement::kPost)));
  };
  for (size_t i = 0; i < std::min(kContents, contents.size()); ++i) {
    add(contents[i], "");
    if (!own.empty()) add(contents[i], own[i % own.size()]);
    if (!task.unrelated.empty()) add(contents[i], task.unrelated[i % task.unrelated.size()]);
    if (others.empty()) continue;
    const std::vector<std::string> wordings = wordings_of(others[i % others.size()]);
    add(contents[i], wordings[(i / others.size()) % wordings.size()]);
  }
  for (const std::string_view text : acceptance_texts()) out.push_back(prompt_ids(tokenizer, std::string(text)));
  return out;
}

std::vector<std::vector<LatentExplanation>> explain_latents(Engine& engine, std::span<const ExplainSet> sets,
                                                            std::span<const std::vector<int32_t>> documents,
                                                            std::span<const std::string> words,
                                                            const ExplainOptions& options, const Control& control) {
  for (const auto& [name, value] : {std::pair("tokens", options.tokens),
                                    {"contexts", options.contexts},
                                    {"window", options.window},
                                    {"neighbours", options.neighbours}}) {
    if (value < 0) {
      throw Error(Errc::kInvalidArgument, std::string(name) + " is " + std::to_string(value) + "; expected 0 or more");
    }
  }
  if (options.draws < 1) {
    throw Error(Errc::kInvalidArgument, "draws is " + std::to_string(options.draws) + "; expected 1 or more");
  }
  check_sets(engine, sets);
  if (documents.empty()) throw Error(Errc::kInvalidArgument, "explaining latents: no text to look at them in");
  Watch watch(sets, options);
  watch.run(engine, documents, control);
  const WordVectors vectors = word_vectors(engine, words, static_cast<uint64_t>(options.seed));
  std::vector<std::vector<LatentExplanation>> out(sets.size());
  for (size_t s = 0; s < sets.size(); ++s) {
    const Sae& sae = *sets[s].sae;
    const bool residual = sae.config().d_out == engine.model().architecture().d_model;
    const Tensor rows = sae.decoder_rows(sets[s].latents);
    const auto nearest = nearest_by_decoder(sae, sets[s].latents, options.neighbours);
    const Tensor others = residual ? random_rows(sae, sets[s].latents, options) : Tensor();
    const std::vector<LogitLens> lenses =
        residual ? logit_lens(engine, rows.f32(), options.tokens) : std::vector<LogitLens>(sets[s].latents.size());
    for (size_t i = 0; i < sets[s].latents.size(); ++i) {
      control.check("explaining latents");
      LatentExplanation e = watch.explanation(s, i);
      e.lens = lenses[i];
      e.decoder = nearest[i];
      if (residual) {
        const auto r = static_cast<int64_t>(i);
        add_proximity(e, rows.f32().rows_range(r, r + 1), others.f32(), vectors, options);
      }
      out[s].push_back(std::move(e));
    }
  }
  return out;
}

namespace {

Json neighbours_json(const std::vector<LatentExplanation::Neighbour>& list, const char* measure) {
  Json out = Json::array();
  for (const auto& n : list) out.push_back(Json::object({{"index", n.index}, {measure, n.value}}));
  return out;
}

}  // namespace

Json LatentExplanation::to_json() const {
  Json bins = Json::array(), texts = Json::array();
  for (const Bin& b : histogram) {
    bins.push_back(Json::object({{"low", b.low}, {"high", b.high}, {"tokens", b.tokens}}));
  }
  for (const Context& c : contexts) {
    texts.push_back(Json::object(
        {{"tokens", Json(c.tokens)}, {"activations", Json(c.activations)}, {"peak", static_cast<int64_t>(c.peak)}}));
  }
  return Json::object({{"site", site},
                       {"index", index},
                       {"top", tokens_json(lens.top)},
                       {"bottom", tokens_json(lens.bottom)},
                       {"text_density", share_json(density)},
                       {"maximum", maximum},
                       {"histogram", bins},
                       {"contexts", texts},
                       {"nearest", neighbours_json(decoder, "cosine")},
                       {"coactive", neighbours_json(coactive, "jaccard")},
                       {"proximity", Json::object({{"words", Json(words)},
                                                   {"cosine", proximity},
                                                   {"p_latents", p_latents},
                                                   {"p_words", p_words},
                                                   {"nearest_word", nearest_word},
                                                   {"nearest_cosine", nearest_cosine}})}});
}

}  // namespace saif
