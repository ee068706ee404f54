#!/usr/bin/env bash
# Lists what `make test` did not run on this machine, so that a skipped suite is never mistaken for a passed one.
set -euo pipefail
cd "$(dirname "$0")/.."
log=${1:-target/test-env/cargo-test.log}

{
    [ -d ../shared/vectors ] || echo "../shared/vectors is missing: Wycheproof, JOSE cookbook, YAML suite"
    command -v cargo-deny >/dev/null || echo "cargo-deny is not installed: licences, bans, sources, advisories"
    if command -v cargo-deny >/dev/null && ! compgen -G "${CARGO_HOME:-$HOME/.cargo}/advisory-dbs/*" >/dev/null; then
        echo "no copy of the advisory database: advisories"
    fi
    [ -e target/test-env/node/.installed ] || echo "no Node: OAuth clients in Node, Swagger UI, the guides"
    tests/clients/chromium.sh >/dev/null || echo "no Chromium: Swagger UI"
    echo "instruction counts, whose build takes minutes: \`make bench\`"
    [ -f "$log" ] && sed -nE 's/^test (.*) \.\.\. ignored(, )?(.*)$/ignored test \1 \3/p' "$log"
    true
} | {
    mapfile -t skipped
    if [ ${#skipped[@]} = 0 ]; then
        echo "skipped: nothing"
    else
        echo "skipped:"
        printf '  - %s\n' "${skipped[@]}"
    fi
}
