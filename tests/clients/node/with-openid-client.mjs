// openid-client: discovery by RFC 8414, the password grant as a generic one, refresh, revocation.
import * as client from 'openid-client'
import { assert, at, call, ended, gateway, issuer, reader, status, step, writer } from './steps.mjs'

const config = await step('discovers the endpoints (algorithm oauth2)', async () => {
  const config = await client.discovery(issuer, 'notes-web', undefined, client.None(), {
    algorithm: 'oauth2',
    execute: [client.allowInsecureRequests],
  })
  assert.equal(config.serverMetadata().token_endpoint, `${gateway}/token`)
  return config
})
const login = (user, more = {}) => client.genericGrantRequest(config, 'password', { ...user, ...more })
const fails = async (promise, code) => {
  const error = await promise.then(() => assert.fail(`no ${code}`), (e) => e)
  assert.ok(error instanceof client.ResponseBodyError, `${error.name}: ${error.message}`)
  assert.equal(error.error, code)
}

const first = await step('logs in with a scope', async () => {
  const token = await login(writer, { scope: 'notes:read' })
  assert.equal(token.scope, 'notes:read')
  assert.ok(token.expiresIn() > 0)
  return token
})

await step('calls what the token may and may not do', async () => {
  const answer = await client.fetchProtectedResource(config, first.access_token, at('/notes'), 'GET')
  assert.equal(answer.status, 200)
  const error = await client
    .fetchProtectedResource(config, first.access_token, at('/notes'), 'POST', '{"text":"no"}', new Headers({ 'content-type': 'application/json' }))
    .catch((e) => e)
  assert.ok(error instanceof client.WWWAuthenticateChallengeError, String(error))
  assert.equal(error.status, 403)
})

await step('reads the errors', async () => {
  await fails(login({ ...reader, password: 'not the password' }), 'invalid_grant')
  await fails(client.clientCredentialsGrant(config), 'unsupported_grant_type')
})

await step('refreshes, revokes, and the revoked refresh token is refused', async () => {
  const second = await client.refreshTokenGrant(config, first.refresh_token)
  assert.notEqual(second.refresh_token, first.refresh_token)
  await status(call(second.access_token, 'GET', '/notes'), 200)
  await client.tokenRevocation(config, second.refresh_token, { token_type_hint: 'refresh_token' })
  await fails(client.refreshTokenGrant(config, second.refresh_token), 'invalid_grant')
  await ended(second.access_token)
})

await step('logs out', async () => {
  const token = await login(reader)
  await status(call(token.access_token, 'POST', '/logout'), 200, 204)
  await ended(token.access_token)
  await fails(client.refreshTokenGrant(config, token.refresh_token), 'invalid_grant')
})
