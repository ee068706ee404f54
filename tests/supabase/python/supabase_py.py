"""supabase-py, as anybody uses it, against whatever answers at the URL."""

import concurrent.futures
import time

from rig import (
    APP, GATEWAY, KEY, PASSWORD, SETTINGS, URL, ask, bearer, browse, claims, count, email, equal, fault, mail, main, query, raises,
    raw, scenario, seen, settings, totp,
)
from postgrest.exceptions import APIError
from storage3.exceptions import StorageApiError
from supabase import Client, ClientOptions, create_client
from supabase_auth import SyncMemoryStorage
from supabase_auth.errors import AuthApiError, AuthRetryableError, AuthWeakPasswordError
from supabase_functions.errors import FunctionsHttpError

CALLBACK = f"{APP}/auth/callback"


def client(key: str = KEY, storage: SyncMemoryStorage | None = None, auto: bool = False) -> Client:
    return create_client(URL, key, ClientOptions(auto_refresh_token=auto, storage=storage or SyncMemoryStorage()))


def signed_up(name: str = "user", storage: SyncMemoryStorage | None = None):
    supabase, address = client(storage=storage), email(name)
    answer = supabase.auth.sign_up({"email": address, "password": PASSWORD})
    return supabase, answer.user, answer.session


def signed_in(address: str, password: str = PASSWORD) -> Client:
    supabase = client()
    supabase.auth.sign_in_with_password({"email": address, "password": password})
    return supabase


@scenario("sign-up")
def _():
    supabase, user, session = signed_up()
    equal(claims(session.access_token)["sub"], user.id)
    equal(supabase.auth.get_user().user.id, user.id)
    equal(supabase.auth.get_claims()["claims"]["sub"], user.id)
    with raises(AuthApiError, status=422, code="user_already_exists"):
        client().auth.sign_up({"email": user.email, "password": PASSWORD})
    with raises(AuthWeakPasswordError, status=422):
        client().auth.sign_up({"email": email(), "password": "short"})


@scenario("sign-up with confirmation")
def _():
    settings(mailer_autoconfirm=False)
    supabase, address = client(), email()
    answer = supabase.auth.sign_up({"email": address, "password": PASSWORD, "options": {"email_redirect_to": CALLBACK}})
    equal(answer.session, None)
    with raises(AuthApiError, status=400, code="email_not_confirmed"):
        supabase.auth.sign_in_with_password({"email": address, "password": PASSWORD})
    with raises(AuthApiError, status=429, code="over_email_send_rate_limit"):
        supabase.auth.resend({"type": "signup", "email": address})
    answer = supabase.auth.verify_otp({"type": "signup", "token_hash": mail(address)["token_hash"]})
    equal(answer.user.email, address)


@scenario("sign-in and wrong password")
def _():
    _, user, _ = signed_up()
    supabase = signed_in(user.email)
    equal(supabase.auth.get_session().token_type, "bearer")
    for address in (user.email, email("nobody")):
        with raises(AuthApiError, status=400, code="invalid_credentials", message="Invalid login credentials"):
            client().auth.sign_in_with_password({"email": address, "password": "wrong horse"})


@scenario("captcha")
def _():
    settings(security_captcha_enabled=True)
    address = email()
    with raises(AuthApiError, status=400, code="captcha_failed"):
        client().auth.sign_up({"email": address, "password": PASSWORD})
    client().auth.sign_up({"email": address, "password": PASSWORD, "options": {"captcha_token": "good-captcha", "data": {"name": "Zoë 名"}}})
    equal(seen(path="/signup", last=1)[0]["body"]["data"]["name"], "Zoë 名")


@scenario("refresh, with a stale bearer")
def _():
    settings(jwt_exp=1)
    supabase, user, session = signed_up()
    time.sleep(2.1)
    settings(jwt_exp=3600)
    fresh = supabase.auth.refresh_session().session
    assert fresh.refresh_token != session.refresh_token
    sent = [value for name, value in seen(path="/token")[0]["headers"] if name.lower() == "authorization"]
    equal(sent, [f"Bearer {session.access_token}"], "supabase-py sends the expired token to /token, and it arrives")
    equal(supabase.auth.get_user().user.id, user.id)
    supabase.auth.refresh_session()
    with raises(AuthApiError, status=400, code="refresh_token_not_found"):
        client().auth.refresh_session("abcdefghijkl")


