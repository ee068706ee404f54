#!/usr/bin/env python3
"""Unmodified OAuth clients against the built gateway, with a real FastAPI app behind it.

    target/test-env/venv/bin/python tests/clients/run.py [--gateway PROGRAM] [--only WORD] [-v]

Four gateways, each with its store in a temporary folder: `local` (users and HS256 tokens of the gateway), `managed`
(the same with keys that the gateway keeps), `fastapi` (the same with `errors: fastapi` and the limits that a policy has
which states none), `upstream` (an app with its own /token). The clients are the scripts in
python/ and node/, one each; Swagger UI runs in headless Chromium and leaves screenshots in
target/test-env/artefacts. Prints a table, and exits 1 when a row failed. Passwords and tokens are never printed.
"""

import argparse
import base64
import contextlib
import json
import os
import pathlib
import re
import secrets
import signal
import subprocess
import sys
import tempfile
import time
import traceback

HERE = pathlib.Path(__file__).resolve().parent
ROOT = HERE.parents[1]
sys.path[:0] = [str(ROOT / "tests" / "e2e"), str(HERE)]
import run as e2e  # noqa: E402
import token_endpoint  # noqa: E402

STATE = ROOT / "target" / "test-env"
NODE = STATE / "node"
ARTEFACTS = STATE / "artefacts"
SECRET = secrets.token_hex(32)
# Passphrases: nobody's list of breached passwords has them, and `user add` takes them.
USERS = {name: f"Gate {secrets.token_urlsafe(12)} + 100% &{end}" for name, end in {"rita": " é", "will": "", "ada": "名"}.items()}
ROLES = {"rita": "reader", "will": "writer", "ada": "auditor"}
ALGORITHMS = {"local": "HS256", "managed": "ES256"}
SIGNING = {
    "local": "{ preset: local, secret: env:SECRET_KEY }",
    "fastapi": "{ preset: local, secret: env:SECRET_KEY }",
    "managed": "{ preset: local, signing_key: managed, algorithm: ES256 }",
}


def blotted(text: str) -> str:
    """The text without passwords, secrets and tokens, however they were written down."""
    for name, password in USERS.items():
        for form in {password, e2e_quote(password), json.dumps(password)[1:-1], password.replace("&", "&amp;")}:
            text = text.replace(form, f"<password of {name}>")
    text = text.replace(SECRET, "<secret>")
    text = re.sub(r"eyJ[\w-]{8,}(\.[\w-]*){0,2}", "<token>", text)
    return re.sub(r"prt_[\w-]+", "<refresh token>", text)


def e2e_quote(text: str) -> str:
    return token_endpoint.urllib.parse.quote_plus(text)


class App(e2e.Server):
    """A FastAPI app under uvicorn."""

    def __init__(self, module: str, folder: pathlib.Path):
        super().__init__("uvicorn", folder / "uvicorn.log")
        self.module, self.port = module, e2e.free_port()

    def start(self):
        environment = os.environ | {
            "PYTHONDONTWRITEBYTECODE": "1", "SWAGGER_UI": str(NODE / "node_modules" / "swagger-ui-dist"),
            "SECRET_KEY": SECRET, "APP_USER": "rita", "APP_PASSWORD": USERS["rita"],
        }
        if not pathlib.Path(environment["SWAGGER_UI"]).is_dir():
            environment["SWAGGER_UI"] = str(HERE)  # without Node nobody opens the page
        self.spawn(
            [sys.executable, "-m", "uvicorn", f"{self.module}:app", "--host", "127.0.0.1", "--port", self.port,
             "--log-level", "warning"], environment, HERE)
        e2e.wait_until("uvicorn answers", lambda: e2e.Client(self.port).get("/").status, process=self.process)


