#!/usr/bin/env bash
# What needs a nightly compiler with rust-src and miri:
#   miri      the handles of the C interface, interpreted: no undefined behaviour, no leak
#   threads   the library and a C program under ThreadSanitizer: polls, events, pauses and cancels from several threads while a training runs
# Usage: tests/sanitize.sh [miri|threads]; both without an argument. The first build of `threads` takes minutes: the standard library is instrumented, too.
set -euo pipefail
cd "$(dirname "$0")/.."
export XDG_RUNTIME_DIR="${XDG_RUNTIME_DIR:-${TMPDIR:-/tmp}}"
target=x86_64-unknown-linux-gnu
cargo +nightly --version >/dev/null 2>&1 || { echo "SKIPPED: Miri and ThreadSanitizer (no nightly compiler)"; exit 0; }
if [ "${1:-miri}" = miri ]; then
    if cargo +nightly miri --version >/dev/null 2>&1; then
        CARGO_PROFILE_RELEASE_DEBUG=0 MIRIFLAGS="-Zmiri-disable-isolation" cargo +nightly miri test --target-dir target/miri -p pentimento-ffi --lib -- handles guard image shared
    else
        echo "SKIPPED: Miri (not installed)"
    fi
fi
if [ "${1:-threads}" = threads ]; then
    RUSTFLAGS="-Zsanitizer=thread -Cdebuginfo=line-tables-only" cargo +nightly build --release -Zbuild-std --target "$target" --target-dir target/threads -p pentimento-ffi
    folder=$(mktemp -d)
    trap 'rm -rf "$folder"' EXIT
    clang=$(command -v clang || true)
    "${clang:-cc}" -g -fsanitize=thread tests/c/working.c -Iinclude -Itests/c "target/threads/$target/release/libpentimento.a" -lm -ldl -lpthread -o "$folder/working"
    # The driver is not instrumented: what it does with its own memory is not looked at.
    printf 'called_from_lib:libvulkan_lvp.so\ncalled_from_lib:libLLVM\ncalled_from_lib:libvulkan.so\n' >"$folder/suppressions"
    TSAN_OPTIONS="suppressions=$folder/suppressions halt_on_error=1 exitcode=66" "$folder/working" race "$(pwd)/examples/models/icons" ""
fi
