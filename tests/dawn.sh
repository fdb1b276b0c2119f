#!/usr/bin/env bash
# Every shader through Dawn's compiler, Tint: creates each module and pipeline on the adapter that Dawn finds, SwiftShader
# where it takes none, and runs one matmul. Installs the npm package `webgpu` in a temporary folder. Usage: tests/dawn.sh
set -euo pipefail
cd "$(dirname "$0")/.."
# shellcheck source=tests/swiftshader-driver.sh
. tests/swiftshader-driver.sh
export XDG_RUNTIME_DIR="${XDG_RUNTIME_DIR:-${TMPDIR:-/tmp}}"
skip() { echo "SKIPPED: shaders through Dawn ($1)"; exit 0; }
command -v node >/dev/null || skip "no node: see https://nodejs.org"
command -v npm >/dev/null || skip "no npm: see https://nodejs.org"
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
if ! npm install --prefix "$folder" --no-audit --no-fund "webgpu@${PENTIMENTO_DAWN:-0.6.2}" >"$folder/npm.log" 2>&1; then
    cat "$folder/npm.log" >&2
    skip "npm cannot install the package webgpu"
fi
cp tests/dawn.mjs "$folder"
cargo run --release --quiet -p pentimento-wgsl --example dump -- "$folder/shaders"
# Dawn refuses llvmpipe before Mesa 23, which lacks features it builds on.
status=0
node "$folder/dawn.mjs" "$folder/shaders" || status=$?
[ "$status" = 3 ] || exit "$status"
use_swiftshader "$folder" >"$folder/reason" || skip "it takes none of the adapters; $(cat "$folder/reason")"
node "$folder/dawn.mjs" "$folder/shaders" || { status=$?; [ "$status" = 3 ] && skip "it takes no adapter"; exit "$status"; }
