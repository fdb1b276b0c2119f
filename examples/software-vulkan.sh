#!/usr/bin/env bash
# Makes sure a Vulkan adapter exists: installs Mesa's software driver on Debian and Ubuntu when none does. Sourced by
# examples/quickstart.sh and tests/run.sh; PENTIMENTO is the built command-line tool.
# Without it the driver complains about a display nobody asked for.
export XDG_RUNTIME_DIR="${XDG_RUNTIME_DIR:-${TMPDIR:-/tmp}}"
have_adapter() { "$PENTIMENTO" devices >/dev/null 2>&1; }
ensure_adapter() {
    have_adapter && return 0
    echo "No usable graphics adapter: installing Mesa's software Vulkan driver." >&2
    local sudo=""
    [ "$(id -u)" = 0 ] || sudo="sudo"
    if ! command -v apt-get >/dev/null; then
        echo "This is not Debian or Ubuntu: install your distribution's Mesa Vulkan drivers (lavapipe) and run again." >&2
        return 1
    fi
    { $sudo apt-get update && $sudo apt-get install -y --no-install-recommends mesa-vulkan-drivers libvulkan1; } >/tmp/pentimento-apt.$$ 2>&1 \
        || { cat /tmp/pentimento-apt.$$ >&2; rm -f /tmp/pentimento-apt.$$; return 1; }
    rm -f /tmp/pentimento-apt.$$
    have_adapter
}