@scenario("refresh: reuse ends the session")
def _():
    settings(security_refresh_token_reuse_interval=0)
    supabase, _, session = signed_up()
    supabase.auth.refresh_session()
    supabase.auth.refresh_session()
    with raises(AuthApiError, status=400, code="refresh_token_already_used"):
        client().auth.refresh_session(session.refresh_token)
    with raises(AuthApiError, status=400, code="refresh_token_already_used"):
        supabase.auth.refresh_session()


@scenario("20 parallel refreshes")
def _():
    supabase, user, session = signed_up()
    before = count("POST auth/token?grant_type=refresh_token")
    clients = [client() for _ in range(20)]
    with concurrent.futures.ThreadPoolExecutor(20) as pool:
        answers = list(pool.map(lambda c: c.auth.refresh_session(session.refresh_token).session.refresh_token, clients))
    equal(len(set(answers)), 1, "all end with one token")
    equal(count("POST auth/token?grant_type=refresh_token"), before + 20, "nothing was tried twice")
    equal(clients[7].auth.get_user().user.id, user.id)
    clients[7].auth.refresh_session()


@scenario("user update")
def _():
    supabase, user, _ = signed_up()
    elsewhere = signed_in(user.email)
    equal(supabase.auth.update_user({"data": {"plan": "free"}}).user.user_metadata["plan"], "free")
    with raises(AuthApiError, status=422, code="same_password"):
        supabase.auth.update_user({"password": PASSWORD})
    supabase.auth.update_user({"password": "Another horse 8"})
    with raises(AuthApiError, status=400, code="refresh_token_not_found"):
        elsewhere.auth.refresh_session()
    signed_in(user.email, "Another horse 8")


for scope in ("local", "global", "others"):
    @scenario(f"logout: {scope}")
    def _(scope=scope):
        supabase, user, session = signed_up()
        other = signed_in(user.email)
        supabase.auth.sign_out({"scope": scope})
        if scope == "others":
            equal(supabase.auth.get_user().user.id, user.id)
        else:
            equal(supabase.auth.get_session(), None)
            answer = raw("GET", "/auth/v1/user", bearer(session.access_token))
            equal((answer.status_code, answer.json()["error_code"]), (403, "session_not_found"))
        if scope == "local":
            equal(other.auth.get_user().user.id, user.id)
        else:
            with raises(AuthApiError, status=400, code="refresh_token_not_found"):
                other.auth.refresh_session()


def pkce(supabase: Client, **params):
    answer = supabase.auth.sign_in_with_oauth({"provider": "github", "options": {"redirect_to": CALLBACK, "query_params": params}})
    return query(browse(answer.url))


@scenario("PKCE with a provider")
def _():
    supabase = client()
    back = pkce(supabase, login_hint="grace@example.org")
    answer = supabase.auth.exchange_code_for_session({"auth_code": back["code"]})
    equal(answer.user.email, "grace@example.org")
    assert answer.session.provider_token
    other = client()
    pkce(other)
    with raises(AuthApiError, status=404, code="flow_state_not_found"):
        other.auth.exchange_code_for_session({"auth_code": back["code"]})
    code = pkce(supabase)["code"]
    pkce(other)
    with raises(AuthApiError, status=400, code="bad_code_verifier"):
        other.auth.exchange_code_for_session({"auth_code": code})


@scenario("error redirects")
def _():
    settings(provider_error={"error": "access_denied", "error_description": "The user said no"})
    back = pkce(client())
    equal(back["error"], "access_denied")
    equal(back["error_description"], "The user said no")


@scenario("OTP by mail: code and link")
def _():
    supabase, address = client(), email("otp")
    supabase.auth.sign_in_with_otp({"email": address})
    with raises(AuthApiError, status=429, code="over_email_send_rate_limit"):
        supabase.auth.sign_in_with_otp({"email": address})
    with raises(AuthApiError, status=403, code="otp_expired"):
        supabase.auth.verify_otp({"email": address, "token": "000000", "type": "email"})
    equal(supabase.auth.verify_otp({"email": address, "token": mail(address)["otp"], "type": "email"}).user.email, address)
    address = email("link")
    supabase.auth.sign_in_with_otp({"email": address, "options": {"email_redirect_to": CALLBACK}})
    code = query(browse(mail(address)["link"]))["code"]
    equal(supabase.auth.exchange_code_for_session({"auth_code": code}).user.email, address)
    with raises(AuthApiError, status=422, code="otp_disabled"):
        client().auth.sign_in_with_otp({"email": email("nobody"), "options": {"should_create_user": False}})


