"""An API without a line of authentication code: who is asking stands in headers that only the gateway can set."""

from typing import Annotated

from fastapi import FastAPI, Header
from fastapi.responses import HTMLResponse

app = FastAPI(title="Notes")

UserId = Annotated[str, Header(alias="X-Auth-User")]
Email = Annotated[str | None, Header(alias="X-Auth-Email")]
Roles = Annotated[str | None, Header(alias="X-Auth-Roles")]
SIGN_OUT = '<form method="post" action="/logout"><button>Sign out</button></form>'


@app.get("/health")
def health() -> dict:
    return {"status": "ok"}


@app.get("/", response_class=HTMLResponse)
def home(user: UserId) -> str:
    return f"<h1>Notes</h1><p>Signed in as {user}</p>{SIGN_OUT}"


@app.get("/feed")
def feed(user: Annotated[str | None, Header(alias="X-Auth-User")] = None) -> dict:
    return {"for": user or "everybody"}


@app.get("/users/me")
def me(user: UserId, email: Email = None, roles: Roles = None) -> dict:
    return {"id": user, "email": email, "roles": roles.split(",") if roles else []}


@app.get("/t/{tenant}/orders")
def orders(tenant: str) -> dict:
    return {"tenant": tenant, "orders": []}


@app.get("/notes")
def notes() -> list:
    return []


@app.get("/account/keys")
def keys(user: UserId) -> dict:
    return {"user": user, "keys": []}


@app.get("/admin/users")
def users() -> list:
    return []
