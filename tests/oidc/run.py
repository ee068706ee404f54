#!/usr/bin/env python3
"""A certified OpenID provider, the built gateway, an app behind it, and a real browser in front.

    target/test-env/venv/bin/python tests/oidc/run.py [--gateway PROGRAM] [--only WORD] [-v]

The provider is the npm package oidc-provider, on another host name than the gateway (`localhost` and `127.0.0.1`), so
that the browser sees two sites. The clients are openid-client and oauth4webapi; pages are driven in headless Chromium,
which leaves screenshots in target/test-env/artefacts. Prints a table, and exits 1 when a row failed. Passwords and
tokens are never printed.
"""

import argparse
import contextlib
import importlib.util
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
import urllib.request

HERE = pathlib.Path(__file__).resolve().parent
ROOT = HERE.parents[1]
sys.path[:0] = [str(ROOT / "tests" / "e2e"), str(HERE)]
import run as e2e  # noqa: E402

_spec = importlib.util.spec_from_file_location("supabase_run", ROOT / "tests" / "supabase" / "run.py")
supabase = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(supabase)

STATE = ROOT / "target" / "test-env"
NODE = STATE / "node"
ARTEFACTS = STATE / "artefacts"
PASSWORDS = {name: f"Gate-{secrets.token_urlsafe(12)}" for name in ("rita", "will", "ada")}
ROLES = {"rita": ["reader"], "will": ["writer"], "ada": ["auditor"]}
CLIENT_SECRET, MACHINE_SECRET = secrets.token_urlsafe(32), secrets.token_urlsafe(32)
COOKIE_KEY = secrets.token_hex(16)
# Where clients of their own get their codes; nothing listens there.
REDIRECT = "http://127.0.0.1:9/callback"


def blotted(text: str) -> str:
    """The text without passwords, secrets and tokens."""
    for name, password in PASSWORDS.items():
        text = text.replace(password, f"<password of {name}>")
    for secret in (CLIENT_SECRET, MACHINE_SECRET, COOKIE_KEY):
        text = text.replace(secret, "<secret>")
    text = re.sub(r"eyJ[\w-]{8,}(\.[\w-]*){0,2}", "<token>", text)
    # What the provider calls opaque tokens, codes and refresh tokens: 43 characters.
    return re.sub(r"(?<![\w-])[\w-]{43}(?![\w-])", "<43 characters>", text)


class Provider(e2e.Server):
    """node/provider.mjs."""

    def __init__(self, folder: pathlib.Path):
        super().__init__("oidc-provider", folder / "provider.log")
        self.port, self.control_port = e2e.free_port(), e2e.free_port()
        self.issuer = f"http://localhost:{self.port}"
        self.clients = [
            {"client_id": "spa", "token_endpoint_auth_method": "none", "redirect_uris": [REDIRECT],
             "grant_types": ["authorization_code", "refresh_token"]},
            {"client_id": "machine", "client_secret": MACHINE_SECRET, "redirect_uris": [], "response_types": [],
             "grant_types": ["client_credentials"]},
        ]

    def client(self, name: str, origins: list[str]):
        """A confidential client, for a gateway that is at these origins."""
        self.clients.append({
            "client_id": name, "client_secret": CLIENT_SECRET, "grant_types": ["authorization_code", "refresh_token"],
            "redirect_uris": [f"{origin}/auth/callback" for origin in origins],
            "post_logout_redirect_uris": [origin + path for origin in origins for path in ("", "/")],
            # EdDSA and HS256 would also do; RS256 is the default, ES256 what more and more use.
            "id_token_signed_response_alg": "ES256" if name == "gateway-jwt" else "RS256",
        })

    def start(self):
        settings = {
            "port": self.port, "control": self.control_port, "cookie_key": COOKIE_KEY, "clients": self.clients,
            "users": {name: {"password": word, "roles": ROLES[name]} for name, word in PASSWORDS.items()},
        }
        with self.log.open("ab") as out:
            self.process = subprocess.Popen(
                [str(NODE / "node"), "--preserve-symlinks", "--preserve-symlinks-main", str(NODE / "oidc" / "provider.mjs")],
                env=os.environ | {"OIDC_PROVIDER": json.dumps(settings)}, stdin=subprocess.PIPE, stdout=out, stderr=subprocess.STDOUT)
        e2e.wait_until("the provider answers", lambda: self.control("counts") is not None, process=self.process)

    def control(self, command: str, **options):
        request = urllib.request.Request(f"http://127.0.0.1:{self.control_port}/{command}", json.dumps(options).encode())
        with urllib.request.urlopen(request, timeout=10) as answer:
            return json.load(answer)


class App(e2e.Server):
    """The app under uvicorn."""

    def __init__(self, folder: pathlib.Path):
        super().__init__("uvicorn", folder / "uvicorn.log")
        self.port = e2e.free_port()

    def start(self):
        self.spawn(
            [sys.executable, "-m", "uvicorn", "app:app", "--host", "127.0.0.1", "--port", self.port, "--log-level", "warning"],
            os.environ | {"PYTHONDONTWRITEBYTECODE": "1"}, HERE)
        e2e.wait_until("uvicorn answers", lambda: e2e.Client(self.port).get("/seen").status, process=self.process)


