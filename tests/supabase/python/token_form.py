"""`POST /token` with `login: { via: supabase }`: OAuth clients that know nothing of Supabase sign in at it, by a form."""

import os

os.environ |= {"OAUTHLIB_INSECURE_TRANSPORT": "1", "AUTHLIB_INSECURE_TRANSPORT": "1"}

import concurrent.futures
import time

import httpx
from authlib.integrations.httpx_client import OAuth2Client
from oauthlib.oauth2 import InvalidGrantError, LegacyApplicationClient
from requests_oauthlib import OAuth2Session

from rig import PASSWORD, URL, ask, claims, count, email, equal, fault, main, raises, scenario, seen, settings

TOKEN = URL + "/token"
COUNTER = "POST auth/token?grant_type={}"


def user(**more) -> str:
    address = email("form")
    ask("POST", "/users", {"email": address, "password": PASSWORD} | more)
    return address


def post(**form) -> httpx.Response:
    return httpx.post(TOKEN, data=form, timeout=20)


def refused(answer: httpx.Response, status: int, error: str):
    equal((answer.status_code, answer.json().get("error")), (status, error), f"{answer.text[:600]} {answer.headers}")
    assert answer.json()["error_description"] and answer.json()["detail"], answer.text
    assert "www-authenticate" not in answer.headers
    equal(answer.headers["cache-control"], "no-store")
    return answer


@scenario("form: requests-oauthlib: password, use, refresh", only="gateway")
def _():
    address = user(app_metadata={"roles": ["editor"]})
    with OAuth2Session(client=LegacyApplicationClient("app")) as session:
        token = session.fetch_token(TOKEN, username=address, password=PASSWORD)
        equal(claims(token["access_token"])["email"], address)
        equal(session.get(URL + "/account").json()["sub"], claims(token["access_token"])["sub"])
        fresh = session.refresh_token(TOKEN, refresh_token=token["refresh_token"])
        assert fresh["refresh_token"] != token["refresh_token"]
        with raises(InvalidGrantError):
            session.fetch_token(TOKEN, username=address, password="wrong")
        with raises(InvalidGrantError):
            session.refresh_token(TOKEN, refresh_token="abcdefghijkl")


@scenario("form: Authlib: password, parallel auto-refresh", only="gateway")
def _():
    settings(jwt_exp=1)
    with OAuth2Client(token_endpoint=TOKEN, leeway=0) as client:
        client.fetch_token(TOKEN, username=user(), password=PASSWORD)
        time.sleep(2.1)
        settings(jwt_exp=3600)
        before = count(COUNTER.format("refresh_token"))
        with concurrent.futures.ThreadPoolExecutor(10) as pool:
            answers = list(pool.map(lambda _: client.get(URL + "/account").status_code, range(10)))
        equal(answers, [200] * 10)
        assert 1 <= count(COUNTER.format("refresh_token")) - before <= 10


@scenario("form: the answer, member by member", only="gateway")
def _():
    address = user()
    answer = post(username=address, password=PASSWORD)
    equal(answer.status_code, 200, answer.text)
    got = answer.json()
    equal({name: type(value) for name, value in got.items()}, {"access_token": str, "token_type": str, "expires_in": int, "scope": str, "refresh_token": str})
    equal((got["token_type"], got["expires_in"]), ("bearer", 3600))
    equal((answer.headers["cache-control"], answer.headers["content-type"]), ("no-store", "application/json"))
    sent = seen(service="auth", path="/token", last=1)[0]
    equal((sent["body"], sent["client_ip"]), ({"email": address, "password": PASSWORD}, "127.0.0.1"))
    phone = ask("POST", "/users", {"phone": "436601234567", "password": PASSWORD})["phone"]
    equal(claims(post(username="+" + phone, password=PASSWORD).json()["access_token"])["phone"], phone)


@scenario("form: what Supabase refuses", only="gateway")
def _():
    address = user()
    wrong, unknown = post(username=address, password="wrong"), post(username=email("nobody"), password="wrong")
    refused(wrong, 400, "invalid_grant")
    equal(unknown.content, wrong.content, "an unknown user")
    settings(mailer_autoconfirm=False)
    refused(post(username=user(confirmed=False), password=PASSWORD), 400, "invalid_grant")
    settings(mailer_autoconfirm=True, security_captcha_enabled=True)
    refused(post(username=address, password=PASSWORD), 400, "invalid_request")
    settings(security_captcha_enabled=False)
    token = post(username=address, password=PASSWORD).json()["refresh_token"]
    ask("POST", f"/users/{ask('GET', '/users')[0]['id']}", {"banned_until": "2999-01-01T00:00:00Z"})
    refused(post(username=address, password=PASSWORD), 400, "invalid_grant")
    refused(post(grant_type="refresh_token", refresh_token=token), 400, "invalid_grant")
    refused(post(grant_type="client_credentials"), 400, "unsupported_grant_type")
    refused(post(grant_type="refresh_token"), 400, "invalid_request")


@scenario("form: what passes is no refusal", only="gateway")
def _():
    address = user()
    token = post(username=address, password=PASSWORD).json()["refresh_token"]
    for one in ({"status": 429, "code": "over_request_rate_limit"}, {"status": 409, "code": "conflict"}, {"status": 500}, {"status": 503}, {"drop": "before"},
                {"status": 200, "body": "{}"}, {"filler": 3_000_000}):
        fault({"clear": True}, {"path": "/token"} | one)
        answer = post(grant_type="refresh_token", refresh_token=token)
        equal((answer.status_code, answer.json()["error"]), (503, "temporarily_unavailable"), f"{one}: {answer.text}")
        assert int(answer.headers["retry-after"]) > 0
        answer = post(username=address, password=PASSWORD)
        assert answer.status_code in ((429, 503) if one.get("status") in (429, 409) else (503,)), f"{one}: {answer.status_code}"
        equal(answer.json()["error"], "temporarily_unavailable")
    fault({"clear": True})
    equal(post(grant_type="refresh_token", refresh_token=token).status_code, 200, "the session is alive")


main()
