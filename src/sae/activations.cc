#include "sae/activations.h"

#include <algorithm>
#include <cerrno>
#include <cstdio>
#include <cstring>
#include <filesystem>
#include <numeric>

#include "base/parallel.h"
#include "base/rng.h"
#include "saif/json.h"

namespace saif {
namespace {

constexpr int64_t kChunkTokens = 8192;  // tokens of the documents that one pass takes
constexpr int64_t kBlock = 256;         // consecutive rows that stay together until they are in the buffer

// Collects rows of several sites; they arrive in any order.
class RowCollector final : public Observer {
 public:
  RowCollector(std::span<const Site> sites, int64_t skip_first) : skip_first_(skip_first) {
    for (const Site& site : sites) parts_.push_back({site, {}, {}});
  }

  bool wants(const Site& site) const override {
    return std::any_of(parts_.begin(), parts_.end(), [&](const Part& part) { return part.site == site; });
  }

  void observe(const Site& site, std::span<const RowInfo> rows, Mat<const float> values) override {
    for (Part& part : parts_) {
      if (!(part.site == site)) continue;
      for (size_t i = 0; i < rows.size(); ++i) {
        if (rows[i].position < skip_first_) continue;
        part.keys.emplace_back(rows[i].sequence, rows[i].position);
        const float* row = values.row(static_cast<int64_t>(i));
        for (int64_t c = 0; c < values.cols(); ++c) part.values.push_back(f32_to_bf16(row[c]));
      }
    }
  }

  int64_t rows() const { return static_cast<int64_t>(parts_.front().keys.size()); }

  // The site's rows by sequence and position.
  std::vector<uint16_t> take(size_t site) {
    Part& part = parts_[site];
    if (part.keys.size() != parts_.front().keys.size()) {
      throw Error(Errc::kInternal, "site " + part.site.name() + " gave " + std::to_string(part.keys.size()) +
                                       " rows, site " + parts_.front().site.name() + " " + std::to_string(rows()));
    }
    if (part.keys.empty()) return {};
    const size_t width = part.values.size() / part.keys.size();
    std::vector<size_t> order(part.keys.size());
    std::iota(order.begin(), order.end(), size_t{0});
    std::sort(order.begin(), order.end(), [&](size_t a, size_t b) { return part.keys[a] < part.keys[b]; });
    std::vector<uint16_t> out(part.values.size());
    for (size_t i = 0; i < order.size(); ++i) {
      std::copy_n(part.values.begin() + static_cast<int64_t>(order[i] * width), width,
                  out.begin() + static_cast<int64_t>(i * width));
    }
    return out;
  }

