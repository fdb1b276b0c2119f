#!/usr/bin/env bash
# Sourced by swiftshader.sh and dawn.sh: `use_swiftshader FOLDER` makes SwiftShader, a second software Vulkan driver, the only
# one. Debian ships it with chromium (package chromium-common), which is unpacked into FOLDER, not installed.
# PENTIMENTO_SWIFTSHADER names a folder with libvk_swiftshader.so instead. Fails with a message when it cannot be had.
use_swiftshader() {
    local folder=$1 library
    library=$(find "${PENTIMENTO_SWIFTSHADER:-/usr/lib/chromium}" -name libvk_swiftshader.so 2>/dev/null | head -n 1)
    if [ -z "$library" ]; then
        command -v apt-get >/dev/null || { echo "no libvk_swiftshader.so, and no apt-get to fetch chromium-common"; return 1; }
        (cd "$folder" && apt-get download chromium-common && dpkg -x chromium-common_*.deb .) >"$folder/apt.log" 2>&1 \
            || { tail -n 3 "$folder/apt.log"; return 1; }
        rm -f "$folder"/chromium-common_*.deb
        library=$(find "$folder" -name libvk_swiftshader.so | head -n 1)
        [ -n "$library" ] || { echo "chromium-common has no libvk_swiftshader.so"; return 1; }
    fi
    echo "{\"file_format_version\": \"1.0.0\", \"ICD\": {\"library_path\": \"$library\", \"api_version\": \"1.1\"}}" >"$folder/icd.json"
    # Older loaders know only the second name.
    export VK_DRIVER_FILES="$folder/icd.json" VK_ICD_FILENAMES="$folder/icd.json"
}
