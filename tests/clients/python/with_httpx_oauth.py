"""httpx-oauth: knows no password grant, so the login is a form of plain httpx; it refreshes and revokes."""

import asyncio

import httpx
from httpx_oauth.oauth2 import OAuth2, RefreshTokenError
from steps import (
    LOGOUT, NOTES, READER, READER_PASSWORD, REVOKE, TOKEN, ended, equal, logged_out, raises, status, step,
    watched_async_httpx,
)


class Client(OAuth2):
    def get_httpx_client(self):
        return httpx.AsyncClient(**watched_async_httpx())


def client(method: str) -> Client:
    return Client(
        "notes-web", "nobody asked", TOKEN, TOKEN, refresh_token_endpoint=TOKEN, revoke_token_endpoint=REVOKE,
        token_endpoint_auth_method=method, revocation_endpoint_auth_method=method,
    )


async def main():
    async with httpx.AsyncClient(**watched_async_httpx()) as http:

        async def log_in() -> dict:
            answer = await http.post(TOKEN, data={"username": READER, "password": READER_PASSWORD})
            status(answer, 200)
            return answer.json()

        async def notes(token: dict) -> httpx.Response:
            return await http.get(NOTES, headers={"Authorization": f"Bearer {token['access_token']}"})

        for method in ("client_secret_post", "client_secret_basic"):
            oauth = client(method)
            with step(f"logs in without grant_type, as FastAPI's form allows, and refreshes ({method})"):
                first = await log_in()
                second = await oauth.refresh_token(first["refresh_token"])
                equal(second["token_type"], "bearer")
                assert second["refresh_token"] != first["refresh_token"] and not second.is_expired(), "not refreshed"
                status(await notes(second), 200)
            with step(f"a refresh token that was never given out is refused ({method})"):
                with raises(RefreshTokenError) as caught:
                    await oauth.refresh_token("prt_" + "A" * 43)
                equal(caught[0].response.status_code, 400)
                equal(caught[0].response.json()["error"], "invalid_grant")
            with step(f"revokes, and neither token is of use any more ({method})"):
                await oauth.revoke_token(second["refresh_token"], "refresh_token")
                with raises(RefreshTokenError) as caught:
                    await oauth.refresh_token(second["refresh_token"])
                equal(caught[0].response.json()["error"], "invalid_grant")
                ended(await notes(second))

        with step("logs out"):
            token = await log_in()
            headers = {"Authorization": f"Bearer {token['access_token']}"}
            logged_out(await http.post(LOGOUT, headers=headers))
            ended(await notes(token))
            with raises(RefreshTokenError):
                await oauth.refresh_token(token["refresh_token"])


asyncio.run(main())
