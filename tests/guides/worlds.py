"""What the guides are about, on loopback: for each guide the servers that its readers have, and what they do by hand.

`substituted` is the only place where texts of a guide are exchanged: addresses and keys.
"""

import html
import html.parser
import http.cookiejar
import json
import os
import pathlib
import re
import subprocess
import sys
import urllib.error
import urllib.parse
import urllib.request

import requests
import urllib3

HERE = pathlib.Path(__file__).resolve().parent
ROOT = HERE.parents[1]
sys.path.insert(0, str(ROOT / "tests" / "e2e"))
import run as e2e  # noqa: E402

NEXT = ROOT / "target" / "test-env" / "next"


class Form(html.parser.HTMLParser):
    """The first form of a page: where it goes, and what stands in it already."""

    def __init__(self, page: "Page"):
        super().__init__()
        self.action, self.fields, self.multipart, self.state = page.url, {}, False, "before"
        self.page = page
        self.feed(page.text)
        assert self.state != "before", f"no form on {page.url}: {page.text[:300]}"

    def handle_starttag(self, tag, attributes):
        found = dict(attributes)
        if tag == "form" and self.state == "before":
            self.state = "in"
            self.action = urllib.parse.urljoin(self.page.url, found.get("action") or self.page.url)
            self.multipart = (found.get("enctype") or "").lower().startswith("multipart/")
        elif tag == "input" and self.state == "in" and found.get("type") == "hidden" and found.get("name"):
            self.fields[found["name"]] = found.get("value") or ""

    def handle_endtag(self, tag):
        if tag == "form" and self.state == "in":
            self.state = "after"


class Page:
    """An answer, whatever its status."""

    def __init__(self, answer):
        self.url, self.status, self.text = answer.url, answer.status, answer.read().decode(errors="replace")

    def json(self):
        return json.loads(self.text)


