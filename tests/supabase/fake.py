#!/usr/bin/env python3
"""A fake Supabase in one process: auth server, rest, storage, functions and realtime on one port, control on another.

    target/test-env/venv/bin/python tests/supabase/fake.py [--port 0] [--control-port 0] [--serve both|root|edge]
        [--external-url URL] [--alg ES256|RS256|EdDSA|HS256] [--set JSON] [--until-eof]

When both ports answer it prints one line of JSON and nothing else: `url` (what a client's `createClient` gets), `control`,
`port`, `control_port`, `anon_key`, `service_role_key`, `publishable_key`, `secret_key`, `jwt_secret`, `issuer`, `pid`.
`--until-eof` ends it when its standard input is closed, so that it never outlives a test that was killed; SIGTERM ends it
in any case. Everything is in memory.

`--serve` says what is behind the port. `root`: the auth server alone, at its root, as the real binary serves it. `edge`:
everything under its public prefix (/auth/v1, /rest/v1, …) with the edge's key check, as a hosted project has it. `both`
(default): the prefixes as the edge, every other path as the auth server's root.

Settings are those of `gotrue.SETTINGS`: the real server's `GOTRUE_…` names in lower case; `--set` and `POST /settings`
take them. The defaults are what the tests want of a real server, so a real one needs the same environment.

The control port speaks JSON. It is the only thing of the fake that a real server does not have:

    GET  /                      what was printed at the start, and `settings`
    POST /settings              {name: value, …} changes settings; unknown names are 400. {"clock_offset": 3600} moves the clock
    POST /reset                 users, sessions, files, counters and faults go; settings return to those of the start;
                                {"keys": true} brings back those keys, too
    GET  /counters              {"POST auth/token?grant_type=refresh_token": {"count": 3, "at_once": 1}, …}; `at_once` is
                                the largest number of such requests that were in progress at one time
    GET  /requests              the last 2000 requests, oldest first; ?service=auth&path=/user&last=5 narrows. Each has
                                method, service, path, query, target, headers (pairs, as they came), client_ip, peer, body
                                (of the auth server's, parsed), status
    GET  /faults                what is set
    POST /faults                one fault or a list of them, tried in this order before the real handler; {"clear": true} first
                                clears. Which requests: service ("auth"), method, path (glob, without the prefix),
                                grant_type, times (how often; default always), every (each n-th only); never preflights. What happens:
                                delay_ms; status with code and msg (in GoTrue's format) or body (JSON, or text as it is) and
                                headers; filler (that many bytes of body); drop: "before" (connection closed, nothing done)
                                or "after" (done, but the answer is lost). Without status, filler and drop only the delay
    GET  /keys                  [{kid, alg, state}], and the `jwks` that is served
    POST /keys                  {"use": "ES256"}: sign with a new key (an old one still verifies); "HS256" is legacy mode: no
                                keys, an empty set. {"standby": "RS256"}: published, not signing. {"promote": kid}.
                                {"revoke": kid}: no longer published
    GET  /mail                  messages, oldest first: to, type, otp, token_hash, link, at; ?to=ada@example.com&last=1 narrows
    GET  /users                 all users
    POST /users                 {email, password, phone?, app_metadata?, user_metadata?, confirmed?}: a user without signing up
    POST /users/{id}            {banned_until?, app_metadata?, user_metadata?, role?, hook (claims for this user's tokens),
                                deleted?, totp: true (a verified factor; answers its secret)}
    POST /sessions              {user_id or email, method?, aal?}: a session without signing in; answers as /token does
    GET  /sessions              id, user_id, aal, and number of refreshes
    POST /sessions/{id}/end     deletes one, as a logout elsewhere would
    POST /sign                  {claims, alg?, kid?}: signs exactly these claims
    GET  /totp?secret=…         the code of this moment
    GET  /realtime              open sockets: vsn, apikey, headers, heartbeats, topics with the `sub` they were joined as
    POST /realtime/close        closes all sockets (code 1012)
    GET  /rows?table=notes      all rows, whoever owns them
    GET  /files                 name -> owner, size, sha256, type
    GET  /provider/authorize    the built-in provider: sends the browser straight back, as `provider_user`, as `login_hint`
                                says, or with `provider_error`
"""

