"""What the guides are about, on loopback: for each guide the servers that its readers have, and what they do by hand.

`substituted` is the only place where texts of a guide are exchanged: addresses and keys.
"""

import json
import os
import pathlib
import subprocess
import sys
import urllib.request

HERE = pathlib.Path(__file__).resolve().parent
ROOT = HERE.parents[1]
sys.path.insert(0, str(ROOT / "tests" / "e2e"))
import run as e2e  # noqa: E402


class World:
    def __init__(self, follower):
        self.follower = follower
        #: by section: what its reader does by hand, before its first block
        self.by_hand: dict = {}
        #: by section: what must be true after its last block
        self.at_the_end_of: dict = {}
        #: by kind of block: what is done instead of running it
        self.instead: dict = {}

    def start(self):
        pass

    def end(self):
        pass

    def environment(self) -> dict:
        return {}

    def substituted(self) -> dict[str, str]:
        return {}

    def typed(self, block):
        raise AssertionError("no compiler for TypeScript in this world")


class Fake(e2e.Server):
    """tests/supabase/fake.py, as a hosted project: everything under its prefixes, with the edge's key check."""

    def __init__(self, log: pathlib.Path, *arguments: str, settings: dict | None = None):
        super().__init__("fake", log)
        self.port = e2e.free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        settings = {"jwt_issuer": f"{self.url}/auth/v1"} | (settings or {})
        self.arguments = [f"--port={self.port}", "--serve=edge", f"--set={json.dumps(settings)}", *arguments]
        self.info: dict = {}

    def start(self):
        with self.log.open("ab") as out:
            self.process = subprocess.Popen(
                [sys.executable, ROOT / "tests" / "supabase" / "fake.py", "--until-eof", *self.arguments],
                stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=out, env=os.environ | {"PYTHONDONTWRITEBYTECODE": "1"})
        line = self.process.stdout.readline()
        assert line, f"the fake did not start: {self.text()[-2000:]}"
        self.info = json.loads(line)
        return self

    def ask(self, method: str, path: str, body=None):
        request = urllib.request.Request(
            self.info["control"] + path, method=method, data=None if body is None else json.dumps(body).encode())
        with urllib.request.urlopen(request, timeout=10) as answer:
            return json.loads(answer.read() or b"null")


PASSWORD = "correct horse battery staple"


class Supabase(World):
    """A project on supabase.com, played by the fake of tests/supabase."""

    def __init__(self, follower):
        super().__init__(follower)
        self.fake: Fake | None = None
        self.by_hand = {
            "What you need": self.add_user,
            "The legacy secret": self.legacy,
            "Self-hosted": self.self_hosted,
        }
        self.instead = {"sql": self.sql}

    def start(self):
        self.fake = Fake(self.follower.root / "fake.log").start()

    def end(self):
        if self.fake:
            self.fake.end()

    def substituted(self):
        if not self.fake or not self.fake.info:
            return {}
        info = self.fake.info
        return {
            "https://abcdefghijklmnopqrst.supabase.co": info["url"],
            "sb_publishable_…": info["publishable_key"],
            "SUPABASE_JWT_SECRET=…": f"SUPABASE_JWT_SECRET={info['jwt_secret']}",
            "sb_secret_…": info["secret_key"],
        }

    def user(self) -> dict:
        return next(user for user in self.fake.ask("GET", "/users") if user["email"] == "ada@example.com")

    def add_user(self):
        """Authentication → Users → Add user"""
        self.fake.ask("POST", "/users", {"email": "ada@example.com", "password": PASSWORD})

    def sql(self, text: str):
        """what the statement does, by the fake's control port"""
        assert text.split() == (
            "update auth.users set raw_app_meta_data = raw_app_meta_data || '{\"role\": \"admin\"}' where email = 'ada@example.com';"
        ).split(), "the statement is another one: teach worlds.py what it does"
        user = self.user()
        self.fake.ask("POST", f"/users/{user['id']}", {"app_metadata": user["app_metadata"] | {"role": "admin"}})

    def legacy(self):
        """a project that signs with the shared secret"""
        self.fake.ask("POST", "/keys", {"use": "HS256"})

    def self_hosted(self):
        """a self-hosted server: no `iss` in its tokens"""
        self.fake.ask("POST", "/settings", {"jwt_issuer": ""})


class Fastapi(World):
    """An app and nothing else."""


WORLDS = {
    "fastapi": Fastapi,
    "supabase": Supabase,
}