class Browser:
    """What a browser sends when somebody types an address or submits a form, cookies included. No scripts."""

    def __init__(self):
        # Browsers take loopback for safe: cookies that are `Secure` go there without TLS.
        self.jar = http.cookiejar.CookieJar(http.cookiejar.DefaultCookiePolicy(secure_protocols=("http", "https")))
        self.opener = urllib.request.build_opener(urllib.request.HTTPCookieProcessor(self.jar))

    def send(self, url: str, headers: dict, body: bytes | None = None) -> Page:
        headers = {
            "Accept": "text/html,application/xhtml+xml", "Sec-Fetch-Mode": "navigate", "Sec-Fetch-Dest": "document",
            "User-Agent": "Mozilla/5.0 (guides)", **headers,
        }
        try:
            return Page(self.opener.open(urllib.request.Request(url, body, headers), timeout=60))
        except urllib.error.HTTPError as error:
            return Page(error)

    def get(self, url: str) -> Page:
        return self.send(url, {"Sec-Fetch-Site": "none"})

    def post(self, url: str, fields: dict, multipart: bool = False) -> Page:
        at = urllib.parse.urlsplit(url)
        if multipart:
            body, kind = urllib3.encode_multipart_formdata(fields)
        else:
            body, kind = urllib.parse.urlencode(fields).encode(), "application/x-www-form-urlencoded"
        headers = {"Origin": f"{at.scheme}://{at.netloc}", "Sec-Fetch-Site": "same-origin", "Content-Type": kind}
        return self.send(url, headers, body)

    def follow(self, page: Page, path: str) -> Page:
        """A link of a page."""
        link = re.search(rf'href="({re.escape(path)}[^"]*)"', page.text)
        assert link, f"no link to {path} on {page.url}: {page.text[-1000:]}"
        return self.get(urllib.parse.urljoin(page.url, html.unescape(link[1])))

    def submit(self, page: Page, fields: dict) -> Page:
        form = Form(page)
        return self.post(form.action, form.fields | fields, form.multipart)

    def cookies(self) -> dict:
        return {cookie.name: cookie.value for cookie in self.jar}


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
        self.at_the_end_of = {
            "Browser sessions": self.in_a_browser, "Is the session still alive?": self.banned,
            "Client addresses": self.addressed, "Self-hosted": self.without_iss,
        }
        self.instead = {"sql": self.sql}

    def gateway(self) -> str:
        return f"http://127.0.0.1:{self.follower.ports['8080']}"

    def in_a_browser(self):
        """the sign-in page: a password, a wrong one, a provider, signing out"""
        me = f"{self.gateway()}/users/me"
        for how in ("password", "provider"):
            browser = Browser()
            page = browser.get(me)
            assert page.url == f"{self.gateway()}/login?return_to=%2Fusers%2Fme", page.url
            if how == "password":
                page = browser.submit(page, {"username": "ada@example.com", "password": "wrong", "action": "sign_in"})
                assert page.status in (400, 401) and "<form" in page.text, f"{page.status}: {page.text[:500]}"
                page = browser.submit(page, {"username": "ada@example.com", "password": PASSWORD, "action": "sign_in"})
            else:
                page = browser.follow(page, "/login/github")
            assert page.url == me and page.json().get("email"), f"{how}: {page.url}: {page.status}: {page.text[:500]}"
            assert list(browser.cookies()) == ["__Host-session"], list(browser.cookies())
            browser.post(f"{self.gateway()}/logout", {})
            page = browser.get(me)
            assert "/login" in page.url, f"signing out left a session: {page.url}"

    def token(self) -> str:
        form = {"username": "ada@example.com", "password": PASSWORD}
        return requests.post(f"{self.gateway()}/token", data=form, timeout=30).json()["access_token"]

    def banned(self):
        """a user who is banned is out at once, where the policy asks"""
        good, late, user = self.token(), self.token(), self.user()

        def me(token: str) -> int:
            return requests.get(f"{self.gateway()}/users/me", headers={"Authorization": f"Bearer {token}"}, timeout=30).status_code

        assert me(good) == 200
        self.fake.ask("POST", f"/users/{user['id']}", {"banned_until": "2999-01-01T00:00:00Z"})
        assert me(late) == 401, "a banned user is let in"
        self.fake.ask("POST", f"/users/{user['id']}", {"banned_until": None})

    def addressed(self):
        """Supabase Auth hears of the client's address: from our own sign-in, and from a client's"""
        key = self.fake.info["publishable_key"]
        self.token()
        requests.post(
            f"{self.gateway()}/auth/v1/token?grant_type=password", headers={"apikey": key, "Authorization": f"Bearer {key}"}, timeout=30,
            json={"email": "ada@example.com", "password": PASSWORD}).raise_for_status()
        for seen in self.fake.ask("GET", "/requests?service=auth&path=/token&last=2"):
            headers = {name.lower(): value for name, value in seen["headers"]}
            assert headers.get("sb-forwarded-for") == "127.0.0.1", sorted(headers)
            assert headers["apikey"] == self.fake.info["secret_key"], "not with the secret key"

    def without_iss(self):
        """a token without `iss` reaches an app (which is not there)"""
        token = self.token()
        answer = requests.get(f"{self.gateway()}/users/me", headers={"Authorization": f"Bearer {token}"}, timeout=30)
        assert answer.status_code == 502, f"{answer.status_code}: {answer.text[:300]}"

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


