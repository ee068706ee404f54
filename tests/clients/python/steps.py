"""What the scripts beside this one share: the settings that run.py hands over, and steps that are told one by one."""

import contextlib
import json
import os
import sys

SETTINGS = json.loads(os.environ["CLIENT_TEST"])
GATEWAY = SETTINGS["gateway"]
TOKEN, REVOKE, INTROSPECT, LOGOUT = (GATEWAY + path for path in ("/token", "/revoke", "/introspect", "/logout"))
NOTES, ME = GATEWAY + "/notes", GATEWAY + "/users/me"
READER, READER_PASSWORD = "rita", SETTINGS["users"]["rita"]
WRITER, WRITER_PASSWORD = "will", SETTINGS["users"]["will"]
AUDITOR, AUDITOR_PASSWORD = "ada", SETTINGS["users"]["ada"]

exchanges: list[str] = []


@contextlib.contextmanager
def step(what: str):
    """One thing that must work. The first that does not ends the script, with the last exchanges. (run.py, which
    reads this, blots out passwords and tokens.)"""
    try:
        yield
    except Exception as error:
        print(f"FAIL {what}: {type(error).__name__}: {error}")
        print(*(f"  {line}" for line in exchanges[-3:]), sep="\n", flush=True)
        sys.exit(1)
    print(f"ok {what}", flush=True)


@contextlib.contextmanager
def raises(kind: type[BaseException]):
    """The block must raise this; what was raised is in the list that `as` gives."""
    caught: list = []
    try:
        yield caught
    except kind as error:
        caught.append(error)
    else:
        raise AssertionError(f"{kind.__name__} was not raised")


def equal(got, wanted):
    assert got == wanted, f"expected {wanted!r}, got {got!r}"


def status(response, wanted: int):
    assert response.status_code == wanted, f"expected {wanted}, got {response.status_code}: {response.text[:300]}"


def ended(response):
    """A token that was good and is no longer: 401 that says so."""
    status(response, 401)
    challenge = response.headers["WWW-Authenticate"]
    assert 'error="invalid_token"' in challenge, challenge


def logged_out(response):
    assert response.status_code in (200, 204), f"{response.status_code}: {response.text[:300]}"


def note(request, status_code: int, headers, text: str) -> None:
    sent = request.body if hasattr(request, "body") else request.read()
    sent = sent.decode(errors="replace") if isinstance(sent, bytes) else sent or ""
    exchanges.append(f"{request.method} {request.url} {dict(request.headers)} {sent[:300]}")
    exchanges.append(f"→ {status_code} {dict(headers)} {text[:300]}")


def watch_requests(session):
    """Keeps what a session of requests sends and gets, through its own hooks."""
    session.hooks["response"].append(lambda r, *_, **__: note(r.request, r.status_code, r.headers, r.text))
    return session


def watched_httpx() -> dict:
    """The same for httpx: an argument of its clients."""

    def seen(response):
        response.read()
        note(response.request, response.status_code, response.headers, response.text)

    return {"event_hooks": {"response": [seen]}}


def watched_async_httpx() -> dict:
    async def seen(response):
        await response.aread()
        await response.request.aread()
        note(response.request, response.status_code, response.headers, response.text)

    return {"event_hooks": {"response": [seen]}}