@scenario("OTP by SMS")
def _():
    supabase = client()
    supabase.auth.sign_in_with_otp({"phone": "+436601234567"})
    answer = supabase.auth.verify_otp({"phone": "+436601234567", "token": mail("436601234567")["otp"], "type": "sms"})
    equal(answer.user.phone, "436601234567")


@scenario("password recovery")
def _():
    _, user, _ = signed_up()
    supabase = client()
    supabase.auth.reset_password_for_email(user.email, {"redirect_to": CALLBACK})
    supabase.auth.exchange_code_for_session({"auth_code": query(browse(mail(user.email)["link"]))["code"]})
    supabase.auth.update_user({"password": "Remembered horse 9"})
    signed_in(user.email, "Remembered horse 9")


@scenario("anonymous sign-in")
def _():
    supabase = client()
    equal(supabase.auth.sign_in_anonymously().user.is_anonymous, True)
    address = email("named")
    equal(supabase.auth.update_user({"email": address}).user.email, address)


@scenario("MFA: enrol, challenge, verify")
def _():
    supabase, user, _ = signed_up()
    factor = supabase.auth.mfa.enroll({"factor_type": "totp", "friendly_name": "phone"})
    challenge = supabase.auth.mfa.challenge({"factor_id": factor.id})
    with raises(AuthApiError, status=422, code="mfa_verification_failed"):
        supabase.auth.mfa.verify({"factor_id": factor.id, "challenge_id": challenge.id, "code": "000000"})
    supabase.auth.mfa.verify({"factor_id": factor.id, "challenge_id": challenge.id, "code": totp(factor.totp.secret)})
    equal(supabase.auth.mfa.get_authenticator_assurance_level().current_level, "aal2")
    after = signed_in(user.email)
    level = after.auth.mfa.get_authenticator_assurance_level()
    equal((level.current_level, level.next_level), ("aal1", "aal2"))
    with raises(AuthApiError, status=401, code="insufficient_aal"):
        after.auth.update_user({"password": "Third horse 3"})
    if GATEWAY:
        answer = raw("GET", "/account/secrets", bearer(after.auth.get_session().access_token))
        equal((answer.status_code, answer.json()["code"]), (401, "insufficient_user_authentication"))
    after.auth.mfa.challenge_and_verify({"factor_id": factor.id, "code": totp(factor.totp.secret)})
    equal(claims(after.auth.get_session().access_token)["aal"], "aal2")
    if GATEWAY:
        equal(raw("GET", "/account/secrets", bearer(after.auth.get_session().access_token)).status_code, 200)
    after.auth.mfa.unenroll({"factor_id": factor.id})


@scenario("rest: rows of one user only")
def _():
    ada, ada_user, _ = signed_up("ada")
    bob, _, _ = signed_up("bob")
    row = ada.table("notes").insert({"text": "of Ada"}).execute().data[0]
    equal(row["user_id"], ada_user.id)
    bob.table("notes").insert([{"text": "of Bob"}, {"text": "of Bob, too"}]).execute()
    equal([r["text"] for r in ada.table("notes").select("*").execute().data], ["of Ada"])
    equal(bob.table("notes").select("*", count="exact").execute().count, 2)
    equal(client().table("notes").select("*").execute().data, [])
    with raises(APIError, code="42501"):
        client().table("notes").insert({"text": "of nobody"}).execute()
    with raises(APIError, code="42501"):
        bob.table("notes").insert({"text": "forged", "user_id": ada_user.id}).execute()
    equal(ada.table("notes").select("*").eq("id", row["id"]).single().execute().data["text"], "of Ada")
    ada.table("notes").update({"text": "changed"}).eq("id", row["id"]).execute()
    ada.table("notes").delete().eq("id", row["id"]).execute()
    equal(ada.rpc("whoami", {"a": 1}).execute().data["sub"], ada_user.id)
    for key in (SETTINGS["anon_key"], SETTINGS["publishable_key"]):
        equal(client(key).table("notes").select("*").execute().data, [], "the key as bearer is nobody")


