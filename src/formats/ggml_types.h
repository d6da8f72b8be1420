// GGUF's element types live with the other element types, where kernels may use them too.
#pragma once

#include "tensor/ggml_types.h"  // IWYU pragma: export
