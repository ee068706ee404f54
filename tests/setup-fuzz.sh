#!/usr/bin/env bash
# Installs cargo-fuzz, pinned, into target/tools: `make prove-fuzz` at full size needs it, `make test` does not.
set -euo pipefail
cd "$(dirname "$0")/.."

version=0.13.2
[ "$(target/tools/bin/cargo-fuzz --version 2>/dev/null)" = "cargo-fuzz $version" ] && exit
echo "installing cargo-fuzz $version into target/tools"
cargo install cargo-fuzz --version $version --locked --quiet --root target/tools
