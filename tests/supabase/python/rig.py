"""What the scripts beside this one share: the settings that run.py hands over, the control port of the fake, scenarios that
are told one by one. (run.py blots out tokens.)"""

import asyncio
import base64
import contextlib
import inspect
import json
import os
import sys
import time
import traceback
import urllib.parse

import httpx

SETTINGS = json.loads(os.environ["SUPABASE_TEST"])
URL, KEY, THROUGH, APP = (SETTINGS[name] for name in ("url", "key", "through", "app"))
GATEWAY = THROUGH == "gateway"
PASSWORD = "Correct horse 7 battery"

_control = httpx.Client(base_url=SETTINGS["control"], timeout=20)
_people = 0
_all: list = []


def ask(method: str, path: str, body=None):
    answer = _control.request(method, path, json=body if method == "POST" else None)
    assert answer.status_code == 200, f"control {method} {path}: {answer.text}"
    return answer.json()


def settings(**values):
    ask("POST", "/settings", values)


def fault(*faults: dict):
    ask("POST", "/faults", list(faults))


def count(name: str) -> int:
    return ask("GET", "/counters").get(name, {}).get("count", 0)


def seen(**query) -> list[dict]:
    return ask("GET", "/requests?" + urllib.parse.urlencode(query))


def mail(to: str) -> dict:
    return ask("GET", "/mail?" + urllib.parse.urlencode({"to": to, "last": 1}))[0]


def totp(secret: str) -> str:
    return ask("GET", f"/totp?secret={secret}")["code"]


def email(name: str = "user") -> str:
    global _people
    _people += 1
    return f"{name}-{os.getpid()}-{_people}@example.com"


def claims(token: str) -> dict:
    part = token.split(".")[1]
    return json.loads(base64.urlsafe_b64decode(part + "=" * (-len(part) % 4)))


def raw(method: str, path: str, headers: dict | None = None, **more) -> httpx.Response:
    return httpx.request(method, URL + path, headers={"apikey": KEY} | (headers or {}), timeout=20, **more)


def bearer(token: str) -> dict:
    return {"Authorization": f"Bearer {token}"}


def browse(start: str) -> urllib.parse.SplitResult:
    """Follows redirects by hand until one leaves for the app; where that leads."""
    for _ in range(6):
        answer = httpx.get(start, timeout=20)
        assert answer.status_code in (302, 303), f"{answer.status_code}: {answer.text[:300]}"
        start = answer.headers["location"]
        if start.startswith(APP):
            return urllib.parse.urlsplit(start)
    raise AssertionError("too many redirects")


def query(url: urllib.parse.SplitResult) -> dict:
    return dict(urllib.parse.parse_qsl(url.query))


def equal(got, wanted, what: str = ""):
    assert got == wanted, f"{what or 'value'}: expected {wanted!r}, got {got!r}"


@contextlib.contextmanager
def raises(kind, **wanted):
    """The block must raise this, with these attributes (numbers and their texts are the same)."""
    try:
        yield
    except kind as error:
        for name, value in wanted.items():
            got = getattr(error, name)
            assert str(got) == str(value), f"{name} of {error!r}: expected {value!r}, got {got!r}"
    else:
        raise AssertionError(f"{kind.__name__} was not raised")


def scenario(name: str, only: str = ""):
    def keep(run):
        _all.append((name, run, only))
        return run

    return keep


def main():
    wanted, failed = sys.argv[1] if len(sys.argv) > 1 else "", 0
    for name, run, only in _all:
        if (only and only != THROUGH) or wanted not in name:
            continue
        ask("POST", "/reset", {})
        began = time.monotonic()
        try:
            if inspect.iscoroutinefunction(run):
                asyncio.run(asyncio.wait_for(run(), 60))
            else:
                run()
            print(f"ok {name}  {time.monotonic() - began:.1f} s", flush=True)
        except Exception as error:  # every scenario is run
            failed += 1
            at = [frame for frame in traceback.extract_tb(error.__traceback__) if "tests/supabase" in frame.filename][-1:]
            where = f" ({at[0].filename.rsplit('/', 1)[-1]}:{at[0].lineno})" if at else ""
            told = f"{type(error).__name__} {getattr(error, 'status', '')} {getattr(error, 'code', '')}: {error}{where}"
            print(f"FAIL {name}: {told}".replace("\n", " "), flush=True)
            for last in seen(last=3)[-3:]:
                print(f"  {last['method']} {last['service']} {last['target'][:100]} → {last['status']}", flush=True)
    sys.stdout.flush()
    os._exit(1 if failed else 0)  # supabase-py leaves timers running
