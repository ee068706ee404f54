"""What stands beside the auth server behind the same address: API keys, rest, storage, functions, realtime.

Small, and faithful only in what a gateway in front can break: the key is checked, the bearer is verified again, rows and
files are filtered by its `sub` (row-level security), bodies are large, the socket speaks Phoenix's protocol in both
versions. One table fits all: every name under /rest/v1 is a table whose rows have `id`, `user_id` and what was sent.
"""

import asyncio
import hashlib
import json
import re
import secrets
import struct
import time
import urllib.parse

from gotrue import Answer, ApiError, b64
from starlette.datastructures import Headers
from starlette.formparsers import MultiPartParser

# Routes that need no key (A6.4).
OPEN = {
    "/auth/v1/verify", "/auth/v1/callback", "/auth/v1/authorize", "/auth/v1/.well-known/jwks.json",
    "/auth/v1/.well-known/oauth-authorization-server", "/auth/v1/.well-known/openid-configuration",
    "/auth/v1/sso/saml/acs", "/auth/v1/sso/saml/metadata",
}
KEPT = 64 * 1024 * 1024  # of an upload; more is only counted and hashed
PUBLIC = "avatars/"  # the bucket that everybody may read
FORM_LIMIT = 256 * 1024 * 1024
BROWSER = re.compile(r"Mozilla/")


def self_hosted_key(kind: str, ref: str = "supabase-self-hosted") -> str:
    head = f"sb_{kind}_{b64(secrets.token_bytes(17))[:22]}_"
    return head + b64(hashlib.sha256(f"{ref}|{head[:-1]}".encode()).digest())[:8]


