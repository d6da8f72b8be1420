// Sparse probing (Gurnee et al. 2023; Kantamneni et al. 2025): how well one, five, twenty latents tell a label.
#include "study/probe.h"

#include <algorithm>
#include <cmath>
#include <map>
#include <numeric>
#include <set>

#include "base/rng.h"
#include "study/json.h"
#include "study/logistic.h"
#include "tensor/rows.h"

namespace saif {
namespace {

constexpr size_t kChunkTexts = 64;

// Columns `latents` of the rows `chosen`: [chosen, latents].
Tensor columns_of(const SparseLatents& rows, std::span<const int64_t> chosen, std::span<const int32_t> latents) {
  Tensor out = Tensor::zeros(DType::kF32, {static_cast<int64_t>(chosen.size()), static_cast<int64_t>(latents.size())});
  for (size_t i = 0; i < chosen.size(); ++i) {
    const auto row = static_cast<size_t>(chosen[i]);
    const auto begin = rows.indices.begin() + rows.row_offsets[row];
    const auto end = rows.indices.begin() + rows.row_offsets[row + 1];
    for (size_t j = 0; j < latents.size(); ++j) {
      const auto at = std::lower_bound(begin, end, latents[j]);
      if (at == end || *at != latents[j]) continue;
      out.f32()(static_cast<int64_t>(i), static_cast<int64_t>(j)) =
          rows.values[static_cast<size_t>(at - rows.indices.begin())];
    }
  }
  return out;
}

// The latents whose mean over texts with the label is furthest from that over the others.
std::vector<int32_t> by_mean_difference(const SparseLatents& rows, std::span<const int64_t> train,
                                        std::span<const uint8_t> positive, size_t k) {
  std::map<int32_t, double> difference;
  const auto ones = static_cast<double>(std::count(positive.begin(), positive.end(), uint8_t{1}));
  const double zeros = static_cast<double>(positive.size()) - ones;
  for (size_t i = 0; i < train.size(); ++i) {
    const double weight = positive[i] ? 1.0 / ones : -1.0 / zeros;
    const auto row = static_cast<size_t>(train[i]);
    for (int64_t e = rows.row_offsets[row]; e < rows.row_offsets[row + 1]; ++e) {
      difference[rows.indices[static_cast<size_t>(e)]] += weight * rows.values[static_cast<size_t>(e)];
    }
  }
  std::vector<std::pair<double, int32_t>> order;
  for (const auto& [latent, d] : difference) order.emplace_back(-std::abs(d), latent);
  std::sort(order.begin(), order.end());
  std::vector<int32_t> out;
  for (size_t i = 0; i < std::min(k, order.size()); ++i) out.push_back(order[i].second);
  return out;
}

Share accuracy(Mat<const float> train, std::span<const uint8_t> train_labels, Mat<const float> test,
               std::span<const uint8_t> test_labels) {
  Share out;
  const LogisticModel model = fit_logistic(train, train_labels, {.l2 = 1.0 / static_cast<double>(train.rows())});
  for (int64_t i = 0; i < test.rows(); ++i) {
    out.hits += (model.score(test.row_span(i)) > 0) == (test_labels[static_cast<size_t>(i)] == 1);
    ++out.n;
  }
  return out;
}

struct Part {  // of the texts: rows, and whether each has the label
  std::vector<int64_t> rows;
  std::vector<uint8_t> positive;
  void add(int64_t row, bool is_positive) {
    rows.push_back(row);
    positive.push_back(is_positive);
  }
};

// All texts to train on; to test on, those with the label and as many others.
std::pair<Part, Part> parts_of(const ProbeData& data, int label, uint64_t seed) {
  Part train, test;
  std::vector<int64_t> with, without;
  for (size_t i = 0; i < data.label.size(); ++i) {
    const auto row = static_cast<int64_t>(i);
    if (!data.test[i]) {
      train.add(row, data.label[i] == label);
    } else {
      (data.label[i] == label ? with : without).push_back(row);
    }
  }
  const auto stream = 2 * static_cast<uint64_t>(label);
  Rng of_with(seed, stream), of_without(seed, stream + 1);
  shuffle(with, of_with);
  shuffle(without, of_without);
  const size_t n = std::min(with.size(), without.size());
  for (size_t i = 0; i < n; ++i) {
    test.add(with[i], true);
    test.add(without[i], false);
  }
  return {train, test};
}

Share sum_of(const std::vector<ProbeResult::Class>& classes, const auto& share_of) {
  Share out;
  for (const ProbeResult::Class& c : classes) {
    out.hits += share_of(c).hits;
    out.n += share_of(c).n;
  }
  return out;
}

struct Captured {
  std::vector<float> activations;  // of the texts, one after another
  SparseLatents latents;
};

void append(SparseLatents& to, const SparseLatents& from) {
  for (int64_t r = 0; r < from.rows(); ++r) {
    to.row_offsets.push_back(static_cast<int64_t>(to.indices.size()) + from.row_offsets[static_cast<size_t>(r) + 1]);
  }
  to.indices.insert(to.indices.end(), from.indices.begin(), from.indices.end());
  to.values.insert(to.values.end(), from.values.begin(), from.values.end());
}

void capture_texts(const Sae& sae, Engine& engine, std::span<const std::vector<int32_t>> prompts, bool last,
                   Captured& out, const Control& control) {
  const Site site = Site::parse(sae.config().site);
  const Engine::Capture capture = engine.capture(prompts, {&site, 1}, last, control);
  const Mat<const float> rows = capture.sites.front().second.f32();
  const SparseLatents latents = sae.encode(rows);
  if (last) {
    for (int64_t r = 0; r < rows.rows(); ++r) {
      out.activations.insert(out.activations.end(), rows.row(r), rows.row(r) + rows.cols());
    }
    append(out.latents, latents);
    return;
  }
  // The first token is the same in most texts and out of all proportion.
  SparseLatents without_first;
  std::vector<int64_t> offsets = {0};
  for (size_t t = 0; t + 1 < capture.row_offsets.size(); ++t) {
    const int64_t end = capture.row_offsets[t + 1];
    const int64_t begin = std::min(capture.row_offsets[t] + 1, end - 1);
    std::vector<double> mean(static_cast<size_t>(rows.cols()), 0.0);
    for (int64_t r = begin; r < end; ++r) {
      for (int64_t c = 0; c < rows.cols(); ++c) mean[static_cast<size_t>(c)] += rows(r, c);
      for (int64_t e = latents.row_offsets[static_cast<size_t>(r)]; e < latents.row_offsets[static_cast<size_t>(r) + 1];
           ++e) {
        without_first.indices.push_back(latents.indices[static_cast<size_t>(e)]);
        without_first.values.push_back(latents.values[static_cast<size_t>(e)]);
      }
      without_first.row_offsets.push_back(static_cast<int64_t>(without_first.indices.size()));
    }
    for (const double m : mean) out.activations.push_back(static_cast<float>(m / static_cast<double>(end - begin)));
    offsets.push_back(without_first.rows());
  }
  append(out.latents, mean_latents(without_first, offsets));
}

// Texts of one label are shuffled and dealt, where they do not name their split.
std::vector<uint8_t> splits_of(std::span<const LabelledText> texts, const std::vector<int>& label,
                               const ProbeOptions& options) {
  std::vector<uint8_t> test(texts.size());
  std::map<int, std::vector<size_t>> drawn;
  for (size_t i = 0; i < texts.size(); ++i) {
    test[i] = texts[i].split == "test";
    if (texts[i].split.empty()) drawn[label[i]].push_back(i);
  }
  for (auto& [l, rows] : drawn) {
    Rng rng(static_cast<uint64_t>(options.seed), 1000 + static_cast<uint64_t>(l));
    shuffle(rows, rng);
    const auto n = static_cast<size_t>(std::lround(options.test_share * static_cast<double>(rows.size())));
    for (size_t i = 0; i < std::min(n, rows.size()); ++i) test[rows[i]] = 1;
  }
  return test;
}

void check_options(const ProbeOptions& options) {
  const auto refuse = [](const std::string& what) { throw Error(Errc::kInvalidArgument, what); };
  if (options.pool != "last" && options.pool != "mean") {
    refuse("probe-pool \"" + options.pool + "\" is unknown; expected last or mean");
  }
  if (options.k.empty() || *std::min_element(options.k.begin(), options.k.end()) < 1) {
    refuse("probe-k: expected numbers of latents, each 1 or more");
  }
  if (!(options.test_share > 0 && options.test_share < 1)) {
    refuse("probe-test-share is " + Json(options.test_share).dump() + "; expected a share between 0 and 1");
  }
}

}  // namespace

SparseLatents mean_latents(const SparseLatents& rows, std::span<const int64_t> offsets) {
  SparseLatents out;
  for (size_t t = 0; t + 1 < offsets.size(); ++t) {
    std::map<int32_t, double> sum;
    for (int64_t e = rows.row_offsets[static_cast<size_t>(offsets[t])];
         e < rows.row_offsets[static_cast<size_t>(offsets[t + 1])]; ++e) {
      sum[rows.indices[static_cast<size_t>(e)]] += rows.values[static_cast<size_t>(e)];
    }
    const auto n = static_cast<double>(std::max<int64_t>(1, offsets[t + 1] - offsets[t]));
    for (const auto& [latent, value] : sum) {
      out.indices.push_back(latent);
      out.values.push_back(static_cast<float>(value / n));
    }
    out.row_offsets.push_back(static_cast<int64_t>(out.indices.size()));
  }
  return out;
}

ProbeResult probe(const ProbeData& data, const ProbeOptions& options) {
  ProbeResult out;
  out.k = options.k;
  out.test = std::count(data.test.begin(), data.test.end(), uint8_t{1});
  out.train = static_cast<int64_t>(data.test.size()) - out.test;
  const auto most = static_cast<size_t>(*std::max_element(options.k.begin(), options.k.end()));
  const size_t classes = data.names.size() == 2 ? 1 : data.names.size();
  for (size_t c = 0; c < classes; ++c) {
    const auto [train, test] = parts_of(data, static_cast<int>(c), static_cast<uint64_t>(options.seed));
    ProbeResult::Class& result = out.classes.emplace_back();
    result.label = data.names[c];
    result.train = std::count(train.positive.begin(), train.positive.end(), uint8_t{1});
    if (result.train == 0 || result.train == static_cast<int64_t>(train.rows.size()) || test.rows.empty()) {
      throw Error(Errc::kInvalidArgument, "probing: label \"" + result.label + "\" has " +
                                              std::to_string(result.train) + " texts to train on and " +
                                              std::to_string(test.rows.size() / 2) +
                                              " to test on; expected some of both, with and without the label");
    }
    result.latents = by_mean_difference(data.latents, train.rows, train.positive, most);
    result.dense = accuracy(rows_of(data.activations, train.rows).f32(), train.positive,
                            rows_of(data.activations, test.rows).f32(), test.positive);
    for (const int k : options.k) {
      const auto first = std::span(result.latents).first(std::min(static_cast<size_t>(k), result.latents.size()));
      result.sparse.push_back(accuracy(columns_of(data.latents, train.rows, first).f32(), train.positive,
                                       columns_of(data.latents, test.rows, first).f32(), test.positive));
    }
  }
  return out;
}

ProbeResult probe_sae(const Sae& sae, Engine& engine, std::span<const LabelledText> texts, const ProbeOptions& options,
                      const Control& control) {
  check_options(options);
  std::set<std::string> names;
  for (const LabelledText& t : texts) names.insert(t.label);
  if (names.size() < 2) {
    throw Error(Errc::kInvalidArgument, "probing: " + std::to_string(texts.size()) + " texts with " +
                                            std::to_string(names.size()) + " labels; expected two labels or more");
  }
  std::vector<std::vector<int32_t>> prompts;
  std::vector<int> label;
  const auto context = static_cast<size_t>(engine.model().architecture().context);
  for (const LabelledText& t : texts) {
    prompts.push_back(prompt_ids(engine.tokenizer(), t.text));
    if (prompts.back().size() > context) prompts.back().resize(context);
    label.push_back(static_cast<int>(std::distance(names.begin(), names.find(t.label))));
  }
  Captured captured;
  for (size_t begin = 0; begin < prompts.size(); begin += kChunkTexts) {
    const size_t n = std::min(kChunkTexts, prompts.size() - begin);
    capture_texts(sae, engine, std::span(prompts).subspan(begin, n), options.pool == "last", captured, control);
    control.report({"probing", static_cast<int64_t>(begin + n), static_cast<int64_t>(prompts.size()), ""});
  }
  const Mat<const float> activations(captured.activations.data(), static_cast<int64_t>(prompts.size()),
                                     sae.config().d_in);
  return probe({activations, captured.latents, label, splits_of(texts, label, options), {names.begin(), names.end()}},
               options);
}

Share ProbeResult::dense() const {
  return sum_of(classes, [](const Class& c) { return c.dense; });
}

Share ProbeResult::sparse(size_t i) const {
  return sum_of(classes, [i](const Class& c) { return c.sparse.at(i); });
}

Json ProbeResult::to_json() const {
  const auto shares = [&](const Share& dense, const auto& sparse_of) {
    Json list = Json::array();
    for (size_t i = 0; i < k.size(); ++i) {
      Json entry = share_json(sparse_of(i), "accuracy");
      entry["k"] = k[i];
      list.push_back(entry);
    }
    return Json::object({{"dense", share_json(dense, "accuracy")}, {"sparse", list}});
  };
  Json out = shares(dense(), [&](size_t i) { return sparse(i); });
  out["train"] = train;
  out["test"] = test;
  Json by_label = Json::array();
  for (const Class& c : classes) {
    Json entry = Json::object({{"label", c.label}, {"train", c.train}, {"latents", Json(c.latents)}});
    const Json numbers = shares(c.dense, [&](size_t i) { return c.sparse.at(i); });
    for (const auto& [key, value] : numbers.members()) entry[key] = value;
    by_label.push_back(entry);
  }
  out["by_label"] = by_label;
  return out;
}

std::vector<LabelledText> load_labelled_texts(const std::string& path_or_default) {
  const std::string path = path_or_default.empty() ? data_directory() + "/probe.jsonl" : path_or_default;
  std::vector<LabelledText> out;
  for_each_json_line(path, [&](const Json& json, const std::string& where) {
    const auto member = [&](const char* key, bool required) {
      const Json* value = json.is_object() ? json.find(key) : nullptr;
      if (!value && !required) return std::string();
      if (!value || !value->is_string()) {
        throw Error(Errc::kBadFormat,
                    where + ": expected {\"text\": ..., \"label\": ...} with strings; \"" + key + "\" is none");
      }
      return value->as_string();
    };
    out.push_back({member("text", true), member("label", true), member("split", false)});
    const std::string& split = out.back().split;
    if (!split.empty() && split != "train" && split != "test") {
      throw Error(Errc::kBadFormat, where + ": split \"" + split + "\" is unknown; expected train or test");
    }
  });
  if (out.empty()) throw Error(Errc::kBadFormat, path + ": holds no text");
  return out;
}

}  // namespace saif
