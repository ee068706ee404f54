#!/usr/bin/env bash
# Installs what `make test` needs and does not find: a C compiler, Python, PostgreSQL, Redis and Chromium by apt, Python
# packages (pinned in requirements.txt) into target/test-env/venv, Node packages (pinned in
# clients/package-lock.json) into target/test-env/node. Does nothing, quickly, when all is there.
set -euo pipefail
cd "$(dirname "$0")/.."

. tests/support/apt.sh

command -v cargo >/dev/null || die "no cargo: install Rust first (https://rustup.rs)"
for tool in rustfmt clippy; do
    case $tool in rustfmt) program=cargo-fmt ;; clippy) program=cargo-clippy ;; esac
    command -v $program >/dev/null && cargo "${program#cargo-}" --version >/dev/null 2>&1 && continue
    command -v rustup >/dev/null || die "no $program, and no rustup to install it"
    say "installing $tool"
    rustup component add $tool
done

packages=()
command -v cc >/dev/null || packages+=(gcc libc6-dev)
if ! command -v python3 >/dev/null; then
    packages+=(python3 python3-venv)
elif ! python3 -c 'import ensurepip, venv' 2>/dev/null; then
    packages+=(python3-venv)
fi
[ ${#packages[@]} = 0 ] || apt_install "${packages[@]}"
servers=()
ls /usr/lib/postgresql/*/bin/initdb >/dev/null 2>&1 || command -v initdb >/dev/null || servers+=(postgresql)
command -v redis-server >/dev/null || servers+=(redis-server)
[ ${#servers[@]} = 0 ] || (apt_install "${servers[@]}") || say "no ${servers[*]}: the stores are tested without"
tests/clients/chromium.sh >/dev/null || (apt_install chromium) || say "no Chromium: pages (Swagger UI, sign-in, guides) are skipped"

python3 -c 'import sys; sys.exit(sys.version_info < (3, 11))' || die "python3 is $(python3 -V), 3.11 or newer is needed"

python_packages() {
    local env=target/test-env/venv wanted
    wanted=$(cat tests/requirements.txt examples/fastapi-items/requirements.txt <(python3 -V) | cksum)
    if [ "$(cat $env/.installed 2>/dev/null)" = "$wanted" ] && $env/bin/python -c 'import fastapi, uvicorn, websockets' 2>/dev/null; then
        return
    fi
    say "installing Python packages into $env"
    rm -rf $env
    mkdir -p target/test-env
    python3 -m venv $env
    $env/bin/python -m pip install --disable-pip-version-check --no-input --quiet -r tests/requirements.txt
    echo "$wanted" >$env/.installed
}

# The system's Node where it is 20 or newer; else one from PyPI, since distributions are often older. The scripts of
# tests/{clients,oidc,supabase}/node see their packages through the links `scripts`, `oidc` and `supabase` beside
# `node_modules`.
node_packages() {
    local env=target/test-env/node bin wanted
    if command -v npm >/dev/null && node -e 'process.exit(Number(process.versions.node.split(".")[0] < 20))' 2>/dev/null; then
        bin=$(dirname "$(command -v node)")
    else
        bin=$PWD/target/test-env/venv/bin
        if [ ! -x "$bin/node" ]; then
            say "installing Node into $bin"
            if ! "$bin/python" -m pip install --disable-pip-version-check --no-input --quiet -r tests/clients/requirements-node.txt; then
                say "no Node: the clients in Node, the OpenID provider and all pages are skipped"
                rm -rf $env
                return
            fi
        fi
    fi
    wanted=$(cat tests/clients/package-lock.json tests/clients/.npmrc <("$bin/node" --version) <(echo "$bin") | cksum)
    [ "$(cat $env/.installed 2>/dev/null)" = "$wanted" ] && return
    say "installing Node packages into $env"
    rm -rf $env
    mkdir -p $env
    cp tests/clients/{package.json,package-lock.json,.npmrc} $env
    "$bin/npm" ci --prefix $env --loglevel=error >/dev/null
    ln -s "$bin/node" $env/node
    ln -s ../../../tests/clients/node $env/scripts
    ln -s ../../../tests/oidc/node $env/oidc
    ln -s ../../../tests/supabase/node $env/supabase
    echo "$wanted" >$env/.installed
}

# Next.js, for the guide that is about it.
next_packages() {
    local env=target/test-env/next bin wanted
    [ -e target/test-env/node/node ] || { rm -rf $env; return; }
    bin=$(dirname "$(readlink target/test-env/node/node)")
    wanted=$(cat tests/guides/next/package-lock.json <("$bin/node" --version) | cksum)
    [ "$(cat $env/.installed 2>/dev/null)" = "$wanted" ] && return
    say "installing Next.js into $env"
    rm -rf $env
    mkdir -p $env
    cp tests/guides/next/{package.json,package-lock.json,.npmrc} $env
    "$bin/npm" ci --prefix $env --loglevel=error >/dev/null
    echo "$wanted" >$env/.installed
}

python_packages
node_packages
next_packages
say "ready"
