#!/usr/bin/env bash
# Kills the command-line tool 200 times at random moments, in five recipes, and compares what comes of it bit for bit.
set -euo pipefail
cd "$(dirname "$0")/.."
cargo build --release -p pentimento-cli
PENTIMENTO=target/release/pentimento
# shellcheck source=../examples/software-vulkan.sh
. examples/software-vulkan.sh
[ "${PENTIMENTO_ADAPTER:-}" = cpu ] || ensure_adapter
PENTIMENTO_KILLS=${1:-200} cargo test --release -p tests --test kills -- --nocapture
