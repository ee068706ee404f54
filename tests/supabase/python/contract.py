"""Supabase Auth on the wire, request by request: what a server in place of the fake has to answer too."""

import time
import urllib.parse

import httpx

from rig import APP, GATEWAY, KEY, PASSWORD, SETTINGS, ask, bearer, claims, email, equal, fault, mail, main, query, raw, scenario, seen, settings, totp


def auth(method: str, path: str, body=None, token: str | None = None, headers: dict | None = None):
    headers = (bearer(token) if token else {}) | (headers or {})
    return raw(method, f"/auth/v1{path}", headers, json=body)


def good(answer, status: int = 200):
    assert answer.status_code == status, f"expected {status}, got {answer.status_code}: {answer.text[:300]}"
    return answer.json() if answer.content else None


def bad(answer, status: int, code: str):
    """Refused so, in both formats' common header."""
    got = answer.json() if "json" in answer.headers.get("content-type", "") else {}
    assert answer.status_code == status and got.get("error_code") == code, f"expected {status} {code}, got {answer.status_code}: {answer.text[:300]}"
    equal(got["code"], status, "`code` is the status")
    assert got["msg"], got
    if answer.headers.get("x-sb-error-code"):
        equal(answer.headers["x-sb-error-code"], code)


def password(address: str, word: str = PASSWORD):
    return auth("POST", "/token?grant_type=password", {"email": address, "password": word})


def refresh(token: str):
    return auth("POST", "/token?grant_type=refresh_token", {"refresh_token": token})


def sign_up(address: str = "", **more) -> dict:
    return good(auth("POST", "/signup", {"email": address or email(), "password": PASSWORD} | more))


@scenario("wire: the session and the user, field by field")
def _():
    answer = auth("POST", "/signup", {"email": "Ada@Example.com", "password": PASSWORD, "data": {"name": "Ada"}})
    session = good(answer)
    kinds = {"access_token": str, "token_type": str, "expires_in": int, "expires_at": int, "refresh_token": str, "user": dict}
    for name, kind in kinds.items():
        assert type(session[name]) is kind, f"{name}: {session[name]!r}"
    equal((session["token_type"], len(session["refresh_token"])), ("bearer", 12))
    equal(answer.headers["sb-auth-user-id"], session["user"]["id"])
    user = session["user"]
    equal((user["email"], user["aud"], user["role"], user["is_anonymous"]), ("ada@example.com", "authenticated", "authenticated", False))
    equal(user["app_metadata"], {"provider": "email", "providers": ["email"]})
    equal(user["identities"][0]["provider"], "email")
    for name in ("id", "phone", "created_at", "updated_at", "user_metadata", "confirmed_at", "email_confirmed_at", "last_sign_in_at"):
        assert name in user, name
    told = claims(session["access_token"])
    for name in ("aud", "exp", "iat", "sub", "email", "phone", "role", "aal", "session_id", "is_anonymous", "iss", "amr"):
        assert name in told, name
    equal(told["exp"] - told["iat"], 3600)
    equal(told["iss"], SETTINGS["issuer"])


@scenario("wire: bearers")
def _():
    session = sign_up()
    token, user = session["access_token"], session["user"]["id"]
    good(auth("GET", "/user", token=token))
    good(raw("GET", "/auth/v1/user", {"Authorization": f"bearer {token}"}))
    bad(auth("GET", "/user", headers={"Authorization": "Basic Og=="}), 401, "no_authorization")
    bad(auth("GET", "/user", token="a.b.c"), 403, "bad_jwt")
    bad(auth("GET", "/user", token=token[:-6] + "AAAAAA"), 403, "bad_jwt")

    def signed(**changed):
        said = {name: value for name, value in (claims(token) | changed).items() if value is not None}
        return ask("POST", "/sign", {"claims": said})["token"]

    bad(auth("GET", "/user", token=signed(exp=int(time.time()) - 1)), 403, "bad_jwt")
    bad(auth("GET", "/user", token=signed(sub=None)), 403, "bad_jwt")
    bad(auth("GET", "/user", token=signed(sub="42")), 400, "bad_jwt")
    bad(auth("GET", "/user", token=signed(sub="00000000-0000-4000-8000-000000000000")), 403, "user_not_found")
    bad(auth("GET", "/user", token=signed(session_id="00000000-0000-4000-8000-000000000000")), 403, "session_not_found")
    ask("POST", f"/users/{user}", {"banned_until": "2999-01-01T00:00:00Z"})
    bad(auth("GET", "/user", token=token), 403, "user_banned")
    ask("POST", f"/users/{user}", {"banned_until": "", "deleted": True})
    bad(auth("GET", "/user", token=token), 403, "user_not_found")
    anonymous = good(auth("POST", "/signup", {}))["access_token"]
    bad(auth("POST", "/factors", {"factor_type": "totp"}, anonymous), 403, "no_authorization")


