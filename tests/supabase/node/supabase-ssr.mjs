// @supabase/ssr with a jar of cookies, as a server that renders pages has it.
import { createBrowserClient, createServerClient } from '@supabase/ssr'
import WebSocket from 'ws'
import { app as APP, assert, browse, claims, email, good, key, main, password, scenario, set, sleep, url } from './rig.mjs'

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

await main()
