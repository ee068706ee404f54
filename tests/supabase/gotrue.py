"""The auth server of the fake: what GoTrue answers, built to the contract and to nothing else.

Pure of sockets: a `Call` goes in, an `Answer` comes out, everything lives in memory. The contract's names are kept
(`GOTRUE_…` settings in lower case without the prefix, error codes, messages), so that a real server can take this one's
place. What it leaves out: SAML, web3, passkeys, phone and WebAuthn factors, the OAuth server, identity linking; those
answer as a server does that has them switched off.
"""

import base64
import binascii
import contextlib
import dataclasses
import fnmatch
import hashlib
import hmac
import json
import re
import secrets
import struct
import time
import urllib.parse
import uuid

import jwt
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa

API_VERSION = "2024-01-01"
LEGACY = "HS256"
ALGORITHMS = ("ES256", "RS256", "EdDSA", LEGACY)
BODY_LIMIT = 1024 * 1024
ADMIN_ROLES = ("service_role", "supabase_admin")
CHALLENGE = re.compile(r"[A-Za-z0-9._~-]{43,128}")
EMAIL = re.compile(r"[^@\s]+@[^@\s]+\.[^@\s]+")
ERROR_BY_STATUS = {
    400: "invalid_request", 401: "unauthorized_client", 403: "access_denied", 500: "server_error",
    503: "temporarily_unavailable",
}
# What the /authorize query keeps for itself; the rest goes on to the provider.
OWN_PARAMETERS = {
    "provider", "redirect_to", "scopes", "code_challenge", "code_challenge_method", "invite_token", "client_id",
    "client_secret", "redirect_uri", "response_type", "state", "scope", "code",
}
SETTINGS = {
    # as `make test` wants a server: see A7.3 of the contract
    "mailer_autoconfirm": True, "sms_autoconfirm": True, "external_email_enabled": True, "external_phone_enabled": True,
    "external_anonymous_users_enabled": True, "disable_signup": False, "mailer_otp_length": 6, "mailer_otp_exp": 86400,
    "sms_otp_exp": 60, "smtp_max_frequency": 60, "mailer_secure_email_change_enabled": True,
    "password_min_length": 6, "password_required_characters": "", "site_url": "http://127.0.0.1:3000", "uri_allow_list": "http://127.0.0.1:*/**",
    "jwt_exp": 3600, "jwt_aud": "authenticated", "jwt_default_group_name": "authenticated", "jwt_issuer": "",
    "jwt_key_id": "", "security_refresh_token_rotation_enabled": True, "security_refresh_token_reuse_interval": 10,
    "security_refresh_token_allow_reuse": False, "security_refresh_token_algorithm_version": 1,
    "security_captcha_enabled": False, "security_captcha_good_token": "good-captcha",
    "sessions_timebox": 0, "sessions_inactivity_timeout": 0, "sessions_single_per_user": False, "sessions_allow_low_aal": 0,
    "mfa_max_enrolled_factors": 10, "mfa_challenge_expiry_duration": 300, "external_flow_state_expiry_duration": 300,
    "rate_limit_header": "", "security_sb_forwarded_for_enabled": False, "rate_limit_burst": 30,
    "rate_limit_token_refresh": 150, "rate_limit_verify": 30, "rate_limit_otp": 30, "rate_limit_anonymous_users": 30,
    "rate_limit_sso": 30, "rate_limit_web3": 30, "mfa_rate_limit_challenge_and_verify": 15,
    "api_external_url": "", "mailer_external_hosts": "", "providers": ["github", "google", "keycloak"],
    # only of the fake
    "clock_offset": 0.0, "hs256_accepted": True, "hook_claims": {}, "drop_claims": [], "provider_url": "",
    "provider_user": {"sub": "4711", "email": "ada@provider.example", "name": "Ada Provider"}, "provider_error": {},
}


class ApiError(Exception):
    def __init__(self, status: int, code: str, message: str, **extra):
        super().__init__(message)
        self.status, self.code, self.message, self.extra = status, code, message, extra


class OAuthError(Exception):
    def __init__(self, error: str, description: str):
        super().__init__(description)
        self.error, self.description = error, description


@dataclasses.dataclass
class Call:
    """One request, as the auth server sees it (the edge's prefix is gone)."""

    method: str
    path: str
    query: dict[str, str]
    headers: dict[str, str]  # names in lower case, the last of each
    body: bytes
    peer: str

    def json(self) -> dict:
        if not self.body.strip():
            return {}
        try:
            value = json.loads(self.body)
        except ValueError as error:
            raise ApiError(400, "bad_json", f"Could not parse request body as JSON: {error}") from None
        if not isinstance(value, dict):
            raise ApiError(400, "bad_json", "Could not parse request body as JSON: not an object")
        return value

    def client_ip(self) -> str:
        """The leftmost of X-Forwarded-For, else the peer."""
        return self.headers.get("x-forwarded-for", "").split(",")[0].strip() or self.peer


@dataclasses.dataclass
class Answer:
    status: int
    body: object = None  # JSON, None for an empty body, bytes as they are
    headers: dict = dataclasses.field(default_factory=dict)


@dataclasses.dataclass
class Session:
    id: str
    user_id: str
    aal: str
    amr: list  # [method, seconds], newest first
    created_at: float
    refreshed_at: float
    ip: str
    hmac_key: bytes
    tokens: list = dataclasses.field(default_factory=list)  # v1: every refresh token ever issued, oldest first
    used_at: dict = dataclasses.field(default_factory=dict)  # token -> when it was first used
    counter: int = 0
    revoked: bool = False  # v1: the token family is dead, the row is still there


class Keys:
    """Signing keys with their states, and the shared secret."""

    def __init__(self, secret: str):
        self.secret = secret
        self.keys: list[dict] = []  # kid, alg, private, state: standby, in_use, previous, revoked

    def add(self, alg: str, state: str = "in_use", kid: str | None = None) -> str:
        private = {
            "ES256": lambda: ec.generate_private_key(ec.SECP256R1()),
            "RS256": lambda: rsa.generate_private_key(65537, 2048),
            "EdDSA": ed25519.Ed25519PrivateKey.generate,
        }[alg]()
        if state == "in_use":
            self.retire()
        self.keys.append({"kid": kid or str(uuid.uuid4()), "alg": alg, "private": private, "state": state})
        return self.keys[-1]["kid"]

    def retire(self, state: str = "previous"):
        for key in self.keys:
            if key["state"] == "in_use":
                key["state"] = state

    def use(self, alg: str) -> str | None:
        """Signs with a fresh key of this algorithm from now on, or with the secret."""
        if alg == LEGACY:
            self.keys.clear()
            return None
        return self.add(alg)

    def signing(self) -> dict | None:
        return next((key for key in self.keys if key["state"] == "in_use"), None)

    def find(self, kid) -> dict | None:
        return next((key for key in self.keys if key["kid"] == kid and key["state"] != "revoked"), None)

    def sign(self, claims: dict, alg: str | None = None, kid: str | None = None, key_id: str = "") -> str:
        key = self.find(kid) if kid else self.signing()
        payload = json.dumps(claims, ensure_ascii=False, separators=(",", ":")).encode()
        if alg == LEGACY or key is None:
            return jwt.api_jws.encode(payload, self.secret, LEGACY, headers={"kid": kid or key_id} if kid or key_id else None)
        return jwt.api_jws.encode(payload, key["private"], key["alg"], headers={"kid": key["kid"]})

    def jwks(self) -> dict:
        kinds = {"ES256": jwt.algorithms.ECAlgorithm, "RS256": jwt.algorithms.RSAAlgorithm, "EdDSA": jwt.algorithms.OKPAlgorithm}
        keys = []
        for key in self.keys:
            if key["state"] != "revoked":
                public = kinds[key["alg"]].to_jwk(key["private"].public_key(), as_dict=True)
                keys.append(public | {"alg": key["alg"], "kid": key["kid"], "use": "sig", "key_ops": ["verify"]})
        return {"keys": keys}

    def state(self) -> list[dict]:
        return [{"kid": key["kid"], "alg": key["alg"], "state": key["state"]} for key in self.keys]