class Keycloak(World):
    """A realm, played by tests/oidc's certified provider: Keycloak's paths, and what is in its access tokens."""

    PASSWORD = "Gate-keycloak-mona-1"

    def __init__(self, follower):
        super().__init__(follower)
        self.port, self.control_port = e2e.free_port(), e2e.free_port()
        self.issuer = f"http://localhost:{self.port}/realms/shop"
        self.server = e2e.Server("provider", follower.root / "provider.log")
        self.at_the_end_of = {"Browser sessions": self.in_a_browser}

    def start(self):
        gateway = f"http://127.0.0.1:{self.follower.ports['8080']}"
        endpoints = {
            "authorization": "auth", "token": "token", "jwks": "certs", "userinfo": "userinfo", "end_session": "logout",
            "introspection": "token/introspect", "revocation": "revoke",
        }
        settings = {
            "port": self.port, "control": self.control_port, "path": "/realms/shop", "audience": "api", "cookie_key": "k" * 32,
            "routes": {name: f"/protocol/openid-connect/{path}" for name, path in endpoints.items()},
            "users": {"mona": {"password": self.PASSWORD}},
            "claims": {
                "mona": {"realm_access": {"roles": ["manager", "offline_access"]}, "email": "mona@example.com", "preferred_username": "mona"},
                "reports": {"realm_access": {"roles": ["offline_access"]}, "preferred_username": "service-account-reports"},
            },
            "clients": [
                {"client_id": "reports", "client_secret": "the-secret-of-the-client", "redirect_uris": [], "response_types": [],
                 "grant_types": ["client_credentials"]},
                {"client_id": "gateway", "client_secret": "the-secret-of-the-gateway", "grant_types": ["authorization_code", "refresh_token"],
                 "redirect_uris": [f"{gateway}/auth/callback"], "post_logout_redirect_uris": [gateway, f"{gateway}/"]},
            ],
        }
        node = ROOT / "target" / "test-env" / "node"
        with self.server.log.open("ab") as out:
            self.server.process = subprocess.Popen(
                [str(node / "node"), "--preserve-symlinks", "--preserve-symlinks-main", str(node / "oidc" / "provider.mjs")],
                env=os.environ | {"OIDC_PROVIDER": json.dumps(settings)}, stdin=subprocess.PIPE, stdout=out, stderr=subprocess.STDOUT)
        discovery = f"http://127.0.0.1:{self.port}/realms/shop/.well-known/openid-configuration"
        e2e.wait_until("the provider answers", lambda: urllib.request.urlopen(discovery, timeout=5), process=self.server.process)

    def end(self):
        self.server.end()

    def substituted(self):
        return {"https://keycloak.example.com/realms/shop": self.issuer}

    def in_a_browser(self):
        """signing in at the provider's page, reading, signing out"""
        browser, gateway = Browser(), f"http://127.0.0.1:{self.follower.ports['8080']}"
        page = browser.follow(browser.get(f"{gateway}/users/me"), "/login/keycloak")
        assert "Provider sign-in" in page.text, f"{page.url}: {page.text[:300]}"
        page = browser.submit(page, {"name": "mona", "password": self.PASSWORD, "do": "sign-in"})
        assert page.url == f"{gateway}/users/me", f"{page.url}: {page.text[:300]}"
        me = page.json()
        assert me["by"] == "session" and "manager" in me["roles"], me
        assert browser.get(f"{gateway}/reports/2026").json() == {"report": "all is well"}
        page = browser.post(f"{gateway}/logout", {})
        assert page.url.startswith(f"{self.issuer}/protocol/openid-connect/logout?"), f"{page.url}: {page.text[:300]}"
        page = browser.submit(page, {"logout": "yes"})  # this provider asks; Keycloak does not, given an id_token_hint
        assert page.url in (f"{gateway}/", f"{gateway}/login?return_to=%2F"), f"{page.url}: {page.text[:300]}"
        page = browser.get(f"{gateway}/users/me")
        assert page.url == f"{gateway}/login?return_to=%2Fusers%2Fme", f"signing out left a session: {page.url}"
        page = browser.follow(page, "/login/keycloak")
        assert "Provider sign-in" in page.text, f"signing out left a session at the provider: {page.url}"


