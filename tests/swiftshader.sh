#!/usr/bin/env bash
# The numerics suite on SwiftShader, see swiftshader-driver.sh. Usage: tests/swiftshader.sh [arguments of the test binary]
set -euo pipefail
cd "$(dirname "$0")/.."
export XDG_RUNTIME_DIR="${XDG_RUNTIME_DIR:-${TMPDIR:-/tmp}}"
# shellcheck source=tests/swiftshader-driver.sh
. tests/swiftshader-driver.sh
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
use_swiftshader "$folder" >"$folder/reason" || { echo "SKIPPED: numerics on SwiftShader ($(cat "$folder/reason"))"; exit 0; }
export PENTIMENTO_ADAPTER=SwiftShader
cargo run --release --quiet -p pentimento-cli -- devices
cargo test --release -p tests --test numerics -- --nocapture "$@"
