"""requests-oauthlib: LegacyApplicationClient, which sends Basic with an empty password, and warns about scopes."""

import os
import time

import requests
from oauthlib.oauth2 import BackendApplicationClient, LegacyApplicationClient, OAuth2Error
from oauthlib.oauth2.rfc6749.errors import InvalidGrantError, InvalidScopeError, UnsupportedGrantTypeError
from requests_oauthlib import OAuth2Session
from steps import (
    LOGOUT, ME, NOTES, READER, READER_PASSWORD, REVOKE, TOKEN, WRITER, WRITER_PASSWORD, ended, equal, logged_out,
    raises, status, step, watch_requests,
)

CLIENT_ID = "notes-cli"


def session(**options) -> OAuth2Session:
    return watch_requests(OAuth2Session(client=LegacyApplicationClient(client_id=CLIENT_ID), **options))


def log_in(oauth: OAuth2Session, **options) -> dict:
    return oauth.fetch_token(TOKEN, username=READER, password=READER_PASSWORD, **options)


oauth = session()
with step("logs in, with `Authorization: Basic` and an empty secret"):
    token = log_in(oauth)
    equal(token["token_type"], "bearer")
    equal(token.scope, "notes:read")
    assert token["expires_in"] > 0 and token["expires_at"] > time.time(), "no expiry"
with step("logs in, with client_id in the form"):
    log_in(session(), include_client_id=True)
with step("logs in, with client_id and an empty client_secret in the form"):
    log_in(session(), include_client_id=True, client_secret="")

with step("calls what the reader may and may not do"):
    status(oauth.get(NOTES), 200)
    status(oauth.post(NOTES, json={"text": "no"}), 403)
    equal(oauth.get(ME).json()["scopes"], ["notes:read"])

with step("warns when fewer scopes come back than were asked for"):
    narrowed = watch_requests(OAuth2Session(client=LegacyApplicationClient(CLIENT_ID, scope=["notes:read", "notes:write"])))
    with raises(Warning) as caught:
        log_in(narrowed)
    equal(caught[0].new_scope, ["notes:read"])
with step("takes the narrower scope when told to relax"):
    os.environ["OAUTHLIB_RELAX_TOKEN_SCOPE"] = "1"
    equal(log_in(narrowed)["scope"], ["notes:read"])
    del os.environ["OAUTHLIB_RELAX_TOKEN_SCOPE"]
with step("does not warn when the scopes that come back are those asked for"):
    exact = watch_requests(OAuth2Session(client=LegacyApplicationClient(CLIENT_ID, scope=["notes:write", "notes:read"])))
    token = exact.fetch_token(TOKEN, username=WRITER, password=WRITER_PASSWORD)
    equal(set(token["scope"]), {"notes:read", "notes:write"})

with step("raises the class of each error"):
    with raises(InvalidGrantError) as caught:
        session().fetch_token(TOKEN, username=READER, password="not the password")
    equal(caught[0].description, "Incorrect username or password")
    with raises(InvalidScopeError):
        watch_requests(OAuth2Session(client=LegacyApplicationClient(CLIENT_ID, scope=["payroll"]))).fetch_token(
            TOKEN, username=READER, password=READER_PASSWORD)
    with raises(UnsupportedGrantTypeError):
        watch_requests(OAuth2Session(client=BackendApplicationClient(CLIENT_ID))).fetch_token(TOKEN)
    with raises(OAuth2Error) as caught:
        session().fetch_token(TOKEN, username=READER, password=READER_PASSWORD, force_querystring=True)
    equal(caught[0].error, "invalid_request")

with step("refreshes, and the refresh token is another"):
    before = oauth.token["refresh_token"]
    old_access = oauth.token["access_token"]
    oauth.refresh_token(TOKEN)
    assert oauth.token["refresh_token"] != before and oauth.token["access_token"] != old_access, "nothing new"
    status(oauth.get(NOTES), 200)

with step("refreshes by itself when the token has expired"):
    saved = []
    auto = watch_requests(OAuth2Session(
        CLIENT_ID, token=dict(oauth.token) | {"expires_at": time.time() - 5, "expires_in": -5},
        auto_refresh_url=TOKEN, token_updater=saved.append))
    status(auto.get(NOTES), 200)
    equal(len(saved), 1)
    assert saved[0]["access_token"] != oauth.token["access_token"], "not refreshed"

with step("logs out: the access token and the refresh token are of no use any more"):
    oauth = watch_requests(OAuth2Session(CLIENT_ID, token=saved[0]))
    logged_out(oauth.post(LOGOUT))
    ended(oauth.get(NOTES))
    with raises(InvalidGrantError):
        oauth.refresh_token(TOKEN)

with step("revokes a refresh token (RFC 7009) with oauthlib's own request; the session's access token goes with it"):
    oauth = session()
    token = dict(log_in(oauth))
    url, headers, body = oauth._client.prepare_token_revocation_request(
        REVOKE.replace("http:", "https:"), token["refresh_token"], "refresh_token")
    status(requests.post(url.replace("https:", "http:"), headers=headers, data=body, timeout=10), 200)
    with raises(InvalidGrantError):
        oauth.refresh_token(TOKEN, refresh_token=token["refresh_token"])
    oauth.token = token
    ended(oauth.get(NOTES))
