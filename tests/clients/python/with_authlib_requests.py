"""Authlib over requests: without a client id it sends `client_id=None`, with a secret it sends Basic."""

import time

from authlib.integrations.base_client import OAuthError
from authlib.integrations.requests_client import OAuth2Session
from steps import (
    AUDITOR, AUDITOR_PASSWORD, INTROSPECT, LOGOUT, NOTES, READER, READER_PASSWORD, REVOKE, TOKEN, ended, equal,
    logged_out, raises, status, step, watch_requests,
)


def session(**options) -> OAuth2Session:
    return watch_requests(OAuth2Session(token_endpoint=TOKEN, **options))


def log_in(oauth: OAuth2Session) -> dict:
    return oauth.fetch_token(username=READER, password=READER_PASSWORD)


oauth = session()
with step("logs in without a client (`client_id=None`)"):
    token = log_in(oauth)
    equal(token["token_type"], "bearer")
    equal(token["scope"], "notes:read")
with step("logs in with a public client, and with an unknown client's secret (Basic, then in the form)"):
    log_in(session(client_id="notes-web"))
    log_in(session(client_id="notes-web", client_secret="nobody asked"))
    log_in(session(client_id="notes-web", client_secret="nobody asked", token_endpoint_auth_method="client_secret_post"))
with step("takes a narrower scope"):
    equal(log_in(session(client_id="notes-web", scope="notes:read notes:write"))["scope"], "notes:read")

with step("calls what the reader may and may not do"):
    status(oauth.get(NOTES), 200)
    status(oauth.post(NOTES, json={"text": "no"}), 403)

with step("raises OAuthError with the code and the text"):
    with raises(OAuthError) as caught:
        session().fetch_token(username=READER, password="not the password")
    equal((caught[0].error, caught[0].description), ("invalid_grant", "Incorrect username or password"))
    with raises(OAuthError) as caught:
        session(scope="payroll").fetch_token(username=READER, password=READER_PASSWORD)
    equal(caught[0].error, "invalid_scope")
    with raises(OAuthError) as caught:
        session().fetch_token(grant_type="client_credentials")
    equal(caught[0].error, "unsupported_grant_type")

with step("refreshes, and the refresh token is another"):
    before = dict(oauth.token)
    oauth.refresh_token()
    assert oauth.token["refresh_token"] != before["refresh_token"], "the same refresh token"
    status(oauth.get(NOTES), 200)

with step("refreshes by itself when the token is about to expire"):
    updated = []
    auto = session(
        client_id="notes-web", token=dict(oauth.token) | {"expires_at": int(time.time()) + 5},
        update_token=lambda new, **_: updated.append(new))
    status(auto.get(NOTES), 200)
    equal(len(updated), 1)

with step("introspection is refused to a reader, and answers an auditor"):
    equal(oauth.introspect_token(INTROSPECT, token=updated[0]["access_token"]).status_code in (401, 403), True)
    reader = watch_requests(OAuth2Session(token=updated[0]))
    status(reader.post(INTROSPECT, data={"token": updated[0]["access_token"]}), 403)
    auditor = session()
    auditor.fetch_token(username=AUDITOR, password=AUDITOR_PASSWORD)
    answer = auditor.post(INTROSPECT, data={"token": updated[0]["access_token"]})
    status(answer, 200)
    equal((answer.json()["active"], answer.json()["scope"]), (True, "notes:read"))
    equal(auditor.post(INTROSPECT, data={"token": "nonsense"}).json(), {"active": False})

with step("logs out: the access token and the refresh token are of no use any more"):
    logged_out(auto.post(LOGOUT))
    ended(auto.get(NOTES))
    with raises(OAuthError) as caught:
        auto.refresh_token()
    equal(caught[0].error, "invalid_grant")
    equal(auditor.post(INTROSPECT, data={"token": updated[0]["access_token"]}).json(), {"active": False})

with step("revokes an access token alone, then the refresh token with its session"):
    oauth = session()
    token = dict(log_in(oauth))
    status(oauth.revoke_token(REVOKE, token=token["access_token"], token_type_hint="access_token"), 200)
    ended(oauth.get(NOTES))
    oauth.refresh_token()
    status(oauth.get(NOTES), 200)
    status(oauth.revoke_token(REVOKE, token=oauth.token["refresh_token"]), 200)
    ended(oauth.get(NOTES))
    with raises(OAuthError) as caught:
        oauth.refresh_token()
    equal(caught[0].error, "invalid_grant")
    status(oauth.revoke_token(REVOKE, token="nonsense"), 200)