class Next(Supabase):
    """A project on supabase.com, and a real Next.js."""

    def __init__(self, follower):
        super().__init__(follower)
        self.by_hand = {"The app as it is": self.create_next_app}
        self.at_the_end_of = {"The gateway in front": self.in_a_browser, "Who refreshes": self.refreshed, "Worth knowing": self.types}
        self.browser = Browser()

    def environment(self):
        return {"NEXT_TELEMETRY_DISABLED": "1"}

    def substituted(self):
        # The name of the cookie comes from the project's address.
        return super().substituted() | {"sb-abcdefghijklmnopqrst-auth-token": "sb-127-auth-token"}

    def create_next_app(self):
        """npx create-next-app, and a user in the project"""
        self.add_user()
        folder = self.follower.shell.folder
        # Links, since Next.js wants its packages inside the folder.
        subprocess.run(["cp", "-al", NEXT / "node_modules", folder / "node_modules"], check=True)
        (folder / "package.json").write_text('{"name": "web", "private": true}\n')
        (folder / "app").mkdir()
        (folder / "app" / "layout.tsx").write_text(
            "import type { ReactNode } from 'react'\n\nexport default function Layout({ children }: { children: ReactNode }) {\n"
            "  return (\n    <html lang=\"en\">\n      <body>{children}</body>\n    </html>\n  )\n}\n")
        (folder / "app" / "page.tsx").write_text("export default function Home() {\n  return <h1>Home</h1>\n}\n")

    def in_a_browser(self):
        """signing in on the app's own page, reading a page and the API"""
        gateway, browser = f"http://127.0.0.1:{self.follower.ports['8080']}", self.browser
        page = browser.get(f"{gateway}/account")
        assert page.url == f"{gateway}/login?redirectTo=%2Faccount", page.url
        page = browser.submit(page, {"email": "ada@example.com", "password": PASSWORD})
        assert page.url == f"{gateway}/account" and "ada@example.com" in page.text, f"{page.url}: {page.text[:2000]}"
        me = browser.get(f"{gateway}/api/me").json()
        assert me == {"id": self.user()["id"], "notes": []}, me

    def refreshed(self):
        """a cookie whose token has expired: refreshed by the gateway, once, and set anew"""
        gateway, browser = f"http://127.0.0.1:{self.follower.ports['8080']}", self.browser
        name = "POST auth/token?grant_type=refresh_token"
        self.fake.ask("POST", "/settings", {"clock_offset": -3700})  # signed in over an hour ago
        browser.submit(browser.get(f"{gateway}/login"), {"email": "ada@example.com", "password": PASSWORD})
        self.fake.ask("POST", "/settings", {"clock_offset": 0})
        before, cookies = self.fake.ask("GET", "/counters").get(name, {"count": 0})["count"], browser.cookies()
        page = browser.get(f"{gateway}/account")
        assert page.url == f"{gateway}/account" and "ada@example.com" in page.text, f"{page.url}: {page.text[:500]}"
        after = self.fake.ask("GET", "/counters")[name]["count"]
        assert after == before + 1, f"{after - before} refreshes"
        assert browser.cookies() != cookies, "the cookie is the old one"
        assert browser.get(f"{gateway}/api/me").status == 200

    def typed(self, block):
        """At the end, all of them together."""

    def types(self):
        """tsc over the app, with the types of next, react and @supabase/ssr"""
        done = subprocess.run(
            ["npx", "tsc", "--noEmit", "-p", "."], cwd=self.follower.shell.folder, env=self.follower.environment,
            capture_output=True, text=True, timeout=120)
        assert done.returncode == 0, done.stdout + done.stderr


class SupabaseExample(Supabase):
    """The folder examples/supabase, and a project."""

    def __init__(self, follower):
        super().__init__(follower)
        self.by_hand = {"Without containers": self.add_user}
        self.at_the_end_of = {}


class Fastapi(World):
    """An app and nothing else."""


WORLDS = {
    "examples/supabase": SupabaseExample,
    "fastapi": Fastapi,
    "keycloak": Keycloak,
    "nextjs-supabase-ssr": Next,
    "supabase": Supabase,
}
