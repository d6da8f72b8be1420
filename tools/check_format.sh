#!/usr/bin/env bash
# Every header and source of the repository has the form that .clang-format gives it (`make format`).
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
git ls-files -z --cached --others --exclude-standard -- '*.h' '*.cc' |
  while IFS= read -r -d '' file; do [ ! -e "$file" ] || printf '%s\0' "$file"; done |
  xargs -0 -r clang-format-16 --dry-run -Werror ||
  { echo "format: run \`make format\`" >&2; exit 1; }
