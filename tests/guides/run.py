#!/usr/bin/env python3
"""The guides, followed to the letter: every block of docs/guides/*.md is executed or checked, in order, in an empty folder.

    target/test-env/venv/bin/python tests/guides/run.py [--gateway PROGRAM] [--only WORD] [-k] [-v]

How a guide is written so that it can be followed (CONTRIBUTING.md says the same, shorter):

- The paragraph before a block may end with "`path/to/file`:" — the block is written to that file.
- ```yaml: a whole policy. In a file it is one of the folder's; without one it is checked alone, `--strict`.
  ```yaml fragment: any other YAML; needs a file. Compose files are checked for what their variables are called.
- ```console: lines with `$ ` are commands, run one after the other by one bash, so that `cd` and variables last; those in
  BACKGROUND go on running (a second time: started anew). Lines below a command are its output: `…` stands for anything
  within a line, a line of `…` alone for any number of lines. A command without output just has to succeed. A line that
  ends in `\\` goes on.
- ```python, ```js, ```ts, ```tsx, ```sh, ```ini: written to their file; without one, compiled.
- ```sql, ```text and other kinds are an error unless a guide's table below says what is done instead.

What differs from what a reader does is in the tables: SUBSTITUTED (addresses and keys, nothing else), REPLACED (commands
that are not run, with the reason and what is checked instead), and per guide, by section, what a reader does by hand
(`by_hand`: clicks in a dashboard). Prints each block, and exits 1 when one failed. Tokens and keys are never printed.
"""

import argparse
import contextlib
import importlib.metadata
import json
import os
import pathlib
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
import urllib.request

HERE = pathlib.Path(__file__).resolve().parent
ROOT = HERE.parents[1]
GUIDES = ROOT / "docs" / "guides"
EXAMPLES = [ROOT / "examples" / "supabase" / "README.md"]
STATE = ROOT / "target" / "test-env"
NODE = STATE / "node"
sys.path[:0] = [str(ROOT / "tests" / "e2e"), str(HERE)]
import run as e2e  # noqa: E402
import yaml  # noqa: E402
from worlds import WORLDS, World  # noqa: E402

# --- the tables

# What goes on running: the first words of a command, and the address (as in the guides) that answers when it is up.
BACKGROUND = {
    "portcullis serve": "127.0.0.1:9901",
    "uvicorn": "127.0.0.1:8000",
    "npx next dev": "127.0.0.1:3000",
}
# Commands that are not run: why, and what is looked at instead.
REPLACED = {
    r"cargo install --locked --path \.": ("would build a second time; the program that was built is on the PATH", "built"),
    r"pip install (?P<names>.+)": ("the test environment has them, pinned", "python_packages"),
    r"npm install (?P<names>.+)": ("the test environment has them, pinned", "node_packages"),
    r"docker (compose|build) .*": ("no Docker in the tests; the compose file is read and its variables compared", "compose"),
}
FENCE = re.compile(r"^```(.*)$")
FILE = re.compile(r"`([\w@./-]+\.[\w.]+|\.env[\w.]*)`[^`]*:$")


# --- reading a guide


class Block:
    def __init__(self, guide: "Guide", line: int, section: str, kind: str, file: str | None, text: str):
        self.guide, self.line, self.section, self.kind, self.file, self.text = guide, line, section, kind, file, text

    @property
    def name(self) -> str:
        return f"{self.guide.name}:{self.line}"


class Guide:
    def __init__(self, path: pathlib.Path):
        self.path, self.blocks, self.sections = path, [], []
        is_example = path.name == "README.md"
        self.name = f"{path.parent.name}/README.md" if is_example else path.name
        self.key = f"examples/{path.parent.name}" if is_example else path.stem
        section, paragraph, inside = "", [], None
        for number, line in enumerate(path.read_text().splitlines(), 1):
            fence = FENCE.match(line)
            if inside is not None:
                if line == "```":
                    kind, start, text = inside
                    file = FILE.search(" ".join(paragraph))
                    self.blocks.append(Block(self, start, section, kind, file and file[1], "".join(text)))
                    inside, paragraph = None, []
                else:
                    inside[2].append(line + "\n")
            elif fence:
                inside = (fence[1].strip(), number, [])
            elif line.startswith("#"):
                section, paragraph = line.lstrip("# "), []
                assert section not in self.sections, f"{path.name}: two sections are called “{section}”"
                self.sections.append(section)
            elif line.strip():
                paragraph.append(line.strip())
            elif not paragraph or not paragraph[-1].endswith(":"):
                paragraph = []
        assert inside is None, f"{path.name}: a block is not closed"


