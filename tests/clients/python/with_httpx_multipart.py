"""httpx as FastAPI's TestClient uses it: forms, multipart forms and JSON, and the tutorial's own way of logging in."""

import httpx
from steps import (
    GATEWAY, LOGOUT, ME, NOTES, TOKEN, WRITER, WRITER_PASSWORD, ended, equal, logged_out, status, step, watched_httpx,
)

http = httpx.Client(base_url=GATEWAY, **watched_httpx())
fields = {"grant_type": "password", "username": WRITER, "password": WRITER_PASSWORD, "scope": "notes:write notes:read"}
ways = {
    "a form": {"data": fields},
    "a form with the empty client fields of FastAPI's schema": {"data": fields | {"client_id": "", "client_secret": ""}},
    "a form with an empty scope": {"data": fields | {"scope": ""}},
    "a multipart form": {"files": {name: (None, value) for name, value in fields.items()}},
    "a multipart form with a type on each part": {
        "files": {name: (None, value, "text/plain; charset=utf-8") for name, value in fields.items()}},
    "JSON": {"json": fields},
}
for what, arguments in ways.items():
    with step(f"{what}: logs in, calls, refreshes in the same form, logs out"):
        answer = http.post(TOKEN, **arguments)
        status(answer, 200)
        token = answer.json()
        equal(set(token["scope"].split()), {"notes:read", "notes:write"})
        again = {"grant_type": "refresh_token", "refresh_token": token["refresh_token"]}
        kind = next(iter(arguments))
        answer = http.post(TOKEN, **{kind: {k: (None, v) for k, v in again.items()} if kind == "files" else again})
        status(answer, 200)
        headers = {"Authorization": f"Bearer {answer.json()['access_token']}"}
        status(http.get(NOTES, headers=headers), 200)
        equal(set(http.get(ME, headers=headers).json()["scopes"]), {"notes:read", "notes:write"})
        status(http.post(NOTES, json={"text": what}, headers=headers), 201)
        logged_out(http.post(LOGOUT, headers=headers))
        ended(http.get(NOTES, headers=headers))

with step("user names are told apart as people mean them: upper case is the same account"):
    status(http.post(TOKEN, data=fields | {"username": WRITER.upper()}), 200)
