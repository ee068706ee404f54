// oauth4webapi, which checks everything that standards demand: a user signs in by PKCE, and refreshes.
import * as oauth from 'oauth4webapi'
import { api, assert, authorize, call, settings, status, step } from './steps.mjs'

const insecure = { [oauth.allowInsecureRequests]: true }
const issuer = new URL(settings.issuer)
const as = await step('discovers the provider', async () => {
  const found = await oauth.processDiscoveryResponse(issuer, await oauth.discoveryRequest(issuer, insecure))
  assert.equal(found.authorization_response_iss_parameter_supported, true)
  return found
})
const client = { client_id: 'spa' }

async function signIn(name, more) {
  const verifier = oauth.generateRandomCodeVerifier()
  const [state, nonce] = [oauth.generateRandomState(), oauth.generateRandomNonce()]
  const url = new URL(as.authorization_endpoint)
  url.search = new URLSearchParams({
    client_id: 'spa', redirect_uri: settings.redirect, response_type: 'code', state, nonce,
    code_challenge: await oauth.calculatePKCECodeChallenge(verifier), code_challenge_method: 'S256', ...more,
  })
  const params = oauth.validateAuthResponse(as, client, await authorize(url, name), state)
  const response = await oauth.authorizationCodeGrantRequest(as, client, oauth.None(), params, settings.redirect, verifier, {
    ...insecure, ...(more.resource ? { additionalParameters: { resource: more.resource } } : {}),
  })
  return oauth.processAuthorizationCodeResponse(as, client, response, { expectedNonce: nonce, requireIdToken: true })
}

const scope = 'openid profile email offline_access notes:read'
const rita = await step('a user signs in, for the API', () => signIn('rita', { scope, resource: api, prompt: 'login' }))
const ada = await signIn('ada', { scope, resource: api })
await step('roles decide', async () => {
  const me = await (await status(call(rita.access_token, 'GET', '/api/me'), 200)).json()
  assert.equal(me['x-auth-user'], 'rita')
  assert.equal(me['x-auth-roles'], 'reader')
  assert.equal(me['x-auth-email'], 'rita@example.com')
  assert.equal(me['x-auth-method'], 'bearer')
  await status(call(rita.access_token, 'GET', '/api/notes'), 200)
  await status(call(rita.access_token, 'GET', '/api/admin'), 403)
  await status(call(ada.access_token, 'GET', '/api/admin'), 200)
})
await step('a refreshed token passes; the refresh token itself does not', async () => {
  const response = await oauth.refreshTokenGrantRequest(as, client, oauth.None(), rita.refresh_token, insecure)
  const next = await oauth.processRefreshTokenResponse(as, client, response)
  assert.notEqual(next.refresh_token, rita.refresh_token)
  await status(call(next.access_token, 'GET', '/api/notes'), 200)
  await status(call(next.refresh_token, 'GET', '/api/notes'), 401)
})
await step('an ID token is no access token', async () => {
  assert.ok(rita.id_token)
  const refused = await status(call(rita.id_token, 'GET', '/api/me'), 401)
  assert.match(refused.headers.get('www-authenticate'), /error="invalid_token"/)
})
await step('a token for the provider alone (userinfo) is good for nothing here', async () => {
  const other = await signIn('will', { scope: 'openid profile' })
  await status(call(other.access_token, 'GET', '/api/me'), 401)
})