def commands(text: str) -> list[tuple[int, str, str]]:
    """The commands of a console block: the line in it, the command, its output."""
    found: list[list] = []
    for number, line in enumerate(text.splitlines(), 1):
        if line.startswith("$ "):
            found.append([number, line[2:], ""])
        elif found and not found[-1][2] and found[-1][1].endswith("\\"):
            found[-1][1] += "\n" + line
        elif found:
            found[-1][2] += line + "\n"
        else:
            raise AssertionError(f"output before the first command: {line}")
    return [(number, command, output) for number, command, output in found]


def pattern(expected: str) -> re.Pattern:
    out = []
    for line in expected.splitlines():
        if line.strip() == "…":
            out.append(r"(?:.*\n)*?")
        else:
            out.append(".*".join(re.escape(part) for part in line.rstrip().split("…")) + r"\n")
    return re.compile("".join(out))


# --- following it


class Shell:
    """One bash for a guide. Commands come through a pipe of their own, so that none of them can read the others."""

    END = "\x01"

    def __init__(self, folder: pathlib.Path, environment: dict):
        reading, self.commands = os.pipe()
        loop = (
            f"while IFS= read -r -d '' c <&{reading}; do eval \"$c\" {reading}<&- </dev/null; "
            f"printf '\\x01%s %s\\n' $? \"$PWD\"; done"
        )
        self.process = subprocess.Popen(
            ["bash", "--norc", "-c", loop], cwd=folder, env=environment, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT, pass_fds=[reading], start_new_session=True)
        os.close(reading)
        self.folder = folder

    def run(self, command: str, seconds: float = 60) -> tuple[int, str]:
        os.write(self.commands, command.encode() + b"\0")
        timer = threading.Timer(seconds, lambda: os.killpg(self.process.pid, signal.SIGKILL))
        timer.start()
        out = b""
        try:
            while (at := out.find(b"\x01")) < 0 or not out.endswith(b"\n"):
                piece = os.read(self.process.stdout.fileno(), 65536)
                if not piece:
                    raise AssertionError(f"bash ended (or took over {seconds:g} s): {out.decode(errors='replace')[-1500:]}")
                out += piece
        finally:
            timer.cancel()
        status, folder = out[at + 1:].decode().strip().split(" ", 1)
        self.folder = pathlib.Path(folder)
        return int(status), out[:at].decode(errors="replace").replace("\r", "")

    def end(self):
        os.close(self.commands)
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()


class Background(e2e.Server):
    """A process and what it starts."""

    def spawn(self, arguments: list, environment: dict, folder: pathlib.Path):
        with self.log.open("ab") as out:
            self.process = subprocess.Popen(
                arguments, cwd=folder, env=environment, stdin=subprocess.DEVNULL, stdout=out, stderr=subprocess.STDOUT,
                start_new_session=True)

    def stop(self, seconds: float = 20.0) -> int:
        os.killpg(self.process.pid, signal.SIGTERM)
        status = self.process.wait(seconds)
        self.end()
        return status

    def end(self):
        with contextlib.suppress(ProcessLookupError, AttributeError):
            os.killpg(self.process.pid, signal.SIGKILL)
            self.process.wait()