class Edge:
    def __init__(self, gotrue):
        self.gotrue = gotrue
        secret = gotrue.keys.secret
        import jwt
        issued = {"iss": "supabase", "ref": "fakefakefakefakefake", "iat": 1_700_000_000, "exp": 2_100_000_000}
        self.anon_key = jwt.encode(issued | {"role": "anon"}, secret, "HS256")
        self.service_role_key = jwt.encode(issued | {"role": "service_role"}, secret, "HS256")
        self.publishable_key, self.secret_key = self_hosted_key("publishable"), self_hosted_key("secret")
        self.groups = {self.anon_key: "anon", self.publishable_key: "anon", self.service_role_key: "admin", self.secret_key: "admin"}
        self.wipe()

    def wipe(self):
        self.tables: dict[str, list[dict]] = {}
        self.files: dict[str, dict] = {}
        self.signed: dict[str, str] = {}
        self.sockets: set = set()
        self.next_id = 1

    # --- keys and bearers

    def key(self, path: str, headers: dict, query: dict) -> tuple[str | None, Answer | None]:
        """The group of the key, or the refusal."""
        if path in OPEN or path.startswith(("/storage/v1/", "/functions/v1/")):
            return self.groups.get(headers.get("apikey", "")), None
        key = headers.get("apikey") or query.get("apikey")
        if not key:
            return None, Answer(401, {"message": "No API key found in request", "hint": "No `apikey` request header or url param was found."})
        group = self.groups.get(key)
        if group is None:
            return None, Answer(401, {"message": "Invalid API key", "hint": "Double check your Supabase `anon` or `service_role` API key."})
        if key == self.secret_key and BROWSER.search(headers.get("user-agent", "")):
            return None, Answer(401, {"message": "Forbidden use of secret API key in browser"})
        if group != "admin" and (path.rstrip("/") == "/rest/v1" or path.startswith("/pg/")):
            return None, Answer(403, {"message": "You cannot consume this service"})
        return group, None

    def translated(self, headers: dict) -> str:
        """The `Authorization` that goes on: kept, unless it is a new-style key or missing; then what the `apikey` stands for."""
        bearer = headers.get("authorization", "")
        key = headers.get("apikey", "")
        if bearer and not bearer.startswith("Bearer sb_"):
            return bearer
        if key in (self.publishable_key, self.secret_key):
            return "Bearer " + (self.anon_key if key == self.publishable_key else self.service_role_key)
        return f"Bearer {key}" if key else ""

    def who(self, token: str) -> dict:
        """The claims of a bearer, or {} without one; ApiError for a bad one."""
        if not token:
            return {}
        if token in (self.anon_key, self.service_role_key):
            return {"role": "anon" if token == self.anon_key else "service_role"}
        return self.gotrue.decode(token)

    def caller(self, headers: dict) -> dict:
        return self.who(self.translated(headers).removeprefix("Bearer ").strip())

    # --- rest: PostgREST's shapes

    def rest(self, method: str, path: str, query: dict, headers: dict, body: bytes) -> Answer:
        try:
            caller = self.caller(headers)
        except ApiError as error:
            expired = "expired" in error.message
            return Answer(401, {"code": "PGRST303" if expired else "PGRST301", "details": None, "hint": None, "message": "JWT expired" if expired else "No suitable key or wrong key type"},
                          {"WWW-Authenticate": f'Bearer error="invalid_token", error_description="{"JWT expired" if expired else "JWSError"}"'})
        table = path.removeprefix("/rest/v1").strip("/")
        if not table:
            return Answer(200, {"swagger": "2.0", "info": {"title": "fake"}, "paths": {}})
        if table.startswith("rpc/"):
            return Answer(200, {"function": table[4:], "sub": caller.get("sub"), "role": caller.get("role", "anon")})
        rows = self.tables.setdefault(table, [])
        sub, all_rows = caller.get("sub"), caller.get("role") == "service_role"
        filters = {name: value[3:] for name, value in query.items() if value.startswith("eq.")}

        def seen(row):
            return (all_rows or row.get("public") or (sub and row["user_id"] == sub)) and all(str(row.get(n)) == v for n, v in filters.items())

        wanted = [row for row in rows if seen(row)]
        prefer = headers.get("prefer", "")
        if method in ("GET", "HEAD"):
            total = len(wanted)
            span = f"0-{total - 1}/{total}" if total else "*/0"
            answer = {"Content-Range": span if "count=exact" in prefer else re.sub(r"/\d+$", "/*", span)}
            if "application/vnd.pgrst.object+json" in headers.get("accept", ""):
                if total != 1:
                    return Answer(406, {"code": "PGRST116", "details": f"The result contains {total} rows", "hint": None, "message": "Cannot coerce the result to a single JSON object"})
                return Answer(200, wanted[0], answer)
            return Answer(200, wanted if method == "GET" else None, answer)
        refused = Answer(401 if not sub else 403, {"code": "42501", "details": None, "hint": None, "message": f'new row violates row-level security policy for table "{table}"'})
        if method == "POST":
            sent = json.loads(body or b"{}")
            added = []
            for row in sent if isinstance(sent, list) else [sent]:
                row = {"id": self.next_id, "user_id": sub} | row
                if not all_rows and (not sub or row["user_id"] != sub):
                    return refused
                self.next_id += 1
                added.append(row)
            rows.extend(added)
            wanted = added
        elif method == "PATCH":
            for row in wanted:
                row |= json.loads(body or b"{}")
        elif method == "DELETE":
            self.tables[table] = [row for row in rows if row not in wanted]
        else:
            return Answer(405, {"message": "method not allowed"})
        headers = {"Preference-Applied": "return=representation"} if "return=representation" in prefer else {}
        if "return=representation" in prefer:
            return Answer(201 if method == "POST" else 200, wanted, headers)
        return Answer(201 if method == "POST" else 204, None, headers)

    # --- storage: the object routes

    async def storage(self, method: str, path: str, query: dict, headers: dict, stream) -> Answer:
        """Uploads are read to their end as they come, whatever is decided about them."""
        parts = [urllib.parse.unquote(part) for part in path.removeprefix("/storage/v1/").split("/")]
        if parts[0] != "object" or len(parts) < 2:
            return Answer(404, {"statusCode": "404", "error": "not_found", "message": "Route not found"})
        kind = parts[1] if parts[1] in ("sign", "public", "authenticated", "info", "list", "upload") else ""
        name = "/".join(parts[2:] if kind else parts[1:])
        body, size, digest, content_type = b"", 0, "", headers.get("content-type", "application/octet-stream")
        if method in ("POST", "PUT", "DELETE"):
            if content_type.startswith("multipart/"):
                form = await MultiPartParser(Headers(headers), stream, max_part_size=FORM_LIMIT).parse()
                found = next((value for value in form.values() if hasattr(value, "read")), None)
                body = await found.read() if found else b""
                content_type = (found.content_type if found else None) or "application/octet-stream"
                size, digest = len(body), hashlib.sha256(body).hexdigest()
            else:
                kept, sha = [], hashlib.sha256()
                async for chunk in stream:
                    size += len(chunk)
                    sha.update(chunk)
                    if size <= KEPT:
                        kept.append(chunk)
                body, digest = b"".join(kept), sha.hexdigest()

        def refused(status, error, message):
            return Answer(400 if status != 401 else 401, {"statusCode": str(status), "error": error, "message": message})

        if kind == "sign" and method == "GET":
            if self.signed.get(query.get("token", "")) != name:
                return refused(400, "InvalidJWT", "invalid signature")
            return self.download(name)
        if kind == "public":
            if not name.startswith(PUBLIC):
                return refused(404, "Bucket not found", "Bucket not found")
            return self.download(name) if name in self.files else refused(404, "not_found", "Object not found")
        try:
            caller = self.caller(headers)
        except ApiError as error:
            return refused(403, "Unauthorized", "jwt expired" if "expired" in error.message else "signature verification failed")
        sub, admin = caller.get("sub"), caller.get("role") == "service_role"
        mine = name in self.files and (admin or (sub and self.files[name]["owner"] == sub))
        if kind == "list" and method == "POST":
            prefix = f"{name}/{json.loads(body or b'{}').get('prefix') or ''}".rstrip("/") + "/"
            return Answer(200, [
                {"name": n.removeprefix(prefix), "id": f["id"], "created_at": f["at"], "updated_at": f["at"], "last_accessed_at": f["at"],
                 "metadata": {"size": f["size"], "mimetype": f["type"]}}
                for n, f in self.files.items() if n.startswith(prefix) and (admin or (sub and f["owner"] == sub))
            ])
        if kind == "sign" and method == "POST":
            if not mine:
                return refused(404, "not_found", "Object not found")
            token = secrets.token_urlsafe(24)
            self.signed[token] = name
            return Answer(200, {"signedURL": f"/object/sign/{urllib.parse.quote(name)}?token={token}"})
        if method in ("POST", "PUT"):
            if not sub and not admin:
                return refused(403, "Unauthorized", "new row violates row-level security policy")
            if name in self.files and method == "POST" and headers.get("x-upsert") != "true":
                return refused(409, "Duplicate", "The resource already exists")
            at = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
            self.files[name] = {"id": secrets.token_hex(8), "owner": sub, "body": body, "size": size, "sha256": digest, "type": content_type, "at": at}
            return Answer(200, {"Key": name, "Id": self.files[name]["id"]})
        if method == "DELETE":
            wanted = json.loads(body or b"{}").get("prefixes")
            wanted = [f"{name}/{prefix}" for prefix in wanted] if wanted else [name]
            gone = [n for n in wanted if n in self.files and (admin or self.files[n]["owner"] == sub)]
            for n in gone:
                del self.files[n]
            return Answer(200, [{"name": n} for n in gone])
        if method in ("GET", "HEAD") and mine:
            return self.download(name)
        return refused(404, "not_found", "Object not found")

    def download(self, name: str) -> Answer:
        file = self.files[name]
        return Answer(200, file["body"], {"Content-Type": file["type"], "Cache-Control": "no-cache", "ETag": f'"{file["sha256"][:32]}"'})

    # --- functions

    def functions(self, method: str, path: str, query: dict, headers: dict, body: bytes) -> Answer:
        name = path.removeprefix("/functions/v1/").split("/")[0]
        if name == "missing":
            return Answer(404, {"code": "NOT_FOUND", "message": "Requested function was not found"})
        if name == "fails":
            return Answer(500, {"error": "the function failed"})
        bearer = headers.get("authorization", "").removeprefix("Bearer ")
        try:
            caller = self.caller(headers)
        except ApiError:
            return Answer(401, {"code": 401, "message": "Invalid JWT"})
        if name == "bytes":
            return Answer(200, body, {"Content-Type": "application/octet-stream"})
        try:
            sent = json.loads(body) if body else None
        except ValueError:
            sent = body.decode(errors="replace")
        return Answer(200, {
            "function": name, "method": method, "path": path, "query": query, "sent": sent, "sub": caller.get("sub"),
            "role": caller.get("role"), "aal": caller.get("aal"), "had_bearer": bool(bearer), "headers": headers,
        }, {"x-from-function": name})

    # --- realtime

    async def broadcast_api(self, path: str, headers: dict, body: bytes) -> Answer:
        try:
            self.caller(headers)
        except ApiError as error:
            return Answer(403, {"message": error.message})
        rest = path.removeprefix("/api/broadcast").strip("/")
        one = re.fullmatch(r"([^/]+)/events/([^/]+)", rest)
        if one:
            binary = "octet-stream" in headers.get("content-type", "")
            messages = [{"topic": urllib.parse.unquote(one[1]), "event": urllib.parse.unquote(one[2]), "payload": body.decode(errors="replace") if binary else json.loads(body)}]
        elif not rest:
            messages = json.loads(body)["messages"]
        else:
            return Answer(404, {"message": "not found"})
        for message in messages:
            await self.fan_out("realtime:" + message["topic"], message["event"], message["payload"], None)
        return Answer(202, None)

    async def fan_out(self, topic: str, event: str, payload, sender):
        for socket in list(self.sockets):
            if topic in socket.topics and (socket is not sender or socket.topics[topic]["self"]):
                await socket.push_broadcast(topic, event, payload)

    def socket_state(self) -> list[dict]:
        return [{
            "vsn": s.vsn, "apikey": s.apikey, "headers": s.headers, "heartbeats": s.heartbeats, "frames": s.frames,
            "topics": {topic: {"sub": t["claims"].get("sub"), "role": t["claims"].get("role"), "updates": t["updates"]} for topic, t in s.topics.items()},
        } for s in self.sockets]


