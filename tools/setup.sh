#!/usr/bin/env bash
# Installs what is missing to build, test and run saif on Debian 12, then fetches the model. Does nothing, in a blink,
# when nothing is missing. Uses sudo only when it is not root and something must be installed.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

packages=(
  make g++ cmake ninja-build pkg-config git ccache                     # build
  libdnnl-dev ocl-icd-opencl-dev                                  # oneDNN, whose CMake package looks for OpenCL
  libhwy-dev nlohmann-json3-dev libcli11-dev                      # libraries
  libsqlite3-dev zlib1g-dev libsentencepiece-dev
  libgtest-dev libbenchmark-dev clang-format-16 clang-tidy-16     # tests and checks
  python3 python3-pip ca-certificates                             # checks, and the model's wheel
)

# The text room holds a small Rust library; 1.88 is the oldest toolchain that compiles it. cmake/rust.cmake looks for
# cargo in the same places.
rust_is_new_enough() {
  local cargo version
  hash -r
  for cargo in "$(command -v cargo || true)" "$HOME/.cargo/bin/cargo" /usr/bin/cargo; do
    if [ ! -x "$cargo" ] || [ ! -x "${cargo%/*}/rustc" ]; then continue; fi
    version=$("$cargo" --version 2> /dev/null | cut -d ' ' -f 2) || continue
    if [ -n "$version" ] && [ "$(printf '%s\n1.88\n' "$version" | sort -V | head -n 1)" = 1.88 ]; then return 0; fi
  done
  return 1
}
too_old=()
rust_is_new_enough || too_old=(cargo-web rustc-web)

if ! command -v apt-get > /dev/null || ! command -v dpkg-query > /dev/null; then
  echo "setup: this is not a Debian system, so nothing is installed. What saif needs, by its Debian names:"
  echo "  ${packages[*]} ${too_old[*]}"
else
  missing=("${too_old[@]}")  # installed perhaps, but not the newest
  for package in "${packages[@]}"; do
    [ "$(dpkg-query -W -f '${db:Status-Status}' "$package" 2> /dev/null)" = installed ] || missing+=("$package")
  done
  if [ ${#missing[@]} -gt 0 ]; then
    echo "setup: installing ${missing[*]}"
    by_hand="apt-get update && apt-get install ${missing[*]}"
    as_root=()
    if [ "$(id -u)" != 0 ]; then
      if ! command -v sudo > /dev/null; then
        echo "setup: not root, and there is no sudo. Have this run as root, then try again: $by_hand" >&2
        exit 1
      fi
      as_root=(sudo)
    fi
    mkdir -p build
    apt=("${as_root[@]}" env DEBIAN_FRONTEND=noninteractive apt-get -qq -o DPkg::Lock::Timeout=300 -o Dpkg::Use-Pty=0)
    "${apt[@]}" update > build/setup.log 2>&1 ||
      echo "setup: the package lists could not be renewed (build/setup.log); going on with the old ones" >&2
    if ! "${apt[@]}" install -y --no-install-recommends "${missing[@]}" >> build/setup.log 2>&1; then
      tail -n 15 build/setup.log >&2
      echo "setup: apt-get failed, its words are above and in build/setup.log. By hand, as root: $by_hand" >&2
      exit 1
    fi
  fi
fi

rust_is_new_enough || {
  echo "setup: cargo and rustc 1.88 or newer are needed; install Debian's cargo-web and rustc-web, or rustup's" >&2
  exit 1
}

# Without the model everything builds, and the tests that need it are reported as skipped.
tools/fetch_model.sh || echo "setup: going on without the model"
