#!/usr/bin/env python3
"""Unmodified Supabase clients against the fake Supabase of this folder: directly, and through the built gateway.

    target/test-env/venv/bin/python tests/supabase/run.py [--through direct|gateway|both] [--only WORD] [--client WORD] [-v]
        [--mode keys|legacy|bare] [--gateway PROGRAM]

Each script of node/ and python/ is a list of scenarios. Its base URL is a setting, so the same bytes run against the fake
(`direct`: the fake itself is right) and against the gateway with `preset: supabase-edge` (policy.yaml; nothing else
changes for a client). Twice each: with signing keys and a publishable key, and in legacy mode (shared secret, empty key
set, anon key); a third time (`bare`) with no edge behind the gateway, GoTrue at its root as the real server is. All at a
time, each with a fake of its own. Prints a line for each scenario, and exits 1 when one failed.
Tokens and keys are never printed.
"""

import argparse
import concurrent.futures
import contextlib
import copy
import json
import os
import pathlib
import re
import signal
import subprocess
import sys
import tempfile
import time

HERE = pathlib.Path(__file__).resolve().parent
ROOT = HERE.parents[1]
sys.path.insert(0, str(ROOT / "tests" / "e2e"))
import run as e2e  # noqa: E402

NODE = ROOT / "target" / "test-env" / "node"
SCRIPTS = ["contract.py", "supabase-js.mjs", "supabase-ssr.mjs", "supabase-browser.mjs", "supabase_py.py", "supabase_py_async.py", "sessions.py", "token_form.py"]
# How the project signs, and with which kind of key its clients come.
MODES = {"keys": ("ES256", "publishable_key"), "legacy": ("HS256", "anon_key"), "bare": ("RS256", "anon_key")}
# What `bare` has in place of the app `supabase`: each part by itself, as without an edge; GoTrue and Realtime at their roots.
PARTS = """app: supabase-{part}
preset: supabase-edge
base: /{part}/v1
strip_base: {stripped}
upstream: UPSTREAM
defaults: { timeout: 3s }
cors: { origins: [APP] }
"""


def blotted(text: str) -> str:
    text = re.sub(r"eyJ[\w-]{8,}(\.[\w-]*){0,2}", "<token>", text)
    # Six characters of a key may be shown, to tell it from others.
    return re.sub(r"sb_(publishable|secret)_[\w-]{7,}", r"<\1 key>", text)


def chromium() -> str | None:
    return subprocess.run([ROOT / "tests" / "clients" / "chromium.sh"], capture_output=True, text=True).stdout.strip() or None


class Fake(e2e.Server):
    """The fake, as a process; `info` is what it printed."""

    def __init__(self, folder: pathlib.Path, *arguments: str):
        super().__init__("fake", folder / "fake.log")
        self.arguments, self.info = arguments, {}

    def start(self):
        with self.log.open("ab") as out:
            self.process = subprocess.Popen(
                [sys.executable, HERE / "fake.py", "--until-eof", *self.arguments], stdin=subprocess.PIPE,
                stdout=subprocess.PIPE, stderr=out, env=os.environ | {"PYTHONDONTWRITEBYTECODE": "1"})
        line = self.process.stdout.readline()
        assert line, f"the fake did not start: {self.text()[-2000:]}"
        self.info = json.loads(line)


class Gateway(e2e.Gateway):
    def __init__(self, program: pathlib.Path, folder: pathlib.Path, mode: str):
        folder.mkdir()
        super().__init__(program, folder)
        self.mode, self.fake, self.app = mode, None, ""
        self.url = f"http://127.0.0.1:{self.port}"

    def environment(self) -> dict:
        info = self.fake.info
        out = super().environment() | {
            "SUPABASE_URL": info["url"], "SUPABASE_KEY": info[MODES[self.mode][1]], "SUPABASE_SECRET_KEY": info["secret_key"],
            "PORTCULLIS_PUBLIC_URL": self.url,
        }
        return out | ({"SUPABASE_JWT_SECRET": info["jwt_secret"]} if self.mode == "legacy" else {})

    def second(self) -> "Gateway":
        """Another one with the same policy and the same store."""
        other = copy.copy(self)
        other.log, other.process = self.folder / "second.log", None
        other.port, other.admin_port = e2e.free_port(), e2e.free_port()
        other.url = f"http://127.0.0.1:{other.port}"
        e2e.Gateway.start(other)
        return other

    def start(self):
        self.policies.mkdir()
        policy = (HERE / "policy.yaml").read_text()
        if self.mode == "bare":
            parts = {"auth": True, "rest": False, "storage": False, "functions": False, "realtime": True}
            apps = [PARTS.replace("{part}", part).replace("{stripped}", str(bare).lower()) for part, bare in parts.items()]
            policy = re.sub(r"app: supabase\n(?:\w.+\n)+", lambda _: "---\nversion: 1\n".join(apps), policy)
        policy = policy.replace("UPSTREAM", self.fake.info["url"])
        policy = policy.replace("ISSUER", self.fake.info["issuer"]).replace("APP", self.app)
        policy = policy.replace(f"# {self.mode}: ", "")
        (self.policies / "supabase.yaml").write_text(policy)
        super().start()


