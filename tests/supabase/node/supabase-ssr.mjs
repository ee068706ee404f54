// @supabase/ssr with a jar of cookies, as a server that renders pages has it.
import { createBrowserClient, createServerClient } from '@supabase/ssr'
import WebSocket from 'ws'
import { app as APP, assert, browse, claims, count, email, good, key, main, password, scenario, set, sleep, status, url } from './rig.mjs'

function jar() {
  const held = new Map()
  return {
    held,
    getAll: () => [...held].map(([name, value]) => ({ name, value })),
    setAll: (all) => {
      for (const { name, value, options } of all) {
        if (options?.maxAge === 0) held.delete(name)
        else held.set(name, value)
      }
    },
  }
}
const server = (cookies) => createServerClient(url, key, { cookies, realtime: { transport: WebSocket } })

scenario('ssr: sign-up, cookies, another request, logout', async () => {
  const cookies = jar()
  const address = email('ssr')
  const { user } = good(await server(cookies).auth.signUp({ email: address, password, options: { data: { text: 'ë'.repeat(1200) } } }))
  const names = [...cookies.held.keys()].sort()
  assert.ok(names.length > 1 && names.every((name, n) => name === `sb-127-auth-token.${n}`), String(names))
  assert.ok(cookies.held.get(names[0]).startsWith('base64-'))
  assert.equal(good(await server(cookies).auth.getUser()).user.id, user.id)
  assert.equal((await server(cookies).auth.signOut()).error, null)
  await sleep(50)
  assert.equal(cookies.held.size, 0, String([...cookies.held.keys()]))
})

scenario('ssr: an expired session is refreshed by the next request', async () => {
  await set({ jwt_exp: 1 })
  const cookies = jar()
  good(await server(cookies).auth.signUp({ email: email('ssr'), password }))
  const before = new Map(cookies.held)
  await set({ jwt_exp: 3600 })
  await sleep(2100)
  const { session } = good(await server(cookies).auth.getSession())
  assert.equal(claims(session.access_token).aal, 'aal1')
  assert.notDeepEqual(cookies.held, before)
})

scenario('ssr: PKCE with a provider, the verifier in a cookie', async () => {
  const cookies = jar()
  const { url: start } = good(await server(cookies).auth.signInWithOAuth({ provider: 'google', options: { redirectTo: `${APP}/auth/callback` } }))
  assert.ok([...cookies.held.keys()].some((name) => name.includes('code-verifier')), String([...cookies.held.keys()]))
  const back = await browse(start, APP)
  const { user } = good(await server(cookies).auth.exchangeCodeForSession(back.searchParams.get('code')))
  assert.equal(user.email, 'ada@provider.example')
  assert.equal(typeof createBrowserClient, 'function')
})

const header = (cookies) => [...cookies.held].map(([name, value]) => `${name}=${encodeURIComponent(value)}`).join('; ')
const account = (cookies, { method = 'GET', ...headers } = {}) => fetch(`${url}/account`, { method, headers: { cookie: header(cookies), ...headers } })
const who = async (answer) => (await status(answer, 200)).headers['x-auth-user']

/** Signs up, with so much metadata that the cookie comes in pieces. */
async function signedUp(letters = 0) {
  const cookies = jar()
  const { session, user } = good(await server(cookies).auth.signUp({ email: email('ssr'), password, options: { data: { text: 'ë'.repeat(letters) } } }))
  return { cookies, session, user }
}

scenario('ssr: its cookie is a credential at the gateway, whole or in pieces', async () => {
  for (const letters of [0, 1200]) {
    const { cookies, session, user } = await signedUp(letters)
    assert.equal(cookies.held.size > 1, letters > 0)
    assert.equal(await who(account(cookies)), user.id)
    assert.equal((await who(account(cookies, { authorization: `Bearer ${session.access_token}` }))), user.id, 'the same token twice')
    const other = await signedUp()
    await status(account(cookies, { authorization: `Bearer ${other.session.access_token}` }), 400)
    await status(account(cookies, { method: 'POST', origin: 'https://evil.example' }), 403)
    await status(account(cookies, { method: 'POST', origin: url }), 200)
    const [last] = [...cookies.held.keys()].slice(-1)
    cookies.held.set(last, cookies.held.get(last).slice(0, -20))
    await status(account(cookies), 401)
  }
}, { only: 'gateway' })

scenario('ssr: an expired cookie is refreshed by the gateway, and the client goes on with what it set', async () => {
  await set({ jwt_exp: 1 })
  const { cookies, session, user } = await signedUp(1200)
  await set({ jwt_exp: 3600 })
  await sleep(2100)
  const before = await count('POST auth/token?grant_type=refresh_token')
  const answers = await Promise.all(Array.from({ length: 20 }, () => account(cookies)))
  for (const answer of answers) assert.equal(await who(answer), user.id)
  assert.equal(await count('POST auth/token?grant_type=refresh_token') - before, 1, 'refreshes')
  for (const answer of answers) {
    assert.match(answer.headers.get('cache-control') ?? '', /no-store/)
    cookies.setAll(answer.headers.getSetCookie().map((line) => {
      const [pair, ...attributes] = line.split('; ')
      assert.ok(attributes.includes('SameSite=Lax') && attributes.includes('Path=/'), line.slice(-100))
      const at = pair.indexOf('=')
      const maxAge = Number(attributes.find((word) => word.startsWith('Max-Age='))?.slice(8))
      return { name: pair.slice(0, at), value: decodeURIComponent(pair.slice(at + 1)), options: { maxAge } }
    }))
  }
  const { session: fresh } = good(await server(cookies).auth.getSession())
  assert.notEqual(fresh.refresh_token, session.refresh_token)
  assert.equal(good(await server(cookies).auth.getUser()).user.id, user.id)
  good(await server(cookies).auth.refreshSession())
}, { only: 'gateway' })

await main()
