#!/usr/bin/env bash
# All tests: installs a software Vulkan driver where no adapter exists, then builds, lints and tests. Quiet on success.
# Usage: tests/run.sh [--quick]
#   --quick  what most often tells that something is broken, in minutes; everything else is CI's
set -euo pipefail
cd "$(dirname "$0")/.."
quick=""
case "${1:-}" in
    "") ;;
    --quick) quick=1 ;;
    *) echo "tests/run.sh: expected nothing or --quick, found $1" >&2; exit 2 ;;
esac
export PENTIMENTO_PIPELINE_CACHE=off # nothing in anybody's home
quiet() { # name, command...: shows output only when the command fails
    local name=$1 log; shift
    log=$(mktemp)
    local start=$SECONDS
    if ! "$@" >"$log" 2>&1; then cat "$log" >&2; rm -f "$log"; echo "FAILED: $name" >&2; exit 1; fi
    grep -h "SKIPPED" "$log" || true
    rm -f "$log"
    echo "ok: $name ($((SECONDS - start)) s)"
}
# Everything is built with one selection of packages, the whole workspace: another one would have other features of what is
# shared, and wgpu and all above it be built again.
if cargo fmt --version >/dev/null 2>&1; then quiet "format" cargo fmt --check; else echo "SKIPPED: format (no rustfmt)"; fi
if cargo clippy --version >/dev/null 2>&1; then
    quiet "clippy" cargo clippy --release --workspace --all-targets -- -D warnings
else
    echo "SKIPPED: clippy (not installed)"
fi
quiet "build" cargo build --release --workspace
PENTIMENTO=target/release/pentimento
# shellcheck source=../examples/software-vulkan.sh
. examples/software-vulkan.sh
if [ "${PENTIMENTO_ADAPTER:-}" != cpu ]; then
    if ensure_adapter; then
        export PENTIMENTO_REQUIRE_ADAPTER="${PENTIMENTO_REQUIRE_ADAPTER:-1}" # it is there, so no test may say that it is not
    else
        echo "SKIPPED: everything that needs a graphics adapter"
    fi
fi
# The game, the package and lent devices are tested where there are SDL2, CMake and Vulkan's headers.
if [ -z "$quick" ] && [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null && ! { command -v sdl2-config && command -v cmake && command -v xvfb-run && [ -e /usr/include/vulkan/vulkan.h ]; } >/dev/null; then
    { apt-get update && apt-get install -y --no-install-recommends libsdl2-dev cmake libvulkan-dev xvfb xauth; } >/dev/null 2>&1 || true
fi
logs=$(mktemp -d)
trap 'rm -rf "$logs"' EXIT
tests() { # name, arguments of `cargo test`
    local name=$1; shift
    cargo test --release --workspace --no-fail-fast "$@" >>"$logs/$name" 2>&1 || { cat "$logs/$name" >&2; return 1; }
}
if [ -n "$quick" ]; then
    # Libraries, kernels against their formulas on few cases, networks against the reference libraries, the plans of real
    # models, and one program of each way in.
    export PENTIMENTO_CASES="${PENTIMENTO_CASES:-2}"
    tests quick --lib -- --nocapture
    tests quick --test numerics -- --nocapture adapter_agrees_with_twins gradients_agree_with_differences
    tests quick --test parity -- --nocapture transformer lora head tokenizers
    tests quick --test ffi --test inspect -- --nocapture header every_function every_layout what_is_unusable
    tests quick --test report -- --nocapture
    tests quick --test tool -- --nocapture a_closed_pipe a_model_is_quantised
else
    quiet "docs" env RUSTDOCFLAGS="-D warnings" cargo doc --release --workspace --no-deps
    quiet "tests' build" cargo test --release --workspace --no-run
    # Two lanes: alone, a program leaves a processor idle while its last test runs. Trainings and what compiles programs take as long as all the rest.
    trainings=(learning trainer official resume kills ffi package python) first=() second=()
    for file in {wgsl,runtime,trainer,trainer/cli,tests}/tests/{*.rs,*/main.rs}; do
        [ -e "$file" ] || continue
        name=${file%.rs} name=${name%/main} name=${name##*/}
        if [[ " ${trainings[*]} " == *" $name "* ]]; then first+=(--test "$name"); else second+=(--test "$name"); fi
    done
    tests trainings "${first[@]}" -- --nocapture &
    lane=$!
    failed=""
    tests others --lib --bins "${second[@]}" -- --nocapture || failed=1
    wait "$lane" || failed=1
    [ -z "$failed" ] || exit 1
    tests documented --doc
fi
grep -h "SKIPPED" "$logs"/* || true
# The slowest programs, for whoever makes this shorter.
if [ -n "${PENTIMENTO_TIMES:-}" ]; then
    grep -hE "^ *Running |^test result:" "$logs"/* | awk '/Running/ { name = $2 == "unittests" ? $4 : $2 } /^test/ { print $NF, name }' | sort -rn | head -n 12
fi
grep -hE "^test result:" "$logs"/* | awk '{ p += $4; f += $6; s += $8 } END { print p " passed, " f " failed, " s " skipped" }'