class Gateway(e2e.Gateway):
    """`portcullis serve` as a client of the provider: `gateway` gets opaque access tokens, `gateway-jwt` such that say
    everything."""

    def __init__(self, program: pathlib.Path, folder: pathlib.Path, name: str, provider: Provider, app: App):
        folder.mkdir()
        super().__init__(program, folder)
        self.kind, self.provider, self.app = name, provider, app
        self.url = f"http://127.0.0.1:{self.port}"
        self.margin = "2s"

    def environment(self) -> dict:
        return super().environment() | {
            "CLIENT_SECRET": CLIENT_SECRET, "MACHINE_SECRET": MACHINE_SECRET, "PORTCULLIS_PUBLIC_URL": self.url,
        }

    def policy(self) -> str:
        text = (HERE / "policy.yaml").read_text()
        for word, value in {
            "UPSTREAM": f"http://127.0.0.1:{self.app.port}", "ISSUER": self.provider.issuer, "CLIENT": self.kind,
            "MARGIN": self.margin,
        }.items():
            text = re.sub(rf"\b{word}\b", value, text)
        return text

    def start(self):
        self.policies.mkdir(exist_ok=True)
        (self.policies / "oidc.yaml").write_text(self.policy())
        super().start()


class SupabaseGateway(e2e.Gateway):
    """`portcullis serve` with `login: supabase`, in front of the same app, with a fake Supabase of its own."""

    def __init__(self, program: pathlib.Path, folder: pathlib.Path, app: App):
        folder.mkdir()
        super().__init__(program, folder)
        self.app, self.fake = app, supabase.Fake(folder, "--alg=ES256")
        self.url = f"http://127.0.0.1:{self.port}"

    def environment(self) -> dict:
        return super().environment() | {"SUPABASE_KEY": self.fake.info["publishable_key"], "PORTCULLIS_PUBLIC_URL": self.url}

    def start(self):
        self.fake.start()
        self.settings()
        self.policies.mkdir()
        policy = (HERE / "policy-supabase.yaml").read_text()
        policy = policy.replace("UPSTREAM", f"http://127.0.0.1:{self.app.port}").replace("ISSUER", self.fake.info["url"])
        (self.policies / "supabase.yaml").write_text(policy)
        super().start()

    def settings(self):
        """A fresh project that wants mails confirmed, and takes any number of tries: the limits here are the gateway's."""
        self.control("reset", {})
        self.control("settings", {"mailer_autoconfirm": False, "smtp_max_frequency": 0, "uri_allow_list": f"{self.url}/**"})

    def control(self, command: str, body: dict):
        request = urllib.request.Request(
            f"{self.fake.info['control']}/{command}", json.dumps(body).encode(), {"content-type": "application/json"})
        with urllib.request.urlopen(request, timeout=10) as answer:
            return answer.read()

    def end(self):
        super().end()
        self.fake.end()


