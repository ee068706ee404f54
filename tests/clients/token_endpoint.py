"""`POST /token` on the wire: what no client library would send, and every byte of the answers. One row is one request.

Success: exactly access_token, token_type, expires_in, scope, refresh_token. Errors: exactly error, error_description,
detail (RFC 6749 section 5.2, with a member for FastAPI's front ends). Both: JSON, no-store, no challenge, no null.
"""

import base64
import json
import re
import urllib.parse

FORM = "application/x-www-form-urlencoded"
LIMIT = 16 * 1024
# RFC 6749 section 5.2: what error_description may consist of.
DESCRIPTION = re.compile(r"[\x20-\x21\x23-\x5b\x5d-\x7e]+")
WRONG = "Incorrect username or password"


def form(*pairs: tuple[str, str], **fields: str) -> bytes:
    return urllib.parse.urlencode([*pairs, *fields.items()]).encode()


def multipart(*pairs: tuple[str, str], boundary: str = "b0undary") -> tuple[str, bytes]:
    parts = [f'--{boundary}\r\nContent-Disposition: form-data; name="{name}"\r\n\r\n{value}\r\n' for name, value in pairs]
    return f"multipart/form-data; boundary={boundary}", ("".join(parts) + f"--{boundary}--\r\n").encode()


def basic(text: str) -> tuple[str, str]:
    return ("Authorization", "Basic " + base64.b64encode(text.encode()).decode())


def rows(password: str, refresh: str) -> list[tuple]:
    """What it is · target · content type · body · further headers · expected: scope of a success, or the error's code."""
    user = (("username", "rita"), ("password", password))
    full = (("grant_type", "password"), *user)
    good = form(*full)
    read = "notes:read"

    def plain(what, body, expected, content_type=FORM, headers=(), target="/token"):
        return (what, target, content_type, body, headers, expected)

    def parts(what, pairs, expected):
        return plain(what, multipart(*pairs)[1], expected, multipart(*pairs)[0])

    def text(what, value, expected):
        return plain(what, value.encode(), expected, "application/json")

    return [
        plain("a form", good, read),
        plain("with a charset", good, read, FORM + "; charset=UTF-8"),
        plain("content type in capitals", good, read, FORM.upper()),
        plain("without grant_type, as FastAPI's form allows", form(*user), read),
        plain("grant_type without a value counts as absent (RFC 6749 3.2)", form(("grant_type", ""), *user), read),
        plain("scope without a value counts as absent", form(*full, ("scope", "")), read),
        plain("with a slash at the end of the path", good, read, target="/token/"),
        plain("Swagger UI's headers", good, read, headers=[
            ("Accept", "application/json, text/plain, */*"), ("X-Requested-With", "XMLHttpRequest"), basic(":")]),
        plain("Basic Og==", good, read, headers=[("Authorization", "Basic Og==")]),
        plain("Basic web:", good, read, headers=[basic("web:")]),
        plain("Basic None:None", good, read, headers=[basic("None:None")]),
        plain("Basic with a client and a secret", good, read, headers=[basic("web:secret")]),
        plain("Basic and junk", good, read, headers=[("Authorization", "Basic %%%")]),
        plain("Basic and nothing", good, read, headers=[("Authorization", "Basic")]),
        plain("a stale bearer", good, read, headers=[("Authorization", "Bearer a.b.c")]),
        plain("client_id=None", form(*full, ("client_id", "None")), read),
        plain("client_id and client_secret", form(*full, ("client_id", "web"), ("client_secret", "secret")), read),
        plain("Basic and client_id together", form(*full, ("client_id", "web")), read, headers=[basic("web:")]),
        plain("an unknown parameter", form(*full, ("audience", "somebody")), read),
        parts("a multipart form", full, read),
        text("JSON", json.dumps(dict(full)), read),
        plain("fewer scopes than asked for", form(*full, ("scope", "notes:write notes:read")), read),
        plain("a body of exactly 16 KiB", form(*full, ("pad", "x" * (LIMIT - len(good) - 5))), read),
        plain("a refresh", form(("grant_type", "refresh_token"), ("refresh_token", refresh)), read),
        plain("the same refresh again", form(("grant_type", "refresh_token"), ("refresh_token", refresh)), read),
        # --- errors
        plain("a wrong password", form(("username", "rita"), ("password", password + "x")), "invalid_grant"),
        plain("an unknown user", form(("username", "nobody"), ("password", password)), "invalid_grant"),
        plain("a password in another case", form(("username", "rita"), ("password", password.swapcase())), "invalid_grant"),
        plain("a scope that the user may not have", form(*full, ("scope", "notes:write")), "invalid_scope"),
        plain("a broader scope than any that the user may have", form(*full, ("scope", "notes")), "invalid_scope"),
        plain("an unknown scope", form(*full, ("scope", "payroll")), "invalid_scope"),
        plain("a scope with a quote in it", form(*full, ("scope", 'a"b')), "invalid_scope"),
        plain("no username", form(("grant_type", "password"), ("password", password)), "invalid_request"),
        plain("no password", form(("grant_type", "password"), ("username", "rita")), "invalid_request"),
        plain("no refresh_token", form(grant_type="refresh_token"), "invalid_request"),
        plain("a refresh token that never was", form(grant_type="refresh_token", refresh_token="prt_" + "A" * 43), "invalid_grant"),
        plain("a refresh token that is not one", form(grant_type="refresh_token", refresh_token="é"), "invalid_grant"),
        plain("a refresh with a scope that the session has not", form(
            ("grant_type", "refresh_token"), ("refresh_token", refresh), ("scope", "notes:write")), "invalid_scope"),
        plain("username twice", form(*full, ("username", "rita")), "invalid_request"),
        plain("password twice", form(*full, ("password", password)), "invalid_request"),
        plain("grant_type twice", form(("grant_type", "password"), *full), "invalid_request"),
        plain("scope twice", form(*full, ("scope", read), ("scope", read)), "invalid_request"),
        plain("client_id twice", form(*full, ("client_id", "a"), ("client_id", "b")), "invalid_request"),
        parts("username twice in a multipart form", (*full, ("username", "rita")), "invalid_request"),
        text("username twice in JSON", json.dumps(dict(full))[:-1] + ', "username": "rita"}', "invalid_request"),
        text("JSON that is a list", "[]", "invalid_request"),
        text("JSON with a number for a password", '{"username": "rita", "password": 1}', "invalid_request"),
        text("JSON cut short", '{"username": "rita"', "invalid_request"),
        text("JSON nested deeply", "[" * 5000, "invalid_request"),
        plain("credentials in the query", b"", "invalid_request", target="/token?" + good.decode()),
        plain("the password in the query, the rest in the form", form(("username", "rita")), "invalid_request",
              target="/token?" + form(("password", password)).decode()),
        plain("grant_type in the query", form(*user), "invalid_request", target="/token?grant_type=password"),
        plain("client credentials", form(grant_type="client_credentials"), "unsupported_grant_type"),
        plain("an authorization code", form(grant_type="authorization_code", code="x"), "unsupported_grant_type"),
        plain("grant_type in capitals", form(("grant_type", "PASSWORD"), *user), "unsupported_grant_type"),
        plain("an empty form", b"", "unsupported_grant_type"),
        plain("plain text", good, "invalid_request", "text/plain"),
        plain("XML", b"<a/>", "invalid_request", "application/xml"),
        plain("no content type", good, "invalid_request", None),
        plain("multipart without a boundary", multipart(*full)[1], "invalid_request", "multipart/form-data"),
        plain("multipart cut short", multipart(*full)[1][:-30], "invalid_request", multipart(*full)[0]),
        plain("a broken escape", good + b"&scope=%zz", "invalid_request"),
        plain("bytes that are not UTF-8", good + b"&scope=%ff", "invalid_request"),
    ]


