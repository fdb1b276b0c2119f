#!/usr/bin/env bash
# The Python programs of tests/python as they are used: an adapter of the default model is trained for a few iterations, loaded in diffusers, and its
# pictures are scored by the independent judge.
# Usage: tests/python.sh [WORK [JUDGE]]
#   WORK    keeps the environment with PyTorch and diffusers (some GB), and the judge where it is trained; default: target/python
#   JUDGE   a file of train_judge.py, or `train` to make one in WORK (npm; about 40 minutes of a processor); without it nothing is scored
set -euo pipefail
cd "$(dirname "$0")/.."
work=${1:-target/python} judge=${2:-}
command -v python3 >/dev/null || { echo "SKIPPED: Python programs (no python3)"; exit 0; }
mkdir -p "$work"
work=$(cd "$work" && pwd)
if [ ! -x "$work/venv/bin/python" ]; then python3 -m venv "$work/venv"; fi
python="$work/venv/bin/python"
if ! "$python" -m pip install --quiet -r tests/python/requirements.txt 2>"$work/pip.log"; then
    tail -n 3 "$work/pip.log" >&2
    echo "SKIPPED: Python programs (pip could not install tests/python/requirements.txt)"
    exit 0
fi
cargo build --release --quiet --workspace
PENTIMENTO=target/release/pentimento
# shellcheck source=examples/software-vulkan.sh
. examples/software-vulkan.sh
ensure_adapter || { echo "SKIPPED: Python programs (no graphics adapter)"; exit 0; }
model=examples/models/icons
out=$(mktemp -d)
trap 'rm -rf "$out"' EXIT
"$PENTIMENTO" personalize --model "$model" --references "$model/references/mono" --limit 16 --prompts "$model/prompts.txt" \
    --out "$out/run" --set warm.steps=40 --iterations 2 >"$out/log" 2>&1 || { cat "$out/log" >&2; exit 1; }
adapter=$out/run/pytorch_lora_weights.safetensors
"$python" tests/python/load_in_diffusers.py --model "$model" --adapter "$adapter"
if [ -z "$judge" ]; then
    echo "SKIPPED: scores (no judge was given)"
    exit 0
fi
head -n 16 "$model/prompts-heldout.txt" >"$out/prompts"
draw() { "$PENTIMENTO" generate --model "$model" --prompts "$out/prompts" --steps 10 --seed 5000 "$@" >/dev/null 2>&1; }
draw --out "$out/base"
draw --out "$out/trained" --adapter "$adapter"
ls "$model/references/mono" | grep -E '\.png$' | sort | head -n 16 >"$out/used"
if [ "$judge" = train ]; then how=(--work "$work/judge"); else how=(--judge "$judge"); fi
"$python" tests/python/evaluate.py --images "$out/trained" --base "$out/base" --model "$model" --prompts "$out/prompts" \
    --references "$model/references/mono" --used "$out/used" "${how[@]}" >"$out/scores"
"$python" - "$out/scores" <<'END'
import json, sys
scores = json.load(open(sys.argv[1]))
base, images, held = (scores[k]["style"]["probability"] for k in ("base", "images", "held_out"))
print(f"ok: style of the base model {base}, of the adapter {images}, of held-out references {held}")
sys.exit(not base < images)
END
