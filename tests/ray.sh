#!/usr/bin/env bash
# examples/ray as it is used: a training alone, with one worker, with two, and with one of two killed in the middle give the same adapter.
# Usage: tests/ray.sh [WORK]
#   WORK   keeps the environment with Ray and the wheel (0.5 GB); default: target/ray
set -euo pipefail
cd "$(dirname "$0")/.."
work=${1:-target/ray}
command -v python3 >/dev/null || { echo "SKIPPED: Ray (no python3)"; exit 0; }
mkdir -p "$work"
work=$(cd "$work" && pwd)
if [ ! -x "$work/venv/bin/python" ]; then python3 -m venv "$work/venv"; fi
python="$work/venv/bin/python"
if ! "$python" -m pip install --quiet ray numpy cffi hatchling 2>"$work/pip.log"; then
    tail -n 3 "$work/pip.log" >&2
    echo "SKIPPED: Ray (pip could not install it)"
    exit 0
fi
cargo build --release --quiet --workspace
PENTIMENTO=target/release/pentimento
# shellcheck source=examples/software-vulkan.sh
. examples/software-vulkan.sh
ensure_adapter || { echo "SKIPPED: Ray (no graphics adapter)"; exit 0; }
PENTIMENTO_LIBRARIES="$PWD/target/release" "$python" -m pip install --quiet --no-deps --no-build-isolation --force-reinstall python/
model=examples/models/icons
out=$(mktemp -d)
trap 'rm -rf "$out"' EXIT
settings=(--set iterations=3 --set warm.steps=4 --set head.warm=4 --set watch.every=0 --set rollout.prompts=8 --set pathwise.images=8
    --set pathwise.batch=2 --set at_once.sample=2)
train() { # name, arguments
    local name=$1; shift
    "$python" examples/ray/personalize.py "$model" "$model/references/mono" "$out/$name.safetensors" "$@" "${settings[@]}" >"$out/$name.log" 2>&1 ||
        { cat "$out/$name.log" >&2; exit 1; }
    echo "$name: $(grep -cE '^[0-9]+ reward' "$out/$name.log") iterations, the last in $(grep -E '^3 reward' "$out/$name.log" | sed 's/.*, //')"
}
export LP_NUM_THREADS=1 # a software driver would take all processors for each worker
train alone --workers 0
train one --workers 1 --threads 1
train two --workers 2 --threads 1
train killed --workers 2 --threads 1 --kill 3
grep -q "is killed" "$out/killed.log"
for name in one two killed; do
    cmp "$out/alone.safetensors" "$out/$name.safetensors" || { echo "FAILED: $name is another adapter" >&2; exit 1; }
done
echo "ok: one adapter"