import argparse
import asyncio
import base64
import contextlib
import json
import os
import pathlib
import secrets
import signal
import socket
import sys
import threading
import urllib.parse

import uvicorn

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent))
from edge import Edge, RealtimeSocket  # noqa: E402
from gotrue import ALGORITHMS, LEGACY, Answer, ApiError, Call, GoTrue, iso, matches, totp  # noqa: E402

PREFIXES = {"/auth/v1": "auth", "/rest/v1": "rest", "/storage/v1": "storage", "/functions/v1": "functions", "/realtime/v1": "realtime"}
BODY_LIMIT = 32 * 1024 * 1024
CORS_HEADERS = "Accept, Authorization, Content-Type, X-Client-IP, X-Client-Info, X-JWT-AUD, x-use-cookie, X-Supabase-Api-Version"
EXPOSED = "X-Total-Count, Link, X-Supabase-Api-Version"
METHODS = "GET, POST, PUT, PATCH, DELETE"


class Dropped(Exception):
    """The connection is to be closed without an answer."""


class Fake:
    def __init__(self, serve: str, settings: dict, alg: str):
        self.serve = serve
        self.gotrue = GoTrue(secrets.token_hex(32))
        self.edge = Edge(self.gotrue)
        self.gotrue.secret_key = self.edge.secret_key
        self.change(settings)
        self.gotrue.keys.use(alg)
        self.start_keys = [dict(key) for key in self.gotrue.keys.keys]
        self.requests: list[dict] = []
        self.counters: dict[str, dict] = {}
        self.faults: list[dict] = []
        self.info: dict = {}

    def change(self, settings: dict):
        unknown = sorted(set(settings) - set(self.gotrue.settings))
        if unknown:
            raise ValueError(f"no such setting: {', '.join(unknown)}")
        self.gotrue.settings |= settings

    # --- the public port

    async def __call__(self, scope, receive, send):
        if scope["type"] == "websocket":
            return await self.websocket(scope, receive, send)
        path = urllib.parse.unquote(scope["raw_path"].split(b"?")[0].decode("latin-1")) if scope.get("raw_path") else scope["path"]
        pairs = [[name.decode("latin-1"), value.decode("latin-1")] for name, value in scope["headers"]]
        headers = {name.lower(): value for name, value in pairs}
        query = dict(urllib.parse.parse_qsl(scope["query_string"].decode("latin-1"), keep_blank_values=True))
        service, rest = self.service(path)
        entry = {
            "method": scope["method"], "service": service, "path": rest, "query": query,
            "target": scope.get("raw_path", b"").decode("latin-1") + ("?" + scope["query_string"].decode("latin-1") if scope["query_string"] else ""),
            "headers": pairs, "peer": scope["client"][0] if scope["client"] else "", "body": None, "status": None,
        }
        entry["client_ip"] = headers.get("x-forwarded-for", "").split(",")[0].strip() or entry["peer"]
        self.requests = [*self.requests[-1999:], entry]
        name = f"{scope['method']} {service}{rest}" + (f"?grant_type={query['grant_type']}" if "grant_type" in query else "")
        counter = self.counters.setdefault(name, {"count": 0, "at_once": 0, "_now": 0})
        counter["count"] += 1
        counter["_now"] += 1
        counter["at_once"] = max(counter["at_once"], counter["_now"])
        stream = self.chunks(receive)
        try:
            answer = await self.answer(scope["method"], path, service, rest, query, headers, stream, entry)
        except Dropped:
            with contextlib.suppress(AttributeError):
                send.__self__.transport.abort()
                send.__self__.disconnected = True
            return
        finally:
            counter["_now"] -= 1
        entry["status"] = answer.status
        async for _ in stream:
            pass
        if "origin" in headers and "Access-Control-Allow-Origin" not in answer.headers:
            answer.headers |= {
                "Access-Control-Allow-Origin": "*", "Access-Control-Allow-Credentials": "true", "Vary": "Origin",
                "Access-Control-Expose-Headers": EXPOSED if service == "auth" else "Content-Range, Content-Location, Location, Preference-Applied",
            }
        await self.respond(answer, scope["method"], send)

    @staticmethod
    async def chunks(receive):
        while True:
            message = await receive()
            if message["type"] != "http.request":
                return
            if message.get("body"):
                yield message["body"]
            if not message.get("more_body"):
                return

    @staticmethod
    async def respond(answer: Answer, method: str, send):
        body, headers = answer.body, dict(answer.headers)
        if body is None:
            data = b""
        elif isinstance(body, bytes):
            data = body
        else:
            data = json.dumps(body, separators=(",", ":")).encode()  # as Go writes it
            headers.setdefault("Content-Type", "application/json")
        if answer.status != 204:
            headers["Content-Length"] = str(len(data))
        await send({"type": "http.response.start", "status": answer.status,
                    "headers": [(name.encode(), str(value).encode("latin-1", "replace")) for name, value in headers.items()]})
        await send({"type": "http.response.body", "body": b"" if method == "HEAD" else data})

    def service(self, path: str) -> tuple[str, str]:
        if self.serve != "root":
            for prefix, service in PREFIXES.items():
                if path == prefix or path.startswith(prefix + "/"):
                    return service, path.removeprefix(prefix) or "/"
            if self.serve == "both" and path.startswith("/api/broadcast"):
                return "realtime", path  # as Realtime itself has it
        return ("nothing", path) if self.serve == "edge" else ("auth", path)

    async def answer(self, method, path, service, rest, query, headers, stream, entry) -> Answer:
        is_preflight = method == "OPTIONS" and "access-control-request-method" in headers
        fault = None if is_preflight else self.fault(method, service, rest, query)
        if fault and fault.get("delay_ms"):
            await asyncio.sleep(fault["delay_ms"] / 1000)
        if fault and fault.get("drop") == "before":
            raise Dropped
        if fault and ("status" in fault or "filler" in fault):
            return self.faulty(fault, headers)
        if is_preflight:
            return self.preflight(path, headers)
        if service == "nothing":
            return Answer(404, {"message": "no Route matched with those values"})
        if path != rest or service != "auth":  # under a prefix
            _, refusal = self.edge.key(path, headers, query)
            if refusal:
                return refusal
        if service == "storage":
            answer = await self.edge.storage(method, path, query, headers, stream)
        else:
            body = await self.read(stream)
            if service == "auth":
                entry["body"] = self.parsed(body)
                if path != rest:
                    bearer = self.edge.translated(headers)
                    headers = {n: v for n, v in headers.items() if n != "authorization"} | ({"authorization": bearer} if bearer else {})
                answer = self.gotrue.handle(Call(method, rest, query, headers, body, entry["peer"]))
            elif service == "rest":
                answer = self.edge.rest(method, path, query, headers, body)
            elif service == "functions":
                answer = self.edge.functions(method, path, query, headers, body)
            elif rest.startswith("/api/broadcast") and method == "POST":
                answer = await self.edge.broadcast_api(rest, headers, body)
            else:
                answer = Answer(404, {"message": "not found"})
        if fault and fault.get("drop") == "after":
            raise Dropped
        return answer

    @staticmethod
    async def read(stream) -> bytes:
        parts, size = [], 0
        async for chunk in stream:
            size += len(chunk)
            if size <= BODY_LIMIT:
                parts.append(chunk)
        return b"".join(parts)

    @staticmethod
    def parsed(body: bytes):
        if not body or len(body) > 64 * 1024:
            return None
        try:
            return json.loads(body)
        except ValueError:
            return body.decode(errors="replace")

    def preflight(self, path: str, headers: dict) -> Answer:
        """The edge allows what is asked for; the auth server alone has its list, without `apikey`."""
        asked = [name.strip() for name in headers.get("access-control-request-headers", "").split(",") if name.strip()]
        allowed = {name.lower() for name in CORS_HEADERS.split(", ")}
        at_edge = any(path.startswith(prefix) for prefix in PREFIXES) and self.serve != "root"
        if not at_edge and not {name.lower() for name in asked} <= allowed:
            return Answer(204, None, {"Vary": "Origin, Access-Control-Request-Method, Access-Control-Request-Headers"})
        return Answer(200 if at_edge else 204, None, {
            "Access-Control-Allow-Origin": "*", "Access-Control-Allow-Methods": METHODS,
            "Access-Control-Allow-Headers": ", ".join(asked) if at_edge else CORS_HEADERS, "Access-Control-Allow-Credentials": "true",
            "X-Answered-By": "the fake",
        })

    def fault(self, method, service, path, query) -> dict | None:
        for fault in self.faults:
            if fault.get("method", method) != method or fault.get("service", service) != service:
                continue
            if not matches(fault.get("path", "*"), path) or fault.get("grant_type", query.get("grant_type")) != query.get("grant_type"):
                continue
            fault["_seen"] = fault.get("_seen", 0) + 1
            if fault["_seen"] % fault.get("every", 1):
                continue
            if "times" in fault:
                if fault["times"] <= 0:
                    continue
                fault["times"] -= 1
            return fault
        return None

    def faulty(self, fault: dict, headers: dict) -> Answer:
        status = fault.get("status", 200)
        if "filler" in fault:
            answer = Answer(status, b"x" * fault["filler"], {"Content-Type": "application/json"})
        elif "body" in fault:
            body = fault["body"]
            answer = Answer(status, body.encode() if isinstance(body, str) else body)
        else:
            error = ApiError(status, fault.get("code", "unexpected_failure"), fault.get("msg", "Unexpected failure, please check server logs for more information"))
            answer = self.gotrue.error(error, headers.get("x-supabase-api-version", ""))
        answer.headers |= fault.get("headers", {})
        return answer

    async def websocket(self, scope, receive, send):
        await receive()
        path = scope["path"]
        pairs = [[name.decode("latin-1"), value.decode("latin-1")] for name, value in scope["headers"]]
        headers = {name.lower(): value for name, value in pairs}
        query = dict(urllib.parse.parse_qsl(scope["query_string"].decode("latin-1")))
        key = query.get("apikey") or headers.get("x-api-key") or headers.get("apikey") or ""
        good = (path == "/realtime/v1/websocket" and self.serve != "root") or path == "/socket/websocket"
        entry = {"method": "GET", "service": "realtime", "path": "/websocket", "query": query, "target": path, "headers": pairs,
                 "peer": scope["client"][0] if scope["client"] else "", "client_ip": headers.get("x-forwarded-for", "").split(",")[0].strip(),
                 "body": None, "status": 101 if good and key in self.edge.groups else 403}
        self.requests = [*self.requests[-1999:], entry]
        if entry["status"] != 101:
            return await send({"type": "websocket.close", "code": 1008})
        await RealtimeSocket(self.edge, key, query.get("vsn", "1.0.0"), pairs, receive, send).run()

    # --- the control port

    async def control(self, scope, receive, send):
        if scope["type"] != "http":
            return
        query = dict(urllib.parse.parse_qsl(scope["query_string"].decode("latin-1")))
        parts = [part for part in scope["path"].split("/") if part]
        try:
            body = json.loads(await self.read(self.chunks(receive)) or b"{}")
            answer = await self.command(scope["method"], parts, query, body)
        except (ValueError, KeyError, TypeError, StopIteration, ApiError) as error:
            answer = Answer(400, {"error": f"{type(error).__name__}: {error}"})
        await self.respond(answer, scope["method"], send)

    async def command(self, method: str, parts: list[str], query: dict, body) -> Answer:
        gotrue, edge = self.gotrue, self.edge
        last = int(query.get("last", 0))
        match (method, *parts):
            case ("GET",):
                return Answer(200, self.info | {"settings": gotrue.settings})
            case ("POST", "settings"):
                self.change(body)
                return Answer(200, gotrue.settings)
            case ("POST", "reset"):
                self.faults, self.requests = [], []
                self.counters = {name: counter | {"count": 0, "at_once": 0} for name, counter in self.counters.items() if counter["_now"]}
                gotrue.settings = json.loads(self.start)
                gotrue.wipe()
                sockets = edge.sockets
                edge.wipe()
                edge.sockets = sockets
                if body.get("keys"):
                    gotrue.keys.keys = [dict(key) for key in self.start_keys]
                return Answer(200, {})
            case ("GET", "counters"):
                return Answer(200, {name: {"count": c["count"], "at_once": c["at_once"]} for name, c in self.counters.items()})
            case ("GET", "requests"):
                found = [r for r in self.requests if query.get("service", r["service"]) == r["service"] and matches(query.get("path", "*"), r["path"])
                         and query.get("method", r["method"]) == r["method"]]
                return Answer(200, found[-last:])
            case ("GET", "faults"):
                return Answer(200, self.faults)
            case ("POST", "faults"):
                new = body if isinstance(body, list) else [body]
                if any(fault.pop("clear", False) for fault in new):
                    self.faults = []
                self.faults += [fault for fault in new if fault]
                return Answer(200, self.faults)
            case ("GET", "keys"):
                return Answer(200, {"keys": gotrue.keys.state(), "jwks": gotrue.keys.jwks()})
            case ("POST", "keys"):
                kid = None
                if "use" in body:
                    kid = gotrue.keys.use(body["use"])
                if "standby" in body:
                    kid = gotrue.keys.add(body["standby"], "standby")
                if "promote" in body:
                    gotrue.keys.retire()
                    gotrue.keys.find(body["promote"])["state"] = "in_use"
                if "revoke" in body:
                    gotrue.keys.find(body["revoke"])["state"] = "revoked"
                return Answer(200, {"kid": kid, "keys": gotrue.keys.state()})
            case ("GET", "mail"):
                found = [mail for mail in gotrue.mail if query.get("to", mail["to"]) == mail["to"] and query.get("type", mail["type"]) == mail["type"]]
                return Answer(200, found[-last:])
            case ("GET", "users"):
                return Answer(200, [gotrue.shown(user) for user in gotrue.users.values()])
            case ("POST", "users"):
                user = gotrue.add_user(gotrue.settings["jwt_aud"], body.get("email", ""), body.get("phone", ""), body.get("password"),
                                       body.get("user_metadata"), confirmed=body.get("confirmed", True))
                user["app_metadata"] |= body.get("app_metadata", {})
                return Answer(200, gotrue.shown(user))
            case ("POST", "users", who):
                user = gotrue.users[who]
                for name in ("banned_until", "role"):
                    if name in body:
                        user[name] = body[name]
                for name in ("app_metadata", "user_metadata"):
                    user[name] |= body.get(name, {})
                user["_hook"] |= body.get("hook", {})
                if body.get("deleted"):
                    user["deleted_at"] = iso(gotrue.now())
                out = gotrue.shown(user)
                if body.get("totp"):
                    secret = base64.b32encode(secrets.token_bytes(20)).decode()
                    now = iso(gotrue.now())
                    user["factors"].append({"id": secrets.token_hex(16), "friendly_name": "made by control", "factor_type": "totp",
                                            "status": "verified", "created_at": now, "updated_at": now, "_secret": secret})
                    out = gotrue.shown(user) | {"secret": secret}
                return Answer(200, out)
            case ("POST", "sessions"):
                user = gotrue.users[body["user_id"]] if "user_id" in body else gotrue.find_user(gotrue.settings["jwt_aud"], body["email"])
                session = gotrue.new_session(user, body.get("method", "password"), None)
                session.aal = body.get("aal", "aal1")
                return Answer(200, gotrue.issue(user, session))
            case ("GET", "sessions"):
                return Answer(200, [{"id": s.id, "user_id": s.user_id, "aal": s.aal, "refreshes": s.counter, "revoked": s.revoked} for s in gotrue.sessions.values()])
            case ("POST", "sessions", which, "end"):
                del gotrue.sessions[which]
                return Answer(200, {})
            case ("POST", "sign"):
                return Answer(200, {"token": gotrue.keys.sign(body["claims"], body.get("alg"), body.get("kid"))})
            case ("GET", "totp"):
                return Answer(200, {"code": totp(query["secret"], gotrue.now())})
            case ("GET", "realtime"):
                return Answer(200, edge.socket_state())
            case ("POST", "realtime", "close"):
                for open_socket in list(edge.sockets):
                    await open_socket.send({"type": "websocket.close", "code": 1012})
                return Answer(200, {})
            case ("GET", "rows"):
                return Answer(200, edge.tables.get(query["table"], []))
            case ("GET", "files"):
                return Answer(200, {name: {n: f[n] for n in ("owner", "size", "sha256", "type")} for name, f in edge.files.items()})
            case ("GET", "provider", "authorize"):
                return Answer(302, None, {"Location": gotrue.provider(query)})
        return Answer(404, {"error": "no such command; the docstring of fake.py lists them"})


