"""Authlib over httpx, asynchronous: password, refresh, refresh ahead of expiry by several requests at once.
(Without a client secret, Authlib 1.9.10 cannot send a password with non-ASCII letters through httpx.)"""

import asyncio
import time

from authlib.integrations.base_client import OAuthError
from authlib.integrations.httpx_client import AsyncOAuth2Client
from steps import (
    LOGOUT, NOTES, REVOKE, TOKEN, WRITER, WRITER_PASSWORD, ended, equal, logged_out, raises, status, step,
    watched_async_httpx,
)


def client(**options) -> AsyncOAuth2Client:
    return AsyncOAuth2Client(token_endpoint=TOKEN, **watched_async_httpx(), **options)


async def main():
    oauth = client()
    with step("logs in without a client (`client_id=None`)"):
        token = await oauth.fetch_token(username=WRITER, password=WRITER_PASSWORD)
        equal(token["token_type"], "bearer")
        equal(set(token["scope"].split()), {"notes:read", "notes:write"})
    with step("logs in with a client's secret"):
        await client(client_id="notes-web", client_secret="nobody asked").fetch_token(
            username=WRITER, password=WRITER_PASSWORD)

    with step("calls what may and may not be done"):
        status(await oauth.get(NOTES), 200)
        status(await oauth.post(NOTES, json={"text": "written through httpx"}), 201)
        reader = client(scope="notes:read")
        await reader.fetch_token(username=WRITER, password=WRITER_PASSWORD)
        status(await reader.post(NOTES, json={"text": "no"}), 403)

    with step("raises OAuthError with the code and the text"):
        with raises(OAuthError) as caught:
            await client().fetch_token(username=WRITER, password="not the password")
        equal((caught[0].error, caught[0].description), ("invalid_grant", "Incorrect username or password"))

    with step("refreshes, and the refresh token is another"):
        before = oauth.token["refresh_token"]
        await oauth.refresh_token()
        assert oauth.token["refresh_token"] != before, "the same refresh token"

    with step("five requests at once, all about to expire: refreshed once, all answered"):
        updated = []

        async def update(new, **_):
            updated.append(new)

        auto = client(token=dict(oauth.token) | {"expires_at": int(time.time()) + 5}, update_token=update)
        for answer in await asyncio.gather(*(auto.get(NOTES) for _ in range(5))):
            status(answer, 200)
        equal(len(updated), 1)

    with step("a narrower refresh narrows the access token and not the session"):
        narrow = await auto.refresh_token(scope="notes:read")
        equal(narrow["scope"], "notes:read")
        status(await auto.post(NOTES, json={"text": "no"}), 403)
        full = await auto.refresh_token()
        equal(set(full["scope"].split()), {"notes:read", "notes:write"})
        with raises(OAuthError) as caught:
            await auto.refresh_token(scope="payroll")
        equal(caught[0].error, "invalid_scope")

    with step("logs out: the access token and the refresh token are of no use any more"):
        logged_out(await auto.post(LOGOUT))
        ended(await auto.get(NOTES))
        with raises(OAuthError) as caught:
            await auto.refresh_token()
        equal(caught[0].error, "invalid_grant")

    with step("revokes"):
        await reader.revoke_token(REVOKE, token=reader.token["refresh_token"], token_type_hint="refresh_token")
        ended(await reader.get(NOTES))
        with raises(OAuthError) as caught:
            await reader.refresh_token()
        equal(caught[0].error, "invalid_grant")


asyncio.run(main())
