#!/usr/bin/env bash
# All that wants a real GPU: timing first and alone on the card, then a training, then the suites. For RESULTS.md.
# Usage: tests/gpu.sh [OUT]
#   OUT                   folder for what is printed; default: target/gpu
#   PENTIMENTO_ADAPTER    which adapter, as everywhere
#   PENTIMENTO_PROGRAMS   a folder with the programs `model`, `pentimento`, `numerics` .., for a machine without a compiler
#   SIZE                  --tiny tries the script on a CPU driver; default: --short
set -uo pipefail
cd "$(dirname "$0")/.."
out=${1:-target/gpu}
mkdir -p "$out"
out=$(cd "$out" && pwd)
programs=${PENTIMENTO_PROGRAMS:-}
size=${SIZE:---short}
failed=0
if [ -z "$programs" ]; then
    cargo build --release --quiet --workspace && cargo test --release --quiet -p tests --no-run && cargo bench --quiet -p tests --bench model --no-run || exit 1
fi

step() { # name, most seconds, command
    local name=$1 most=$2 since=$SECONDS status=0
    shift 2
    timeout "$most" "$@" >"$out/$name.txt" 2>&1 || status=$?
    [ "$status" = 0 ] || failed=1
    echo "$name: status $status, $((SECONDS - since)) s, $out/$name.txt"
}
bench() { # name, arguments
    local name=$1
    shift
    local run=(cargo bench --quiet -p tests --bench model --)
    [ -z "$programs" ] || run=("$programs/model")
    step "$name" 240 "${run[@]}" --json "$out/$name.json" "$@"
}
tool() { # name, arguments
    local name=$1
    shift
    step "$name" 180 "${programs:-target/release}/pentimento" "$@"
}
suite() { # name, arguments
    local name=$1
    shift
    local run=(cargo test --release --quiet -p tests --test "$name" --)
    [ -z "$programs" ] || run=(env -C tests "$programs/$name")
    step "$name" 300 "${run[@]}" --nocapture "$@"
}

# What is shipped; without shared dispatches; with four bits a weight.
bench model "$size" --profile --shapes
bench model-alone "$size" --together 1
bench model-q4 $([ "$size" = --short ] || echo "$size") sd35-lora-512 --batch 2 --base q4 --profile
tool devices devices --test
model=examples/models/icons
rm -rf "$out/run"
tool personalize personalize --model $model --references $model/references/mono --limit 16 --prompts $model/prompts.txt --minutes 1 --out "$out/run"
if [ "$size" = --tiny ]; then
    suite numerics together
else
    for name in numerics parity profile pipelines memory estimate stream; do suite $name; done
fi
exit "$failed"
