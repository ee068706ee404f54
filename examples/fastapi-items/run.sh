#!/usr/bin/env bash
# The items API on 127.0.0.1:8000, Portcullis in front of it on 127.0.0.1:8080. Ctrl-C stops both.
# PORTCULLIS=/path/to/portcullis uses that program instead of building one.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
root=$(cd "$here/../.." && pwd)

if [ -z "${PORTCULLIS:-}" ]; then
    (cd "$root" && cargo build --release --locked)
    PORTCULLIS=${CARGO_TARGET_DIR:-$root/target}/release/portcullis
fi

venv=$root/target/example-venv
wanted=$(cksum <"$here/requirements.txt")
if [ "$(cat "$venv/.installed" 2>/dev/null)" != "$wanted" ]; then
    echo "installing FastAPI and uvicorn into $venv"
    rm -rf "$venv"
    mkdir -p "$root/target"
    python3 -m venv "$venv"
    "$venv/bin/python" -m pip install --disable-pip-version-check --quiet -r "$here/requirements.txt"
    echo "$wanted" >"$venv/.installed"
fi

# A secret for this session. Yours comes from your own environment, and stays the same between restarts.
if [ -z "${SECRET_KEY:-}" ]; then
    SECRET_KEY=$("$venv/bin/python" -c 'import secrets; print(secrets.token_hex(32))')
fi
export SECRET_KEY

gateway=${PORTCULLIS_LISTEN:-127.0.0.1:8080}
export PORTCULLIS_LISTEN=$gateway
admin=${PORTCULLIS_ADMIN__LISTEN:-127.0.0.1:9901}
export PORTCULLIS_ADMIN__LISTEN=$admin

started=()
stop() {
    trap - EXIT INT TERM
    for process in "${started[@]}"; do kill "$process" 2>/dev/null || true; done
    wait
}
trap stop EXIT
trap 'exit 130' INT
trap 'exit 143' TERM

# Users of this example, in a store of its own; `portcullis user` manages them.
export DATABASE_URL=${DATABASE_URL:-sqlite:$root/target/fastapi-items.db}
user() { # name, arguments
    local name=$1
    shift
    (cd "$here" && "$PORTCULLIS" user show "$name" >/dev/null 2>&1) && return
    echo "items of $name" | (cd "$here" && "$PORTCULLIS" --quiet user add "$name" --password-stdin "$@" >/dev/null)
}
mkdir -p "$root/target"
user rita --scope items:read --email rita@example.com
user will --role editor --email will@example.com

answers() { "$venv/bin/python" -c 'import sys, urllib.request as u; u.urlopen(sys.argv[1], timeout=1)' "$1" 2>/dev/null; }
until_it_answers() { # url, process
    for _ in $(seq 100); do
        kill -0 "$2" 2>/dev/null || { echo "stopped before it answered on $1" >&2; exit 1; }
        answers "$1" && return
        sleep 0.1
    done
    echo "no answer on $1" >&2
    exit 1
}

cd "$here"
# uvicorn believes X-Forwarded-For and X-Forwarded-Proto from 127.0.0.1 only. When the gateway runs on another
# host or in a container, name its address: FORWARDED_ALLOW_IPS=10.0.0.5 (or --forwarded-allow-ips).
"$venv/bin/python" -m uvicorn app:app --host 127.0.0.1 --port 8000 --log-level warning &
started+=($!)
until_it_answers http://127.0.0.1:8000/ "${started[0]}"

"$PORTCULLIS" serve &
started+=($!)
until_it_answers "http://$admin/-/ready" "${started[1]}"

token() { "$PORTCULLIS" token mint --as "$1" --ttl 1h; }
reader=$(token reader)
writer=$(token writer)
boss=$(token boss)
cat <<END

The app is at http://127.0.0.1:8000, the gateway at http://$gateway. In another terminal (tokens last an hour):

  READER=$reader
  WRITER=$writer
  BOSS=$boss

  curl -i http://$gateway/                                                  # 200, public
  curl -i http://$gateway/items                                             # 401, no token
  curl -i -H "Authorization: Bearer \$READER" http://$gateway/items          # 200, scope items:read
  curl -i -H "Authorization: Bearer \$READER" http://$gateway/users/me       # 200, the app echoes who is asking
  curl -i -H "Authorization: Bearer \$READER" -H 'X-Auth-User: root' http://$gateway/users/me
                                                                            # 200, and still u1
  curl -i -H "Authorization: Bearer \$READER" -X POST http://$gateway/items -H 'Content-Type: application/json' -d '{"name":"tongs"}'
                                                                            # 403, needs items:write
  curl -i -H "Authorization: Bearer \$WRITER" -X POST http://$gateway/items -H 'Content-Type: application/json' -d '{"name":"tongs"}'
                                                                            # 201, items implies items:write
  curl -i -H "Authorization: Bearer \$WRITER" http://$gateway/users/u1       # 403, neither u1 nor an admin
  curl -i -H "Authorization: Bearer \$BOSS" http://$gateway/users            # 200, role admin
  curl -i -H "Authorization: Bearer \$BOSS" -X DELETE http://$gateway/items/1
                                                                            # 204, an admin has every permission

Or log in as rita or will, whose password is "items of" and the name: with the Authorize button on
http://$gateway/docs, or

  curl -s http://$gateway/token -d username=will --data-urlencode 'password=items of will'

Edit examples/fastapi-items/policies/items.yaml and send one of them again: the change is live at once, unless the
policy is broken or fails its own tests; then the old one stays. Ctrl-C stops both.

END
wait -n