 private:
  struct Part {
    Site site;
    std::vector<std::pair<int64_t, int64_t>> keys;  // sequence, position
    std::vector<uint16_t> values;
  };
  std::vector<Part> parts_;
  int64_t skip_first_;
};

std::string file_of(const ActivationCache::Request& request, size_t site) {
  return request.folder + "/" + request.sites[site].name() + ".bf16";
}

std::string journal_of(const ActivationCache::Request& request) { return request.folder + "/activations.json"; }

void append(const std::string& path, const std::vector<uint16_t>& values) {
  std::FILE* file = std::fopen(path.c_str(), "ab");
  bool done = file != nullptr && std::fwrite(values.data(), sizeof(uint16_t), values.size(), file) == values.size();
  int code = errno;
  if (file != nullptr && std::fclose(file) != 0) {
    done = false;
    code = errno;
  }
  if (!done)
    throw Error(Errc::kIo,
                path + ": activations cannot be written: " + std::strerror(code) + "; free space and start again");
}

struct Journal {
  int64_t documents = 0, rows = 0;
};

// Where capturing stands; files are cut back to what the journal vouches for.
Journal resume(const ActivationCache::Request& request, const std::vector<int64_t>& widths) {
  Journal journal;
  if (file_exists(journal_of(request))) {
    const Json json = read_json_file(journal_of(request));
    journal = {json.at("documents").as_int(), json.at("rows").as_int()};
  }
  for (size_t s = 0; s < widths.size(); ++s) {
    std::error_code code;
    const auto size = std::filesystem::file_size(file_of(request, s), code);
    if (code || size < static_cast<uint64_t>(journal.rows * widths[s]) * sizeof(uint16_t)) journal = {};
  }
  for (size_t s = 0; s < widths.size(); ++s) {
    const std::string path = file_of(request, s);
    if (!file_exists(path)) continue;
    std::error_code code;
    std::filesystem::resize_file(path, static_cast<uint64_t>(journal.rows * widths[s]) * sizeof(uint16_t), code);
    if (code) throw Error(Errc::kIo, path + ": cannot be cut back: " + code.message());
  }
  return journal;
}

}  // namespace

size_t chunk_end(std::span<const std::vector<int32_t>> documents, size_t begin) {
  int64_t tokens = 0;
  size_t end = begin;
  while (end < documents.size() &&
         (end == begin || tokens + static_cast<int64_t>(documents[end].size()) <= kChunkTokens)) {
    tokens += static_cast<int64_t>(documents[end++].size());
  }
  return end;
}

Tensor collect_activations(Engine& engine, std::span<const std::vector<int32_t>> documents, const Site& site,
                           int64_t skip_first, int64_t max_rows, const Control& control) {
  const int64_t width = engine.model().architecture().width(site);
  std::vector<float> values;
  for (size_t begin = 0; begin < documents.size() && static_cast<int64_t>(values.size()) < max_rows * width;) {
    const size_t end = chunk_end(documents, begin);
    const Engine::Capture capture = engine.capture(documents.subspan(begin, end - begin), {&site, 1}, false, control);
    const Mat<const float> all = capture.sites.front().second.f32();
    for (size_t d = 0; d < end - begin; ++d) {
      for (int64_t r = capture.row_offsets[d] + skip_first; r < capture.row_offsets[d + 1]; ++r) {
        if (static_cast<int64_t>(values.size()) >= max_rows * width) break;
        values.insert(values.end(), all.row(r), all.row(r) + width);
      }
    }
    begin = end;
  }
  Tensor out(DType::kF32, {static_cast<int64_t>(values.size()) / width, width});
  std::copy(values.begin(), values.end(), out.as<float>());
  return out;
}

ActivationCache ActivationCache::build(Engine& engine, std::span<const std::vector<int32_t>> documents,
                                       const Request& request, const Control& control) {
  ActivationCache cache;
  for (const Site& site : request.sites) cache.widths_.push_back(engine.model().architecture().width(site));
  make_directories(request.folder);
  Journal journal = request.in_memory ? Journal() : resume(request, cache.widths_);
  if (request.in_memory) cache.memory_.resize(request.sites.size());
  for (auto begin = static_cast<size_t>(journal.documents); begin < documents.size();) {
    control.check("capturing activations");
    const size_t end = chunk_end(documents, begin);
    RowCollector collector(request.sites, request.skip_first);
    Engine::ObserveOptions options;
    options.last_only = false;
    engine.observe(documents.subspan(begin, end - begin), collector, options, control);
    for (size_t s = 0; s < request.sites.size(); ++s) {
      const std::vector<uint16_t> rows = collector.take(s);
      if (request.in_memory) {
        cache.memory_[s].insert(cache.memory_[s].end(), rows.begin(), rows.end());
      } else {
        append(file_of(request, s), rows);
      }
    }
    journal = {static_cast<int64_t>(end), journal.rows + collector.rows()};
    if (!request.in_memory) {
      write_json_file(journal_of(request), Json::object({{"documents", journal.documents}, {"rows", journal.rows}}));
    }
    control.report({"activations", journal.documents, static_cast<int64_t>(documents.size()),
                    std::to_string(journal.rows) + " rows"});
    begin = end;
  }
  cache.rows_ = journal.rows;
  if (cache.rows_ == 0) return cache;
  for (size_t s = 0; s < request.sites.size(); ++s) {
    if (request.in_memory) {
      cache.data_.push_back(cache.memory_[s].data());
    } else {
      cache.files_.push_back(MappedFile::open(file_of(request, s)));
      cache.data_.push_back(reinterpret_cast<const uint16_t*>(cache.files_.back()->bytes().data()));
    }
  }
  return cache;
}

void ActivationCache::gather(size_t site, std::span<const int64_t> rows, Mat<float> out) const {
  const uint16_t* data = data_[site];
  const int64_t width = widths_[site];
  parallel_for(static_cast<int64_t>(rows.size()), 128, [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; ++i) {
      const uint16_t* row = data + rows[static_cast<size_t>(i)] * width;
      for (int64_t c = 0; c < width; ++c) out(i, c) = bf16_to_f32(row[c]);
    }
  });
}