def check_headers(headers) -> None:
    for name, value in {"Content-Type": "application/json", "Cache-Control": "no-store", "Pragma": "no-cache"}.items():
        assert headers.get_all(name) == [value], f"{name}: {headers.get_all(name)}"
    for name in ("WWW-Authenticate", "Set-Cookie", "Server"):
        assert headers.get_all(name) is None, f"{name}: {headers.get_all(name)}"


def check_success(answer, scope: str) -> dict:
    assert answer.status == 200, f"expected 200, got {answer.status}: {answer.body[:300]!r}"
    check_headers(answer.headers)
    token = answer.json()
    wanted = {"access_token": str, "token_type": str, "expires_in": int, "scope": str, "refresh_token": str}
    assert {name: type(value) for name, value in token.items()} == wanted, {k: type(v).__name__ for k, v in token.items()}
    shown = {name: token[name] for name in ("token_type", "expires_in", "scope")}
    assert shown == {"token_type": "bearer", "expires_in": 1800, "scope": scope}, shown
    return token


def check_error(answer, code: str) -> dict:
    assert answer.status == 400, f"expected 400, got {answer.status}: {answer.body[:300]!r}"
    check_headers(answer.headers)
    error = answer.json()
    assert set(error) == {"error", "error_description", "detail"}, error
    assert error["error"] == code, f"expected {code}, got {error}"
    assert error["detail"] == error["error_description"], error
    assert DESCRIPTION.fullmatch(error["error_description"]), error
    if code == "invalid_grant" and "refresh" not in error["detail"]:
        assert error["detail"] == WRONG, error
    return error