class Tests:
    """The rows, in the order in which they run. A returned text is shown as a note."""

    def __init__(self, program: pathlib.Path, folder: pathlib.Path, verbose: bool):
        self.folder, self.verbose = folder, verbose
        self.provider, self.app = Provider(folder), App(folder)
        self.all = {name: Gateway(program, folder / name, name, self.provider, self.app) for name in ("gateway", "gateway-jwt")}
        for name, gateway in self.all.items():  # what the provider knows; Supabase has users of its own
            self.provider.client(name, [gateway.url, gateway.url.replace("127.0.0.1", "localhost")])
        self.all["supabase"] = SupabaseGateway(program, folder / "supabase", self.app)
        self.started: dict[str, Exception | None] = {}

    def start(self):
        """All at once: a port that is found free may be another's a minute later."""
        self.provider.start()
        self.app.start()
        for name in self.all:
            with contextlib.suppress(AssertionError):  # the rows that need it say so
                self.gateway(name)

    def gateway(self, name: str) -> Gateway:
        """One that does not start fails every row that needs it."""
        gateway = self.all[name]
        if name not in self.started:
            try:
                gateway.start()
                self.started[name] = None
            except Exception as error:
                gateway.end()
                self.started[name] = AssertionError(f"the gateway `{name}` did not start: {error}\n{gateway.text()[-3000:]}")
        if self.started[name]:
            raise self.started[name]
        return gateway

    def end(self):
        for server in (*self.all.values(), self.app, self.provider):
            server.end()

    def script(self, script: str, gateway: str, **more) -> str:
        """Runs a script of node/, which prints a line for each step."""
        server = self.gateway(gateway)
        self.provider.control("mode")
        self.provider.control("lifetime", access=3600)
        self.provider.control("reset")
        settings = {
            "gateway": server.url, "issuer": self.provider.issuer, "app": f"http://127.0.0.1:{self.app.port}",
            "control": f"http://127.0.0.1:{self.provider.control_port}", "users": PASSWORDS,
            "redirect": REDIRECT, "machine_secret": MACHINE_SECRET, "artefacts": str(ARTEFACTS), "chromium": chromium(),
            "kind": gateway,
        } | more
        command = [NODE / "node", "--preserve-symlinks", "--preserve-symlinks-main", NODE / "oidc" / script]
        done = subprocess.run(
            [str(word) for word in command], env=os.environ | {"CLIENT_TEST": json.dumps(settings), "NO_PROXY": "127.0.0.1,localhost"},
            text=True, capture_output=True, timeout=180, stdin=subprocess.DEVNULL)
        lines = done.stdout.splitlines()
        passed = [line for line in lines if line.startswith("ok ")]
        if done.returncode or not passed or len(passed) != len(lines):
            raise AssertionError("\n      ".join([*lines, *done.stderr.splitlines()[-25:]]) or f"exit {done.returncode}")
        if self.verbose:
            print(*(f"      {line}" for line in passed), sep="\n")
        return f"{len(passed)} steps"

    # --- bearer tokens

    def test_bearer_machine(self):
        """openid-client: client credentials; scopes, audiences, key rotation, provider down"""
        return self.script("bearer.mjs", "gateway")

    def test_bearer_user(self):
        """oauth4webapi: PKCE with `iss`, roles, refresh rotation, what is not an access token"""
        return self.script("user.mjs", "gateway")

    def test_introspection(self):
        """opaque tokens: introspected once, cached, revoked, provider slow or down, others not blocked"""
        return self.script("opaque.mjs", "gateway")

    # --- sessions of a browser

    def test_browser(self):
        """Chromium, opaque access tokens: sign-in, cookie, tabs, refresh, writes, back button, sign-out here and there"""
        ARTEFACTS.mkdir(parents=True, exist_ok=True)
        return self.script("sessions.mjs", "gateway")

    def test_browser_jwt(self):
        """Chromium, access tokens that say everything: the same"""
        return self.script("sessions.mjs", "gateway-jwt")

    def test_browser_attacks(self):
        """Chromium: a state of another browser, an answer twice, `iss` of another, a cancelled sign-in, cookies of the app"""
        return self.script("attacks.mjs", "gateway")

    def test_browser_without_scripts(self):
        """Chromium with JavaScript switched off"""
        return self.script("noscript.mjs", "gateway")

    def test_browser_development(self):
        """`__Host-` cookies at http://localhost and http://127.0.0.1"""
        return self.script("development.mjs", "gateway")

    # --- the sign-in page of `login: supabase`

    def pages(self, **more) -> str:
        ARTEFACTS.mkdir(parents=True, exist_ok=True)
        gateway = self.gateway("supabase")
        gateway.settings()
        return self.script("pages.mjs", "supabase", fake=gateway.fake.info["control"], **more)

    def test_browser_pages(self):
        """the sign-in page in Chromium: sign-up, mail, every failure, provider, sign-out; light, dark, narrow"""
        return self.pages()

    def test_browser_pages_without_scripts(self):
        """the same with JavaScript switched off"""
        return self.pages(scripts=False)

    # --- what is left behind

    def test_no_secrets_in_logs(self):
        """no password, token or secret in anything that the gateways wrote"""
        size = 0
        for name, gateway in self.all.items():
            text = gateway.text()
            size += len(text)
            lines = [line for line in text.splitlines() if blotted(line) != line]
            assert not lines, f"`{name}`: {len(lines)} lines, the first: {blotted(lines[0])[:400]}"
        return f"{size // 1024} KiB of logs"


def chromium() -> str | None:
    found = subprocess.run([ROOT / "tests" / "clients" / "chromium.sh"], capture_output=True, text=True)
    return found.stdout.strip() or None


def missing() -> dict[str, str]:
    """Rows that cannot run on this machine, and why."""
    if not (NODE / ".installed").exists():
        return {name: "no Node" for name in vars(Tests) if name.startswith("test_")}
    if not chromium():
        return {name: "no Chromium" for name in vars(Tests) if name.startswith("test_browser")}
    return {}


def main() -> int:
    parser = argparse.ArgumentParser(description="an OpenID provider, the gateway and a browser")
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
    with tempfile.TemporaryDirectory(prefix="portcullis-oidc-") as name:
        tests = Tests(options.gateway.resolve(), pathlib.Path(name), options.verbose)
        try:
            if not all(test in cannot for test in vars(Tests) if test.startswith("test_")):
                tests.start()
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
                for server in (*tests.all.values(), tests.provider, tests.app):
                    print(f"--- the last lines of {server.log.parent.name}/{server.log.name}", *blotted(server.text()).splitlines()[-25:], sep="\n")
        finally:
            tests.end()
    skips = f", {skipped} skipped" if skipped else ""
    print(f"{passed} passed, {failed} failed{skips} in {time.monotonic() - started:.0f} s")
    return 1 if failed or not (passed or skipped) else 0


if __name__ == "__main__":
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    with contextlib.suppress(KeyboardInterrupt):
        sys.exit(main())