void ActivationCache::remove(const Request& request) {
  std::error_code ignored;
  std::filesystem::remove(journal_of(request), ignored);
  for (size_t s = 0; s < request.sites.size(); ++s) std::filesystem::remove(file_of(request, s), ignored);
}

ShuffledOrder::ShuffledOrder(int64_t rows, int64_t buffer, int64_t seed)
    : rows_(rows),
      blocks_((rows + kBlock - 1) / kBlock),
      blocks_per_buffer_(std::max<int64_t>(1, buffer / kBlock)),
      seed_(static_cast<uint64_t>(seed)) {}

void ShuffledOrder::load_epoch(int64_t epoch) {
  epoch_ = epoch;
  buffer_ = -1;
  block_order_.resize(static_cast<size_t>(blocks_));
  std::iota(block_order_.begin(), block_order_.end(), int64_t{0});
  Rng rng(seed_, static_cast<uint64_t>(epoch) << 32);
  shuffle(block_order_, rng);
  buffer_begin_ = {0};
  for (int64_t b = 0; b < blocks_; ++b) {
    if (b > 0 && b % blocks_per_buffer_ == 0) buffer_begin_.push_back(buffer_begin_.back());
    const int64_t block = block_order_[static_cast<size_t>(b)];
    if (b == 0) buffer_begin_.push_back(0);
    buffer_begin_.back() += std::min(kBlock, rows_ - block * kBlock);
  }
}

void ShuffledOrder::load_buffer(int64_t buffer) {
  buffer_ = buffer;
  buffer_rows_.clear();
  for (int64_t b = buffer * blocks_per_buffer_; b < std::min(blocks_, (buffer + 1) * blocks_per_buffer_); ++b) {
    const int64_t first = block_order_[static_cast<size_t>(b)] * kBlock;
    for (int64_t r = first; r < std::min(rows_, first + kBlock); ++r) buffer_rows_.push_back(r);
  }
  Rng rng(seed_, (static_cast<uint64_t>(epoch_) << 32) + static_cast<uint64_t>(buffer) + 1);
  shuffle(buffer_rows_, rng);
}

void ShuffledOrder::fill(int64_t begin, std::span<int64_t> out) {
  for (size_t i = 0; i < out.size(); ++i) {
    const int64_t token = begin + static_cast<int64_t>(i), epoch = token / rows_, at = token % rows_;
    if (epoch != epoch_) load_epoch(epoch);
    if (buffer_ < 0 || at < buffer_begin_[static_cast<size_t>(buffer_)] ||
        at >= buffer_begin_[static_cast<size_t>(buffer_) + 1]) {
      const auto above = std::upper_bound(buffer_begin_.begin(), buffer_begin_.end(), at);
      load_buffer(above - buffer_begin_.begin() - 1);
    }
    out[i] = buffer_rows_[static_cast<size_t>(at - buffer_begin_[static_cast<size_t>(buffer_)])];
  }
}

}  // namespace saif
