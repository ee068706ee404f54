"""PyJWT, as an app would that checks tokens itself: keys from the gateway's JWKS."""

import httpx
import jwt
from steps import GATEWAY, READER, READER_PASSWORD, SETTINGS, TOKEN, equal, raises, status, step, watched_httpx

with step("verifies an access token with the published key"):
    answer = httpx.Client(**watched_httpx()).post(TOKEN, data={"username": READER, "password": READER_PASSWORD})
    status(answer, 200)
    token = answer.json()["access_token"]
    keys = jwt.PyJWKClient(GATEWAY + "/.well-known/jwks.json")
    key = keys.get_signing_key_from_jwt(token)
    claims = jwt.decode(
        token, key.key, algorithms=[SETTINGS["algorithm"]], audience="notes", issuer=GATEWAY,
        options={"require": ["sub", "exp", "iat", "jti", "iss", "aud"]})
    equal(claims["scope"], "notes:read")
    equal(claims["roles"], ["reader"])
    assert claims["sid"], "no session"
with step("refuses it for another audience"):
    with raises(jwt.InvalidAudienceError):
        jwt.decode(token, key.key, algorithms=[SETTINGS["algorithm"]], audience="billing", issuer=GATEWAY)
