// What this machine has and how fast it multiplies and reads: the roofs that `saif bench` compares with.
#include "saif/machine.h"

#include <sys/mman.h>

#include <algorithm>
#include <cstdlib>
#include <fstream>
#include <sstream>
#include <thread>

#include "base/parallel.h"
#include "base/rng.h"
#include "kernels/backend.h"
#include "study/timing.h"

namespace saif {
namespace {

constexpr int kMaxThreads = 1024;

// The products that the roofs are measured with: a prefill of 512 rows through SmolLM2's up projection.
constexpr int64_t kRows = 512, kOut = 1536, kIn = 576;

std::string cpu_name() {
  std::ifstream file("/proc/cpuinfo");
  for (std::string line; std::getline(file, line);) {
    if (!line.starts_with("model name") && !line.starts_with("Model")) continue;
    const size_t begin = line.find_first_not_of(" \t", line.find(':') + 1);
    if (line.find(':') != std::string::npos && begin != std::string::npos) return line.substr(begin);
  }
  return "unknown";
}

// One number of a file like /proc/meminfo ("MemAvailable:  123 kB"), in bytes; -1 when it is not there.
int64_t meminfo(const std::string& key) {
  std::ifstream file("/proc/meminfo");
  std::string name, unit;
  for (int64_t kib = 0; file >> name >> kib; std::getline(file, unit)) {
    if (name == key + ":") return kib * 1024;
  }
  return -1;
}

// The first number of a control group's file; -1 when there is none ("max").
int64_t group_number(const std::string& name) {
  std::ifstream file("/sys/fs/cgroup/" + name);
  int64_t value = -1;
  return file >> value ? value : -1;
}

int64_t available_memory() {
  int64_t bytes = meminfo("MemAvailable");
  const int64_t limit = group_number("memory.max"), used = group_number("memory.current");
  if (limit > 0 && used >= 0) {
    const int64_t left = std::max<int64_t>(limit - used, 0);
    bytes = bytes < 0 ? left : std::min(bytes, left);
  }
  return bytes;
}

// Cores that the control group may use at a time; 0: no limit known.
double core_quota() {
  std::ifstream file("/sys/fs/cgroup/cpu.max");
  double quota = 0, period = 0;
  return file >> quota >> period && period > 0 ? quota / period : 0.0;
}

struct Matrices {
  Tensor x{DType::kF32, {kRows, kIn}}, w{DType::kF32, {kOut, kIn}}, y{DType::kF32, {kRows, kOut}};
  Tensor x16, w16;
  Matrices() {
    Rng rng(1);
    for (Tensor* t : {&x, &w}) {
      float* data = t->as<float>();
      for (int64_t i = 0; i < t->elements(); ++i) data[i] = static_cast<float>(rng.uniform() - 0.5);
    }
    x16 = convert(x.view(), DType::kBf16);
    w16 = convert(w.view(), DType::kBf16);
  }
};

double gflops(double seconds) { return 2.0 * kRows * kOut * kIn / seconds * 1e-9; }

double gemm_gflops(Backend& backend, Matrices& m, Compute compute, double seconds) {
  const bool bf16 = compute == Compute::kBf16;
  const Tensor& w = bf16 ? m.w16 : m.w;
  const LinearPart part{{w.data(), w.dtype(), kOut, kIn}, nullptr, m.y.f32(), false};
  double best = gflops(
      best_seconds(seconds, 3, [&] { backend.linear(m.x.f32(), std::span<const LinearPart>(&part, 1), compute); }));
  if (!LibraryGemm::available()) return best;
  const double library = best_seconds(seconds, 3, [&] {
    if (bf16) {
      LibraryGemm::bf16(m.x16.as<uint16_t>(), m.w16.as<uint16_t>(), m.y.as<float>(), kRows, kOut, kIn);
    } else {
      LibraryGemm::f32(m.x.as<float>(), m.w.as<float>(), m.y.as<float>(), kRows, kOut, kIn);
    }
  });
  return std::max(best, gflops(library));
}

// Sums of 64-bit words, in 64 chains so that loads, not additions, are what takes time.
inline __attribute__((always_inline)) uint64_t sum_words(const uint64_t* p, int64_t n) {
  uint64_t sums[64] = {};
  for (int64_t i = 0; i < n; i += 64) {
    for (int64_t j = 0; j < 64; ++j) sums[j] += p[i + j];
  }
  uint64_t sum = 0;
  for (const uint64_t s : sums) sum += s;
  return sum;
}
uint64_t sum_plain(const uint64_t* p, int64_t n) { return sum_words(p, n); }
#if defined(__x86_64__)
__attribute__((target("avx2"))) uint64_t sum_avx2(const uint64_t* p, int64_t n) { return sum_words(p, n); }
__attribute__((target("avx512f"))) uint64_t sum_avx512(const uint64_t* p, int64_t n) { return sum_words(p, n); }
#endif

using SumWords = uint64_t (*)(const uint64_t*, int64_t);
SumWords choose_sum() {
#if defined(__x86_64__)
  if (__builtin_cpu_supports("avx512f")) return sum_avx512;
  if (__builtin_cpu_supports("avx2")) return sum_avx2;
#endif
  return sum_plain;
}

double read_gbps(bool little, bool huge_pages, double budget) {
  constexpr int64_t kGib = int64_t{1} << 27;  // words
  constexpr int64_t kChunk = int64_t{1} << 17;
  const int64_t words = little ? kGib / 8 : kGib;
  Tensor memory(DType::kI64, {words});  // asks for huge pages
#ifdef MADV_NOHUGEPAGE
  if (!huge_pages) madvise(memory.data(), memory.bytes(), MADV_NOHUGEPAGE);
#endif
  uint64_t* data = memory.as<uint64_t>();
  parallel_for(words, kChunk, [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; ++i) data[i] = static_cast<uint64_t>(i);
  });
  const SumWords sum = choose_sum();
  std::vector<uint64_t> sums(static_cast<size_t>(words / kChunk));
  const double seconds = best_seconds(budget, 3, [&] {
    parallel_for(words, kChunk, [&](int64_t begin, int64_t end) {
      sums[static_cast<size_t>(begin / kChunk)] = sum(data + begin, end - begin);
    });
    uint64_t total = 0;
    for (const uint64_t s : sums) total += s;
    data[0] = total;  // the result is used: no run can be dropped
  });
  return static_cast<double>(words) * 8 / seconds * 1e-9;
}

std::string gib(int64_t bytes) {
  std::ostringstream out;
  out.precision(2);
  out << static_cast<double>(bytes) / (1 << 30) << " GiB";
  return out.str();
}

std::vector<std::string> find_problems(const Backend& backend, int threads, int64_t available) {
  std::vector<std::string> out;
  if (backend.name().find("generic") != std::string::npos) {
    out.push_back(
        "generic kernels are in use: this processor has none of AVX2, AVX-512, AVX512-BF16; expect a tenth of "
        "the speed, use a newer processor");
  } else if (!backend.has_fast_bf16()) {
    out.push_back(
        "no bf16 instructions: products are formed in float32, at about half the speed and twice the memory; "
        "a processor with AVX512-BF16 avoids it");
  }
  if (threads == 1) {
    out.push_back(
        "only one thread: most of saif is parallel; allow more cores, or unset OMP_NUM_THREADS and --threads");
  }
  if (const double quota = core_quota(); quota > 0 && quota + 0.01 < threads) {
    std::ostringstream text;
    text << "the control group allows " << quota << " cores but " << threads << " threads run: pass --threads "
         << std::max(1, static_cast<int>(quota));
    out.push_back(text.str());
  }
  constexpr int64_t kEnough = int64_t{2} << 30;
  if (available >= 0 && available < kEnough) {
    out.push_back("memory is low: " + gib(available) +
                  " available where 2 GiB are wanted for the demo; close other programs or raise the limit");
  }
  return out;
}

}  // namespace