class Gateway(e2e.Gateway):
    """`portcullis serve` with users, in a folder of its own; `name` says which of the four it is."""

    def __init__(self, program: pathlib.Path, folder: pathlib.Path, name: str):
        folder.mkdir()
        super().__init__(program, folder)
        self.kind = name
        self.url = f"http://127.0.0.1:{self.port}"
        self.app = App("app_with_token" if name == "upstream" else "app", folder)

    def environment(self) -> dict:
        # The store is the default: portcullis.db in the working folder.
        return super().environment() | {"SECRET_KEY": SECRET, "PORTCULLIS_PUBLIC_URL": self.url}

    def start(self):
        self.app.start()
        self.policies.mkdir()
        policy = (HERE / ("policy-upstream.yaml" if self.kind == "upstream" else "policy.yaml")).read_text()
        policy = policy.replace("UPSTREAM", f"http://127.0.0.1:{self.app.port}").replace("SIGNING", SIGNING.get(self.kind, ""))
        if self.kind == "fastapi":
            policy = re.sub(r"^  (limit|lockout): .*\n", "", policy, flags=re.MULTILINE) + "\nerrors: fastapi\n"
        (self.policies / "clients.yaml").write_text(policy)
        if self.kind != "upstream":
            for name, password in USERS.items():
                self.command("user", "add", name, "--role", ROLES[name], "--password-stdin", stdin=password + "\n")
        super().start()

    def command(self, *arguments: str, stdin: str = "") -> str:
        done = subprocess.run(
            [self.program, *arguments], cwd=self.folder, env=self.environment(), input=stdin, text=True,
            capture_output=True, timeout=60)
        shown = f"portcullis {' '.join(arguments)}: exit {done.returncode}: {done.stdout} {done.stderr}"
        assert done.returncode == 0, shown
        return done.stdout

    def end(self):
        super().end()
        self.app.end()


