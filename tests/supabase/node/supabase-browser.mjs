// supabase-js in a page of another origin, in headless Chromium: preflights, readable errors, a socket, cookies of @supabase/ssr
// that scripts set.
import { createServer } from 'node:http'
import { readFile } from 'node:fs/promises'
import { fileURLToPath } from 'node:url'
import { chromium } from 'playwright-core'
import { app, ask, assert, email, fail, gateway, key, main, password, scenario, seen, set, settings, url } from './rig.mjs'

const library = await readFile(fileURLToPath(new URL('../node_modules/@supabase/supabase-js/dist/umd/supabase.js', import.meta.url)))
const pages = createServer((request, response) => {
  const script = request.url === '/supabase.js'
  response.setHeader('content-type', script ? 'text/javascript' : 'text/html')
  response.end(script ? library : '<!doctype html><title>app</title><link rel=icon href=data:,><script src=/supabase.js></script>')
})
await new Promise((done) => pages.listen(new URL(app).port, '127.0.0.1', done))
const browser = await chromium.launch({ executablePath: settings.chromium })

async function open(path = '/') {
  const page = await (await browser.newContext()).newPage()
  const problems = []
  page.on('pageerror', (error) => problems.push(String(error)))
  page.on('console', (message) => message.type() === 'error' && /CORS|blocked/i.test(message.text()) && problems.push(message.text()))
  await page.goto(app + path)
  await page.evaluate(([url, key]) => { window.client = window.supabase.createClient(url, key) }, [url, key])
  return { page, problems }
}

scenario('browser: sign-up, wrong password, rows, files, functions, refresh, logout', async () => {
  const { page, problems } = await open()
  const told = await page.evaluate(async ([email, password]) => {
    const { auth, storage, functions } = window.client
    const out = {}
    out.signUp = (await auth.signUp({ email, password })).data.user?.email
    out.wrong = (({ status, code, name }) => [status, code, name])((await auth.signInWithPassword({ email, password: 'wrong' })).error)
    out.again = (await auth.signInWithPassword({ email, password })).error
    out.row = (await window.client.from('notes').insert({ text: 'hello' }).select()).data?.[0].text
    out.count = (await window.client.from('notes').select('*', { count: 'exact' })).count
    out.upload = (await storage.from('files').upload('a/b.txt', new Blob(['hello']))).error
    out.download = await (await storage.from('files').download('a/b.txt')).data.text()
    out.called = (await functions.invoke('hello', { body: { n: 1 } })).data.sent
    out.failed = (await functions.invoke('fails', { body: {} })).error.name
    const before = (await auth.getSession()).data.session.refresh_token
    out.refreshed = (await auth.refreshSession()).data.session.refresh_token !== before
    out.update = (await auth.updateUser({ data: { n: 1 } })).data.user?.user_metadata.n
    out.unsigned = (({ status, error }) => [status, error.code])(await window.client.from('missing').select().single())
    out.logout = (await auth.signOut()).error
    out.after = (await auth.getSession()).data.session
    return out
  }, [email('browser'), password])
  assert.deepEqual(told, {
    ...told, wrong: [400, 'invalid_credentials', 'AuthApiError'], again: null, row: 'hello', count: 1, upload: null,
    download: 'hello', called: { n: 1 }, failed: 'FunctionsHttpError', refreshed: true, update: 1, unsigned: [406, 'PGRST116'],
    logout: null, after: null,
  })
  assert.deepEqual(problems.filter((text) => !text.includes('status of')), [])
  const preflights = (await seen({ method: 'OPTIONS' })).length
  assert.ok(gateway ? preflights === 0 : preflights > 3, `${preflights} preflights arrived`)
  await page.context().close()
})

scenario('browser: PKCE through real redirects, in a page that finds the code itself', async () => {
  const { page } = await open()
  await page.evaluate(([url, key, app]) => {
    const pkce = window.supabase.createClient(url, key, { auth: { flowType: 'pkce', detectSessionInUrl: false, storageKey: 'pkce' } })
    return pkce.auth.signInWithOAuth({ provider: 'github', options: { redirectTo: `${app}/auth/callback` } })
  }, [url, key, app])
  await page.waitForURL(/\/auth\/callback\?code=/)
  const user = await page.evaluate(async ([url, key]) => {
    const pkce = window.supabase.createClient(url, key, { auth: { flowType: 'pkce', storageKey: 'pkce' } })
    return (await pkce.auth.getUser()).data.user?.email
  }, [url, key])
  assert.equal(user, 'ada@provider.example')
  assert.equal(new URL(page.url()).search, '')
  await page.context().close()
})

scenario('browser: realtime', async () => {
  const { page, problems } = await open()
  const heard = await page.evaluate(async ([email, password]) => {
    await window.client.auth.signUp({ email, password })
    const channel = window.client.channel('page', { config: { private: true, broadcast: { self: true } } })
    return new Promise((done, failed) => {
      channel.on('broadcast', { event: 'echo' }, ({ payload }) => done(payload))
      channel.subscribe((state, error) => {
        if (state === 'SUBSCRIBED') channel.send({ type: 'broadcast', event: 'echo', payload: { text: 'Zoë' } })
        else if (state !== 'CLOSED') failed(error ?? new Error(state))
      })
    })
  }, [email('socket'), password])
  assert.deepEqual(heard, { text: 'Zoë' })
  assert.deepEqual(problems, [])
  assert.equal((await ask('GET', '/realtime')).length, 1)
  await page.context().close()
})

scenario('browser: refusals of the gateway can be read, and a busy server signs nobody out', async () => {
  const { page, problems } = await open()
  await set({ jwt_exp: 1 })
  await page.evaluate(([email, password]) => window.client.auth.signUp({ email, password }), [email('busy'), password])
  await page.waitForTimeout(2100)
  await set({ jwt_exp: 3600 })
  await fail({ service: 'auth', path: '/token', grant_type: 'refresh_token', status: gateway ? 429 : 503, times: 2 })
  const told = await page.evaluate(async () => {
    const { data, error } = await window.client.auth.refreshSession()
    return [Boolean(data.session), error?.message]
  })
  assert.deepEqual(told, [true, undefined])
  const refused = await page.evaluate(async ([url]) => {
    const response = await fetch(`${url}/auth/v1/admin/users`, { headers: { authorization: 'Bearer a.b.c', apikey: 'wrong' } })
    return response.status
  }, [url])
  assert.ok([401, 403, 404].includes(refused), String(refused))
  assert.deepEqual(problems, [])
  await page.context().close()
})

scenario('browser: the code of @supabase/ssr leaves a cookie that names this host', async () => {
  const name = `sb-${new URL(url).hostname.split('.')[0]}-auth-token`
  const { page } = await open()
  await page.evaluate(([email, password]) => window.client.auth.signUp({ email, password }), [email('cookie'), password])
  assert.ok(await page.evaluate((name) => Boolean(localStorage.getItem(name)), name), `no ${name} in the storage`)
  await page.context().close()
})

await main(async () => {
  await browser.close()
  pages.close()
})