class Server(uvicorn.Server):
    @contextlib.contextmanager
    def capture_signals(self):
        yield


def listen(port: int) -> socket.socket:
    sock = socket.socket()
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    sock.bind(("127.0.0.1", port))
    sock.listen(1024)
    return sock


async def main():
    parser = argparse.ArgumentParser(description="a fake Supabase; its docstring has the control API")
    parser.add_argument("--port", type=int, default=0)
    parser.add_argument("--control-port", type=int, default=0)
    parser.add_argument("--serve", choices=("both", "root", "edge"), default="both")
    parser.add_argument("--external-url", default="", help="API_EXTERNAL_URL; default: <url>/auth/v1")
    parser.add_argument("--alg", choices=ALGORITHMS, default="ES256", help=f"{LEGACY}: legacy mode, an empty key set")
    parser.add_argument("--set", default="{}", help="settings, as JSON")
    parser.add_argument("--until-eof", action="store_true")
    options = parser.parse_args()

    public, control = listen(options.port), listen(options.control_port)
    url, control_url = (f"http://127.0.0.1:{sock.getsockname()[1]}" for sock in (public, control))
    settings = {
        "api_external_url": options.external_url or (url if options.serve == "root" else url + "/auth/v1"),
        "provider_url": control_url + "/provider/authorize",
    }
    fake = Fake(options.serve, settings | json.loads(options.set), options.alg)
    fake.start = json.dumps(fake.gotrue.settings)
    fake.info = {
        "url": url, "control": control_url, "port": public.getsockname()[1], "control_port": control.getsockname()[1],
        "anon_key": fake.edge.anon_key, "service_role_key": fake.edge.service_role_key, "publishable_key": fake.edge.publishable_key,
        "secret_key": fake.edge.secret_key, "jwt_secret": fake.gotrue.keys.secret, "issuer": fake.gotrue.issuer(), "pid": os.getpid(),
    }
    servers = [
        Server(uvicorn.Config(app, interface="asgi3", log_level="error", access_log=False, lifespan="off", server_header=False,
                              timeout_keep_alive=75,
                              timeout_graceful_shutdown=1, h11_max_incomplete_event_size=256 * 1024, ws_max_size=16 * 1024 * 1024))
        for app in (fake, fake.control)
    ]
    loop = asyncio.get_running_loop()

    def stop():
        for server in servers:
            server.should_exit = True

    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop)
    if options.until_eof:
        def watch():
            sys.stdin.buffer.read()
            loop.call_soon_threadsafe(stop)
        threading.Thread(target=watch, daemon=True).start()
    tasks = [asyncio.create_task(server.serve(sockets=[sock])) for server, sock in zip(servers, (public, control))]
    while not all(server.started for server in servers) and not any(task.done() for task in tasks):
        await asyncio.sleep(0.01)
    print(json.dumps(fake.info), flush=True)
    await asyncio.gather(*tasks)


if __name__ == "__main__":
    asyncio.run(main())