def iso(seconds: float) -> str:
    whole = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(seconds))
    return f"{whole}.{int(seconds % 1 * 1e6):06d}Z"


def b64(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


def unb64(text: str) -> bytes:
    return base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))


def totp(secret: str, at: float) -> str:
    digest = hmac.new(base64.b32decode(secret), struct.pack(">Q", int(at) // 30), hashlib.sha1).digest()
    offset = digest[-1] & 15
    return f"{(struct.unpack('>I', digest[offset:offset + 4])[0] & 0x7FFFFFFF) % 1_000_000:06d}"


def uvarint(number: int) -> bytes:
    out = bytearray()
    while number >= 128:
        out.append(number & 127 | 128)
        number >>= 7
    return bytes([*out, number])


class Bucket:
    """Tokens of one key: `burst` at once, `rate` a second."""

    def __init__(self, burst: float, rate: float, now: float):
        self.burst, self.rate, self.left, self.at = burst, rate, burst, now

    def take(self, now: float) -> bool:
        self.left = min(self.burst, self.left + (now - self.at) * self.rate)
        self.at = now
        if self.left < 1:
            return False
        self.left -= 1
        return True


class GoTrue:
    def __init__(self, secret: str, secret_key: str = ""):
        self.secret_key = secret_key
        self.keys = Keys(secret)
        self.settings = json.loads(json.dumps(SETTINGS))
        self.wipe()

    def wipe(self):
        self.users: dict[str, dict] = {}
        self.sessions: dict[str, Session] = {}
        self.flows: dict[str, dict] = {}
        self.mail: list[dict] = []
        self.buckets: dict[tuple, Bucket] = {}
        self.provider_codes: dict[str, dict] = {}

    def now(self) -> float:
        return time.time() + self.settings["clock_offset"]

    def external_url(self) -> str:
        return self.settings["api_external_url"]

    def issuer(self) -> str | None:
        """`jwt_issuer`; null means a server that never set one."""
        value = self.settings["jwt_issuer"]
        return None if value is None else value or self.external_url()

    # --- requests

    def handle(self, call: Call) -> Answer:
        """Every answer, with the format of errors that the version header asks for."""
        version = call.headers.get("x-supabase-api-version", "")
        try:
            if version and not re.fullmatch(r"\d{4}-\d\d-\d\d", version):
                raise ApiError(400, "validation_failed", "X-Supabase-Api-Version: must be YYYY-MM-DD")
            if len(call.body) > BODY_LIMIT:
                raise ApiError(413, "request_entity_too_large", "Request body too large")
            self.limit(call)
            return self.route(call)
        except OAuthError as error:
            return Answer(400, {"error": error.error, "error_description": error.description})
        except ApiError as error:
            return self.error(error, version)

    def error(self, error: ApiError, version: str = "") -> Answer:
        headers = {"x-sb-error-code": error.code}
        if version >= API_VERSION:
            headers["X-Supabase-Api-Version"] = API_VERSION
            return Answer(error.status, {"code": error.code, "message": error.message} | error.extra, headers)
        body = {"code": error.status, "error_code": error.code, "msg": error.message} | error.extra
        if error.status >= 500:
            body["error_id"] = secrets.token_hex(16)
        return Answer(error.status, body, headers)

    def route(self, call: Call) -> Answer:
        parts = [part for part in call.path.split("/") if part]
        first = parts[0] if parts else ""
        if first == "admin" or first in ("invite", "scim"):
            return self.admin(call, parts)
        if first == "factors" and len(parts) <= 3:
            return self.factors(call, parts)
        if first in ("passkeys",):
            raise ApiError(404, "passkey_disabled", "Passkeys are disabled")
        if first == "oauth" or call.path == "/.well-known/oauth-authorization-server" or call.path.startswith("/user/oauth"):
            raise ApiError(404, "feature_disabled", "The OAuth server is not enabled")
        if call.path.startswith("/user/identities"):
            self.bearer(call)
            raise ApiError(404, "manual_linking_disabled", "Manual linking is disabled")
        if first == "sso":
            raise ApiError(404, "saml_provider_disabled", "SAML 2.0 is disabled")
        handler = {
            ("GET", "/health"): self.health, ("GET", "/settings"): self.public_settings,
            ("GET", "/.well-known/jwks.json"): self.jwks,
            ("GET", "/.well-known/openid-configuration"): self.discovery,
            ("POST", "/signup"): self.signup, ("POST", "/token"): self.token, ("POST", "/logout"): self.logout,
            ("GET", "/user"): self.get_user, ("PUT", "/user"): self.put_user,
            ("GET", "/reauthenticate"): self.reauthenticate,
            ("GET", "/authorize"): self.authorize, ("GET", "/callback"): self.callback, ("POST", "/callback"): self.callback,
            ("POST", "/otp"): self.otp, ("POST", "/magiclink"): self.magiclink, ("POST", "/recover"): self.recover,
            ("POST", "/resend"): self.resend, ("POST", "/verify"): self.verify, ("GET", "/verify"): self.verify_link,
        }.get((call.method, "/" + "/".join(parts)))
        if handler is None:
            return Answer(404, b"404 page not found\n", {"Content-Type": "text/plain; charset=utf-8"})
        return handler(call)

    def limit(self, call: Call):
        """A2.4: no key, no limit."""
        settings = self.settings
        key = ""
        if settings["security_sb_forwarded_for_enabled"] and call.headers.get("apikey") == self.secret_key:
            key = call.headers.get("sb-forwarded-for", "").strip()
        if not key and settings["rate_limit_header"]:
            key = call.headers.get(settings["rate_limit_header"].lower(), "").split(",")[0].strip()
        if not key:
            return
        path, method = call.path, call.method
        if (method, path) == ("POST", "/token"):
            name, seconds = "rate_limit_token_refresh", 300
            if call.query.get("grant_type") == "web3":
                name = "rate_limit_web3"
        elif path == "/verify":
            name, seconds = "rate_limit_verify", 300
        elif (method, path) == ("POST", "/signup") and not (call.json().get("email") or call.json().get("phone")):
            name, seconds = "rate_limit_anonymous_users", 3600
        elif (method, path) in {("POST", p) for p in ("/otp", "/magiclink", "/recover", "/resend", "/signup")} | {("PUT", "/user")}:
            name, seconds = "rate_limit_otp", 300
        elif path.startswith("/factors/") and path.endswith(("/challenge", "/verify")):
            name, seconds = "mfa_rate_limit_challenge_and_verify", 60
        else:
            return
        bucket = self.buckets.get((name, key))
        if bucket is None:
            bucket = self.buckets[name, key] = Bucket(settings["rate_limit_burst"], settings[name] / seconds, self.now())
        if not bucket.take(self.now()):
            raise ApiError(429, "over_request_rate_limit", "Request rate limit reached")

    # --- documents

    def health(self, call: Call) -> Answer:
        return Answer(200, {"version": "v2.196.0", "name": "GoTrue", "description": "GoTrue is a user registration and authentication API"})

    def public_settings(self, call: Call) -> Answer:
        s = self.settings
        external = {name: True for name in s["providers"]} | {
            "email": s["external_email_enabled"], "phone": s["external_phone_enabled"],
            "anonymous_users": s["external_anonymous_users_enabled"],
        }
        return Answer(200, {
            "external": external, "disable_signup": s["disable_signup"], "mailer_autoconfirm": s["mailer_autoconfirm"],
            "phone_autoconfirm": s["sms_autoconfirm"], "sms_provider": "twilio", "saml_enabled": False,
            "saml_private_key_next_configured": False, "passkeys_enabled": False,
        })

    def jwks(self, call: Call) -> Answer:
        return Answer(200, self.keys.jwks(), {"Cache-Control": "public, max-age=600"})

    def discovery(self, call: Call) -> Answer:
        issuer = self.issuer() or self.external_url()
        return Answer(200, {
            "issuer": issuer, "authorization_endpoint": issuer + "/oauth/authorize", "token_endpoint": issuer + "/oauth/token",
            "jwks_uri": issuer + "/.well-known/jwks.json", "userinfo_endpoint": issuer + "/oauth/userinfo",
            "response_types_supported": ["code"], "response_modes_supported": ["query"],
            "grant_types_supported": ["authorization_code", "refresh_token"], "subject_types_supported": ["public"],
            "id_token_signing_alg_values_supported": ["RS256", "HS256", "ES256"],
            "token_endpoint_auth_methods_supported": ["client_secret_basic", "client_secret_post", "none"],
            "code_challenge_methods_supported": ["S256", "plain"],
            "scopes_supported": ["openid", "profile", "email", "phone", "offline_access"],
        }, {"Cache-Control": "public, max-age=600"})

    # --- users and sessions

    def audience(self, call: Call) -> str:
        return call.headers.get("x-jwt-aud") or self.settings["jwt_aud"]

    def find_user(self, aud: str, email: str = "", phone: str = "") -> dict | None:
        for user in self.users.values():
            if user["aud"] == aud and not user.get("deleted_at"):
                if (email and user["email"] == email.lower()) or (phone and user["phone"] == phone):
                    return user
        return None

    def add_user(self, aud: str, email: str = "", phone: str = "", password: str | None = None, data: dict | None = None,
                 provider: str | None = None, confirmed: bool = False, anonymous: bool = False) -> dict:
        now = iso(self.now())
        provider = provider or ("email" if email else "phone" if phone else None)
        user = {
            "id": str(uuid.uuid4()), "aud": aud, "role": self.settings["jwt_default_group_name"], "email": email.lower(),
            "phone": phone, "app_metadata": {} if anonymous else {"provider": provider, "providers": [provider]},
            "user_metadata": dict(data or {}), "identities": [], "factors": [], "created_at": now, "updated_at": now,
            "is_anonymous": anonymous, "_password": password, "_slots": {}, "_hook": {}, "_challenges": {},
        }
        self.users[user["id"]] = user
        if not anonymous:
            self.add_identity(user, provider, user["id"], {"email": user["email"]} if email else {"phone": phone})
            if email:
                user["user_metadata"] |= {"email": user["email"], "email_verified": confirmed, "phone_verified": False, "sub": user["id"]}
        if confirmed:
            self.confirm(user, "email" if email else "phone")
        return user

    def add_identity(self, user: dict, provider: str, subject: str, data: dict):
        now = iso(self.now())
        user["identities"].append({
            "identity_id": str(uuid.uuid4()), "id": subject, "user_id": user["id"],
            "identity_data": {"sub": subject} | data, "provider": provider, "last_sign_in_at": now, "created_at": now,
            "updated_at": now, "email": data.get("email", ""),
        })
        providers = user["app_metadata"].setdefault("providers", [])
        if provider not in providers:
            providers.append(provider)
        user["app_metadata"].setdefault("provider", provider)

    def confirm(self, user: dict, kind: str):
        now = iso(self.now())
        user.setdefault(f"{kind}_confirmed_at", now)
        user.setdefault("confirmed_at", now)
        if kind == "email" and "email_verified" in user["user_metadata"]:
            user["user_metadata"]["email_verified"] = True

    def shown(self, user: dict) -> dict:
        out = {name: value for name, value in user.items() if not name.startswith("_")}
        out["factors"] = [{name: value for name, value in factor.items() if not name.startswith("_")} for factor in user["factors"]]
        if not out["factors"]:
            del out["factors"]
        return out

    def banned(self, user: dict) -> bool:
        return (user.get("banned_until") or "") > iso(self.now())

    def new_session(self, user: dict, method: str, call: Call | None) -> Session:
        now = self.now()
        if self.settings["sessions_single_per_user"]:
            for other in [s for s in self.sessions.values() if s.user_id == user["id"]]:
                other.used_at["newer"] = now
        session = Session(str(uuid.uuid4()), user["id"], "aal1", [[method, int(now)]], now, now,
                          call.client_ip() if call else "", secrets.token_bytes(32))
        session.tokens.append(self.v1_token())
        self.sessions[session.id] = session
        user["last_sign_in_at"] = iso(now)
        return session

    @staticmethod
    def v1_token() -> str:
        return "".join(secrets.choice("abcdefghijklmnopqrstuvwxyz0123456789") for _ in range(12))

    def v2_token(self, session: Session, counter: int) -> str:
        head = b"\0" + uuid.UUID(session.id).bytes + uvarint(counter)
        head += hmac.new(session.hmac_key, head, hashlib.sha256).digest()[:16]
        return b64(head + hashlib.sha256(head).digest()[:4])

    def refresh_token(self, session: Session) -> str:
        if self.settings["security_refresh_token_algorithm_version"] == 2:
            return self.v2_token(session, session.counter)
        return session.tokens[-1]

    def claims(self, user: dict, session: Session) -> dict:
        now = int(self.now())
        claims = {
            "iss": self.issuer(), "sub": user["id"], "aud": user["aud"], "exp": now + int(self.settings["jwt_exp"]), "iat": now,
            "email": user["email"], "phone": user["phone"], "app_metadata": user["app_metadata"],
            "user_metadata": user["user_metadata"], "role": user["role"], "aal": session.aal,
            "amr": [{"method": method, "timestamp": at} for method, at in session.amr],
            "session_id": session.id, "is_anonymous": user["is_anonymous"],
        }
        if claims["iss"] is None:
            del claims["iss"]
        claims |= self.settings["hook_claims"] | user["_hook"]
        return {name: value for name, value in claims.items() if name not in self.settings["drop_claims"]}

    def issue(self, user: dict, session: Session, **more) -> dict:
        token = self.keys.sign(self.claims(user, session), key_id=self.settings["jwt_key_id"])
        seconds = int(self.settings["jwt_exp"])
        return {
            "access_token": token, "token_type": "bearer", "expires_in": seconds, "expires_at": int(self.now()) + seconds,
            "refresh_token": self.refresh_token(session), "user": self.shown(user),
        } | more

    def session_answer(self, user: dict, session: Session, headers: dict | None = None, **more) -> Answer:
        body = self.issue(user, session, **more)
        return Answer(200, body, {
            "sb-auth-user-id": user["id"], "sb-auth-session-id": session.id,
            "sb-auth-refresh-token-prefix": body["refresh_token"][:5],
        } | (headers or {}))

    def sign_in(self, user: dict, method: str, call: Call, **more) -> Answer:
        return self.session_answer(user, self.new_session(user, method, call), **more)

    # --- the bearer

    def decode(self, token: str) -> dict:
        """Signature and `exp`, without leeway."""
        try:
            header = jwt.get_unverified_header(token)
            alg, kid = header.get("alg"), header.get("kid")
            key = self.keys.find(kid) if kid else None
            if key is not None and key["alg"] == alg:
                secret = key["private"].public_key()
            elif alg == LEGACY and self.settings["hs256_accepted"]:
                secret = self.keys.secret
            else:
                raise jwt.InvalidTokenError(f"token is unverifiable: unrecognized JWT kid {kid} for algorithm {alg}")
            claims = jwt.decode(token, secret, [alg], options={
                "verify_exp": False, "verify_aud": False, "verify_iat": False, "verify_nbf": False, "verify_sub": False,
                "verify_jti": False, "verify_iss": False})
        except jwt.InvalidSignatureError:
            raise self.bad_jwt("signature is invalid") from None
        except (jwt.PyJWTError, ValueError, TypeError) as error:
            raise self.bad_jwt(f"token is malformed: {error}") from None
        if "exp" in claims and self.now() >= float(claims["exp"]):
            raise self.bad_jwt("token has invalid claims: token is expired")
        return claims

    @staticmethod
    def bad_jwt(why: str) -> ApiError:
        return ApiError(403, "bad_jwt", f"invalid JWT: unable to parse or verify signature, {why}")

    def bearer_claims(self, call: Call) -> dict:
        found = re.fullmatch(r"(?i)bearer\s+(\S+)", call.headers.get("authorization", "").strip())
        if not found:
            raise ApiError(401, "no_authorization", "This endpoint requires a valid Bearer token")
        return self.decode(found[1])

    def bearer(self, call: Call) -> tuple[dict, Session | None]:
        claims = self.bearer_claims(call)
        sub = claims.get("sub")
        if not sub:
            raise ApiError(403, "bad_jwt", "invalid claim: missing sub claim")
        try:
            uuid.UUID(sub)
        except ValueError:
            raise ApiError(400, "bad_jwt", "invalid claim: sub claim must be a UUID") from None
        user = self.users.get(sub)
        if user is None or user.get("deleted_at"):
            raise ApiError(403, "user_not_found", "User from sub claim in JWT does not exist")
        session = None
        if claims.get("session_id"):
            session = self.sessions.get(claims["session_id"])
            if session is None:
                raise ApiError(403, "session_not_found", "Session from session_id claim in JWT does not exist")
        if self.banned(user):
            raise ApiError(403, "user_banned", "User is banned")
        return user, session

    def admin_bearer(self, call: Call):
        if self.bearer_claims(call).get("role") not in ADMIN_ROLES:
            raise ApiError(403, "not_admin", "User not allowed")

    # --- checks of what was sent

    def captcha(self, call: Call, body: dict):
        if not self.settings["security_captcha_enabled"]:
            return
        with contextlib.suppress(ApiError):
            self.admin_bearer(call)
            return  # an administrator is no robot
        token = (body.get("gotrue_meta_security") or {}).get("captcha_token")
        if token != self.settings["security_captcha_good_token"]:
            raise ApiError(400, "captcha_failed", "captcha protection: request disallowed (no captcha_token found in request)")

    def strong(self, password: str):
        if len(password.encode()) > 72:
            raise ApiError(400, "validation_failed", "Password cannot be longer than 72 characters")
        least = self.settings["password_min_length"]
        if len(password) < least:
            raise ApiError(422, "weak_password", f"Password should be at least {least} characters.", weak_password={"reasons": ["length"]})
        needed = self.settings["password_required_characters"]
        if needed and not set(needed) & set(password):
            raise ApiError(422, "weak_password", f"Password should contain at least one character of each: {needed}.",
                           weak_password={"reasons": ["characters"]})

    @staticmethod
    def email_of(body: dict) -> str:
        email = body.get("email") or ""
        if email and not (isinstance(email, str) and EMAIL.fullmatch(email)):
            raise ApiError(400, "validation_failed", "Unable to validate email address: invalid format")
        return email.lower()

    @staticmethod
    def phone_of(body: dict) -> str:
        phone = str(body.get("phone") or "").lstrip("+").replace(" ", "")
        if phone and not re.fullmatch(r"[1-9]\d{6,14}", phone):
            raise ApiError(400, "validation_failed", "Invalid phone number format (E.164 required)")
        return phone

    @staticmethod
    def pkce(source: dict) -> dict | None:
        challenge, method = source.get("code_challenge") or "", source.get("code_challenge_method") or ""
        if bool(challenge) != bool(method):
            raise ApiError(400, "validation_failed", "PKCE flow requires code_challenge_method and code_challenge")
        if not challenge:
            return None
        if not CHALLENGE.fullmatch(challenge):
            raise ApiError(400, "validation_failed", "code challenge has to be between 43 and 128 characters of [A-Za-z0-9-._~]")
        if method.lower() not in ("s256", "plain"):
            raise ApiError(400, "validation_failed", "code challenge method has to be one of `plain` or `s256`")
        return {"challenge": challenge, "method": method.lower()}

    def redirect_target(self, call: Call) -> str:
        """Query, header, referrer; what is not allowed becomes the site's URL, silently."""
        site = self.settings["site_url"]
        for wanted in (call.query.get("redirect_to"), call.headers.get("redirect_to"), call.headers.get("referer")):
            if wanted:
                return wanted if self.allowed(wanted) else site
        return site

    def allowed(self, target: str) -> bool:
        try:
            url, site = urllib.parse.urlsplit(target), urllib.parse.urlsplit(self.settings["site_url"])
            host = url.hostname or ""
        except ValueError:
            return False
        if not url.scheme or not host:
            return False
        if (url.scheme, host) == (site.scheme, site.hostname):
            return True
        if url.scheme in ("http", "https") and (host == "::1" or re.fullmatch(r"127(\.\d{1,3}){3}", host)):
            return True
        bare = target.split("#")[0].split("?")[0]
        return any(self.glob(pattern, bare) for pattern in self.settings["uri_allow_list"].split(",") if pattern)

    @staticmethod
    def glob(pattern: str, text: str) -> bool:
        """`*` within what `.` and `/` separate, `**` across."""
        out = ""
        for piece in re.split(r"(\*\*|\*|\?)", pattern):
            out += {"**": ".*", "*": "[^./]*", "?": "[^./]"}.get(piece, re.escape(piece))
        return re.fullmatch(out, text) is not None

    # --- signing up, tokens

    def signup(self, call: Call) -> Answer:
        s, body = self.settings, call.json()
        self.captcha(call, body)
        if s["disable_signup"]:
            raise ApiError(422, "signup_disabled", "Signups not allowed for this instance")
        email, phone, aud = self.email_of(body), self.phone_of(body), self.audience(call)
        if not email and not phone:
            if not s["external_anonymous_users_enabled"]:
                raise ApiError(422, "anonymous_provider_disabled", "Anonymous sign-ins are disabled")
            user = self.add_user(aud, data=body.get("data"), anonymous=True)
            return self.sign_in(user, "anonymous", call)
        if email and phone:
            raise ApiError(400, "validation_failed", "Only an email address or phone number should be provided on signup.")
        if email and not s["external_email_enabled"]:
            raise ApiError(400, "email_provider_disabled", "Email signups are disabled")
        if phone and not s["external_phone_enabled"]:
            raise ApiError(400, "phone_provider_disabled", "Phone signups are disabled")
        password = body.get("password") or ""
        if not password:
            raise ApiError(400, "validation_failed", "Signup requires a valid password")
        self.strong(password)
        flow = self.pkce(body)
        automatic = s["mailer_autoconfirm"] if email else s["sms_autoconfirm"]
        user = self.find_user(aud, email, phone)
        if user and (user.get("confirmed_at") or automatic):
            if automatic:
                raise ApiError(422, "user_already_exists", "User already registered")
            made_up = self.add_user(aud, email, phone, data=body.get("data"))
            del self.users[made_up["id"]]
            return Answer(200, self.shown(made_up) | {"identities": [], "confirmation_sent_at": iso(self.now())})
        if user is None:
            user = self.add_user(aud, email, phone, password, body.get("data"), confirmed=automatic)
        if automatic:
            return self.sign_in(user, "password", call)
        user["confirmation_sent_at"] = iso(self.now())
        self.send(call, user, "confirmation" if email else "phone_confirmation", "signup" if email else "sms", flow)
        return Answer(200, self.shown(user))

    def token(self, call: Call) -> Answer:
        grant = call.query.get("grant_type")
        if grant == "password":
            return self.grant_password(call)
        if grant == "refresh_token":
            return self.grant_refresh(call)
        if grant == "pkce":
            return self.grant_pkce(call)
        if grant == "web3":
            raise ApiError(422, "web3_provider_disabled", "Web3 provider is disabled")
        if grant == "id_token":
            body = call.json()
            if not body.get("id_token"):
                raise OAuthError("invalid request", "id_token required")
            raise ApiError(400, "provider_disabled", f"Provider {body.get('provider')} is not enabled")
        raise ApiError(400, "invalid_credentials", "unsupported_grant_type")

    def grant_password(self, call: Call) -> Answer:
        s, body = self.settings, call.json()
        self.captcha(call, body)
        email, phone = self.email_of(body), self.phone_of(body)
        if bool(email) == bool(phone):
            raise ApiError(400, "validation_failed", "missing email or phone" if not email else "Only an email address or phone number should be provided on login.")
        if email and not s["external_email_enabled"]:
            raise ApiError(422, "email_provider_disabled", "Email logins are disabled")
        if phone and not s["external_phone_enabled"]:
            raise ApiError(422, "phone_provider_disabled", "Phone logins are disabled")
        user = self.find_user(self.audience(call), email, phone)
        wrong = ApiError(400, "invalid_credentials", "Invalid login credentials")
        if user is None:
            raise wrong
        if self.banned(user):
            raise ApiError(400, "user_banned", "User is banned")
        password = body.get("password") or ""
        if not user["_password"] or not hmac.compare_digest(user["_password"].encode(), str(password).encode()):
            raise wrong
        if email and not user.get("email_confirmed_at"):
            raise ApiError(400, "email_not_confirmed", "Email not confirmed")
        if phone and not user.get("phone_confirmed_at"):
            raise ApiError(400, "phone_not_confirmed", "Phone not confirmed")
        weak = None
        try:
            self.strong(password)
        except ApiError as error:
            weak = {"message": error.message} | error.extra.get("weak_password", {"reasons": []})
        return self.sign_in(user, "password", call, weak_password=weak)

    def find_refresh_token(self, token: str) -> tuple[Session, int]:
        """The session, and how far behind the newest token of it this one is."""
        if len(token) == 12:
            for session in self.sessions.values():
                if token in session.tokens:
                    return session, len(session.tokens) - 1 - session.tokens.index(token)
            raise ApiError(400, "refresh_token_not_found", "Invalid Refresh Token: Refresh Token Not Found")
        malformed = ApiError(400, "validation_failed", "Refresh token is not valid")
        try:
            data = unb64(token)
        except (binascii.Error, ValueError):
            raise malformed from None
        if len(data) < 1 + 16 + 1 + 16 + 4 or data[0] or hashlib.sha256(data[:-4]).digest()[:4] != data[-4:]:
            raise malformed
        session = self.sessions.get(str(uuid.UUID(bytes=data[1:17])))
        if session is None:
            raise ApiError(400, "refresh_token_not_found", "Invalid Refresh Token: Refresh Token Not Found")
        for counter in range(session.counter, -1, -1):
            if hmac.compare_digest(self.v2_token(session, counter), token):
                return session, session.counter - counter
        raise ApiError(400, "validation_failed", "Invalid Refresh Token: Not Issued By This Server")

    def grant_refresh(self, call: Call) -> Answer:
        s, token = self.settings, call.json().get("refresh_token")
        if not token:
            raise OAuthError("invalid_request", "refresh_token required")
        session, behind = self.find_refresh_token(str(token))
        user, now = self.users.get(session.user_id), self.now()
        if user is None:
            raise ApiError(400, "refresh_token_not_found", "Invalid Refresh Token: Refresh Token Not Found")
        if self.banned(user):
            raise ApiError(400, "user_banned", "Invalid Refresh Token: User Banned")
        has_mfa = any(factor["status"] == "verified" for factor in user["factors"])
        expired = None
        if s["sessions_timebox"] and now > session.created_at + s["sessions_timebox"]:
            expired = ""
        elif s["sessions_inactivity_timeout"] and now > session.refreshed_at + s["sessions_inactivity_timeout"]:
            expired = " (Inactivity)"
        elif s["sessions_allow_low_aal"] and has_mfa and session.aal == "aal1" and now > session.created_at + s["sessions_allow_low_aal"]:
            expired = " (Low AAL: User Needs MFA Verification)"
        elif "newer" in session.used_at:
            expired = " (Revoked by Newer Login)"
        if expired is not None:
            raise ApiError(400, "session_expired", f"Invalid Refresh Token: Session Expired{expired}")
        used = ApiError(400, "refresh_token_already_used", "Invalid Refresh Token: Already Used")
        if session.revoked:
            raise used
        version2 = len(str(token)) != 12
        headers = {"sb-auth-refresh-token-reuse": "false"}
        if behind:
            since = session.refreshed_at if version2 else session.used_at.get(token, session.refreshed_at)
            causes = []
            if now - since < s["security_refresh_token_reuse_interval"]:
                causes.append("concurrent-refresh")
            if behind == 1:
                causes.append("fail-to-save")
            if s["security_refresh_token_allow_reuse"]:
                causes.append("always-allow")
            if not causes:
                if s["security_refresh_token_rotation_enabled"]:
                    if version2:
                        del self.sessions[session.id]
                    session.revoked = True
                error = self.error(used, call.headers.get("x-supabase-api-version", ""))
                error.headers |= {"sb-auth-session-id": session.id, "sb-auth-user-id": user["id"]}
                if session.revoked:
                    error.headers["sb-auth-refresh-token-rotated"] = "true"
                return error
            headers = {"sb-auth-refresh-token-reuse": "true", "sb-auth-refresh-token-reuse-cause": ",".join(causes)}
        else:
            session.used_at[token] = now
            session.tokens.append(self.v1_token())
            session.counter += 1
        session.refreshed_at, session.ip = now, call.client_ip()
        if s["security_refresh_token_algorithm_version"] == 2:
            headers["sb-auth-refresh-token-counter"] = str(session.counter)
        return self.session_answer(user, session, headers)

    def grant_pkce(self, call: Call) -> Answer:
        body = call.json()
        code, verifier = body.get("auth_code"), body.get("code_verifier")
        if not code or not verifier:
            raise ApiError(400, "validation_failed", "invalid request: both auth code and code verifier should be non-empty")
        flow = next((flow for flow in self.flows.values() if flow.get("auth_code") == code and flow.get("user_id")), None)
        if flow is None:
            raise ApiError(404, "flow_state_not_found", "invalid flow state, no valid flow state found")
        if self.now() > flow["issued_at"] + self.settings["external_flow_state_expiry_duration"]:
            raise ApiError(422, "flow_state_expired", "invalid flow state, flow state has expired")
        given = b64(hashlib.sha256(verifier.encode()).digest()) if flow["pkce"]["method"] == "s256" else verifier
        if not hmac.compare_digest(given.encode(), flow["pkce"]["challenge"].encode()):
            raise ApiError(400, "bad_code_verifier", "code challenge does not match previously saved code verifier")
        del self.flows[flow["id"]]
        user = self.users[flow["user_id"]]
        return self.sign_in(user, flow["method"], call, **flow.get("tokens", {}))

    def logout(self, call: Call) -> Answer:
        scope = call.query.get("scope") or "global"
        if scope not in ("global", "local", "others"):
            raise ApiError(400, "validation_failed", f"Unsupported logout scope {scope!r}")
        user, session = self.bearer(call)
        for other in [s for s in self.sessions.values() if s.user_id == user["id"]]:
            own = session is not None and other.id == session.id
            if scope == "global" or (scope == "local") == own:
                self.sessions.pop(other.id, None)
        return Answer(204, None, {"sb-auth-user-id": user["id"]})

    def get_user(self, call: Call) -> Answer:
        claims = self.bearer_claims(call)
        user, _ = self.bearer(call)
        aud = claims.get("aud")
        if (aud if isinstance(aud, str) else (aud or [None])[0]) != (call.headers.get("x-jwt-aud") or aud):
            raise ApiError(400, "validation_failed", "Token audience doesn't match request audience")
        return Answer(200, self.shown(user), {"sb-auth-user-id": user["id"]})

    def put_user(self, call: Call) -> Answer:
        user, session = self.bearer(call)
        body, s = call.json(), self.settings
        email, phone, password = self.email_of(body), self.phone_of(body), body.get("password")
        flow = self.pkce(body)
        if password is not None:
            self.strong(password)
        if body.get("app_metadata") is not None and user["role"] not in ADMIN_ROLES:
            raise ApiError(403, "not_admin", "Updating app_metadata requires admin privileges")
        new_email = email and email != user["email"]
        new_phone = phone and phone != user["phone"]
        has_mfa = any(factor["status"] == "verified" for factor in user["factors"])
        if has_mfa and (session is None or session.aal != "aal2") and (password or new_email or new_phone):
            raise ApiError(401, "insufficient_aal", "AAL2 session is required to update email or password when MFA is enabled.")
        if user["is_anonymous"] and password and not (email or phone):
            raise ApiError(422, "validation_failed", "Updating password of an anonymous user without an email or phone is not allowed")
        if new_email and self.find_user(user["aud"], email):
            raise ApiError(422, "email_exists", "A user with this email address has already been registered")
        if new_phone and self.find_user(user["aud"], "", phone):
            raise ApiError(422, "phone_exists", "A user with this phone number has already been registered")
        if password is not None:
            if password == user["_password"]:
                raise ApiError(422, "same_password", "New password should be different from the old password.")
            user["_password"] = password
            for other in [o for o in self.sessions.values() if o.user_id == user["id"]]:
                if session is None or other.id != session.id:
                    del self.sessions[other.id]
        for name, value in (body.get("data") or {}).items():
            if value is None:
                user["user_metadata"].pop(name, None)
            else:
                user["user_metadata"][name] = value
        if new_email:
            if user["is_anonymous"] and s["mailer_autoconfirm"]:
                user["is_anonymous"], user["email"] = False, email
                self.confirm(user, "email")
                self.add_identity(user, "email", user["id"], {"email": email})
            else:
                user["new_email"], user["email_change_sent_at"] = email, iso(self.now())
                user["_confirmed_changes"] = 0
                self.send(call, user, "email_change_new", "email_change", flow, to=email)
                if s["mailer_secure_email_change_enabled"] and user["email"]:
                    self.send(call, user, "email_change_current", "email_change", flow, unlimited=True)
        if new_phone:
            if s["sms_autoconfirm"]:
                user["phone"] = phone
                self.confirm(user, "phone")
            else:
                user["new_phone"], user["phone_change_sent_at"] = phone, iso(self.now())
                self.send(call, user, "phone_change", "phone_change", None, to=phone)
        user["updated_at"] = iso(self.now())
        return Answer(200, self.shown(user), {"sb-auth-user-id": user["id"]})

    def reauthenticate(self, call: Call) -> Answer:
        user, _ = self.bearer(call)
        user["reauthentication_sent_at"] = iso(self.now())
        self.send(call, user, "reauthentication", "reauthentication", None)
        return Answer(200, {})

    # --- mails and one-time passwords

    def send(self, call: Call, user: dict, slot: str, kind: str, flow: dict | None, to: str = "", unlimited: bool = False):
        """Writes the message that the control port shows. One per user and kind within `smtp_max_frequency`."""
        s, now = self.settings, self.now()
        by_phone = slot in ("phone_confirmation", "phone_change")
        old = user["_slots"].get(slot)
        if old and not unlimited and now < old["sent_at"] + s["smtp_max_frequency"]:
            left = int(old["sent_at"] + s["smtp_max_frequency"] - now) + 1
            code = "over_sms_send_rate_limit" if by_phone else "over_email_send_rate_limit"
            raise ApiError(429, code, f"For security purposes, you can only request this after {left} seconds.")
        to = to or (user["phone"] if by_phone else user["email"])
        otp = "".join(secrets.choice("0123456789") for _ in range(s["mailer_otp_length"]))
        hashed = hashlib.sha224((to + otp).encode()).hexdigest()
        if flow:
            hashed = "pkce_" + hashed
            state = self.new_flow(flow, kind if kind != "signup" else "email/signup", self.redirect_target(call))
            state["user_id"] = user["id"]
        user["_slots"][slot] = {"hash": hashed, "sent_at": now, "to": to, "by_phone": by_phone, "flow": state["id"] if flow else None}
        target = self.redirect_target(call)
        external = self.external_url()
        host = call.headers.get("x-forwarded-host", "")
        if host and host in s["mailer_external_hosts"].split(","):
            external = f"{call.headers.get('x-forwarded-proto', 'https')}://{host}{urllib.parse.urlsplit(external).path}"
        query = urllib.parse.urlencode({"token": hashed, "type": kind, "redirect_to": target})
        self.mail.append({
            "to": to, "type": kind, "otp": otp, "token_hash": hashed, "at": now, "user_id": user["id"],
            "link": None if by_phone else f"{external}/verify?{query}",
        })

    def otp(self, call: Call) -> Answer:
        s, body = self.settings, call.json()
        self.captcha(call, body)
        email, phone = self.email_of(body), self.phone_of(body)
        if email and phone:
            raise ApiError(400, "validation_failed", "Only an email address or phone number should be provided")
        if not email and not phone:
            raise ApiError(400, "validation_failed", "One of email or phone must be set")
        if email and body.get("channel"):
            raise ApiError(400, "validation_failed", "Channel should only be specified with Phone OTP")
        flow = self.pkce(body)
        aud = self.audience(call)
        user = self.find_user(aud, email, phone)
        if user is None and body.get("create_user") is False:
            raise ApiError(422, "otp_disabled", "Signups not allowed for otp")
        if phone and not s["external_phone_enabled"]:
            raise ApiError(400, "phone_provider_disabled", "Unsupported phone provider")
        if user is None:
            if s["disable_signup"]:
                raise ApiError(422, "signup_disabled", "Signups not allowed for this instance")
            automatic = s["mailer_autoconfirm"] if email else s["sms_autoconfirm"]
            user = self.add_user(aud, email, phone, data=body.get("data"), confirmed=automatic)
        if phone:
            self.send(call, user, "phone_confirmation", "sms", None)
            return Answer(200, {"message_id": str(uuid.uuid4())})
        if user.get("email_confirmed_at"):
            user["recovery_sent_at"] = iso(self.now())
            self.send(call, user, "recovery", "magiclink", flow)
        else:
            user["confirmation_sent_at"] = iso(self.now())
            self.send(call, user, "confirmation", "signup", flow)
        return Answer(200, {})

    def magiclink(self, call: Call) -> Answer:
        self.otp(call)
        return Answer(200, {})

    def recover(self, call: Call) -> Answer:
        body = call.json()
        self.captcha(call, body)
        email, flow = self.email_of(body), self.pkce(body)
        if not email:
            raise ApiError(400, "validation_failed", "Password recovery requires an email")
        user = self.find_user(self.audience(call), email)
        if user:
            user["recovery_sent_at"] = iso(self.now())
            self.send(call, user, "recovery", "recovery", flow)
        return Answer(200, {})

    def resend(self, call: Call) -> Answer:
        body = call.json()
        self.captcha(call, body)
        kind, email, phone = body.get("type"), self.email_of(body), self.phone_of(body)
        if kind not in ("signup", "email_change", "sms", "phone_change"):
            raise ApiError(400, "validation_failed", "Missing one of these types: signup, email_change, sms, phone_change")
        if bool(email) == bool(phone) or bool(email) != (kind in ("signup", "email_change")):
            raise ApiError(400, "validation_failed", "Type provided requires an email address" if kind in ("signup", "email_change") else "Type provided requires a phone number")
        user = self.find_user(self.audience(call), email, phone)
        flow = self.pkce(body)
        if user and kind == "signup" and not user.get("email_confirmed_at"):
            self.send(call, user, "confirmation", "signup", flow)
        elif user and kind == "email_change" and user.get("new_email"):
            self.send(call, user, "email_change_new", "email_change", flow, to=user["new_email"])
        elif user and kind == "sms" and not user.get("phone_confirmed_at"):
            self.send(call, user, "phone_confirmation", "sms", None)
        elif user and kind == "phone_change" and user.get("new_phone"):
            self.send(call, user, "phone_change", "phone_change", None, to=user["new_phone"])
        return Answer(200, {} if email else {"message_id": str(uuid.uuid4())})

    SLOTS = {
        "signup": ["confirmation"], "invite": ["confirmation"], "recovery": ["recovery"], "magiclink": ["recovery"],
        "email": ["confirmation", "recovery"], "email_change": ["email_change_new", "email_change_current"],
        "sms": ["phone_confirmation"], "phone_change": ["phone_change"],
    }

    def take_slot(self, kind: str, matches) -> tuple[dict, str, dict] | None:
        """The user whose message this is, once."""
        for user in self.users.values():
            for slot in self.SLOTS[kind]:
                found = user["_slots"].get(slot)
                if found and matches(found):
                    life = self.settings["sms_otp_exp" if found["by_phone"] else "mailer_otp_exp"]
                    if self.now() > found["sent_at"] + life:
                        return None
                    del user["_slots"][slot]
                    return user, slot, found
        return None

    def accept(self, user: dict, slot: str) -> bool:
        """What following a message does to its user; false while the other half of an e-mail change is missing."""
        if slot in ("confirmation", "recovery"):
            self.confirm(user, "email")
        elif slot == "phone_confirmation":
            self.confirm(user, "phone")
        elif slot == "phone_change":
            user["phone"] = user.pop("new_phone", user["phone"])
            self.confirm(user, "phone")
        elif slot.startswith("email_change"):
            if self.settings["mailer_secure_email_change_enabled"] and user["email"] and not user.get("_confirmed_changes"):
                user["_confirmed_changes"] = 1
                return False
            user["email"] = user.pop("new_email", user["email"])
            user["is_anonymous"] = False
            user["_slots"].pop("email_change_new", None)
            user["_slots"].pop("email_change_current", None)
            self.confirm(user, "email")
        user["updated_at"] = iso(self.now())
        return True

    HALF = "Confirmation link accepted. Please proceed to confirm link sent to the other email"

    def verify(self, call: Call) -> Answer:
        body = call.json()
        self.captcha(call, body)
        kind, token, hashed = body.get("type"), body.get("token"), body.get("token_hash")
        email, phone = self.email_of(body), self.phone_of(body)
        if not kind:
            raise ApiError(400, "validation_failed", "Verify requires a verification type")
        if kind not in self.SLOTS:
            raise ApiError(400, "validation_failed", "Invalid email verification type")
        if hashed:
            if email or phone:
                raise ApiError(400, "validation_failed", "Only the token_hash and type should be provided")
            found = self.take_slot(kind, lambda slot: slot["hash"] == hashed)
        else:
            if not token:
                raise ApiError(400, "validation_failed", "Verify requires a token or a token hash")
            if bool(email) == bool(phone):
                raise ApiError(400, "validation_failed", "Only an email address or phone number should be provided on verify")
            wanted = hashlib.sha224(((email or phone) + token).encode()).hexdigest()
            found = self.take_slot(kind, lambda slot: slot["hash"].removeprefix("pkce_") == wanted)
        if found is None:
            raise ApiError(403, "otp_expired", "Token has expired or is invalid" if not hashed else "Email link is invalid or has expired")
        user, slot, _ = found
        if self.banned(user):
            raise ApiError(403, "user_banned", "User is banned")
        if not self.accept(user, slot):
            return Answer(200, {"msg": self.HALF, "code": "200"})
        return self.sign_in(user, "otp", call)

    def verify_link(self, call: Call) -> Answer:
        kind, token, target = call.query.get("type", ""), call.query.get("token", ""), self.redirect_target(call)
        is_pkce = token.startswith("pkce_")
        try:
            if kind not in self.SLOTS:
                raise ApiError(400, "validation_failed", "Verify requires a verification type")
            found = self.take_slot(kind, lambda slot: slot["hash"] == token)
            if found is None:
                raise ApiError(403, "otp_expired", "Email link is invalid or has expired")
            user, slot, message = found
            if self.banned(user):
                raise ApiError(403, "user_banned", "User is banned")
        except ApiError as error:
            return self.error_redirect(target, error, 303, query=is_pkce)
        if not self.accept(user, slot):
            return self.redirect(target, 303, {"message": self.HALF} if is_pkce else {}, {"message": self.HALF})
        if is_pkce:
            flow = self.flows[message["flow"]]
            flow["issued_at"] = self.now()
            return self.redirect(target, 303, {"code": flow["auth_code"]})
        session = self.new_session(user, "otp", call)
        return self.redirect(target, 303, {}, self.fragment(self.issue(user, session), type=kind))

    # --- providers

    def new_flow(self, pkce: dict | None, method: str, target: str) -> dict:
        flow = {
            "id": str(uuid.uuid4()), "auth_code": str(uuid.uuid4()), "pkce": pkce, "method": method, "redirect_to": target,
            "issued_at": self.now(), "user_id": None, "used": False,
        }
        self.flows[flow["id"]] = flow
        return flow

    def authorize(self, call: Call) -> Answer:
        name = call.query.get("provider", "")
        if name not in self.settings["providers"]:
            raise ApiError(400, "validation_failed", f"Unsupported provider: provider {name} could not be found" if name else "Unsupported provider: missing provider")
        pkce = self.pkce(call.query)
        flow = self.new_flow(pkce, "oauth", self.redirect_target(call))
        flow["provider"] = name
        query = {name: value for name, value in call.query.items() if name not in OWN_PARAMETERS} | {
            "client_id": f"fake-{name}", "redirect_uri": self.external_url() + "/callback", "response_type": "code",
            "scope": call.query.get("scopes") or "openid email", "state": flow["id"],
        }
        return Answer(302, None, {"Location": f"{self.settings['provider_url']}?{urllib.parse.urlencode(query)}"})

    def provider(self, query: dict) -> str:
        """The built-in provider: no page, no question; where it sends the browser back to."""
        out = {"state": query.get("state", "")}
        if self.settings["provider_error"]:
            out |= self.settings["provider_error"]
        else:
            person = dict(self.settings["provider_user"])
            if query.get("login_hint"):
                person = {"sub": hashlib.sha256(query["login_hint"].encode()).hexdigest()[:12], "email": query["login_hint"], "name": query["login_hint"].split("@")[0]}
            out["code"] = secrets.token_urlsafe(16)
            self.provider_codes[out["code"]] = person
        return query.get("redirect_uri", "") + "?" + urllib.parse.urlencode(out)

    def callback(self, call: Call) -> Answer:
        query = dict(call.query)
        if call.method == "POST":
            query |= dict(urllib.parse.parse_qsl(call.body.decode(errors="replace")))
        site, state = self.settings["site_url"], query.get("state", "")
        if not state:
            return self.error_redirect(site, ApiError(400, "bad_oauth_callback", "OAuth state parameter missing"), 303)
        flow = self.flows.get(state)
        if flow is None or "provider" not in flow:
            return self.error_redirect(site, ApiError(400, "bad_oauth_state", "OAuth callback with invalid state"), 303)
        if flow["used"]:
            return self.error_redirect(site, ApiError(400, "flow_state_already_used", "OAuth state has already been used"), 303)
        if self.now() > flow["issued_at"] + self.settings["external_flow_state_expiry_duration"]:
            return self.error_redirect(site, ApiError(400, "bad_oauth_state", "OAuth state has expired"), 303)
        flow["used"], target = True, flow["redirect_to"]
        if query.get("error"):
            told = {"error": query["error"], "error_description": query.get("error_description", "")}
            return self.redirect(target, 302, told, told | {"sb": ""})
        person = self.provider_codes.pop(query.get("code", ""), None)
        if person is None:
            return self.error_redirect(target, ApiError(500, "unexpected_failure", "Unable to exchange external code"), 302)
        aud = self.audience(call)
        user = next((u for u in self.users.values() for i in u["identities"]
                     if i["provider"] == flow["provider"] and i["id"] == person["sub"]), None)
        user = user or self.find_user(aud, person["email"])
        if user is None:
            if self.settings["disable_signup"]:
                return self.error_redirect(target, ApiError(422, "signup_disabled", "Signups not allowed for this instance"), 302)
            user = self.add_user(aud, person["email"], provider=flow["provider"], confirmed=True)
            user["identities"].clear()
        if self.banned(user):
            return self.error_redirect(target, ApiError(403, "user_banned", "User is banned"), 302)
        self.confirm(user, "email")
        if not any(i["provider"] == flow["provider"] and i["id"] == person["sub"] for i in user["identities"]):
            self.add_identity(user, flow["provider"], person["sub"], {"email": person["email"], "full_name": person["name"], "email_verified": True})
        user["user_metadata"] |= {"full_name": person["name"], "email": person["email"], "sub": person["sub"], "email_verified": True}
        tokens = {"provider_token": "pt-" + secrets.token_hex(8), "provider_refresh_token": "prt-" + secrets.token_hex(8)}
        if flow["pkce"]:
            flow |= {"user_id": user["id"], "tokens": tokens}
            return self.redirect(target, 302, {"code": flow["auth_code"]})
        del self.flows[flow["id"]]
        return self.redirect(target, 302, {}, self.fragment(self.issue(user, self.new_session(user, "oauth", call)), **tokens))

    @staticmethod
    def fragment(session: dict, **more) -> dict:
        out = {name: str(session[name]) for name in ("access_token", "expires_at", "expires_in", "refresh_token", "token_type")}
        return dict(sorted((out | more | {"sb": ""}).items()))

    @staticmethod
    def redirect(target: str, status: int, query: dict | None = None, fragment: dict | None = None) -> Answer:
        url = urllib.parse.urlsplit(target)
        pairs = urllib.parse.parse_qsl(url.query, keep_blank_values=True) + list((query or {}).items())
        fragment = urllib.parse.urlencode(fragment) if fragment else ""
        return Answer(status, None, {"Location": urllib.parse.urlunsplit(url._replace(query=urllib.parse.urlencode(pairs), fragment=fragment))})

    def error_redirect(self, target: str, error: ApiError, status: int, query: bool = True) -> Answer:
        kind = ERROR_BY_STATUS.get(error.status, "invalid_request")
        if error.code in ("signup_disabled", "user_banned", "provider_email_needs_verification"):
            kind = "access_denied"
        told = {"error": kind, "error_code": error.code, "error_description": error.message}
        answer = self.redirect(target, status, told if query else {}, told | {"sb": ""})
        answer.headers["x-sb-error-code"] = error.code
        return answer

    # --- factors

    def factors(self, call: Call, parts: list[str]) -> Answer:
        user, session = self.bearer(call)
        if session is None:
            raise ApiError(403, "session_not_found", "Session from session_id claim in JWT does not exist")
        if user["is_anonymous"]:
            raise ApiError(403, "no_authorization", "Anonymous user not allowed to perform these actions")
        if len(parts) == 1 and call.method == "POST":
            return self.enroll(call, user, session)
        if len(parts) == 1:
            return Answer(404, b"404 page not found\n")
        factor = next((factor for factor in user["factors"] if factor["id"] == parts[1]), None)
        if factor is None:
            raise ApiError(404, "mfa_factor_not_found", "Factor not found")
        if len(parts) == 2 and call.method == "DELETE":
            if factor["status"] == "verified" and session.aal != "aal2":
                raise ApiError(422, "insufficient_aal", "AAL2 required to unenroll verified factor")
            user["factors"].remove(factor)
            return Answer(200, {"id": factor["id"]})
        if len(parts) == 3 and parts[2] == "challenge" and call.method == "POST":
            challenge = {"id": str(uuid.uuid4()), "factor": factor["id"], "ip": call.client_ip(), "at": self.now(), "verified": False}
            user["_challenges"][challenge["id"]] = challenge
            return Answer(200, {
                "id": challenge["id"], "type": factor["factor_type"],
                "expires_at": int(self.now() + self.settings["mfa_challenge_expiry_duration"]),
            })
        if len(parts) == 3 and parts[2] == "verify" and call.method == "POST":
            return self.verify_factor(call, user, session, factor)
        return Answer(404, b"404 page not found\n")

    def enroll(self, call: Call, user: dict, session: Session) -> Answer:
        body, s = call.json(), self.settings
        kind, name = body.get("factor_type"), body.get("friendly_name") or ""
        if kind in ("phone", "webauthn"):
            raise ApiError(422, f"mfa_{kind}_enroll_not_enabled", f"MFA enroll is disabled for {kind}")
        if kind != "totp":
            raise ApiError(400, "validation_failed", "factor_type needs to be totp, phone, or webauthn")
        if len(user["factors"]) >= s["mfa_max_enrolled_factors"]:
            raise ApiError(422, "too_many_enrolled_mfa_factors", "Maximum number of verified factors reached, unenroll to continue")
        if name and any(factor["friendly_name"] == name for factor in user["factors"]):
            raise ApiError(422, "mfa_factor_name_conflict", f"A factor with the friendly name {name!r} for this user already exists")
        if any(factor["status"] == "verified" for factor in user["factors"]) and session.aal != "aal2":
            raise ApiError(403, "insufficient_aal", "AAL2 required to enroll a new factor")
        secret, now = base64.b32encode(secrets.token_bytes(20)).decode(), iso(self.now())
        factor = {
            "id": str(uuid.uuid4()), "friendly_name": name, "factor_type": "totp", "status": "unverified", "created_at": now,
            "updated_at": now, "_secret": secret,
        }
        user["factors"].append(factor)
        issuer = body.get("issuer") or urllib.parse.urlsplit(s["site_url"]).netloc
        label = urllib.parse.quote(f"{issuer}:{user['email']}")
        uri = f"otpauth://totp/{label}?" + urllib.parse.urlencode({"algorithm": "SHA1", "digits": 6, "issuer": issuer, "period": 30, "secret": secret})
        svg = '<svg xmlns="http://www.w3.org/2000/svg" width="8" height="8"><rect width="8" height="8"/></svg>'
        return Answer(200, {
            "id": factor["id"], "type": "totp", "friendly_name": name, "totp": {"qr_code": svg, "secret": secret, "uri": uri},
        })

    def verify_factor(self, call: Call, user: dict, session: Session, factor: dict) -> Answer:
        body = call.json()
        challenge = user["_challenges"].get(body.get("challenge_id"))
        if challenge is None or challenge["factor"] != factor["id"]:
            raise ApiError(422, "mfa_factor_not_found", "MFA factor with the provided challenge ID not found")
        if challenge["verified"] or challenge["ip"] != call.client_ip():
            raise ApiError(422, "mfa_ip_address_mismatch", "Challenge and verify IP addresses mismatch.")
        if self.now() > challenge["at"] + self.settings["mfa_challenge_expiry_duration"]:
            raise ApiError(422, "mfa_challenge_expired", f"MFA challenge {challenge['id']} has expired, verify against another challenge or create a new challenge.")
        if body.get("code") not in [totp(factor["_secret"], self.now() + skew) for skew in (-30, 0, 30)]:
            raise ApiError(422, "mfa_verification_failed", "Invalid TOTP code entered")
        challenge["verified"], factor["status"], factor["updated_at"] = True, "verified", iso(self.now())
        session.aal = "aal2"
        session.amr = [["totp", int(self.now())], *[entry for entry in session.amr if entry[0] != "totp"]]
        session.used_at[session.tokens[-1]] = self.now()
        session.tokens.append(self.v1_token())
        session.counter += 1
        for other in [o for o in self.sessions.values() if o.user_id == user["id"] and o.aal == "aal1"]:
            del self.sessions[other.id]
        user["factors"] = [f for f in user["factors"] if f["status"] == "verified"]
        return self.session_answer(user, session)

    # --- for administrators: enough to show that nobody gets here through a gateway

    def admin(self, call: Call, parts: list[str]) -> Answer:
        self.admin_bearer(call)
        aud = self.settings["jwt_aud"]
        if parts[0] == "invite" and call.method == "POST":
            user = self.add_user(aud, self.email_of(call.json()))
            user["invited_at"] = iso(self.now())
            self.send(call, user, "confirmation", "invite", None)
            return Answer(200, self.shown(user))
        if parts[:2] == ["admin", "users"]:
            if len(parts) == 2 and call.method == "GET":
                return Answer(200, {"users": [self.shown(user) for user in self.users.values()], "aud": aud}, {"X-Total-Count": str(len(self.users))})
            if len(parts) == 2 and call.method == "POST":
                body = call.json()
                user = self.add_user(aud, self.email_of(body), self.phone_of(body), body.get("password"), body.get("user_metadata"),
                                     confirmed=bool(body.get("email_confirm") or body.get("phone_confirm")))
                user["app_metadata"] |= body.get("app_metadata") or {}
                return Answer(200, self.shown(user))
            user = self.users.get(parts[2]) if len(parts) == 3 else None
            if user is None:
                raise ApiError(404, "user_not_found", "User not found")
            if call.method == "GET":
                return Answer(200, self.shown(user))
            if call.method == "PUT":
                body = call.json()
                user["app_metadata"] |= body.get("app_metadata") or {}
                user["user_metadata"] |= body.get("user_metadata") or {}
                return Answer(200, self.shown(user))
            if call.method == "DELETE":
                del self.users[user["id"]]
                self.sessions = {i: s for i, s in self.sessions.items() if s.user_id != user["id"]}
                return Answer(200, {})
        if parts[:2] == ["admin", "audit"]:
            return Answer(200, [])
        raise ApiError(404, "feature_disabled", "not part of this server")


def matches(pattern: str, text: str) -> bool:
    return fnmatch.fnmatchcase(text, pattern)
