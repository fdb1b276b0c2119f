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
    # The compiler's own runtime: those of older C compilers lack functions.
    runtime=$(rustc +nightly --print sysroot)/lib/rustlib/$target/lib/librustc-nightly_rt.tsan.a
    link() { c++ "$@" -Wl,--whole-archive "$runtime" -Wl,--no-whole-archive -lm -ldl -lpthread -lrt -rdynamic; }
    printf '#include <pthread.h>\nint n; void *f(void *x) { n++; return x; }\nint main(void) { pthread_t t; pthread_create(&t, 0, f, 0); n++; pthread_join(t, 0); return 0; }\n' >"$folder/mistake.c"
    cc -g -fsanitize=thread -c "$folder/mistake.c" -o "$folder/mistake.o" && link "$folder/mistake.o" -o "$folder/mistake"
    if TSAN_OPTIONS="exitcode=66" "$folder/mistake" >/dev/null 2>&1; then echo "ThreadSanitizer does not see a race" >&2; exit 1; fi
    cc -std=gnu11 -g -fsanitize=thread -c tests/c/working.c -Iinclude -o "$folder/working.o"
    link "$folder/working.o" "target/threads/$target/release/libpentimento.a" -o "$folder/working"
    # The driver is not instrumented: its own locks are not looked at.
    printf 'called_from_lib:libvulkan_lvp.so\nmutex:destroy_device\n' >"$folder/suppressions"
    TSAN_OPTIONS="suppressions=$folder/suppressions exitcode=66" "$folder/working" race "$(pwd)/examples/models/icons" ""
fi