@scenario("wire: what a sign-up and a sign-in may not be")
def _():
    address = sign_up()["user"]["email"]
    for body, status, code in [
        ({"email": "nonsense", "password": PASSWORD}, 400, "validation_failed"),
        ({"email": email(), "phone": "436601234567", "password": PASSWORD}, 400, "validation_failed"),
        ({"email": email()}, 400, "validation_failed"),
        ({"email": email(), "password": "short"}, 422, "weak_password"),
        ({"email": email(), "password": "x" * 73}, 400, "validation_failed"),
        ({"email": address, "password": PASSWORD}, 422, "user_already_exists"),
        ({"email": email(), "password": PASSWORD, "code_challenge": "x" * 43}, 400, "validation_failed"),
    ]:
        bad(auth("POST", "/signup", body), status, code)
    for body, code in [({"password": PASSWORD}, "validation_failed"), ({"email": address, "phone": "436601234567", "password": "x"}, "validation_failed"),
                       ({"email": address, "password": "wrong"}, "invalid_credentials"), ({"email": email(), "password": "wrong"}, "invalid_credentials")]:
        bad(auth("POST", "/token?grant_type=password", body), 400, code)
    bad(auth("POST", "/token?grant_type=client_credentials", {}), 400, "invalid_credentials")
    bad(raw("POST", "/auth/v1/token?grant_type=password", {"content-type": "application/json"}, content=b"{"), 400, "bad_json")
    for name, path, body, status, code in [
        ("disable_signup", "/signup", {"email": email(), "password": PASSWORD}, 422, "signup_disabled"),
    ]:
        settings(**{name: True})
        bad(auth("POST", path, body), status, code)
        settings(**{name: False})
    for name, path, body, status, code in [
        ("external_anonymous_users_enabled", "/signup", {}, 422, "anonymous_provider_disabled"),
        ("external_email_enabled", "/signup", {"email": email(), "password": PASSWORD}, 400, "email_provider_disabled"),
        ("external_email_enabled", "/token?grant_type=password", {"email": address, "password": PASSWORD}, 422, "email_provider_disabled"),
        ("external_phone_enabled", "/otp", {"phone": "436601234567"}, 400, "phone_provider_disabled"),
    ]:
        settings(**{name: False})
        bad(auth("POST", path, body), status, code)
        settings(**{name: True})


@scenario("wire: what is switched off")
def _():
    token = sign_up()["access_token"]
    for method, path, body, status, code in [
        ("POST", "/token?grant_type=web3", {"message": "m", "signature": "s", "chain": "solana"}, 422, "web3_provider_disabled"),
        ("POST", "/token?grant_type=id_token", {"id_token": "a.b.c", "provider": "apple"}, 400, "provider_disabled"),
        ("POST", "/sso", {"domain": "example.com"}, 404, "saml_provider_disabled"),
        ("GET", "/.well-known/oauth-authorization-server", None, 404, "feature_disabled"),
        ("GET", "/user/oauth/grants", None, 404, "feature_disabled"),
        ("GET", "/user/identities/authorize?provider=github", None, 404, "manual_linking_disabled"),
    ]:
        bad(auth(method, path, body, token), status, code)
    answer = auth("POST", "/token?grant_type=id_token", {})
    equal((answer.status_code, answer.json()["error"]), (400, "invalid request"))


@scenario("wire: bodies and the version header")
def _():
    answer = raw("POST", "/auth/v1/signup", {"content-type": "application/json"}, content=b'{"email":"' + b"x" * 1_100_000 + b'"}')
    bad(answer, 413, "request_entity_too_large")
    new = auth("GET", "/user", headers={"X-Supabase-Api-Version": "2024-01-01", "Authorization": "Bearer a.b.c"})
    equal((new.status_code, new.json()["code"], new.headers["x-supabase-api-version"]), (403, "bad_jwt", "2024-01-01"))
    old = auth("GET", "/user", headers={"X-Supabase-Api-Version": "2023-12-31", "Authorization": "Bearer a.b.c"})
    equal(old.json()["code"], 403)
    told = good(auth("GET", "/settings"))
    equal((told["external"]["email"], told["disable_signup"], told["mailer_autoconfirm"]), (True, False, True))
    equal(good(auth("GET", "/health"))["name"], "GoTrue")


