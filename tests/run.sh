#!/usr/bin/env bash
# All tests: installs a software Vulkan driver where no adapter exists, then builds, lints and tests. Quiet on success.
set -euo pipefail
cd "$(dirname "$0")/.."
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
quiet "build" cargo build --release --workspace
PENTIMENTO=target/release/pentimento
# shellcheck source=../examples/software-vulkan.sh
. examples/software-vulkan.sh
if [ "${PENTIMENTO_ADAPTER:-}" != cpu ]; then
    ensure_adapter || echo "SKIPPED: everything that needs a graphics adapter"
fi
if cargo fmt --version >/dev/null 2>&1; then quiet "format" cargo fmt --check; else echo "SKIPPED: format (no rustfmt)"; fi
if cargo clippy --version >/dev/null 2>&1; then
    quiet "clippy" cargo clippy --release --workspace --all-targets -- -D warnings
else
    echo "SKIPPED: clippy (not installed)"
fi
quiet "docs" env RUSTDOCFLAGS="-D warnings" cargo doc --release --workspace --no-deps
quiet "core without std" cargo build --release -p pentimento --no-default-features --target-dir target/core
log=$(mktemp)
trap 'rm -f "$log"' EXIT
if ! cargo test --release --workspace -- --nocapture >"$log" 2>&1; then cat "$log" >&2; exit 1; fi
grep -h "SKIPPED" "$log" || true
grep -hE "^test result:" "$log" | awk '{ p += $4; f += $6; s += $8 } END { print p " passed, " f " failed, " s " skipped" }'
