#!/usr/bin/env bash
# The numerics suite on SwiftShader, a second software Vulkan driver, which Debian ships inside its chromium package. The
# package is unpacked into a temporary folder, not installed. PENTIMENTO_SWIFTSHADER names a folder with
# libvk_swiftshader.so instead. Usage: tests/swiftshader.sh [arguments of the test binary]
set -euo pipefail
cd "$(dirname "$0")/.."
export XDG_RUNTIME_DIR="${XDG_RUNTIME_DIR:-${TMPDIR:-/tmp}}"
skip() { echo "SKIPPED: numerics on SwiftShader ($1)"; exit 0; }
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
library=$(find "${PENTIMENTO_SWIFTSHADER:-/usr/lib/chromium}" -name libvk_swiftshader.so 2>/dev/null | head -n 1)
if [ -z "$library" ]; then
    command -v apt-get >/dev/null || skip "no libvk_swiftshader.so, and no apt-get to fetch Debian's chromium package with"
    chmod 755 "$folder"
    (cd "$folder" && apt-get download chromium && dpkg -x chromium_*.deb . && rm -f chromium_*.deb) >"$folder/apt.log" 2>&1 \
        || { cat "$folder/apt.log" >&2; skip "Debian's chromium package cannot be fetched"; }
    library=$(find "$folder" -name libvk_swiftshader.so | head -n 1)
    [ -n "$library" ] || skip "Debian's chromium package has no libvk_swiftshader.so"
fi
cat >"$folder/icd.json" <<JSON
{"file_format_version": "1.0.0", "ICD": {"library_path": "$library", "api_version": "1.1"}}
JSON
# Older loaders know only the second name.
export VK_DRIVER_FILES="$folder/icd.json" VK_ICD_FILENAMES="$folder/icd.json"
export PENTIMENTO_ADAPTER=SwiftShader
cargo run --release --quiet -p pentimento-trainer --bin pentimento -- devices
cargo test --release -p tests --test numerics -- --nocapture "$@"
