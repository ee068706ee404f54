"""An app that keeps its own `/token`: FastAPI's tutorial, "OAuth2 with Password (and hashing), Bearer with JWT tokens",
with pwdlib and PyJWT. The gateway in front of it takes over everything but that one route. `/seen` shows what arrived
there, byte for byte."""

import base64
import os
from datetime import datetime, timedelta, timezone
from typing import Annotated

import jwt
from fastapi import Depends, FastAPI, Header, HTTPException, Request, status
from fastapi.security import OAuth2PasswordRequestForm
from pwdlib import PasswordHash
from pydantic import BaseModel

app = FastAPI()
password_hash = PasswordHash.recommended()
users = {os.environ["APP_USER"]: password_hash.hash(os.environ["APP_PASSWORD"])}
DUMMY_HASH = password_hash.hash("dummypassword")
seen: list[dict] = []


class Token(BaseModel):
    access_token: str
    token_type: str


@app.middleware("http")
async def keep(request: Request, call_next):
    if request.url.path == "/token":
        body = await request.body()
        seen.append({
            "method": request.method,
            "target": request.scope["raw_path"].decode() + "?" + request.scope["query_string"].decode(),
            "headers": [[name.decode(), value.decode("latin-1")] for name, value in request.scope["headers"]],
            "body": base64.b64encode(body).decode(),
        })
    return await call_next(request)


@app.get("/seen")
def what_arrived() -> list[dict]:
    return seen


@app.post("/token")
def login(form: Annotated[OAuth2PasswordRequestForm, Depends()]) -> Token:
    if not password_hash.verify(form.password, users.get(form.username, DUMMY_HASH)) or form.username not in users:
        raise HTTPException(
            status.HTTP_401_UNAUTHORIZED, "Incorrect username or password", headers={"WWW-Authenticate": "Bearer"},
        )
    expires = datetime.now(timezone.utc) + timedelta(minutes=30)
    claims = {"sub": form.username, "scope": " ".join(form.scopes), "exp": expires}
    return Token(access_token=jwt.encode(claims, os.environ["SECRET_KEY"], "HS256"), token_type="bearer")


@app.get("/users/me")
def me(user: Annotated[str, Header(alias="X-Auth-User")]) -> dict[str, str]:
    return {"id": user}


@app.get("/items")
def items() -> list[str]:
    return ["anvil"]