class Tests:
    """The rows, in the order in which they run. A returned text is shown as a note."""

    def __init__(self, program: pathlib.Path, folder: pathlib.Path, verbose: bool):
        self.program, self.folder, self.verbose = program, folder, verbose
        self.gateways: dict[str, Gateway | Exception] = {}

    def gateway(self, name: str) -> Gateway:
        """Started when it is first needed; one that does not start fails every row that needs it."""
        if name not in self.gateways:
            gateway = Gateway(self.program, self.folder / name, name)
            self.gateways[name] = gateway
            try:
                gateway.start()
            except Exception as error:
                gateway.end()
                text = f"the gateway `{name}` did not start: {error}\n{gateway.text()[-3000:]}"
                self.gateways[name] = AssertionError(text)
        gateway = self.gateways[name]
        if isinstance(gateway, Exception):
            raise gateway
        return gateway

    def end(self):
        for gateway in self.gateways.values():
            if isinstance(gateway, Gateway):
                gateway.end()

    def client(self, script: str, gateway: str = "local") -> str:
        """Runs a script of python/ or node/, which prints a line for each step."""
        server = self.gateway(gateway)
        settings = {
            "gateway": server.url, "users": USERS, "algorithm": ALGORITHMS[gateway], "artefacts": str(ARTEFACTS),
            "chromium": chromium(),
        }
        environment = os.environ | {
            "CLIENT_TEST": json.dumps(settings), "PYTHONDONTWRITEBYTECODE": "1",
            "OAUTHLIB_INSECURE_TRANSPORT": "1", "AUTHLIB_INSECURE_TRANSPORT": "1", "NO_PROXY": "127.0.0.1",
        }
        if script.endswith(".py"):
            command = [sys.executable, HERE / "python" / script]
        else:
            command = [NODE / "node", "--preserve-symlinks", "--preserve-symlinks-main", NODE / "scripts" / script]
        done = subprocess.run(
            [str(word) for word in command], env=environment, text=True, capture_output=True, timeout=90,
            stdin=subprocess.DEVNULL)
        lines = done.stdout.splitlines()
        passed = [line for line in lines if line.startswith("ok ")]
        if done.returncode or not passed or len(passed) != len(lines):
            raise AssertionError("\n      ".join([*lines, *done.stderr.splitlines()[-25:]]) or f"exit {done.returncode}")
        if self.verbose:
            print(*(f"      {line}" for line in passed), sep="\n")
        return f"{len(passed)} steps"

    # --- clients in Python

    def test_requests_oauthlib(self):
        """requests-oauthlib: password, scope warnings, error classes, refresh, auto-refresh, logout, revocation"""
        return self.client("with_requests_oauthlib.py")

    def test_authlib_requests(self):
        """Authlib over requests: password, auto-refresh, introspection, logout, revocation"""
        return self.client("with_authlib_requests.py")

    def test_authlib_httpx(self):
        """Authlib over httpx: password, parallel auto-refresh, narrower scopes, logout, revocation"""
        return self.client("with_authlib_httpx.py")

    def test_httpx_oauth(self):
        """httpx-oauth: refresh, revocation"""
        return self.client("with_httpx_oauth.py")

    def test_httpx_multipart(self):
        """httpx, as FastAPI's TestClient sends: form, multipart form, JSON"""
        return self.client("with_httpx_multipart.py")

    # --- clients in Node

    def test_oauth4webapi(self):
        """oauth4webapi: discovery, strict validation, refresh, revocation, introspection"""
        return self.client("with-oauth4webapi.mjs")

    def test_openid_client(self):
        """openid-client: discovery, password, refresh, revocation, logout"""
        return self.client("with-openid-client.mjs")

    def test_simple_oauth2(self):
        """simple-oauth2: password, refresh, revocation; Basic, body, JSON"""
        return self.client("with-simple-oauth2.mjs")

    def test_swagger_ui(self):
        """Swagger UI in Chromium: locks, Authorize, wrong password, 200, 403, logout"""
        ARTEFACTS.mkdir(parents=True, exist_ok=True)
        for old in ARTEFACTS.glob("swagger-*.png"):
            old.unlink()
        note = self.client("with-swagger-ui.mjs")
        shots = sorted(path.name for path in ARTEFACTS.glob("swagger-*.png"))
        assert len(shots) == 6, shots
        return f"{note}, {len(shots)} screenshots in target/test-env/artefacts"

    # --- keys that the gateway keeps

    def test_managed_oauth4webapi(self):
        """oauth4webapi, tokens signed with a key that the gateway made"""
        return self.client("with-oauth4webapi.mjs", "managed")

    def test_managed_jose(self):
        """jose: access tokens verify against the published keys"""
        return self.client("with-jose.mjs", "managed")

    def test_managed_pyjwt(self):
        """PyJWT: access tokens verify against the published keys"""
        return self.client("with_pyjwt.py", "managed")

    def test_no_key_is_published_for_a_secret(self):
        """a shared secret is never published: the key set of `local` is empty"""
        answer = e2e.Client(self.gateway("local").port).get("/.well-known/jwks.json")
        assert answer.status in (200, 404), answer.status
        assert answer.status == 404 or answer.json() == {"keys": []}, answer.body

    # --- /token on the wire

    def post(self, gateway: Gateway, target: str, content_type, body: bytes, headers=()) -> e2e.Answer:
        kind = [("Content-Type", content_type)] if content_type else []
        return e2e.Client(gateway.port).send("POST", target, headers=[*kind, *headers], body=body)

    def test_wire(self):
        """POST /token on the wire: every kind of form and of mistake, each byte of the answers"""
        gateway = self.gateway("local")
        login = token_endpoint.form(("username", "rita"), ("password", USERS["rita"]))
        refresh = self.post(gateway, "/token", token_endpoint.FORM, login).json()["refresh_token"]
        rows = token_endpoint.rows(USERS["rita"], refresh)
        failures, errors = [], {}
        for what, target, content_type, body, headers, expected in rows:
            try:
                answer = self.post(gateway, target, content_type, body, headers)
                if expected.startswith("notes"):
                    token_endpoint.check_success(answer, expected)
                else:
                    token_endpoint.check_error(answer, expected)
                    errors[what] = answer.body
            except AssertionError as error:
                failures.append(f"{what}: {error}")
        assert not failures, "\n      ".join(failures)
        assert errors["a wrong password"] == errors["an unknown user"], "a wrong password and an unknown user differ"
        return f"{len(rows)} requests"

    def test_wire_oversized(self):
        """more than 16 KiB: 413, declared or chunked"""
        gateway = self.gateway("local")
        body = token_endpoint.form(("username", "rita"), ("password", USERS["rita"]), ("pad", "x" * 17_000))
        answer = self.post(gateway, "/token", token_endpoint.FORM, body)
        assert answer.status == 413, f"declared: {answer.status}: {answer.body[:200]!r}"
        chunked = b"".join(b"%x\r\n%s\r\n" % (len(body[i:i + 4000]), body[i:i + 4000]) for i in range(0, len(body), 4000))
        client = e2e.Client(gateway.port)
        client.connection.putrequest("POST", "/token")
        for name, value in {"Content-Type": token_endpoint.FORM, "Transfer-Encoding": "chunked"}.items():
            client.connection.putheader(name, value)
        client.connection.endheaders(chunked + b"0\r\n\r\n")
        response = client.connection.getresponse()
        text = response.read()
        assert response.status == 413, f"chunked: {response.status}: {text[:200]!r}"

    def test_wire_methods(self):
        """other methods: 405 with `Allow`, on all four endpoints"""
        gateway = self.gateway("local")
        for path in ("/token", "/revoke", "/introspect", "/logout"):
            for method in ("GET", "HEAD", "PUT", "PATCH", "DELETE"):
                answer = e2e.Client(gateway.port).send(method, path, body=b"")
                assert answer.status == 405, f"{method} {path}: {answer.status}"
                assert answer.headers["Allow"] == "POST", f"{method} {path}: Allow: {answer.headers['Allow']}"

    def test_wire_other_endpoints(self):
        """revoke, logout and introspect on the wire: no-store, what is missing, who may"""
        gateway = self.gateway("local")
        form = token_endpoint.FORM
        login = token_endpoint.form(("username", "rita"), ("password", USERS["rita"]))
        token = self.post(gateway, "/token", form, login).json()
        bearer = [("Authorization", f"Bearer {token['access_token']}")]

        def expect(answer, status, code=None):
            assert answer.status == status, f"expected {status}, got {answer.status}: {answer.body[:300]!r}"
            assert not code or answer.json().get("error", answer.json().get("code")) == code, answer.body

        expect(self.post(gateway, "/revoke", form, b""), 400, "invalid_request")
        expect(self.post(gateway, "/revoke", form, b"token=a&token=b"), 400, "invalid_request")
        expect(self.post(gateway, "/revoke?token=a", form, b""), 400, "invalid_request")
        answer = self.post(gateway, "/revoke", form, b"token=nonsense")
        expect(answer, 200)
        assert answer.headers["Cache-Control"] == "no-store", answer.headers.items()
        expect(self.post(gateway, "/introspect", form, b"token=nonsense"), 401)
        expect(self.post(gateway, "/introspect", form, b"token=nonsense", bearer), 403)
        expect(self.post(gateway, "/logout", None, b""), 401)
        expect(self.post(gateway, "/logout", None, b"", [("Authorization", "Bearer a.b.c")]), 401)
        answer = self.post(gateway, "/logout", None, b"", bearer)
        assert answer.status in (200, 204), answer.status
        assert answer.headers["Cache-Control"] == "no-store", answer.headers.items()
        expect(self.post(gateway, "/logout", None, b"", bearer), 401)

    # --- what a policy has that states nothing, and FastAPI's errors

    def test_fastapi_errors(self):
        """errors: fastapi: a wrong password is 401 with a challenge, the same body; refusals have FastAPI's texts"""
        gateway = self.gateway("fastapi")
        body = token_endpoint.form(("username", "ada"), ("password", "not the password"))
        answer = self.post(gateway, "/token", token_endpoint.FORM, body)
        assert answer.status == 401, f"{answer.status}: {answer.body[:300]!r}"
        assert answer.headers.get_all("WWW-Authenticate") == ["Bearer"], answer.headers.items()
        assert answer.headers.get_all("Cache-Control") == ["no-store"], answer.headers.items()
        error = answer.json()
        assert error == {"error": "invalid_grant", "error_description": token_endpoint.WRONG, "detail": token_endpoint.WRONG}, error
        refused = e2e.Client(gateway.port).get("/notes")
        assert (refused.status, refused.json()) == (401, {"detail": "Not authenticated"}), (refused.status, refused.body)

    def test_default_limits(self):
        """five attempts a minute for an account, by default: then 429 with Retry-After, in OAuth's form"""
        gateway = self.gateway("fastapi")
        statuses = []
        for n in range(6):
            # Another password each time: the same one again within two seconds is one attempt (clients that probe).
            body = token_endpoint.form(("username", "rita"), ("password", f"guess {n}"))
            answer = self.post(gateway, "/token", token_endpoint.FORM, body)
            statuses.append(answer.status)
        assert statuses == [401] * 5 + [429], statuses
        assert int(answer.headers["Retry-After"]) > 0, answer.headers.items()
        error = answer.json()
        assert set(error) == {"error", "error_description", "detail"}, error
        assert error["error"] == "temporarily_unavailable", error
        body = token_endpoint.form(("username", "will"), ("password", USERS["will"]))
        assert self.post(gateway, "/token", token_endpoint.FORM, body).status == 200, "another account"

    # --- via: upstream

    def seen(self, gateway: Gateway) -> list[dict]:
        return e2e.Client(gateway.app.port).get("/seen").json()

    def test_upstream_bytes(self):
        """via: upstream: the form arrives byte for byte, Basic is left alone, the answer comes back unchanged"""
        gateway = self.gateway("upstream")
        user, password = b"username=%72ita", e2e_quote(USERS["rita"]).encode().replace(b"+", b"%20")
        body = b"scope=items&" + user + b"&password=" + password + b"&grant_type=password&x=%e9&&client_id=None"
        headers = [("Authorization", "Basic Og=="), ("X-Auth-User", "root"), ("X_Auth_Roles", "admin")]
        answer = self.post(gateway, "/token", token_endpoint.FORM + ";charset=utf-8", body, headers)
        assert answer.status == 200, f"{answer.status}: {answer.body[:300]!r}"
        assert set(answer.json()) == {"access_token", "token_type"}, answer.body
        assert answer.headers.get_all("Cache-Control") == ["no-store"], answer.headers.items()
        arrived = self.seen(gateway)[-1]
        assert base64.b64decode(arrived["body"]) == body, "the body was changed"
        assert arrived["target"] == "/token?", arrived["target"]
        got = dict(arrived["headers"])
        assert got["authorization"] == "Basic Og==", got.get("authorization")
        assert got["content-type"] == token_endpoint.FORM + ";charset=utf-8", got["content-type"]
        assert not [name for name in got if name.replace("_", "-").startswith("x-auth-")], sorted(got)

    def test_upstream_tokens(self):
        """via: upstream: the app's own tokens are accepted, with their scopes; forged ones are not"""
        gateway = self.gateway("upstream")

        def login(scope: bytes) -> str:
            body = b"username=rita&password=" + e2e_quote(USERS["rita"]).encode() + b"&scope=" + scope
            answer = self.post(gateway, "/token", token_endpoint.FORM, body)
            assert answer.status == 200, f"{answer.status}: {answer.body[:300]!r}"
            return answer.json()["access_token"]

        client = e2e.Client(gateway.port)
        with_scope, without = login(b"items"), login(b"")
        answer = client.get("/users/me", with_scope)
        assert (answer.status, answer.json()) == (200, {"id": "rita"}), (answer.status, answer.body)
        assert client.get("/items", with_scope).status == 200
        client.get("/items", without).refused(403, "insufficient_scope")
        client.get("/items").refused(401, "unauthenticated")
        client.get("/items", with_scope[:-2] + "AA").refused(401, "invalid_token")

    def test_upstream_throttle(self):
        """via: upstream: failures are counted; then 429 with Retry-After, and the app is not asked"""
        gateway = self.gateway("upstream")

        def attempt(user: str, password: str) -> e2e.Answer:
            body = token_endpoint.form(("username", user), ("password", password))
            return self.post(gateway, "/token", token_endpoint.FORM, body)

        statuses = []
        for n in range(6):
            before = len(self.seen(gateway))
            answer = attempt("mallory", f"guess {n}")
            statuses.append((answer.status, len(self.seen(gateway)) - before))
            if answer.status == 401:
                assert answer.json() == {"detail": "Incorrect username or password"}, answer.body
                assert answer.headers["WWW-Authenticate"] == "Bearer", answer.headers.items()
        assert statuses == [(401, 1)] * 3 + [(429, 0)] * 3, statuses
        answer = attempt("Mallory", "another spelling")
        assert answer.status == 429, f"another spelling of the same account: {answer.status}"
        assert int(answer.headers["Retry-After"]) > 0, answer.headers.items()
        error = answer.json()
        assert error["error"] == "temporarily_unavailable" and error["detail"], error
        answer = attempt("rita", USERS["rita"])
        assert answer.status == 200, f"another account from the same address: {answer.status}"
        missing = self.post(gateway, "/token", token_endpoint.FORM, b"username=trudy")
        assert missing.status == 422, f"the app's own 422: {missing.status}"

    def test_upstream_oversized(self):
        """via: upstream: more than 16 KiB never reaches the app"""
        gateway = self.gateway("upstream")
        before = len(self.seen(gateway))
        answer = self.post(gateway, "/token", token_endpoint.FORM, b"username=rita&password=" + b"x" * 20_000)
        assert answer.status == 413, answer.status
        assert len(self.seen(gateway)) == before, "it reached the app"

    # --- what is left behind

    def test_no_secrets_in_logs(self):
        """no password, token or secret in anything that the gateways wrote"""
        size = 0
        for name, gateway in self.gateways.items():
            if isinstance(gateway, Gateway):
                text = gateway.text()
                size += len(text)
                assert blotted(text) == text, f"`{name}`: {leaks(text)}"
        return f"{size // 1024} KiB of logs"


