#!/usr/bin/env bash
# The rivals: torch (CPU), transformers and the programs of llama.cpp out of llama-cpp-python's source distribution.
#
#   SAIF_RIVALS_VENV   a virtual environment to use in place of build/rivals-venv
#   SAIF_RIVALS_DIR    where programs, models and results go in place of build/rivals (about 22 GB with all models)
#   SAIF_RIVALS_LLAMA  flags of llama.cpp's build in place of -DGGML_NATIVE=ON, where what that makes does not run
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."
venv=${SAIF_RIVALS_VENV:-build/rivals-venv}
dir=${SAIF_RIVALS_DIR:-build/rivals}
mkdir -p "$dir"

if ! "$venv/bin/python" -c 'import torch, transformers, gguf, numpy' 2> /dev/null; then
  echo "rivals: making $venv"
  [ -x "$venv/bin/python" ] || python3 -m venv "$venv"
  "$venv/bin/pip" install --quiet torch --index-url https://download.pytorch.org/whl/cpu ||
    "$venv/bin/pip" install --quiet torch
  "$venv/bin/pip" install --quiet transformers gguf numpy
fi

programs=(llama-bench llama-batched-bench llama-quantize)
if [ ! -x "$dir/llama.cpp/bin/llama-quantize" ]; then
  echo "rivals: fetching and building llama.cpp (minutes)"
  rm -rf "$dir/source"
  mkdir -p "$dir/source"
  "$venv/bin/pip" download --quiet --no-deps --no-binary llama-cpp-python -d "$dir/source" llama-cpp-python
  tar -xzf "$dir"/source/llama_cpp_python-*.tar.gz -C "$dir/source"
  # Build type, instructions and libraries as llama.cpp's own defaults have them, but for static linking.
  cmake -S "$dir"/source/llama_cpp_python-*/vendor/llama.cpp -B "$dir/llama.cpp" -G Ninja \
    -DCMAKE_BUILD_TYPE=Release ${SAIF_RIVALS_LLAMA:--DGGML_NATIVE=ON} -DBUILD_SHARED_LIBS=OFF -DLLAMA_BUILD_TESTS=OFF \
    -DLLAMA_BUILD_EXAMPLES=OFF -DLLAMA_BUILD_SERVER=OFF -DLLAMA_CURL=OFF -DLLAMA_OPENSSL=OFF > "$dir/llama.log"
  nice -n 19 ninja -C "$dir/llama.cpp" "${programs[@]}" >> "$dir/llama.log" ||
    { tail -n 30 "$dir/llama.log" >&2; exit 1; }
  echo "${SAIF_RIVALS_LLAMA:-}" > "$dir/llama.cpp/flags"
  basename "$dir"/source/llama_cpp_python-*/ | sed 's/_/-/g' > "$dir/llama.cpp/version"
  rm -rf "$dir/source"
fi
