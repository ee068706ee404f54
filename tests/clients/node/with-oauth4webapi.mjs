// oauth4webapi: the strictest of the clients. It validates every field of every answer.
import * as oauth from 'oauth4webapi'
import { assert, at, auditor, call, ended, gateway, issuer, reader, status, step } from './steps.mjs'

const insecure = { [oauth.allowInsecureRequests]: true }
const client = { client_id: 'notes-web' }
const none = oauth.None()

const as = await step('discovers the endpoints (RFC 8414)', async () => {
  const response = await oauth.discoveryRequest(issuer, { algorithm: 'oauth2', ...insecure })
  const as = await oauth.processDiscoveryResponse(issuer, response)
  assert.equal(as.token_endpoint, `${gateway}/token`)
  assert.deepEqual(as.scopes_supported?.toSorted(), ['notes:read', 'notes:write'])
  assert.deepEqual(as.grant_types_supported?.toSorted(), ['password', 'refresh_token'])
  assert.ok(as.token_endpoint_auth_methods_supported?.includes('none'))
  assert.equal(as.code_challenge_methods_supported, undefined)
  return as
})

await step('finds the authorization server from the challenge of a refusal (RFC 9728)', async () => {
  const error = await oauth.protectedResourceRequest('a.b.c', 'GET', at('/notes'), undefined, null, insecure).catch((e) => e)
  assert.ok(error instanceof oauth.WWWAuthenticateChallengeError, String(error))
  const { scheme, parameters } = error.cause[0]
  assert.equal(scheme, 'bearer')
  assert.equal(parameters.error, 'invalid_token')
  const metadata = new URL(parameters.resource_metadata)
  assert.equal(metadata.href, at('/.well-known/oauth-protected-resource').href)
  const response = await oauth.resourceDiscoveryRequest(new URL(gateway), insecure)
  const resource = await oauth.processResourceDiscoveryResponse(new URL(gateway), response)
  assert.deepEqual(resource.authorization_servers.map((url) => new URL(url).href), [new URL(as.issuer).href])
  assert.deepEqual(resource.bearer_methods_supported, ['header'])
})

const login = async (user, more = {}, auth = none) => {
  const response = await oauth.genericTokenEndpointRequest(as, client, auth, 'password', { ...user, ...more }, insecure)
  return oauth.processGenericTokenEndpointResponse(as, client, response)
}
const refresh = async (token) => {
  const response = await oauth.refreshTokenGrantRequest(as, client, none, token, insecure)
  return oauth.processRefreshTokenResponse(as, client, response)
}
const fails = async (promise, code, statusCode = 400) => {
  const error = await promise.then(() => assert.fail(`no ${code}`), (e) => e)
  assert.ok(error instanceof oauth.ResponseBodyError, `${error.name}: ${error.message}`)
  assert.deepEqual([error.error, error.status], [code, statusCode])
  return error
}

const first = await step('logs in: no client, client_secret_basic, client_secret_post', async () => {
  await login(reader, {}, oauth.ClientSecretBasic('nobody asked: %&+'))
  await login(reader, {}, oauth.ClientSecretPost('nobody asked'))
  const token = await login(reader)
  assert.equal(token.token_type, 'bearer')
  assert.equal(token.scope, 'notes:read')
  assert.ok(Number.isInteger(token.expires_in) && token.expires_in > 0)
  assert.match(token.refresh_token, /^\S{32,}$/)
  return token
})

await step('calls what the reader may and may not do', async () => {
  const response = await oauth.protectedResourceRequest(first.access_token, 'GET', at('/notes'), undefined, null, insecure)
  assert.equal(response.status, 200)
  const error = await oauth
    .protectedResourceRequest(first.access_token, 'POST', at('/notes'), new Headers({ 'content-type': 'application/json' }), '{"text":"no"}', insecure)
    .catch((e) => e)
  assert.ok(error instanceof oauth.WWWAuthenticateChallengeError, String(error))
  assert.equal(error.status, 403)
  assert.equal(error.cause[0].parameters.error, 'insufficient_scope')
  assert.equal(error.cause[0].parameters.scope, 'notes:write')
})

await step('reads error and error_description: password, scope, grant', async () => {
  const error = await fails(login({ ...reader, password: 'not the password' }), 'invalid_grant')
  assert.equal(error.error_description, 'Incorrect username or password')
  const unknown = await fails(login({ username: 'nobody', password: 'not the password' }), 'invalid_grant')
  assert.equal(unknown.error_description, error.error_description)
  await fails(login(reader, { scope: 'payroll' }), 'invalid_scope')
  const response = await oauth.clientCredentialsGrantRequest(as, client, none, {}, insecure)
  await fails(oauth.processClientCredentialsResponse(as, client, response), 'unsupported_grant_type')
})

const second = await step('refreshes, and the refresh token is another', async () => {
  const token = await refresh(first.refresh_token)
  assert.notEqual(token.refresh_token, first.refresh_token)
  assert.equal(token.scope, 'notes:read')
  await status(call(token.access_token, 'GET', '/notes'), 200)
  return token
})

await step('the same refresh again, as after a lost answer, gives the same successor', async () => {
  assert.equal((await refresh(first.refresh_token)).refresh_token, second.refresh_token)
})

const introspect = async (token, bearer) => {
  // The caller is authorized by a token (RFC 7662 section 2.1), which for this library is a way of client authentication.
  const caller = bearer ? (_as, _client, _body, headers) => headers.set('authorization', `Bearer ${bearer}`) : none
  const response = await oauth.introspectionRequest(as, client, caller, token, insecure)
  return oauth.processIntrospectionResponse(as, client, response)
}
const introspecting = await login(auditor)
await step('introspection is refused to strangers and readers, and answers an auditor', async () => {
  for (const bearer of [undefined, second.access_token]) {
    const error = await introspect(second.access_token, bearer).then(() => assert.fail('not refused'), (e) => e)
    const code = error.status ?? error.cause?.status
    assert.ok([401, 403].includes(code), `${error.name}: ${error.message}`)
  }
  const answer = await introspect(second.access_token, introspecting.access_token)
  assert.deepEqual([answer.active, answer.scope], [true, 'notes:read'])
  assert.deepEqual(await introspect('nonsense', introspecting.access_token), { active: false })
})

await step('revokes: refresh token and access token are of no use any more', async () => {
  const revoke = async (token) =>
    oauth.processRevocationResponse(await oauth.revocationRequest(as, client, none, token, insecure))
  await revoke(second.refresh_token)
  await fails(refresh(second.refresh_token), 'invalid_grant')
  await ended(second.access_token)
  assert.deepEqual(await introspect(second.access_token, introspecting.access_token), { active: false })
  await revoke('nonsense')
})

await step('logs out', async () => {
  const token = await login(reader)
  await status(call(token.access_token, 'POST', '/logout'), 200, 204)
  await ended(token.access_token)
  await fails(refresh(token.refresh_token), 'invalid_grant')
})
