// jose: access tokens verify against the published keys, and for the right issuer and audience only.
import * as jose from 'jose'
import { assert, at, gateway, reader, settings, step } from './steps.mjs'

const keys = jose.createRemoteJWKSet(at('/.well-known/jwks.json'))
const options = { issuer: gateway, audience: 'notes', algorithms: [settings.algorithm], requiredClaims: ['sub', 'jti', 'sid', 'iat', 'exp'] }

const token = await step('logs in', async () => {
  const response = await fetch(at('/token'), { method: 'POST', body: new URLSearchParams(reader) })
  assert.equal(response.status, 200, await response.clone().text())
  return (await response.json()).access_token
})
await step('verifies the access token with the published key', async () => {
  const { payload, protectedHeader } = await jose.jwtVerify(token, keys, options)
  assert.equal(payload.scope, 'notes:read')
  assert.deepEqual(payload.roles, ['reader'])
  assert.equal(payload.exp - payload.iat, 1800)
  assert.ok(protectedHeader.kid, 'no kid')
})
await step('publishes public keys only', async () => {
  const { keys: published } = await (await fetch(at('/.well-known/jwks.json'))).json()
  assert.ok(published.length > 0)
  for (const key of published) {
    assert.notEqual(key.kty, 'oct')
    for (const secret of ['d', 'p', 'q', 'k', 'dp', 'dq', 'qi']) assert.ok(!(secret in key), `${secret} is published`)
    assert.equal(key.kid === await jose.calculateJwkThumbprint(key) || key.kid.length > 0, true)
  }
})
await step('refuses it for another audience, another issuer, and changed', async () => {
  await assert.rejects(jose.jwtVerify(token, keys, { ...options, audience: 'billing' }), { code: 'ERR_JWT_CLAIM_VALIDATION_FAILED' })
  await assert.rejects(jose.jwtVerify(token, keys, { ...options, issuer: 'http://elsewhere.example' }), { code: 'ERR_JWT_CLAIM_VALIDATION_FAILED' })
  const [header, , signature] = token.split('.')
  const claims = jose.base64url.encode(JSON.stringify({ ...jose.decodeJwt(token), scope: 'notes:write' }))
  await assert.rejects(jose.jwtVerify(`${header}.${claims}.${signature}`, keys, options), { code: 'ERR_JWS_SIGNATURE_VERIFICATION_FAILED' })
})