class Run:
    def __init__(self, options, folder: pathlib.Path):
        self.options, self.folder = options, folder
        self.passed = self.failed = self.skipped = 0

    def row(self, through: str, mode: str):
        """One fake, with or without a gateway in front; all scripts."""
        folder = self.folder / f"{through}-{mode}"
        folder.mkdir()
        alg, key = MODES[mode]
        gateway = Gateway(self.options.gateway.resolve(), folder / "gateway", mode) if through == "gateway" else None
        servers = [gateway] if gateway else []
        external = [f"--external-url={gateway.url}/auth/v1"] if gateway else []
        app = f"http://127.0.0.1:{e2e.free_port()}"
        fake = Fake(folder, f"--alg={alg}", f"--set={json.dumps({'site_url': app})}", *external)
        try:
            fake.start()
            url = fake.info["url"]
            if gateway:
                gateway.fake, gateway.app = fake, app
                gateway.start()
                url = gateway.url
                servers.append(gateway.second())
            settings = fake.info | {"url": url, "key": fake.info[key], "through": through, "legacy": mode == "legacy", "bare": mode == "bare", "app": app, "chromium": chromium(),
                                    "second": servers[-1].url if servers else "", "second_pid": servers[-1].process.pid if servers else 0}
            for script in SCRIPTS:
                if self.options.client in script:
                    self.script(script, through, mode, settings)
        except Exception as error:
            self.failed += 1
            said = gateway.text()[-3000:] if gateway else ""
            print(blotted(f"FAIL  {through}, {mode}: {error}\n{said}"), flush=True)
        finally:
            for server in (*servers, fake):
                server.end()
        for server in (*servers, fake):
            text = server.text()
            if server is not fake and blotted(text) != text:
                self.failed += 1
                line = next(line for line in text.splitlines() if blotted(line) != line)
                print(f"FAIL  {through}, {mode}: a token or key in the log: {blotted(line)[:400]}", flush=True)
            if self.options.verbose or (self.failed and server is fake and text.strip()):
                print(f"--- the last lines of {server.name}", *blotted(text).splitlines()[-20:], sep="\n", flush=True)

    def script(self, script: str, through: str, mode: str, settings: dict):
        environment = os.environ | {"SUPABASE_TEST": json.dumps(settings), "PYTHONDONTWRITEBYTECODE": "1", "NO_PROXY": "127.0.0.1"}
        environment["NODE_NO_WARNINGS"] = "1"
        if script.endswith(".py"):
            command = [sys.executable, "-u", HERE / "python" / script, self.options.only]
        elif not (NODE / ".installed").exists() or ("browser" in script and not settings["chromium"]):
            self.skipped += 1
            lacking = "Chromium" if (NODE / ".installed").exists() else "Node"
            print(f"SKIPPED  {through}, {mode}: {script}: no {lacking}", flush=True)
            return
        else:
            command = [NODE / "node", "--preserve-symlinks", "--preserve-symlinks-main", NODE / "supabase" / script, self.options.only]
        process = subprocess.Popen([str(word) for word in command], env=environment, text=True, stdout=subprocess.PIPE,
                                   stderr=subprocess.PIPE, stdin=subprocess.DEVNULL)
        name, passed = script.rsplit(".")[0].replace("_", "-"), 0
        try:
            for line in process.stdout:
                word, _, rest = line.rstrip().partition(" ")
                if word == "ok":
                    passed += 1
                    print(f"ok    {name}, {through}, {mode}: {rest}", flush=True)
                elif word == "FAIL":
                    self.failed += 1
                    print(blotted(f"FAIL  {name}, {through}, {mode}: {rest}"), flush=True)
                else:
                    print(blotted(f"      {line.rstrip()}"), flush=True)
            errors = process.stderr.read()
            code = process.wait(60)
        finally:
            process.kill()
        self.passed += passed
        if code not in (0, 1) or (code == 0 and not passed and not self.options.only and through == "gateway"):
            self.failed += 1
            print(blotted(f"FAIL  {name}, {through}, {mode}: exit {code}"), flush=True)
        if errors.strip() and (code or self.options.verbose):
            print(*(blotted(f"      {line}") for line in errors.splitlines()[-15:]), sep="\n", flush=True)


def main() -> int:
    parser = argparse.ArgumentParser(description="Supabase clients against the fake, directly and through the gateway")
    target = pathlib.Path(os.environ.get("CARGO_TARGET_DIR", ROOT / "target"))
    parser.add_argument("--through", choices=("direct", "gateway", "both"), default="both")
    parser.add_argument("--mode", choices=(*MODES, "all"), default="all", help="signing keys, legacy secret, parts without an edge")
    parser.add_argument("--gateway", type=pathlib.Path, default=target / "debug" / "portcullis")
    parser.add_argument("--only", default="", help="run the scenarios whose name contains this")
    parser.add_argument("--client", default="", help="run the scripts whose name contains this")
    parser.add_argument("-v", "--verbose", action="store_true", help="show what the servers wrote")
    options = parser.parse_args()
    if options.through != "direct" and not options.gateway.exists():
        print(f"{options.gateway} does not exist: cargo build", file=sys.stderr)
        return 2
    started = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="portcullis-supabase-") as name:
        run = Run(options, pathlib.Path(name))
        rows = [(through, mode) for through in ("direct", "gateway") for mode in MODES
                if options.through in (through, "both") and options.mode in (mode, "all") and (through, mode) != ("direct", "bare")]
        with concurrent.futures.ThreadPoolExecutor(len(rows)) as pool:  # they mostly wait for tokens to expire
            for done in [pool.submit(run.row, *row) for row in rows]:
                done.result()
    skips = f", {run.skipped} skipped" if run.skipped else ""
    print(f"{run.passed} passed, {run.failed} failed{skips} in {time.monotonic() - started:.0f} s")
    return 1 if run.failed or not run.passed else 0


if __name__ == "__main__":
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    with contextlib.suppress(KeyboardInterrupt):
        sys.exit(main())
