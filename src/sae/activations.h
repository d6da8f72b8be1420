// Activations as an SAE's training and evaluation want them: rows of one site, first tokens left out.
#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <vector>

#include "base/file.h"
#include "saif/engine.h"

namespace saif {

// Documents [begin, result) are what one pass over the model takes: 8,192 tokens, or one document that is longer.
size_t chunk_end(std::span<const std::vector<int32_t>> documents, size_t begin);

// At most max_rows rows [n, width] float32 of all tokens of the documents but each one's first skip_first.
Tensor collect_activations(Engine& engine, std::span<const std::vector<int32_t>> documents, const Site& site,
                           int64_t skip_first, int64_t max_rows, const Control& control);

// Activations of several sites from one pass over the model, as bfloat16 in memory or in files of a folder, so that
// epochs do not run the model again. A prefix that documents share is stored once per chunk of documents. Capturing to
// files that was cut off continues behind the last whole chunk.
class ActivationCache {
 public:
  struct Request {
    std::string folder;
    std::vector<Site> sites;
    int64_t skip_first = 1;
    bool in_memory = false;
  };
  // `documents` and the request must be those of an earlier call on the same folder (the caller sees to it).
  static ActivationCache build(Engine& engine, std::span<const std::vector<int32_t>> documents, const Request& request,
                               const Control& control);

  int64_t rows() const { return rows_; }
  int64_t width(size_t site) const { return widths_[site]; }
  // out[i] = row rows[i] of the site, float32.
  void gather(size_t site, std::span<const int64_t> rows, Mat<float> out) const;
  static void remove(const Request& request);

 private:
  int64_t rows_ = 0;
  std::vector<int64_t> widths_;
  std::vector<std::shared_ptr<const MappedFile>> files_;
  std::vector<std::vector<uint16_t>> memory_;
  std::vector<const uint16_t*> data_;  // by site, in files_ or memory_
};

// The order in which rows are trained on: blocks of rows are permuted, and rows within a buffer of blocks; another
// order every epoch. A function of (rows, buffer, seed) and the token's number only, so that a resumed run goes on
// where it was.
class ShuffledOrder {
 public:
  ShuffledOrder(int64_t rows, int64_t buffer, int64_t seed);
  // The rows of tokens [begin, begin + out.size()) of the endless sequence of epochs.
  void fill(int64_t begin, std::span<int64_t> out);

 private:
  void load_epoch(int64_t epoch);
  void load_buffer(int64_t buffer);

  int64_t rows_, blocks_, blocks_per_buffer_;
  uint64_t seed_;
  int64_t epoch_ = -1, buffer_ = -1;
  std::vector<int64_t> block_order_, buffer_begin_;  // buffer_begin_: position in the epoch, [buffers + 1]
  std::vector<int64_t> buffer_rows_;
};

}  // namespace saif