@scenario("wire: where a redirect may lead")
def _():
    settings(uri_allow_list="https://*.preview.example/**,myapp://callback", site_url="https://app.example")
    for wanted, allowed in [
        ("https://app.example/welcome", True), ("https://app.example:8443/welcome", True), ("http://app.example/", False),
        ("https://a.preview.example/x/y?z=1", True), ("https://a.b.preview.example/x", False), ("https://evil.example/", False),
        ("http://127.0.0.1:5173/callback", True), ("http://127.0.0.1.evil.example/", False), ("http://localhost:5173/", False),
        ("https://app.example.evil.example/", False), ("https://app.example@evil.example/", False), ("myapp://callback", True), ("//evil.example", False),
        ("javascript:alert(1)", False),
    ]:
        location = auth("GET", "/verify?token=00&type=magiclink&" + urllib.parse.urlencode({"redirect_to": wanted})).headers["location"]
        target, expected = location.split("#")[0].split("?")[0], wanted.split("?")[0] if allowed else "https://app.example"
        equal(target.rstrip("/"), expected.rstrip("/"), wanted)


@scenario("wire: sessions that end by themselves")
def _():
    for values, later, words in [
        ({"sessions_timebox": 100}, 101, "Session Expired"),
        ({"sessions_inactivity_timeout": 50}, 51, "(Inactivity)"),
    ]:
        settings(clock_offset=0, **values)
        token = sign_up()["refresh_token"]
        settings(clock_offset=later)
        answer = refresh(token)
        bad(answer, 400, "session_expired")
        assert words in answer.json()["msg"], answer.text
        settings(clock_offset=0, **dict.fromkeys(values, 0))
    settings(sessions_single_per_user=True)
    first = sign_up()
    good(password(first["user"]["email"]))
    answer = refresh(first["refresh_token"])
    bad(answer, 400, "session_expired")
    assert "(Revoked by Newer Login)" in answer.json()["msg"], answer.text


@scenario("wire: reuse of refresh tokens")
def _():
    for version in (1, 2):
        settings(security_refresh_token_algorithm_version=version, security_refresh_token_reuse_interval=10, clock_offset=0)
        first = sign_up()["refresh_token"]
        second = good(refresh(first))["refresh_token"]
        answer = refresh(first)
        equal(good(answer)["refresh_token"], second, "the parent of the active token")
        equal(answer.headers["sb-auth-refresh-token-reuse"], "true")
        assert "fail-to-save" in answer.headers["sb-auth-refresh-token-reuse-cause"]
        third = good(refresh(second))["refresh_token"]
        equal(good(refresh(first))["refresh_token"], third, "older, but within the interval")
        settings(clock_offset=60)
        answer = refresh(first)
        bad(answer, 400, "refresh_token_already_used")
        equal(answer.headers["sb-auth-refresh-token-rotated"], "true")
        assert refresh(third).status_code == 400, "the family is dead"
    for token in ("x" * 20, "AAAA" * 20):
        bad(refresh(token), 400, "validation_failed")


@scenario("wire: limits, by the address that the gateway vouches for")
def _():
    settings(rate_limit_header="X-Forwarded-For", rate_limit_burst=5)
    codes = [auth("POST", "/verify", {"type": "email", "email": "a@example.com", "token": "1"}, headers={"X-Forwarded-For": f"198.51.100.{n}"}).status_code
             for n in range(7)]
    equal(codes, [403] * 5 + [429] * 2 if GATEWAY else [403] * 7, "who claims to be another address each time")
    same = [auth("POST", "/recover", {"email": "a@example.com"}, headers={"X-Forwarded-For": "198.51.100.1"}) for _ in range(6)]
    equal([answer.status_code for answer in same], [200] * 5 + [429])
    bad(same[-1], 429, "over_request_rate_limit")