class Follower:
    """One guide in one empty folder, in the world that it is about."""

    def __init__(self, guide: Guide, program: pathlib.Path, folder: pathlib.Path, options):
        self.guide, self.program, self.options, self.root = guide, program, options, folder
        self.passed, self.failed, self.notes = 0, 0, []
        self.bin, self.home = folder / "bin", folder / "home"
        self.bin.mkdir(parents=True)
        self.home.mkdir()
        (self.home / ".curlrc").write_text("no-progress-meter\n")  # as where its output is a terminal
        (self.bin / "portcullis").symlink_to(program)
        if NODE.exists():
            for name in ("node", "npm", "npx"):
                (self.bin / name).symlink_to((NODE / "node").resolve().parent / name if name != "node" else NODE / "node")
        self.running: dict[str, Background] = {}
        self.substituted: dict[str, str] = {}
        # Addresses: what stands in the guides, and where it is here.
        self.ports = {name: e2e.free_port() for name in ("8080", "9901", "8000", "3000", "5000")}
        self.world: World = WORLDS[guide.key](self)
        self.start_shell()

    def start_shell(self):
        work = self.root / "work"
        if self.guide.path.name == "README.md":  # an example: its folder instead of an empty one
            shutil.copytree(self.guide.path.parent, work, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            work.mkdir()
        venv = pathlib.Path(sys.executable).parent
        kept = {name: os.environ[name] for name in ("LANG", "RUST_BACKTRACE") if name in os.environ}
        self.environment = kept | {
            "PATH": f"{self.bin}:{venv}:{os.environ['PATH']}", "HOME": str(self.home), "NO_COLOR": "1",
            "PYTHONDONTWRITEBYTECODE": "1", "NODE_NO_WARNINGS": "1", **self.node_22(),
            "PORTCULLIS_LISTEN": f"127.0.0.1:{self.ports['8080']}",
            "PORTCULLIS_ADMIN__LISTEN": f"127.0.0.1:{self.ports['9901']}",
        } | self.world.environment()
        self.shell = Shell(work, self.environment)

    def node_22(self) -> dict:
        """The guides ask for Node 22; 20 has what is needed behind a flag."""
        version = subprocess.run([NODE / "node", "--version"], capture_output=True, text=True, timeout=60).stdout
        return {"NODE_OPTIONS": "--experimental-websocket"} if version.startswith(("v20.", "v21.")) else {}

    # SUBSTITUTED: addresses and keys, nothing else. Longest first.
    def table(self) -> list[tuple[str, str]]:
        rows = {f"127.0.0.1:{port}": f"127.0.0.1:{here}" for port, here in self.ports.items()}
        rows |= {f"localhost:{port}": f"localhost:{self.ports[port]}" for port in ("8080", "3000")}
        rows |= {f"{flag} {port}": f"{flag} {self.ports[port]}" for flag in ("-p", "--port") for port in ("8000", "3000", "5000")}
        rows |= self.world.substituted()
        return sorted(rows.items(), key=lambda row: -len(row[0]))

    def real(self, text: str) -> str:
        for guide, here in self.table():
            text = text.replace(guide, here)
        return text

    def shown(self, text: str) -> str:
        """Back to what the guide says; tokens are blotted where they are printed."""
        for guide, here in self.table():
            text = text.replace(here, guide)
        return text

    def port(self, address: str) -> int:
        return self.ports[address.rsplit(":", 1)[1]]

    def report(self, block: str, what: str, error: str | None, note: str = ""):
        if error is None:
            self.passed += 1
            print(f"ok    {block:28} {what}{f'  ({note})' if note else ''}", flush=True)
        else:
            self.failed += 1
            print(blotted(f"FAIL  {block:28} {what}\n      {error}".replace("\n", "\n      ")), flush=True)

    def follow(self):
        try:
            self.world.start()
            if not self.sections():
                print(f"      the rest of {self.guide.name} is not followed")
        finally:
            for server in self.running.values():
                server.end()
            self.shell.end()
            self.world.end()
            leak = [server for server in self.running.values() if server.name.startswith("portcullis") and blotted(server.text()) != server.text()]
            if leak:
                line = next(line for line in leak[0].text().splitlines() if blotted(line) != line)
                self.report(self.guide.name, "the gateway's log", f"a token or key in it: {line[:300]}")
            if self.failed and self.options.verbose:
                for server in self.running.values():
                    print(f"--- the last lines of {server.name}", *blotted(server.text()).splitlines()[-25:], sep="\n")

    def sections(self) -> bool:
        going = True
        for section in self.guide.sections:
            self.enter(section)
            for block in self.guide.blocks:
                if going and block.section == section:
                    going = self.block(block) or self.options.keep_going
            if not going:
                break
            self.leave(section)
        return going

    def enter(self, section: str):
        if step := self.world.by_hand.get(section):
            step()
            self.report(self.guide.name, f"by hand, in “{section}”: {step.__doc__}", None)

    def leave(self, section: str):
        if step := self.world.at_the_end_of.get(section):
            error = None
            try:
                step()
            except Exception as failure:
                error = f"{type(failure).__name__}: {failure}"
            self.report(self.guide.name, f"after “{section}”: {step.__doc__}", error)

    def block(self, block: Block) -> bool:
        word = block.kind.split(" ")[0]
        if word == "console":
            going = True
            for command in commands(block.text):
                going = self.command(block, *command)
                if not going and not self.options.keep_going:
                    break
            return going
        error, what = None, f"{block.kind}{f' → {block.file}' if block.file else ''}"
        try:
            if block.file:
                self.write(block)
            elif (step := self.world.instead.get(word)) is not None:
                step(block.text)
                what += f": {step.__doc__}"
            else:
                getattr(self, f"check_{word}", self.unknown)(block)
        except AssertionError as failure:
            error = str(failure)
        self.report(block.name, what, error)
        return error is None

    def write(self, block: Block):
        path = self.shell.folder / block.file
        path.parent.mkdir(parents=True, exist_ok=True)
        before = self.on_disk() if path.parent.name == "policies" else None
        path.write_text(self.real(block.text))
        if before is not None:  # a reader is not as quick as the next line here
            with contextlib.suppress(AssertionError):
                e2e.wait_until("the gateway saw the file", lambda: self.on_disk() != before, seconds=3)
        word = block.kind.split(" ")[0]
        if path.suffix == ".py":
            self.check_python(block)
        elif path.name in ("compose.yaml", "docker-compose.yaml"):
            compose(path, self.shell.folder)
        elif path.suffix in (".yaml", ".yml"):
            assert word == "yaml", f"{block.file} is {word}"
        elif path.suffix in (".ts", ".tsx"):
            self.world.typed(block)

    def on_disk(self) -> str | None:
        """The revision of the files that a running gateway has seen."""
        if "portcullis serve" not in self.running:
            return None
        with urllib.request.urlopen(f"http://127.0.0.1:{self.ports['9901']}/-/status", timeout=5) as answer:
            return json.load(answer)["policy"]["disk"]

    @staticmethod
    def unknown(block: Block):
        raise AssertionError(f"nobody knows what to do with a block of kind {block.kind!r} without a file")

    def check_yaml(self, block: Block):
        assert block.kind == "yaml", "a fragment belongs to a file: name it before the block"
        with tempfile.TemporaryDirectory() as folder:
            (pathlib.Path(folder) / "policy.yaml").write_text(self.real(block.text))
            done = subprocess.run(
                [self.program, "check", "--strict", "-p", folder], cwd=self.shell.folder, env=self.environment,
                capture_output=True, text=True, timeout=60)
            assert done.returncode == 0, done.stdout + done.stderr

    @staticmethod
    def check_python(block: Block):
        try:
            compile(block.text, block.name, "exec")
        except SyntaxError as error:
            raise AssertionError(str(error)) from None

    def check_js(self, block: Block):
        done = subprocess.run(
            [self.bin / "node", "--input-type=module", "--check"], input=block.text, capture_output=True, text=True, timeout=60)
        assert done.returncode == 0, done.stderr

    def check_ts(self, block: Block):
        self.world.typed(block)

    def command(self, block: Block, line: int, command: str, expected: str) -> bool:
        name = f"{self.guide.name}:{block.line + line}"
        error, note = None, ""
        try:
            bare = re.sub(r"\s+#\s.*$", "", command)
            for words, address in BACKGROUND.items():
                if bare == words or bare.startswith(words + " "):
                    self.background(words, bare, self.port(address))
                    note = "goes on running"
                    break
            else:
                for expression, (reason, check) in REPLACED.items():
                    if match := re.fullmatch(expression, bare):
                        getattr(self, check)(match)
                        note = f"not run: {reason}"
                        break
                else:
                    self.run(command, expected)
        except AssertionError as failure:
            error = str(failure)
        self.report(name, f"$ {command}"[:150], error, note)
        return error is None

    def run(self, command: str, expected: str):
        status, out = self.shell.run(self.real(command))
        self.readdress()
        out = "".join(line.rstrip() + "\n" for line in self.shown(out).splitlines())
        assert status == 0, f"exit code {status}: {out[-2000:]}"
        if expected and not pattern(expected).fullmatch(out):
            raise AssertionError(f"it says\n{out[-3000:]}and not\n{expected}")

    def readdress(self):
        """Files that a command made have the guide's addresses in them (the defaults of `init`, a copied `.env.example`)."""
        for path in [*self.shell.folder.glob("policies/*.yaml"), self.shell.folder / ".env", self.shell.folder / "portcullis.yaml"]:
            if not path.exists():
                continue
            text = path.read_text()
            if self.real(text) != text:
                path.write_text(self.real(text))

    def background(self, words: str, command: str, port: int):
        if before := self.running.get(words):
            before.stop()
        number = len(list(self.root.glob("*.log")))
        server = Background(words, self.root / f"{number}-{words.replace(' ', '-')}.log")
        self.running[words] = server
        # With what the shell exports, as in a terminal of the same reader.
        _, exported = self.shell.run("env -0 | base64 -w0")
        import base64
        pairs = base64.b64decode(exported).decode().split("\0")
        environment = dict(pair.split("=", 1) for pair in pairs if "=" in pair)
        server.spawn(["bash", "-c", f"exec {self.real(command)}"], environment, self.shell.folder)

        def up():
            request = urllib.request.Request(f"http://127.0.0.1:{port}/-/ready" if words == "portcullis serve" else f"http://127.0.0.1:{port}/")
            try:
                with urllib.request.urlopen(request, timeout=2):
                    return True
            except urllib.error.HTTPError as error:
                return words != "portcullis serve" or error.code != 503

        try:
            e2e.wait_until(f"`{words}` answers", up, seconds=30, process=server.process)
        except AssertionError as error:
            raise AssertionError(f"{error}\n{server.text()[-2000:]}") from None

    # --- what is looked at instead of running a command

    def built(self, _match):
        assert subprocess.run([self.program, "--version"], capture_output=True, timeout=60).returncode == 0

    def python_packages(self, match):
        names = match["names"].split()
        if names[0] == "-r":
            names = [line for line in (self.shell.folder / names[1]).read_text().split() if not line.startswith("#")]
        for name in names:
            name = re.split(r"[\[<>=]", name.strip("'\""))[0]
            if not name.startswith("-"):
                assert importlib.metadata.version(name), name

    def node_packages(self, match):
        modules = self.shell.folder / "node_modules"
        if not modules.exists():
            modules.symlink_to(NODE / "node_modules")
        for name in match["names"].split():
            assert name.startswith("-") or (modules / re.sub(r"(?<=.)@.*$", "", name)).is_dir(), f"{name} is not installed"

    def compose(self, _match):
        files = list(self.shell.folder.glob("*compose*.yaml"))
        assert files, "there is no compose file in the folder"
        for file in files:
            compose(file, self.shell.folder)


def compose(path: pathlib.Path, folder: pathlib.Path):
    """A compose file has services, and names no variable that nobody sets."""

    document = yaml.safe_load(path.read_text())
    assert isinstance(document, dict) and document.get("services"), f"{path.name}: no services"
    for name, service in document["services"].items():
        assert "image" in service or "build" in service, f"{path.name}: service {name} has neither image nor build"
        unknown = set(service) - {
            "image", "build", "ports", "environment", "env_file", "volumes", "read_only", "cap_drop", "security_opt", "restart",
            "depends_on", "command", "network_mode", "healthcheck", "networks", "tmpfs", "working_dir", "expose", "init", "user",
        }
        assert not unknown, f"{path.name}: service {name}: {', '.join(sorted(unknown))}"
    known = set()
    for env in (folder / ".env", folder / ".env.example"):
        if env.exists():
            known |= set(re.findall(r"^#?([A-Z_][A-Z0-9_]*)=", env.read_text(), re.MULTILINE))
    used = set(re.findall(r"(?<!\$)\$\{?([A-Z_][A-Z0-9_]*)(?![A-Z0-9_]*:?-)", path.read_text()))
    assert used <= known, f"{path.name}: {', '.join(sorted(used - known))} in no .env"


def blotted(text: str) -> str:
    text = re.sub(r"eyJ[\w-]{16,}(\.[\w-]*){0,2}", "<token>", text)
    return re.sub(r"sb_(publishable|secret)_[\w-]{8,}", r"<\1 key>", text)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--gateway", type=pathlib.Path, default=ROOT / "target" / "debug" / "portcullis")
    parser.add_argument("--only", default="", metavar="WORD")
    parser.add_argument("-k", "--keep-going", action="store_true", help="goes on after a block that failed")
    parser.add_argument("-v", "--verbose", action="store_true")
    options = parser.parse_args()
    if not NODE.exists():
        print("SKIPPED: the guides (no Node)")
        return 0
    passed = failed = 0
    begun = time.monotonic()
    guides = [Guide(path) for path in sorted(GUIDES.glob("*.md")) + EXAMPLES]
    unknown = [guide.name for guide in guides if guide.key not in WORLDS]
    assert not unknown, f"no world for {', '.join(unknown)}: add one to tests/guides/worlds.py"
    for guide in guides:
        if options.only not in guide.name:
            continue
        with tempfile.TemporaryDirectory(prefix="guide-", dir=STATE) as folder:
            follower = Follower(guide, options.gateway.resolve(), pathlib.Path(folder), options)
            follower.follow()
        passed, failed = passed + follower.passed, failed + follower.failed
    print(f"guides: {time.monotonic() - begun:.0f} s")
    print(f"{passed} passed, {failed} failed")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