def leaks(text: str) -> str:
    lines = [line for line in text.splitlines() if blotted(line) != line]
    return f"{len(lines)} lines, the first: {blotted(lines[0])[:400]}"


def chromium() -> str | None:
    found = subprocess.run([HERE / "chromium.sh"], capture_output=True, text=True)
    return found.stdout.strip() or None


def missing() -> dict[str, str]:
    """Rows that cannot run on this machine, and why."""
    node = [name for name in vars(Tests) if any(w in name for w in ("oauth4webapi", "openid", "simple", "swagger", "jose"))]
    if not (NODE / ".installed").exists():
        return {name: "no Node" for name in node}
    if not chromium():
        return {"test_swagger_ui": "no Chromium"}
    return {}


def main() -> int:
    parser = argparse.ArgumentParser(description="OAuth clients against the gateway")
    target = pathlib.Path(os.environ.get("CARGO_TARGET_DIR", ROOT / "target"))
    parser.add_argument("--gateway", type=pathlib.Path, default=target / "debug" / "portcullis")
    parser.add_argument("--only", default="", help="run the rows whose name contains this")
    parser.add_argument("-v", "--verbose", action="store_true", help="show every step, and the gateways' output at the end")
    options = parser.parse_args()
    if not options.gateway.exists():
        print(f"{options.gateway} does not exist: cargo build", file=sys.stderr)
        return 2

    started = time.monotonic()
    passed = failed = skipped = 0
    cannot = missing()
    with tempfile.TemporaryDirectory(prefix="portcullis-clients-") as name:
        tests = Tests(options.gateway.resolve(), pathlib.Path(name), options.verbose)
        try:
            for test in [name for name in vars(Tests) if name.startswith("test_") and options.only in name]:
                run = getattr(tests, test)
                began = time.monotonic()
                if test in cannot:
                    skipped += 1
                    print(f"SKIPPED  {run.__doc__}: {cannot[test]}", flush=True)
                    continue
                try:
                    note = run()
                except Exception as error:  # every row is run; a failing one never hides the rest
                    failed += 1
                    print(blotted(f"FAIL  {run.__doc__}\n      {error}"), flush=True)
                    if not isinstance(error, AssertionError):
                        print(blotted(traceback.format_exc()), flush=True)
                else:
                    passed += 1
                    note = f"  ({note})" if note else ""
                    print(f"ok    {run.__doc__}{note}  {time.monotonic() - began:.1f} s", flush=True)
            if options.verbose or failed:
                for name, gateway in tests.gateways.items():
                    if isinstance(gateway, Gateway):
                        print(f"--- the last lines of the gateway `{name}`", *blotted(gateway.text()).splitlines()[-15:],
                              "--- and of its app", blotted(gateway.app.text())[-2000:], sep="\n")
        finally:
            tests.end()
    skips = f", {skipped} skipped" if skipped else ""
    print(f"{passed} passed, {failed} failed{skips} in {time.monotonic() - started:.0f} s")
    return 1 if failed or not passed else 0


if __name__ == "__main__":
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    with contextlib.suppress(KeyboardInterrupt):
        sys.exit(main())