@scenario("wire: a change of e-mail address has two sides")
def _():
    session = sign_up()
    token, old, new = session["access_token"], session["user"]["email"], email("new")
    taken = sign_up()["user"]["email"]
    bad(auth("PUT", "/user", {"email": taken}, token), 422, "email_exists")
    equal(good(auth("PUT", "/user", {"email": new}, token))["new_email"], new)
    one = good(auth("POST", "/verify", {"type": "email_change", "token_hash": mail(new)["token_hash"]}))
    equal(one["code"], "200")
    equal(good(auth("GET", "/user", token=token))["email"], old)
    two = good(auth("POST", "/verify", {"type": "email_change", "token_hash": mail(old)["token_hash"]}))
    equal(two["user"]["email"], new)
    bad(password(old), 400, "invalid_credentials")
    good(password(new))


@scenario("wire: messages expire, and are good once")
def _():
    address = sign_up()["user"]["email"]
    good(auth("POST", "/otp", {"email": address}))
    otp = mail(address)["otp"]
    settings(clock_offset=86401)
    bad(auth("POST", "/verify", {"type": "email", "email": address, "token": otp}), 403, "otp_expired")
    settings(clock_offset=0, smtp_max_frequency=0)
    good(auth("POST", "/otp", {"email": address}))
    otp = mail(address)["otp"]
    good(auth("POST", "/verify", {"type": "email", "email": address, "token": otp}))
    bad(auth("POST", "/verify", {"type": "email", "email": address, "token": otp}), 403, "otp_expired")
    for body in ({"type": "email", "email": address}, {"type": "email", "token": "1"}, {"type": "other", "email": address, "token": "1"}, {"email": address, "token": "1"}):
        bad(auth("POST", "/verify", body), 400, "validation_failed")
    equal(good(auth("POST", "/recover", {"email": email("nobody")})), {})
    equal(good(auth("POST", "/resend", {"type": "signup", "email": email("nobody")})), {})


@scenario("wire: factors")
def _():
    session = sign_up()
    token = session["access_token"]
    bad(auth("POST", "/factors", {"factor_type": "phone", "phone": "436601234567"}, token), 422, "mfa_phone_enroll_not_enabled")
    bad(auth("POST", "/factors", {"factor_type": "stone"}, token), 400, "validation_failed")
    factor = good(auth("POST", "/factors", {"factor_type": "totp", "friendly_name": "phone", "issuer": "acme"}, token))
    assert factor["totp"]["uri"].startswith("otpauth://totp/acme"), factor["totp"]["uri"]
    assert factor["totp"]["qr_code"].startswith("<svg"), "an image"
    bad(auth("POST", "/factors", {"factor_type": "totp", "friendly_name": "phone"}, token), 422, "mfa_factor_name_conflict")
    challenge = good(auth("POST", f"/factors/{factor['id']}/challenge", {}, token))
    body = {"challenge_id": challenge["id"], "code": totp(factor["totp"]["secret"])}
    verified = good(auth("POST", f"/factors/{factor['id']}/verify", body, token))
    equal(claims(verified["access_token"])["aal"], "aal2")
    bad(auth("POST", f"/factors/{factor['id']}/verify", body, verified["access_token"]), 422, "mfa_ip_address_mismatch")
    low = good(password(session["user"]["email"]))["access_token"]
    bad(auth("POST", "/factors", {"factor_type": "totp", "friendly_name": "two"}, low), 403, "insufficient_aal")
    bad(auth("DELETE", f"/factors/{factor['id']}", token=low), 422, "insufficient_aal")
    challenge = good(auth("POST", f"/factors/{factor['id']}/challenge", {}, low))
    settings(clock_offset=301)
    body = {"challenge_id": challenge["id"], "code": totp(factor["totp"]["secret"])}
    bad(auth("POST", f"/factors/{factor['id']}/verify", body, low), 422, "mfa_challenge_expired")
    settings(clock_offset=0)
    equal(good(auth("DELETE", f"/factors/{factor['id']}", token=verified["access_token"])), {"id": factor["id"]})


