#!/usr/bin/env bash
# The main job on the default model: 16 reference images in, adapter and pictures out.
# Usage: examples/quickstart.sh [REFERENCES [OUT [options of `pentimento personalize`]]]
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
cd "$here/.."
model=examples/models/icons
references=${1:-$model/references/mono}
out=${2:-out/quickstart}
shift $(( $# < 2 ? $# : 2 ))

command -v cargo >/dev/null || { echo "Rust is missing: see https://rustup.rs" >&2; exit 1; }
command -v cc >/dev/null || { echo "A C linker is missing: install gcc (Debian: apt-get install gcc)." >&2; exit 1; }
cargo build --release --quiet -p pentimento-cli
PENTIMENTO=target/release/pentimento
# shellcheck source=examples/software-vulkan.sh
. examples/software-vulkan.sh
ensure_adapter || { echo "No graphics adapter can be used." >&2; exit 1; }

"$PENTIMENTO" personalize --model "$model" --references "$references" --limit 16 \
    --prompts "$model/prompts.txt" --show "$model/prompts-heldout.txt" --out "$out" "$@"
echo "Look at $out/report.html: the same prompts and seeds before and after, and how it went."
