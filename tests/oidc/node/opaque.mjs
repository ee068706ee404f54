// Tokens that say nothing themselves: the gateway asks the provider (RFC 7662), and not more than it must.
import * as client from 'openid-client'
import { assert, at, api, authorize, call, control, count, opaque, settings, sleep, status, step, until } from './steps.mjs'

const insecure = { execute: [client.allowInsecureRequests] }
const config = await client.discovery(new URL(settings.issuer), 'machine', settings.machine_secret, client.ClientSecretBasic(), insecure)
const get = (scope = 'notes:read', resource = opaque) => client.clientCredentialsGrant(config, { scope, resource }).then((tokens) => tokens.access_token)
const asked = 'POST /token/introspection'

const token = await get()
await step('a token that says nothing passes, with its scopes', async () => {
  assert.ok(!token.includes('.'))
  const me = await (await status(call(token, 'GET', '/api/me'), 200)).json()
  assert.equal(me['x-auth-user'], undefined, 'the provider names no `sub` for a machine: absent means absent')
  assert.equal(me['x-auth-scopes'], 'notes:read')
  await status(call(token, 'GET', '/api/notes'), 200)
  await status(call(token, 'POST', '/api/notes', {}), 403)
})
await step('one of a user says who that is, with roles', async () => {
  const verifier = client.randomPKCECodeVerifier()
  const spa = await client.discovery(new URL(settings.issuer), 'spa', undefined, client.None(), insecure)
  const url = client.buildAuthorizationUrl(spa, {
    redirect_uri: settings.redirect, scope: 'openid notes:read', resource: opaque,
    code_challenge: await client.calculatePKCECodeChallenge(verifier), code_challenge_method: 'S256',
  })
  const back = await authorize(url, 'ada')
  const tokens = await client.authorizationCodeGrant(spa, back, { pkceCodeVerifier: verifier, idTokenExpected: true }, { resource: opaque })
  assert.ok(!tokens.access_token.includes('.'))
  const me = await (await status(call(tokens.access_token, 'GET', '/api/me'), 200)).json()
  assert.equal(me['x-auth-user'], 'ada')
  assert.equal(me['x-auth-roles'], 'auditor')
  await status(call(tokens.access_token, 'GET', '/api/admin'), 200)
  await status(call(tokens.refresh_token, 'GET', '/api/me'), 401)
})
await step('the provider is asked once for many requests', async () => {
  const fresh = await get()
  await control('reset')
  await Promise.all(Array.from({ length: 30 }, () => status(call(fresh, 'GET', '/api/notes'), 200)))
  assert.equal(await count(asked), 1)
})
await step('a revoked token ends when what is remembered does', async () => {
  const fresh = await get()
  await status(call(fresh, 'GET', '/api/notes'), 200)
  await client.tokenRevocation(config, fresh)
  await sleep(2100)
  const refused = await status(call(fresh, 'GET', '/api/notes'), 401)
  assert.match(refused.headers.get('www-authenticate'), /error="invalid_token"/)
})
await step('garbage is refused; the provider is not asked again and again', async () => {
  await control('reset')
  for (let n = 0; n < 10; n += 1) await status(call('not-a-token-at-all', 'GET', '/api/notes'), 401)
  assert.ok((await count(asked)) <= 2, `asked ${await count(asked)} times`)
})
await step('nobody is asked where no token is needed', async () => {
  await control('reset')
  await status(fetch(at('/'), { headers: { authorization: `Bearer ${await get()}` } }), 200)
  assert.equal(await count(asked), 0)
})
await step('the provider slow: this request alone waits, and not for ever', async () => {
  const [fresh, jwt] = [await get(), await get('notes:read', api)]
  await status(call(jwt, 'GET', '/api/notes'), 200)
  await control('mode', { is: 'slow', delay: 20_000, paths: 'introspection' })
  const began = Date.now()
  const waiting = call(fresh, 'GET', '/api/notes')
  await status(call(jwt, 'GET', '/api/notes'), 200)
  await status(fetch(at('/')), 200)
  assert.ok(Date.now() - began < 1500, `others waited ${Date.now() - began} ms`)
  const refused = await status(waiting, 503)
  assert.ok(refused.headers.get('retry-after'))
  assert.ok(Date.now() - began < 12_000, `it waited ${Date.now() - began} ms`)
})
await step('the provider down, or wrong: 503, and never in', async () => {
  for (const is of ['down', '500', '429', '401', '302']) {
    await control('mode')
    const fresh = await get()
    await control('mode', { is })
    const refused = await status(call(fresh, 'GET', '/api/notes'), 503)
    assert.ok(refused.headers.get('retry-after'), is)
    await control('mode')
    await until('it is back', async () => (await call(fresh, 'GET', '/api/notes')).status === 200)
  }
})