Json MachineReport::to_json() const {
  return Json::object({{"cpu", cpu},
                       {"threads", threads},
                       {"isa", isa},
                       {"onednn", onednn},
                       {"gemm_bf16_gflops", gemm_bf16_gflops},
                       {"gemm_f32_gflops", gemm_f32_gflops},
                       {"read_gbps", read_gbps},
                       {"read_huge_gbps", read_huge_gbps},
                       {"problems", problems}});
}

MachineReport examine_machine(const Control& control, double seconds) {
  const std::unique_ptr<Backend> backend = make_cpu_backend();
  const int64_t available = available_memory();
  MachineReport out;
  out.cpu = cpu_name();
  out.isa = backend->name();
  out.onednn = LibraryGemm::available() ? LibraryGemm::version() : "";
  out.threads = max_threads();
  control.check("examining the machine");
  {
    Matrices matrices;
    out.gemm_bf16_gflops = gemm_gflops(*backend, matrices, Compute::kBf16, seconds);
    out.gemm_f32_gflops = gemm_gflops(*backend, matrices, Compute::kF32, seconds);
  }
  control.check("examining the machine");
  const bool low = available > 0 && available < (int64_t{3} << 30);
  out.read_gbps = read_gbps(low || seconds < 0.1, false, seconds);
  out.read_huge_gbps = std::max(out.read_gbps, read_gbps(low || seconds < 0.1, true, seconds));
  out.problems = find_problems(*backend, out.threads, available);
  return out;
}

void use_threads(int n) {
  static const int kDefault = max_threads();  // all cores the process may use, or OMP_NUM_THREADS
  if (n < 0 || n > kMaxThreads) {
    throw Error(Errc::kInvalidArgument, "threads is " + std::to_string(n) + ", expected 1 to " +
                                            std::to_string(kMaxThreads) + ", or 0 for all cores");
  }
  set_threads(n == 0 ? kDefault : n);
}

}  // namespace saif
