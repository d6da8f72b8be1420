#include "sae/train_files.h"

#include <algorithm>
#include <fstream>

#include "base/file.h"
#include "base/hash.h"
#include "base/rng.h"
#include "sae/density.h"

namespace saif {
namespace {

constexpr int64_t kEvaluationTokens = 32768;  // of held-out documents, at most

}  // namespace

TrainSplit split_documents(std::span<const std::vector<int32_t>> documents, const SaeTrainOptions& options,
                           int64_t limit) {
  TrainSplit split;
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

std::string hash_of_documents(std::span<const std::vector<int32_t>> documents) {
  std::string joined;
  for (const std::vector<int32_t>& d : documents) {
    joined += std::to_string(d.size()) + ":";
    joined.append(reinterpret_cast<const char*>(d.data()), d.size() * sizeof(int32_t));
  }
  return sha256_hex(std::string_view(joined));
}

MetricsTable::MetricsTable(std::string path, int64_t steps_done) : path_(std::move(path)) {
  if (!file_exists(path_)) return;
  std::string kept, line;
  std::ifstream in(path_);
  while (std::getline(in, line)) {
    const Result<Json> entry = parse_json(line);
    if (entry.ok() && entry.value().is_object() && entry.value().at("step").as_int() <= steps_done) kept += line + "\n";
  }
  write_file_atomically(path_, kept);
}

void MetricsTable::add(const Json& entry) {
  std::ofstream out(path_, std::ios::app);
  out << entry.dump() << "\n";
  out.flush();
  if (!out) throw Error(Errc::kIo, path_ + ": cannot be written; free space and start again to resume");
}

Json density_histogram(const RowFits& fits) {
  FiringDensity density = density_of(fits.fired, static_cast<int64_t>(fits.rows.size()));
  std::erase_if(density.bins, [](const SaeBreakdown::Bin& bin) { return bin.latents == 0; });
  return density_json(density.never, density.bins);
}

}  // namespace saif
