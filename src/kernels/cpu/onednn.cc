// oneDNN's matmul, the yardstick of bench/kernels.cc.
#include <dnnl.hpp>
#include <map>
#include <tuple>

#include "kernels/backend.h"

namespace saif {

namespace {

using Key = std::tuple<bool, int64_t, int64_t, int64_t>;

dnnl::engine& engine() {
  static dnnl::engine the_engine(dnnl::engine::kind::cpu, 0);
  return the_engine;
}

// One primitive per (type, m, n, k), made at first use; not thread-safe.
dnnl::matmul& primitive(const Key& key) {
  static std::map<Key, dnnl::matmul> cache;
  const auto found = cache.find(key);
  if (found != cache.end()) return found->second;
  const auto& [bf16, m, n, k] = key;
  using Memory = dnnl::memory;
  const auto type = bf16 ? Memory::data_type::bf16 : Memory::data_type::f32;
  const Memory::desc x({m, k}, type, Memory::dims{k, 1}), w({k, n}, type, Memory::dims{1, k});
  const Memory::desc y({m, n}, Memory::data_type::f32, Memory::dims{n, 1});
#if DNNL_VERSION_MAJOR >= 3
  const dnnl::matmul::primitive_desc description(engine(), x, w, y);
#else
  const dnnl::matmul::primitive_desc description(dnnl::matmul::desc(x, w, y), engine());
#endif
  return cache.emplace(key, dnnl::matmul(description)).first->second;
}

// oneDNN takes its inputs as void*, yet does not write them.
void run(const Key& key, const void* x, const void* w, float* y) {
  static dnnl::stream stream(engine());
  const auto& [bf16, m, n, k] = key;
  using Memory = dnnl::memory;
  const auto type = bf16 ? Memory::data_type::bf16 : Memory::data_type::f32;
  Memory source({{m, k}, type, Memory::dims{k, 1}}, engine(), const_cast<void*>(x));
  Memory weights({{k, n}, type, Memory::dims{1, k}}, engine(), const_cast<void*>(w));
  Memory result({{m, n}, Memory::data_type::f32, Memory::dims{n, 1}}, engine(), y);
  primitive(key).execute(stream, {{DNNL_ARG_SRC, source}, {DNNL_ARG_WEIGHTS, weights}, {DNNL_ARG_DST, result}});
  stream.wait();
}

}  // namespace

bool LibraryGemm::available() { return true; }

std::string LibraryGemm::version() {
  const dnnl_version_t* v = dnnl_version();
  return "oneDNN " + std::to_string(v->major) + "." + std::to_string(v->minor) + "." + std::to_string(v->patch);
}

void LibraryGemm::bf16(const uint16_t* x, const uint16_t* w, float* y, int64_t m, int64_t n, int64_t k) {
  run({true, m, n, k}, x, w, y);
}

void LibraryGemm::f32(const float* x, const float* w, float* y, int64_t m, int64_t n, int64_t k) {
  run({false, m, n, k}, x, w, y);
}

}  // namespace saif
