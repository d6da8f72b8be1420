// Any bytes as config.json, and behind a zero byte as model.safetensors: loading binds the model or throws saif::Error.
#include "fuzz_folder.h"
#include "kernels/backend.h"
#include "model/loaded_model.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  static const saif::fuzz::Folder folder("model");
  const auto [config, weights] = saif::fuzz::split({data, size});
  folder.write("config.json", config);
  folder.write("model.safetensors", weights);
  try {
    const auto model = saif::load_model(folder.path(), {"f32"}, [] { return saif::make_ref_backend(); });
    (void)model->architecture().to_json();
  } catch (const saif::Error&) {
  }
  return 0;
}

extern "C" size_t LLVMFuzzerCustomMutator(uint8_t* data, size_t size, size_t max_size, unsigned int seed) {
  return saif::fuzz::mutate_text({data, max_size}, size, 0, seed);
}
