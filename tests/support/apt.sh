# For the setup scripts: says what happens, installs Debian packages without starting their services. Source it.

say() { printf 'setup: %s\n' "$*"; }
die() { printf 'setup: %s\n' "$*" >&2; exit 1; }

apt_install() {
    command -v apt-get >/dev/null || die "missing: $*; install it by hand (no apt-get here)"
    local root=()
    if [ "$(id -u)" != 0 ]; then
        command -v sudo >/dev/null || die "missing: $*; install it by hand (neither root nor sudo)"
        root=(sudo)
    fi
    say "installing $* by apt"
    "${root[@]}" env DEBIAN_FRONTEND=noninteractive apt-get update -qq
    "${root[@]}" env DEBIAN_FRONTEND=noninteractive sh -c "$apt_without_services" setup "$@"
}

# Debian starts the services of what it installs, unless this file answers 101; a file of somebody else's stays.
apt_without_services='
    policy=/usr/sbin/policy-rc.d
    if [ ! -e $policy ] || grep -q portcullis $policy; then
        trap "rm -f $policy" EXIT
        trap "exit 1" HUP INT TERM
        printf "#!/bin/sh\n# for the test setup of portcullis\nexit 101\n" >$policy
        chmod 755 $policy
    fi
    apt-get install -y -qq --no-install-recommends -o DPkg::Lock::Timeout=300 "$@"
'
