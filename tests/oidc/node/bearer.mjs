// openid-client: a machine gets tokens by client credentials, and calls the routes. Then the provider changes its keys, and goes down.
import * as client from 'openid-client'
import { api, assert, at, call, control, count, settings, sleep, status, step, until } from './steps.mjs'

const insecure = { execute: [client.allowInsecureRequests] }
const config = await step('discovers the provider', () =>
  client.discovery(new URL(settings.issuer), 'machine', settings.machine_secret, client.ClientSecretBasic(), insecure))
const get = (scope, resource = api) => client.clientCredentialsGrant(config, { scope, resource }).then((tokens) => tokens.access_token)

const reading = await step('gets a token', () => get('notes:read'))
await step('scopes decide', async () => {
  await status(fetch(at('/api/notes')), 401)
  await status(call(reading, 'GET', '/api/notes'), 200)
  const refused = await status(call(reading, 'POST', '/api/notes', {}), 403)
  assert.match(refused.headers.get('www-authenticate'), /error="insufficient_scope".*scope="notes:write"/)
  await status(call(await get('notes:read notes:write'), 'POST', '/api/notes', {}), 201)
  await status(call(reading, 'GET', '/api/admin'), 403)
})
await step('the app is told who, by whom, and with what', async () => {
  const seen = await (await status(call(reading, 'GET', '/api/me'), 200)).json()
  assert.equal(seen['x-auth-user'], 'machine')
  assert.equal(seen['x-auth-issuer'], 'idp')
  assert.equal(seen['x-auth-scopes'], 'notes:read')
})
await step('keys were fetched once', async () => {
  for (let n = 0; n < 20; n += 1) await status(call(reading, 'GET', '/api/notes'), 200)
  assert.ok((await count('GET /jwks')) <= 1)
})
await step('a new key beside the old: both tokens pass, after one fetch', async () => {
  await sleep(1100) // cool_down is a second here
  await control('reset')
  await control('rotate')
  const fresh = await get('notes:read')
  await Promise.all(Array.from({ length: 20 }, () => status(call(fresh, 'GET', '/api/notes'), 200)))
  await status(call(reading, 'GET', '/api/notes'), 200)
  assert.equal(await count('GET /jwks'), 1)
})
const replaced = await get('notes:read')
await step('all keys replaced: the new token passes, the old ones are refused', async () => {
  await sleep(1100)
  await control('rotate', { drop: true })
  const fresh = await get('notes:read')
  await until('the new key is known', async () => (await call(fresh, 'GET', '/api/notes')).status === 200)
  const refused = await status(call(replaced, 'GET', '/api/notes'), 401)
  assert.match(refused.headers.get('www-authenticate'), /error="invalid_token"/)
})
await step('the provider down: cached keys go on, tokens with unknown keys wait for nobody', async () => {
  const good = await get('notes:read')
  await sleep(1100)
  await control('rotate')
  const unknown = await get('notes:read')
  await control('mode', { is: 'down' })
  await status(call(good, 'GET', '/api/notes'), 200)
  const refused = await call(unknown, 'GET', '/api/notes')
  assert.ok([401, 503].includes(refused.status), `${refused.status}`)
  for (let n = 0; n < 20; n += 1) await status(call(good, 'GET', '/api/notes'), 200)
  await control('mode')
  await until('the provider is back', async () => (await call(unknown, 'GET', '/api/notes')).status === 200)
})
await step('keys slow to come: a good token does not wait', async () => {
  const good = await get('notes:read')
  await until('its key is known', async () => (await call(good, 'GET', '/api/notes')).status === 200)
  await sleep(1100)
  await control('rotate')
  const unknown = await get('notes:read')
  await control('mode', { is: 'slow', delay: 3000, paths: 'jwks' })
  const waiting = call(unknown, 'GET', '/api/notes')
  const began = Date.now()
  await status(call(good, 'GET', '/api/notes'), 200)
  assert.ok(Date.now() - began < 1000, `${Date.now() - began} ms`)
  await status(waiting, 200, 401, 503)
  await control('mode')
})
await step('garbage and forgeries are refused', async () => {
  const good = await get('notes:read')
  await until('its key is known', async () => (await call(good, 'GET', '/api/notes')).status === 200)
  const [head, payload] = good.split('.')
  for (const token of [`${head}.${payload}.AAAA`, `${head}.${payload}.`, `${btoa('{"alg":"none"}')}.${payload}.`, `${good}x`]) {
    const response = await call(token, 'GET', '/api/notes')
    assert.ok([400, 401].includes(response.status), `${response.status}`)
  }
})