class RealtimeSocket:
    """One socket of Phoenix's protocol, version 1.0.0 (objects) or 2.0.0 (arrays, binary broadcasts)."""

    def __init__(self, edge: Edge, apikey: str, vsn: str, headers: list, receive, send):
        self.edge, self.apikey, self.vsn, self.headers = edge, apikey, vsn, headers
        self.receive, self.send = receive, send
        self.topics: dict[str, dict] = {}
        self.heartbeats = self.frames = 0
        self.lock = asyncio.Lock()

    async def run(self):
        await self.send({"type": "websocket.accept"})
        self.edge.sockets.add(self)
        try:
            while (message := await self.receive())["type"] == "websocket.receive":
                self.frames += 1
                if message.get("text") is not None:
                    await self.text(message["text"])
                elif message.get("bytes") is not None:
                    await self.binary(message["bytes"])
        finally:
            self.edge.sockets.discard(self)

    async def push(self, topic, event, payload, ref=None, join_ref=None):
        if self.vsn.startswith("2"):
            text = json.dumps([join_ref, ref, topic, event, payload])
        else:
            text = json.dumps({"topic": topic, "event": event, "payload": payload, "ref": ref} | ({"join_ref": join_ref} if join_ref else {}))
        async with self.lock:
            await self.send({"type": "websocket.send", "text": text})

    async def push_broadcast(self, topic: str, event: str, payload):
        if not self.vsn.startswith("2"):
            return await self.push(topic, "broadcast", {"type": "broadcast", "event": event, "payload": payload})
        topic_bytes, event_bytes = topic.encode(), event.encode()
        raw = isinstance(payload, bytes)
        frame = bytes([4, len(topic_bytes), len(event_bytes), 0, 0 if raw else 1]) + topic_bytes + event_bytes
        frame += payload if raw else json.dumps(payload).encode()
        async with self.lock:
            await self.send({"type": "websocket.send", "bytes": frame})

    async def reply(self, topic, ref, join_ref, status="ok", response=None):
        await self.push(topic, "phx_reply", {"status": status, "response": response or {}}, ref, join_ref)

    async def text(self, text: str):
        try:
            message = json.loads(text)
            if isinstance(message, list):
                join_ref, ref, topic, event, payload = message
            else:
                join_ref, ref, topic, event, payload = (message.get(n) for n in ("join_ref", "ref", "topic", "event", "payload"))
        except (ValueError, AttributeError, TypeError):
            return await self.send({"type": "websocket.close", "code": 1003})
        await self.event(join_ref, ref, topic, event, payload or {})

    async def event(self, join_ref, ref, topic, event, payload):
        if topic == "phoenix" and event == "heartbeat":
            self.heartbeats += 1
            return await self.reply("phoenix", ref, None)
        if event == "phx_join":
            token = payload.get("access_token") or self.apikey
            config = payload.get("config") or {}
            try:
                claims = self.claims(token)
            except ApiError as error:
                reason = "InvalidJWTToken: Token has expired" if "expired" in error.message else "InvalidJWTToken: the token provided is not valid"
                return await self.reply(topic, ref, join_ref, "error", {"reason": reason})
            if config.get("private") and claims.get("role") in (None, "anon"):
                return await self.reply(topic, ref, join_ref, "error", {"reason": "Unauthorized: You do not have permissions to read from this Channel topic"})
            self.topics[topic] = {"claims": claims, "join_ref": join_ref or ref, "self": bool((config.get("broadcast") or {}).get("self")),
                                  "ack": bool((config.get("broadcast") or {}).get("ack")), "updates": 0}
            await self.reply(topic, ref, join_ref or ref, "ok", {"postgres_changes": []})
            return await self.push(topic, "presence_state", {}, None, join_ref or ref)
        joined = self.topics.get(topic)
        if joined is None:
            return await self.reply(topic, ref, join_ref, "error", {"reason": "unmatched topic"})
        if event == "phx_leave":
            del self.topics[topic]
            await self.reply(topic, ref, join_ref)
            return await self.push(topic, "phx_close", {}, joined["join_ref"], joined["join_ref"])
        if event == "access_token":
            try:
                joined["claims"] = self.claims(payload.get("access_token") or "")
                joined["updates"] += 1
            except ApiError as error:
                channel = topic.removeprefix("realtime:")
                await self.push(topic, "system", {"channel": channel, "extension": "system", "status": "error", "message": error.message})
                del self.topics[topic]
                await self.push(topic, "phx_close", {}, joined["join_ref"], joined["join_ref"])
            return None
        if event == "broadcast":
            await self.edge.fan_out(topic, payload.get("event", ""), payload.get("payload"), self)
            if joined["ack"]:
                await self.reply(topic, ref, join_ref)
        return None

    def claims(self, token: str) -> dict:
        if token in (self.edge.publishable_key, self.edge.secret_key):
            return {"role": "anon" if token == self.edge.publishable_key else "service_role"}
        return self.edge.who(token)

    async def binary(self, frame: bytes):
        """A user's broadcast (kind 3): lengths, then join_ref, ref, topic, event, metadata, payload."""
        try:
            kind, *lengths, encoding = struct.unpack("7B", frame[:7])
            if kind != 3:
                raise ValueError(kind)
            rest, parts = frame[7:], []
            for length in lengths:
                parts.append(rest[:length].decode())
                rest = rest[length:]
            join_ref, ref, topic, event, _ = parts
            payload = json.loads(rest) if encoding == 1 else rest
        except (struct.error, ValueError):
            return await self.send({"type": "websocket.close", "code": 1003})
        await self.event(join_ref or None, ref or None, topic, "broadcast", {"event": event, "payload": payload})