@scenario("storage")
def _():
    ada, _, _ = signed_up("ada")
    bucket, big = ada.storage.from_("files"), b"Portcullis " * 1_000_000
    bucket.upload("reports/big.bin", big, {"content-type": "application/octet-stream"})
    bucket.upload("reports/note.txt", "hello Zoë".encode(), {"content-type": "text/plain"})
    assert bucket.download("reports/big.bin") == big
    equal(sorted(file["name"] for file in bucket.list("reports")), ["big.bin", "note.txt"])
    with raises(StorageApiError, message="The resource already exists"):
        bucket.upload("reports/big.bin", b"again")
    signed = bucket.create_signed_url("reports/note.txt", 60)["signedURL"]
    equal(raw("GET", signed.removeprefix(URL)).text, "hello Zoë")
    bob, _, _ = signed_up("bob")
    for other in (bob, client()):
        with raises(StorageApiError):
            other.storage.from_("files").download("reports/big.bin")
    bucket.remove(["reports/big.bin"])


@scenario("functions")
def _():
    supabase, user, _ = signed_up()
    said = supabase.functions.invoke("hello", {"body": {"name": "Ada"}, "headers": {"x-own": "yes"}, "responseType": "json"})
    equal((said["sub"], said["sent"], said["headers"]["x-own"]), (user.id, {"name": "Ada"}, "yes"))
    with raises(FunctionsHttpError):
        supabase.functions.invoke("fails", {"body": {}})


@scenario("session_not_found")
def _():
    supabase, _, session = signed_up()
    ask("POST", f"/sessions/{claims(session.access_token)['session_id']}/end")
    with raises(AuthApiError, status=403, code="session_not_found"):
        supabase.auth.get_user()


REFRESH = {"service": "auth", "path": "/token", "grant_type": "refresh_token"}


def expired() -> SyncMemoryStorage:
    """The storage of a client whose access token has expired. (A client made of it tries a refresh at once, and swallows
    what goes wrong.)"""
    settings(jwt_exp=1)
    storage = SyncMemoryStorage()
    signed_up(storage=storage)
    time.sleep(2.1)
    settings(jwt_exp=3600)
    return storage


def kept(storage: SyncMemoryStorage) -> bool:
    return any(not name.endswith("-code-verifier") for name in storage.storage)


for broken in (502, 503, 504):
    @scenario(f"a {broken} on refresh keeps the session")
    def _(broken=broken):
        storage = expired()
        fault(REFRESH | {"status": broken, "times": 2})
        supabase = client(storage=storage, auto=True)
        with raises(AuthRetryableError):
            supabase.auth.get_session()
        supabase.auth.initialize_from_storage()
        assert kept(storage), "kept"
        assert supabase.auth.get_session().access_token, "and good for the next try"


@scenario("a lost answer on refresh keeps the session")
def _():
    storage = expired()
    fault(REFRESH | {"drop": "after", "times": 2})
    supabase = client(storage=storage)
    with raises(AuthRetryableError):
        supabase.auth.get_session()
    assert supabase.auth.get_session().access_token


for broken in (429, 409):
    @scenario(f"a {broken} on refresh")
    def _(broken=broken):
        storage = expired()
        fault(REFRESH | {"status": broken, "code": "conflict" if broken == 409 else "over_request_rate_limit", "times": 2})
        supabase = client(storage=storage, auto=True)
        supabase.auth.initialize_from_storage()
        equal(kept(storage), GATEWAY, "the client ends its session for this; through the gateway it is kept")
        if GATEWAY:
            assert supabase.auth.get_session().access_token


@scenario("a logout kills the access token at once")
def _():
    supabase, _, session = signed_up()
    supabase.auth.sign_out({"scope": "local"})
    answer = raw("GET", "/rest/v1/notes?select=*", bearer(session.access_token))
    equal(answer.status_code, 401 if GATEWAY else 200, "Supabase alone accepts it until it expires")


main()