@scenario("wire: PKCE")
def _():
    challenge, verifier = "E9Melhoa2OwvFrEMTJguCHaoeK1t8URWbuGJSstw-cM", "dBjftJeZ4CVP-mB92K27uhbUJU1p1r_wW1gFWFOEjXk"

    def code(method: str = "s256", said: str = challenge) -> str:
        path = "/authorize?" + urllib.parse.urlencode({"provider": "keycloak", "redirect_to": APP + "/back?x=1", "code_challenge": said, "code_challenge_method": method})
        to_provider = auth("GET", path)
        equal(to_provider.status_code, 302)
        sent = query(urllib.parse.urlsplit(to_provider.headers["location"]))
        equal((sent["client_id"], sent["response_type"], sent["redirect_uri"]), ("fake-keycloak", "code", SETTINGS["url"] + "/auth/v1/callback"))
        from_provider = httpx.get(to_provider.headers["location"], timeout=20).headers["location"]
        back = raw("GET", from_provider.removeprefix(SETTINGS["url"]))
        equal(back.status_code, 302)
        found = query(urllib.parse.urlsplit(back.headers["location"]))
        equal(found["x"], "1", "the app's own query stays")
        return found["code"]

    def redeem(auth_code: str, word: str = verifier):
        return auth("POST", "/token?grant_type=pkce", {"auth_code": auth_code, "code_verifier": word})

    good(redeem(code()))
    good(redeem(code("S256")))
    good(redeem(code("plain", verifier)))
    once = code()
    bad(redeem(once, "x" * 43), 400, "bad_code_verifier")
    good(redeem(once))
    bad(redeem(once), 404, "flow_state_not_found")
    bad(auth("POST", "/token?grant_type=pkce", {"auth_code": once}), 400, "validation_failed")
    late = code()
    settings(clock_offset=301)
    bad(redeem(late), 422, "flow_state_expired")
    for parameters in ({"code_challenge": challenge}, {"code_challenge_method": "s256"}, {"code_challenge": challenge, "code_challenge_method": "s512"},
                       {"code_challenge": "short", "code_challenge_method": "s256"}):
        bad(auth("GET", "/authorize?" + urllib.parse.urlencode({"provider": "github"} | parameters)), 400, "validation_failed")


@scenario("wire: signing keys come and go")
def _():
    old = sign_up()["access_token"]
    standby = ask("POST", "/keys", {"standby": "RS256"})["kid"]
    published = {key["kid"]: key for key in good(auth("GET", "/.well-known/jwks.json"))["keys"]}
    equal((published[standby]["kty"], published[standby]["use"], published[standby]["key_ops"], published[standby]["alg"]), ("RSA", "sig", ["verify"], "RS256"))
    assert "d" not in published[standby], "the private half"
    ask("POST", "/keys", {"promote": standby})
    good(auth("GET", "/user", token=old))
    good(auth("GET", "/user", token=sign_up()["access_token"]))
    for key in ask("GET", "/keys")["keys"]:
        if key["state"] == "previous":
            ask("POST", "/keys", {"revoke": key["kid"]})
            bad(auth("GET", "/user", token=old), 403, "bad_jwt")
    equal([key["kid"] for key in good(auth("GET", "/.well-known/jwks.json"))["keys"]], [standby])
    ask("POST", "/reset", {"keys": True})


@scenario("wire: the key is asked for")
def _():
    if SETTINGS["bare"]:
        return  # nobody is there to ask
    for headers in ({}, {"apikey": "wrong"}, {"apikey": KEY[:-4] + "AAAA"}):
        answer = httpx.get(SETTINGS["url"] + "/auth/v1/settings", headers=headers, timeout=20)
        equal(answer.status_code, 401, str(headers))
        assert answer.json()["message"], answer.text
    for name in ("anon_key", "publishable_key"):
        equal(httpx.get(SETTINGS["url"] + "/auth/v1/settings", headers={"apikey": SETTINGS[name]}, timeout=20).status_code, 200)
    assert len(seen(service="auth", path="/settings")) >= 2


def in_both_forms(send, statuses: tuple, codes: tuple):
    """A refusal of the gateway's own, in GoTrue's form, as the version header asks for it."""
    for version in ({}, {"X-Supabase-Api-Version": "2024-01-01"}):
        answer = send(version)
        assert answer.status_code in statuses, f"expected {statuses}, got {answer.status_code}: {answer.text[:300]}"
        assert answer.headers["content-type"].startswith("application/json"), answer.headers["content-type"]
        got = answer.json()
        if version:
            assert got["code"] in codes and got["message"], got
            equal(answer.headers.get("x-supabase-api-version"), "2024-01-01")
        else:
            equal(got["code"], answer.status_code)
            assert got["error_code"] in codes and got["msg"], got
        if answer.status_code == 503:
            assert int(answer.headers["retry-after"]) > 0, answer.headers
    return answer


