#!/usr/bin/env python3
"""End to end: a real FastAPI app under uvicorn, the built `portcullis serve` in front of it, real sockets.

    target/test-env/venv/bin/python tests/e2e/run.py [--gateway PROGRAM] [--only WORD] [--upload-mib N] [-v]

The policy is the one of examples/fastapi-items, with e2e.yaml beside it, in a temporary folder. Prints a table, and
exits 1 when a row failed, 2 when the two servers could not be started.
"""

import argparse
import base64
import contextlib
import hashlib
import hmac
import http.client
import json
import os
import pathlib
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
import traceback
import zlib

import websockets.exceptions
from websockets.sync.client import connect

HERE = pathlib.Path(__file__).resolve().parent
ROOT = HERE.parents[1]
EXAMPLE = ROOT / "examples" / "fastapi-items"
SECRET = secrets.token_hex(32)
# What one gateway may grow by while a gigabyte passes. Buffers per connection are kilobytes.
FLAT = 64 * 1024 * 1024


# --- tokens


def b64(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


def sign(header: dict, claims: dict, secret: str) -> str:
    signed = b64(json.dumps(header).encode()) + "." + b64(json.dumps(claims).encode())
    return signed + "." + b64(hmac.new(secret.encode(), signed.encode(), hashlib.sha256).digest())


def token(sub: str, secret: str = SECRET, alg: str = "HS256", **claims) -> str:
    now = int(time.time())
    full = {"iss": "portcullis", "aud": "items-api", "sub": sub, "iat": now, "exp": now + 600} | claims
    return sign({"alg": alg, "typ": "JWT"}, {k: v for k, v in full.items() if v is not None}, secret)


READER = token("u1", email="rita@example.com", scope="items:read")
WRITER = token("u2", email="will@example.com", scope="items", roles=["editor"])
BOSS = token("u9", roles=["admin"])


# --- the two servers


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def wait_until(what: str, condition, seconds: float = 15.0, process: subprocess.Popen | None = None):
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        if process and process.poll() is not None:
            raise AssertionError(f"{what}: the process ended with {process.returncode}")
        with contextlib.suppress(OSError, http.client.HTTPException):
            if result := condition():
                return result
        time.sleep(0.02)
    raise AssertionError(f"{what}: not within {seconds:g} s")


class Server:
    """A process with its output in a file."""

    def __init__(self, name: str, log: pathlib.Path):
        self.name, self.log, self.process = name, log, None

    def spawn(self, arguments: list, environment: dict, folder: pathlib.Path):
        with self.log.open("ab") as out:
            self.process = subprocess.Popen(
                [str(a) for a in arguments], cwd=folder, env=environment, stdout=out, stderr=subprocess.STDOUT,
                stdin=subprocess.DEVNULL,
            )

    def stop(self, seconds: float = 20.0) -> int:
        if self.process is None:
            return 0
        self.process.terminate()
        try:
            return self.process.wait(seconds)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
            raise AssertionError(f"{self.name} did not stop within {seconds:g} s of SIGTERM") from None

    def end(self):
        if self.process and self.process.poll() is None:
            self.process.kill()
            self.process.wait()

    def text(self) -> str:
        return self.log.read_text(errors="replace") if self.log.exists() else ""


class Upstream(Server):
    def __init__(self, folder: pathlib.Path):
        super().__init__("uvicorn", folder / "uvicorn.log")
        self.port = free_port()

    def start(self):
        self.spawn(
            [sys.executable, "-m", "uvicorn", "upstream:app", "--host", "127.0.0.1", "--port", self.port,
             "--log-level", "warning", "--http", "httptools", "--loop", "uvloop", "--timeout-graceful-shutdown", "2"],
            os.environ | {"PYTHONDONTWRITEBYTECODE": "1"}, HERE,
        )
        wait_until("uvicorn answers", lambda: self.seen() is not None, process=self.process)

    def seen(self) -> dict:
        return Client(self.port).get("/e2e/seen").json()


class Gateway(Server):
    def __init__(self, program: pathlib.Path, folder: pathlib.Path):
        super().__init__("portcullis", folder / "portcullis.log")
        self.program, self.folder = program, folder
        self.port, self.admin_port = free_port(), free_port()
        self.policies = folder / "policies"
        self.admin_token = secrets.token_hex(32)

    def environment(self) -> dict:
        kept = {name: os.environ[name] for name in ("PATH", "HOME", "LANG", "RUST_BACKTRACE") if name in os.environ}
        return kept | {
            "SECRET_KEY": SECRET,
            "ADMIN_TOKEN": self.admin_token,
            "PORTCULLIS_LISTEN": f"127.0.0.1:{self.port}",
            "PORTCULLIS_ADMIN__LISTEN": f"127.0.0.1:{self.admin_port}",
            "PORTCULLIS_ADMIN__TOKEN": "env:ADMIN_TOKEN",
        }

    def start(self):
        self.spawn([self.program, "serve"], self.environment(), self.folder)
        wait_until("the gateway is ready", lambda: self.admin("/-/ready").status == 200, process=self.process)

    def admin(self, path: str) -> "Answer":
        return Client(self.admin_port).get(path, bearer=self.admin_token)

    def resident(self) -> int:
        for line in pathlib.Path(f"/proc/{self.process.pid}/status").read_text().splitlines():
            if line.startswith("VmRSS:"):
                return int(line.split()[1]) * 1024
        raise AssertionError("no VmRSS")


# --- the client


class Answer:
    def __init__(self, status: int, headers: http.client.HTTPMessage, body: bytes):
        self.status, self.headers, self.body = status, headers, body

    def json(self):
        return json.loads(self.body)

    def refused(self, status: int, code: str) -> "Answer":
        """A refusal of the gateway's own: problem+json with a code, a decision id, and a challenge with every 401."""
        assert self.status == status, f"expected {status}, got {self.status}: {self.body[:300]!r}"
        assert self.headers.get_content_type() == "application/problem+json", self.headers["content-type"]
        problem = self.json()
        assert problem["code"] == code, f"expected code {code}, got {problem}"
        assert problem["status"] == status, problem
        assert problem["decision_id"] == self.headers["X-Portcullis-Decision"], (problem, self.headers.items())
        challenge = self.headers["WWW-Authenticate"]
        assert status != 401 or (challenge or "").startswith("Bearer realm="), challenge
        return self


class Client:
    """One keep-alive connection. Targets go out as they are written."""

    def __init__(self, port: int, timeout: float = 30.0):
        self.connection = http.client.HTTPConnection("127.0.0.1", port, timeout=timeout)

    def send(self, method: str, target: str, bearer: str | None = None, headers=(), body=None) -> Answer:
        self.connection.putrequest(method, target, skip_accept_encoding=True)
        if bearer is not None:
            self.connection.putheader("Authorization", f"Bearer {bearer}")
        for name, value in headers:
            self.connection.putheader(name, value)
        if isinstance(body, dict):
            body = json.dumps(body).encode()
            self.connection.putheader("Content-Type", "application/json")
        if body is not None:
            self.connection.putheader("Content-Length", str(len(body)))
        self.connection.endheaders(body)
        response = self.connection.getresponse()
        return Answer(response.status, response.headers, response.read())

    def get(self, target: str, bearer: str | None = None, headers=()) -> Answer:
        return self.send("GET", target, bearer, headers)


class Peak:
    """The largest resident size of a process while the block runs."""

    def __init__(self, gateway: Gateway):
        self.gateway, self.done = gateway, threading.Event()

    def __enter__(self):
        self.before = self.peak = self.gateway.resident()
        self.thread = threading.Thread(target=self.watch)
        self.thread.start()
        return self

    def watch(self):
        while not self.done.wait(0.05):
            self.peak = max(self.peak, self.gateway.resident())

    def __exit__(self, *_):
        self.done.set()
        self.thread.join()

    @property
    def growth(self) -> int:
        return self.peak - self.before


def mib(size: int) -> str:
    return f"{size / 1048576:.1f} MiB"


# --- the tests, in the order they run. A returned text is shown as a note.


class Tests:
    def __init__(self, gateway: Gateway, upstream: Upstream, upload_mib: int):
        self.gateway, self.upstream, self.upload_mib = gateway, upstream, upload_mib

    def client(self, **options) -> Client:
        return Client(self.gateway.port, **options)

    # --- who may do what

    def test_allowed_and_refused(self):
        """every row of the example's table: anonymous, reader, writer, boss"""
        new, name = {"name": "tongs"}, {"name": "bigger bellows"}
        client = self.client()
        rows = [
            # method, target, body, bearer, status, code of a refusal
            ("GET", "/", None, None, 200, None),
            ("GET", "/docs", None, None, 200, None),
            ("GET", "/openapi.json", None, None, 200, None),
            ("GET", "/?next=/admin", None, None, 200, None),
            ("GET", "/users/me", None, None, 401, "unauthenticated"),
            ("GET", "/users/me", None, READER, 200, None),
            ("GET", "/users/me/", None, None, 401, "unauthenticated"),
            ("GET", "/users", None, None, 401, "unauthenticated"),
            ("GET", "/users", None, READER, 403, "access_denied"),
            ("GET", "/users", None, BOSS, 200, None),
            ("GET", "/users/u1", None, READER, 200, None),
            ("GET", "/users/u1", None, WRITER, 403, "access_denied"),
            ("GET", "/users/u1", None, BOSS, 200, None),
            ("GET", "/items", None, None, 401, "unauthenticated"),
            ("GET", "/items", None, READER, 200, None),
            ("GET", "/items", None, WRITER, 200, None),
            ("GET", "/items", None, BOSS, 403, "insufficient_scope"),
            ("GET", "/items?access_token=" + READER, None, None, 401, "unauthenticated"),
            ("POST", "/items", new, None, 401, "unauthenticated"),
            ("POST", "/items", new, READER, 403, "insufficient_scope"),
            ("POST", "/items", new, WRITER, 201, None),
            ("PUT", "/items/2", name, READER, 403, "insufficient_scope"),
            ("PUT", "/items/2", name, WRITER, 200, None),
            ("GET", "/items/3", None, READER, 200, None),
            ("DELETE", "/items/3", None, READER, 403, "access_denied"),
            ("DELETE", "/items/3", None, WRITER, 204, None),
            ("GET", "/items/3", None, READER, 404, None),  # the app's own 404
            ("DELETE", "/items/1", None, BOSS, 204, None),
            ("DELETE", "/items/one", None, BOSS, 404, "not_found"),
            ("PATCH", "/items/2", name, WRITER, 405, "method_not_allowed"),
            ("PUT", "/users/u1", name, BOSS, 405, "method_not_allowed"),
            ("GET", "/admin", None, BOSS, 404, "not_found"),
            ("GET", "/items/../users", None, BOSS, 400, "invalid_target"),
            ("GET", "/items/%2e%2e/users", None, BOSS, 400, "invalid_target"),
            ("GET", "//users", None, BOSS, 400, "invalid_target"),
            ("GET", "/users%2Fu1", None, BOSS, 400, "invalid_target"),
            ("GET", "/users;a=b", None, BOSS, 400, "invalid_target"),
        ]
        for method, target, body, bearer, status, code in rows:
            shown = f"{method} {target[:40]}"
            try:
                before = self.upstream.seen()["requests"]
                answer = client.send(method, target, bearer, body=body)
                reached = self.upstream.seen()["requests"] - before
                if code:
                    answer.refused(status, code)
                    assert reached == 0, "a refused request reached the app"
                else:
                    assert answer.status == status, f"expected {status}, got {answer.status}: {answer.body[:200]!r}"
                    assert answer.headers.get_content_type() != "application/problem+json", answer.body
                    assert reached == 1, f"{reached} requests reached the app"
            except AssertionError as error:
                raise AssertionError(f"{shown}: {error}") from error
        return f"{len(rows)} requests on one connection"

    def test_challenges(self):
        """401 without `error` for no token, 403 names the scope, 405 names the methods"""
        client = self.client()
        challenge = client.get("/items").refused(401, "unauthenticated").headers["WWW-Authenticate"]
        assert "error=" not in challenge, challenge
        challenge = client.get("/items", BOSS).refused(403, "insufficient_scope").headers["WWW-Authenticate"]
        assert 'error="insufficient_scope"' in challenge and 'scope="items:read"' in challenge, challenge
        allow = client.send("PUT", "/users/u1", BOSS, body=b"").refused(405, "method_not_allowed").headers["Allow"]
        assert {m.strip() for m in allow.split(",")} == {"GET", "HEAD"}, allow

    def test_bad_tokens(self):
        """expired, forged, wrong audience, wrong issuer, alg none, garbage: 401; two credentials: 400"""
        now = int(time.time())
        head, payload, _ = READER.split(".")
        bad = {
            "expired": token("u1", scope="items:read", exp=now - 120),
            "not yet valid": token("u1", scope="items:read", nbf=now + 300),
            "no expiry": token("u1", scope="items:read", exp=None),
            "another secret": token("u1", secret="x" * 64, scope="items:read"),
            "another audience": token("u1", scope="items:read", aud="billing"),
            "no audience": token("u1", scope="items:read", aud=None),
            "another issuer": token("u1", scope="items:read", iss="https://elsewhere.example"),
            "another algorithm": token("u1", scope="items:read", alg="HS384"),
            "alg none": sign({"alg": "none"}, {"sub": "u1"}, SECRET).rsplit(".", 1)[0] + ".",
            "no signature": f"{head}.{payload}.",
            "garbage": "garbage",
        }
        client = self.client()
        before = self.upstream.seen()["requests"]
        for what, credential in bad.items():
            try:
                challenge = client.get("/items", credential).refused(401, "invalid_token").headers["WWW-Authenticate"]
                assert 'error="invalid_token"' in challenge, challenge
                client.get("/e2e/optional/headers", credential).refused(401, "invalid_token")
            except AssertionError as error:
                raise AssertionError(f"{what}: {error}") from error
        client.get("/items", READER, [("Authorization", f"Bearer {WRITER}")]).refused(400, "invalid_request")
        assert self.upstream.seen()["requests"] == before, "a bad token reached the app"
        return f"{len(bad)} bad tokens"

    # --- what the app sees

    SPOOFED = [
        ("X-Auth-User", "root"), ("x-auth-roles", "admin"), ("X_Auth_User", "root"), ("X-AUTH_EMAIL", "ceo@x"),
        ("X.Auth.User", "root"), ("X-Auth-Permissions", "items:delete"), ("Remote-User", "root"),
        ("X-Forwarded-User", "root"), ("X-Auth-Request-User", "root"), ("X-Forwarded-For", "10.1.2.3"),
        ("X-Real-IP", "10.1.2.3"), ("Forwarded", "for=10.1.2.3"), ("X-Auth-Assertion", "forged"),
    ]

    def seen_by_app(self, target: str, bearer: str | None, headers=()) -> tuple[dict, dict]:
        answer = self.client().get(target, bearer, headers)
        assert answer.status == 200, (answer.status, answer.body)
        seen = answer.json()
        names = [name for name, _ in seen["headers"]]
        identity = [n for n in names if n.replace("_", "-").replace(".", "-").startswith(("x-auth-", "remote-"))]
        assert len(identity) == len(set(identity)), f"a name arrived twice: {identity}"
        flat = dict(seen["headers"])
        values = " ".join(value for name, value in flat.items() if name != "authorization")
        for spoofed in ("root", "10.1.2.3", "ceo@x", "forged"):
            assert spoofed not in values, f"{spoofed} reached the app: {flat}"
        return {name: flat[name] for name in identity}, seen

    def test_identity_headers(self):
        """the app sees who is asking, and never what the client wrote under those names"""
        identity, seen = self.seen_by_app("/e2e/headers", WRITER, self.SPOOFED)
        expected = {
            "x-auth-user": "u2", "x-auth-email": "will@example.com", "x-auth-roles": "editor",
            "x-auth-scopes": "items", "x-auth-permissions": "items:delete", "x-auth-issuer": "local",
            "x-auth-method": "bearer",
        }
        assert identity == expected, identity
        flat = dict(seen["headers"])
        assert flat["authorization"] == f"Bearer {WRITER}", "the validated token is forwarded"
        assert flat["host"] == f"127.0.0.1:{self.gateway.port}", flat["host"]
        assert flat["x-forwarded-for"] == "127.0.0.1" and flat["x-forwarded-proto"] == "http", flat
        assert seen["client"] == "127.0.0.1", seen["client"]
        assert flat["x-request-id"], flat
        identity, _ = self.seen_by_app("/e2e/headers", token("u7"), self.SPOOFED)
        assert set(identity) == {"x-auth-user", "x-auth-issuer", "x-auth-method"}, f"absent means absent: {identity}"

    def test_identity_headers_without_identity(self):
        """none on public routes, X-Auth-Anonymous alone for anonymous callers of optional ones"""
        for bearer in (None, WRITER):
            identity, _ = self.seen_by_app("/e2e/public/headers", bearer, self.SPOOFED)
            assert identity == {}, identity
        identity, _ = self.seen_by_app("/e2e/optional/headers", None, self.SPOOFED)
        assert identity == {"x-auth-anonymous": "true"}, identity
        identity, _ = self.seen_by_app("/e2e/optional/headers", READER, self.SPOOFED)
        assert identity["x-auth-user"] == "u1" and "x-auth-anonymous" not in identity, identity

    def test_nominated_headers(self):
        """`Connection: X-Auth-User` cannot remove what the gateway sets"""
        answer = self.client().get("/e2e/headers", READER, [("Connection", "X-Auth-User")])
        if answer.status == 200:
            assert dict(answer.json()["headers"]).get("x-auth-user") == "u1", answer.body
        else:
            assert answer.status == 400, answer.status

    # --- streams

    def test_upload(self):
        """a large upload streams through with flat memory"""
        chunk = secrets.token_bytes(1 << 20)
        checksum = 0
        connection = http.client.HTTPConnection("127.0.0.1", self.gateway.port, timeout=120)
        started = time.monotonic()
        with Peak(self.gateway) as memory:
            connection.putrequest("PUT", "/e2e/upload")
            connection.putheader("Authorization", f"Bearer {WRITER}")
            connection.putheader("Content-Length", str(self.upload_mib << 20))
            connection.endheaders()
            for _ in range(self.upload_mib):
                connection.sock.sendall(chunk)
                checksum = zlib.crc32(chunk, checksum)
            response = connection.getresponse()
            body = response.read()
        took = time.monotonic() - started
        assert response.status == 200, (response.status, body)
        assert json.loads(body) == {"length": self.upload_mib << 20, "crc32": checksum}, body
        assert memory.growth < FLAT, f"memory grew by {mib(memory.growth)}"
        return f"{self.upload_mib} MiB in {took:.1f} s, memory +{mib(memory.growth)}"

    def test_upload_too_large(self):
        """a body over the route's limit is 413, whether announced or chunked"""
        self.client().send("PUT", "/e2e/small-upload", WRITER, body=b"x" * 2048).refused(413, "content_too_large")
        chunk = b"400\r\n" + b"x" * 0x400 + b"\r\n"
        with socket.create_connection(("127.0.0.1", self.gateway.port), timeout=10) as raw:
            raw.sendall(
                f"PUT /e2e/small-upload HTTP/1.1\r\nHost: h\r\nAuthorization: Bearer {WRITER}\r\n"
                "Transfer-Encoding: chunked\r\n\r\n".encode() + chunk
            )
            with contextlib.suppress(OSError):
                raw.sendall(chunk + b"0\r\n\r\n")
            status = raw.makefile("rb").readline()
        assert b" 413 " in status, status

    def open_stream(self, target: str) -> http.client.HTTPResponse:
        connection = http.client.HTTPConnection("127.0.0.1", self.gateway.port, timeout=10)
        connection.request("GET", target, headers={"Authorization": f"Bearer {READER}"})
        response = connection.getresponse()
        assert response.status == 200, (response.status, response.read(300))
        response.connection = connection
        return response

    def test_events(self):
        """an endless event stream arrives at once, in order, with flat memory, and ends when the client leaves"""
        with Peak(self.gateway) as memory:
            response = self.open_stream("/e2e/events")
            started, numbers = time.monotonic(), []
            while time.monotonic() - started < 4:
                line = response.readline()
                if line.startswith(b"id: "):
                    if not numbers:
                        assert time.monotonic() - started < 1, "the first event came late"
                    numbers.append(int(line[4:]))
        assert numbers == list(range(len(numbers))) and len(numbers) > 50, f"{len(numbers)} events, in order?"
        assert memory.growth < FLAT, f"memory grew by {mib(memory.growth)}"
        response.connection.close()
        response.close()
        wait_until("the app sees that the client left", lambda: self.upstream.seen()["open_streams"] == 0)
        return f"{len(numbers)} events in 4 s, memory +{mib(memory.growth)}"

    def test_slow_reader(self):
        """a client that stops reading slows the app down instead of filling the gateway"""
        with Peak(self.gateway) as memory:
            response = self.open_stream("/e2e/firehose")
            received = len(response.read(1 << 20))
            time.sleep(3)
            received += len(response.read(1 << 20))
        assert received == 2 << 20, received
        assert memory.growth < FLAT, f"memory grew by {mib(memory.growth)}"
        response.connection.close()
        response.close()
        wait_until("the app sees that the client left", lambda: self.upstream.seen()["open_streams"] == 0)
        return f"memory +{mib(memory.growth)}"

    # --- WebSocket

    def websocket(self, path: str, bearer: str | None):
        headers = {"Authorization": f"Bearer {bearer}"} if bearer else {}
        return connect(
            f"ws://127.0.0.1:{self.gateway.port}{path}", additional_headers=headers, proxy=None, max_size=None,
            open_timeout=10, close_timeout=5,
        )

    def test_websocket(self):
        """a WebSocket echoes text and binary frames, with the identity in its handshake"""
        with self.websocket("/e2e/ws", READER) as socket_:
            assert json.loads(socket_.recv(timeout=5)) == {"user": "u1"}
            for message in ("hello", "", "größer", b"\x00\xff", secrets.token_bytes(1 << 20)):
                socket_.send(message)
                assert socket_.recv(timeout=10) == message

    def test_websocket_refused(self):
        """no token: 401 problem+json; a route without `websocket: true` never upgrades"""
        before = self.upstream.seen()["requests"]
        try:
            self.websocket("/e2e/ws", None)
        except websockets.exceptions.InvalidStatus as refusal:
            assert refusal.response.status_code == 401, refusal.response
            assert json.loads(refusal.response.body)["code"] == "unauthenticated", refusal.response.body
        else:
            raise AssertionError("upgraded without a token")
        assert self.upstream.seen()["requests"] == before, "the refused upgrade reached the app"
        try:
            self.websocket("/e2e/ws-undeclared", READER)
        except websockets.exceptions.InvalidHandshake as refusal:
            return str(refusal)
        raise AssertionError("upgraded on a route that does not declare it")

    def test_websocket_age(self):
        """a socket is closed when its `max_ws_age` is over"""
        started = time.monotonic()
        with self.websocket("/e2e/ws-brief", READER) as socket_:
            socket_.recv(timeout=5)
            try:
                socket_.recv(timeout=10)
            except websockets.exceptions.ConnectionClosed:
                took = time.monotonic() - started
                assert 1.5 < took < 8, f"closed after {took:.1f} s"
                return f"closed after {took:.1f} s"
        raise AssertionError("still open after 10 s")

    # --- upstream trouble

    def test_upstream_down(self):
        """an upstream that is down is 502, one that is slow 504, both problem+json and never an auth answer"""
        client = self.client()
        client.get("/e2e/nobody-there").refused(502, "bad_gateway")
        client = self.client()
        client.get("/e2e/impatient/5000").refused(504, "gateway_timeout")
        assert self.client().get("/e2e/impatient/10").status == 200

    # --- reload

    def edit(self, old: str, new: str, how: str = "rename"):
        file = self.gateway.policies / "e2e.yaml"
        text = file.read_text()
        assert text.count(old) == 1, (old, text)
        changed = text.replace(old, new)
        if how == "rename":
            beside = file.with_name(".e2e.yaml.new")
            beside.write_text(changed)
            beside.rename(file)
        else:
            file.write_text(changed)

    def status_text(self) -> str:
        answer = self.gateway.admin("/-/status")
        assert answer.status == 200, (answer.status, answer.body)
        return answer.body.decode()

    def test_reload_under_load(self):
        """edits take effect while keep-alive clients run, with no failed request and no mixture"""
        stop, failures, counts = threading.Event(), [], {200: 0, 403: 0}
        changes = []  # per client: how often its answers changed

        def load():
            client, last, changed = self.client(), None, 0
            try:
                while not stop.is_set():
                    status = client.get("/e2e/toggle", READER).status
                    if status not in counts:
                        failures.append(status)
                    counts[status] = counts.get(status, 0) + 1
                    changed += last is not None and status != last
                    last = status
            except Exception as error:  # a dropped connection is what this test is about
                failures.append(repr(error))
            changes.append(changed)

        threads = [threading.Thread(target=load) for _ in range(4)]
        for thread in threads:
            thread.start()
        watcher, slowest = self.client(), 0.0
        closed, opened = "GET /e2e/toggle: { role: admin }", "GET /e2e/toggle: authenticated"
        edits = 8
        try:
            for round_ in range(edits):
                old, new, wanted = (opened, closed, 403) if round_ % 2 == 0 else (closed, opened, 200)
                started = time.monotonic()
                self.edit(old, new, "rename" if round_ % 4 < 2 else "write in place")
                wait_until(f"edit {round_} is live", lambda: watcher.get("/e2e/toggle", READER).status == wanted, 10)
                slowest = max(slowest, time.monotonic() - started)
        finally:
            stop.set()
            for thread in threads:
                thread.join()
        assert not failures, f"{len(failures)} failed: {failures[:5]}"
        assert all(changed <= edits for changed in changes), f"answers went back and forth: {changes}"
        return f"{sum(counts.values())} requests, {edits} edits, slowest live after {slowest:.2f} s"

    def test_broken_edit(self):
        """a broken policy changes nothing, shows in /-/status, and clears when it is mended"""
        assert "P102" not in self.status_text()
        self.edit("GET /e2e/toggle: authenticated", "GET /e2e/toggle: { scope: items:raed }")
        wait_until("the rejected set shows in /-/status", lambda: "P102" in self.status_text(), 10)
        assert self.client().get("/e2e/toggle", READER).status == 200, "the old set keeps serving"
        assert self.gateway.admin("/-/ready").status == 200
        assert self.gateway.admin("/-/ready?strict=1").status == 503
        assert "portcullis_policy_last_reload_success 0" in self.gateway.admin("/metrics").body.decode()
        self.edit("GET /e2e/toggle: { scope: items:raed }", "GET /e2e/toggle: authenticated")
        wait_until("mended", lambda: "P102" not in self.status_text(), 10)
        wait_until("metric", lambda: b"portcullis_policy_last_reload_success 1" in self.gateway.admin("/metrics").body)
        assert self.gateway.admin("/-/ready?strict=1").status == 200

    def test_failing_test_rejects(self):
        """an edit that contradicts the policy's own tests is rejected as well"""
        file = self.gateway.policies / "items.yaml"
        text = file.read_text()
        wrong = text.replace("GET /users: admin_only", "GET /users: authenticated")
        assert wrong != text
        file.write_text(wrong)
        try:
            wait_until("rejected by its tests", lambda: "P601" in self.status_text(), 10)
            self.client().get("/users", READER).refused(403, "access_denied")
        finally:
            file.write_text(text)
        wait_until("mended", lambda: "P601" not in self.status_text(), 10)

    def test_admin_token(self):
        """the admin listener asks for its token, and does not answer pages of other sites"""
        admin = Client(self.gateway.admin_port)
        assert admin.get("/-/live").status == 200
        for method, target in [("GET", "/-/status"), ("POST", "/-/reload")]:
            assert admin.send(method, target, body=b"").status in (401, 403), target
            assert admin.send(method, target, bearer="wrong", body=b"").status in (401, 403), target
        crossing = [("Origin", "https://elsewhere.example")]
        assert admin.get("/-/status", self.gateway.admin_token, crossing).status == 403
        assert self.client().get("/-/status", self.gateway.admin_token).status == 404, "not on the public side"

    # --- start and stop

    def test_bad_start(self):
        """a broken policy at start: exit 3 with the diagnostics, nothing served"""
        with tempfile.TemporaryDirectory() as folder:
            broken = Gateway(self.gateway.program, pathlib.Path(folder))
            broken.policies.mkdir()
            (broken.policies / "a.yaml").write_text("version: 1\nupstream: http://127.0.0.1:1\nroutes: { GET /: pubic }\n")
            broken.spawn([broken.program, "serve"], broken.environment(), broken.folder)
            try:
                status = broken.process.wait(10)
            finally:
                broken.end()
            assert status == 3, f"exit {status}: {broken.text()}"
            assert "P102" in broken.text() and "a.yaml" in broken.text(), broken.text()

    def test_commands_agree(self):
        """`check` and `test` pass on what is served; `explain` gives the gateway's answer"""
        for arguments, status in [
            (["check"], 0), (["test"], 0), (["explain", "POST", "/items", "--as", "writer"], 0),
            (["explain", "POST", "/items", "--as", "reader", "--exit-code"], 4),
        ]:
            done = subprocess.run(
                [self.gateway.program, *arguments, "-p", self.gateway.policies], env=self.gateway.environment(),
                cwd=self.gateway.folder, capture_output=True, text=True, timeout=30,
            )
            assert done.returncode == status, f"{arguments}: exit {done.returncode}\n{done.stdout}\n{done.stderr}"

    def test_minted_tokens(self):
        """a token from `portcullis token mint` is accepted"""
        done = subprocess.run(
            [self.gateway.program, "token", "mint", "--as", "reader", "-p", self.gateway.policies],
            env=self.gateway.environment(), cwd=self.gateway.folder, capture_output=True, text=True, timeout=30,
        )
        assert done.returncode == 0, done.stderr
        minted = done.stdout.split()[0]
        answer = self.client().get("/users/me", minted)
        assert answer.status == 200 and answer.json()["id"] == "u1", (answer.status, answer.body)

    def test_upstream_restart(self):
        """the app stops: 502; it comes back: 200, with the same gateway"""
        self.upstream.stop()
        self.client().get("/").refused(502, "bad_gateway")
        self.client().get("/items").refused(401, "unauthenticated")
        self.upstream.start()
        wait_until("served again", lambda: self.client().get("/").status == 200, 5)

    def test_sigterm(self):
        """SIGTERM: the request in flight is answered, the process ends by itself with 0"""
        answers = []
        thread = threading.Thread(target=lambda: answers.append(self.client().get("/e2e/sleep/700").status))
        thread.start()
        time.sleep(0.2)
        started = time.monotonic()
        status = self.gateway.stop(15)
        took = time.monotonic() - started
        thread.join()
        assert answers == [200], f"the request in flight: {answers}"
        assert status == 0, f"exit {status}"
        return f"{took:.1f} s"

    def test_no_secrets_in_logs(self):
        """no token, secret or query string in anything the gateway wrote, and one decision line per refusal"""
        text = self.gateway.text()
        signatures = {name: t.rsplit(".", 1)[1] for name, t in (("reader", READER), ("writer", WRITER), ("boss", BOSS))}
        for what, needle in ({"secret": SECRET, "admin token": self.gateway.admin_token, "query": "next="} | signatures).items():
            assert needle not in text, f"{what} in the log"
        decisions = []
        for line in text.splitlines():
            with contextlib.suppress(ValueError):
                record = json.loads(line)
                if isinstance(record, dict) and record.get("decision"):
                    decisions.append(record)
        denied = [d for d in decisions if d["decision"] == "deny"]
        assert any(d.get("code") == "insufficient_scope" and d.get("sub") == "u1" for d in denied), "no such decision"
        return f"{len(decisions)} decisions, {len(denied)} of them refusals"


def prepare(folder: pathlib.Path, upstream: Upstream):
    policies = folder / "policies"
    shutil.copytree(EXAMPLE / "policies", policies)
    items = policies / "items.yaml"
    text = items.read_text()
    assert text.count("http://127.0.0.1:8000") == 1
    items.write_text(text.replace("http://127.0.0.1:8000", f"http://127.0.0.1:{upstream.port}"))
    (policies / "e2e.yaml").write_text((HERE / "e2e.yaml").read_text().replace("NOBODY", str(free_port())))


def main() -> int:
    parser = argparse.ArgumentParser(description="end-to-end tests of the gateway")
    target = pathlib.Path(os.environ.get("CARGO_TARGET_DIR", ROOT / "target"))
    parser.add_argument("--gateway", type=pathlib.Path, default=target / "debug" / "portcullis")
    parser.add_argument("--only", default="", help="run the tests whose name contains this")
    parser.add_argument("--upload-mib", type=int, default=1024)
    parser.add_argument("-v", "--verbose", action="store_true", help="show the servers' output at the end")
    options = parser.parse_args()
    if not options.gateway.exists():
        print(f"{options.gateway} does not exist: cargo build", file=sys.stderr)
        return 2

    started = time.monotonic()
    passed = failed = 0
    with tempfile.TemporaryDirectory(prefix="portcullis-e2e-") as name:
        folder = pathlib.Path(name)
        upstream = Upstream(folder)
        gateway = Gateway(options.gateway.resolve(), folder)
        try:
            prepare(folder, upstream)
            try:
                upstream.start()
                gateway.start()
            except AssertionError as error:
                print(f"could not start: {error}\n--- uvicorn\n{upstream.text()}\n--- portcullis\n{gateway.text()}")
                return 2
            tests = Tests(gateway, upstream, options.upload_mib)
            for test in [name for name in vars(Tests) if name.startswith("test_") and options.only in name]:
                run = getattr(tests, test)
                began = time.monotonic()
                try:
                    note = run()
                except Exception as error:  # every test is run; a failing one never hides the rest
                    failed += 1
                    print(f"FAIL  {run.__doc__}\n      {error}", flush=True)
                    if not isinstance(error, AssertionError):
                        traceback.print_exc()
                else:
                    passed += 1
                    note = f"  ({note})" if note else ""
                    print(f"ok    {run.__doc__}{note}  {time.monotonic() - began:.1f} s", flush=True)
            if options.verbose or failed:
                tail = gateway.text().splitlines()[-40:]
                print("--- the last lines of portcullis", *tail, "--- uvicorn", upstream.text()[-4000:], sep="\n")
        finally:
            gateway.end()
            upstream.end()
    print(f"{passed} passed, {failed} failed in {time.monotonic() - started:.0f} s")
    return 1 if failed or not passed else 0


if __name__ == "__main__":
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    sys.exit(main())