@scenario("wire: refusals of the gateway have GoTrue's form", only="gateway")
def _():
    service = {"apikey": SETTINGS["service_role_key"]} | bearer(SETTINGS["service_role_key"])
    in_both_forms(lambda version: auth("GET", "/admin/users", headers=service | version), (403,), ("not_admin",))
    in_both_forms(lambda version: auth("POST", "/invite", {"email": email()}, headers=service | version), (403,), ("not_admin",))
    body = b'{"email":"' + b"x" * 1_100_000 + b'"}'
    in_both_forms(lambda version: raw("POST", "/auth/v1/signup", {"content-type": "application/json"} | version, content=body), (413,), ("request_entity_too_large",))
    equal(len(seen(service="auth")), 0, "what arrived")


@scenario("wire: Supabase is gone, or slow", only="gateway")
def _():
    session = sign_up()
    fault({"drop": "before"})
    for method, path, body in [("GET", "/user", None), ("POST", "/token?grant_type=password", {"email": email(), "password": PASSWORD}),
                               ("POST", "/token?grant_type=refresh_token", {"refresh_token": session["refresh_token"]})]:
        in_both_forms(lambda version: auth(method, path, body, session["access_token"], version), (502, 503), ("unexpected_failure",))
    before = len(seen(service="auth", path="/token"))
    auth("POST", "/token?grant_type=refresh_token", {"refresh_token": session["refresh_token"]})
    equal(len(seen(service="auth", path="/token")), before + 1, "a refresh is sent once")
    fault({"clear": True}, {"delay_ms": 3500})
    in_both_forms(lambda version: auth("GET", "/user", None, session["access_token"], version), (503, 504), ("request_timeout", "unexpected_failure"))
    fault({"clear": True})
    good(refresh(session["refresh_token"]))


@scenario("wire: limits of the gateway sign nobody out", only="gateway")
def _():
    host = {"Host": "limited.example"}
    wrong = {"email": email(), "password": "wrong"}
    for _ in range(3):  # a limit counts for each route
        good(auth("GET", "/settings", headers=host))
        bad(auth("POST", "/token?grant_type=password", wrong, headers=host), 400, "invalid_credentials")
    arrived = len(seen(service="auth", path="/token"))
    answer = in_both_forms(lambda version: auth("GET", "/settings", headers=host | version), (429,), ("over_request_rate_limit",))
    assert int(answer.headers["retry-after"]) > 0
    in_both_forms(lambda version: auth("POST", "/token?grant_type=password", wrong, headers=host | version), (429,), ("over_request_rate_limit",))
    in_both_forms(lambda version: auth("POST", "/token?grant_type=refresh_token", {"refresh_token": "abcdefghijkl"}, headers=host | version), (503,), ("over_request_rate_limit", "unexpected_failure"))
    equal(len(seen(service="auth", path="/token")), arrived, "what arrived")


@scenario("wire: what comes through unchanged", only="gateway")
def _():
    token = sign_up()["access_token"]
    answer = auth("POST", "/token?grant_type=password", {"email": email(), "password": "wrong"})
    equal(answer.headers["x-sb-error-code"], "invalid_credentials")
    assert "sb-auth-user-id" in good_headers(auth("GET", "/user", token=token))
    gone = auth("POST", "/logout?scope=local", token=token)
    equal((gone.status_code, gone.content, gone.headers.get("content-type")), (204, b"", None))
    sent = seen(service="auth", path="/user", last=1)[0]
    names = [name.lower() for name, _ in sent["headers"]]
    assert not [name for name in names if name.startswith(("x-auth-", "x-jwt-aud")) or name == "cookie"], names
    equal(len([name for name in names if name == "authorization"]), 1)
    equal(sent["client_ip"], "127.0.0.1")
    for header in ("X-Auth-User", "x_auth_user", "X-Auth-Roles", "X-Forwarded-For", "X-Real-IP", "Sb-Forwarded-For", "X-JWT-AUD", "x_jwt_aud"):
        auth("GET", "/settings", headers={header: "forged"})
        arrived = seen(service="auth", path="/settings", last=1)[0]["headers"]
        assert not [pair for pair in arrived if "forged" in pair[1]], f"{header}: {arrived}"


def good_headers(answer):
    good(answer)
    return answer.headers


main()
