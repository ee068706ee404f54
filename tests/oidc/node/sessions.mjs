// Sessions in Chromium: signing in, the cookie, several tabs, refreshing, writing, leaving.
import { assert, atProvider, chooseProvider, control, count, launch, path, seen, session, settings, shot, signIn, sleep, status, step } from './steps.mjs'

const { person, close } = await launch()
const kind = settings.kind
for (const user of ['rita', 'will', 'ada']) await control('forget', { user }) // what other scripts left behind
const rita = await person()
const page = await rita.newPage()

await step('a page without a session leads to the sign-in page, and from there to the provider', async () => {
  await page.goto(`${settings.gateway}/page/notes?of=me`)
  await page.waitForLoadState()
  const at = new URL(page.url())
  if (at.origin === settings.gateway) {
    assert.equal(at.pathname, '/login')
    await shot(page, `${kind}-1-login`)
  }
  await chooseProvider(page)
  await page.waitForURL((url) => url.origin === settings.issuer)
})
await step('a wrong password is told by the provider', async () => {
  await atProvider(page, 'rita', 'wrong')
  await page.locator('#error').waitFor()
})
await step('then the callback, and the page that was asked for', async () => {
  await atProvider(page)
  await page.waitForURL(`${settings.gateway}/page/notes?of=me`)
  assert.equal(await page.locator('#user').innerText(), 'rita')
  await shot(page, `${kind}-2-page`)
})
await step('the cookie: __Host-, HttpOnly, Secure, SameSite=Lax, and no other is left', async () => {
  const cookie = await session(rita)
  assert.ok(cookie, 'no cookie')
  assert.deepEqual(
    { ...cookie, value: undefined, expires: undefined, partitionKey: undefined },
    { name: '__Host-session', domain: '127.0.0.1', path: '/', httpOnly: true, secure: true, sameSite: 'Lax', value: undefined, expires: undefined, partitionKey: undefined })
  assert.ok(cookie.value.length >= 43)
  const ours = (await rita.cookies(settings.gateway)).map(({ name }) => name)
  assert.deepEqual(ours, ['__Host-session'])
})
await step('scripts cannot read it', async () => {
  assert.equal(await page.locator('#script').innerText(), 'cookies:')
  assert.equal(await page.evaluate(() => document.cookie), '')
})
await step('the app gets the access token and headers, and not the cookie', async () => {
  const [request] = (await seen()).filter(({ target }) => target.startsWith('/page/')).slice(-1)
  assert.equal(request.header('x-auth-user'), 'rita')
  assert.equal(request.header('x-auth-roles'), 'reader')
  assert.match(request.header('authorization'), kind === 'gateway-jwt' ? /^Bearer eyJ/ : /^Bearer [\w-]{43}$/)
  assert.equal(request.header('cookie'), undefined)
})
await step('caches on the way are told that it is for one alone, where the app says nothing', async () => {
  const answer = await page.reload()
  assert.equal(answer.headers()['cache-control'], 'private')
  const open = await page.request.get(`${settings.gateway}/`)
  assert.equal(open.headers()['cache-control'], undefined)
})
await step('an API of the same app: fetch passes with the session, 401 without', async () => {
  const answer = await page.evaluate(async () => (await fetch('/api/me')).json())
  assert.equal(answer['x-auth-user'], 'rita')
  const stranger = await person()
  const other = await stranger.newPage()
  await other.goto(`${settings.gateway}/`)
  const refused = await other.evaluate(async () => {
    const response = await fetch('/api/me')
    return [response.status, response.headers.get('content-type'), response.headers.get('www-authenticate')]
  })
  assert.equal(refused[0], 401)
  assert.match(refused[1], /problem\+json/)
  assert.ok(refused[2])
  const fetched = await other.evaluate(async () => (await fetch('/page/notes', { headers: { accept: 'text/html' } })).status)
  assert.equal(fetched, 401, 'a script is not led to the sign-in page')
  await stranger.close()
})
await step('a form of the page writes; one of another site does not', async () => {
  await page.fill('#write input', 'from a form')
  await page.click('#write button')
  await page.waitForURL(`${settings.gateway}/page/notes`)
  assert.match(await page.locator('#notes').innerText(), /from a form/)
  const evil = await rita.newPage()
  await evil.route('http://evil.localhost/**', (route) =>
    route.fulfill({ contentType: 'text/html', body: `<form id=f method=post action="${settings.gateway}/notes"><input name=text value=stolen></form>` }))
  await evil.goto('http://evil.localhost/')
  await Promise.all([
    evil.waitForURL((url) => url.origin === settings.gateway),
    evil.evaluate(() => document.getElementById('f').submit()),
  ])
  await evil.waitForLoadState()
  await page.reload()
  assert.doesNotMatch(await page.locator('#notes').innerText(), /stolen/)
  await evil.close()
  // The same from a page of the provider's host name, which is same-site with nothing here.
  const posted = await rita.request.post(`${settings.gateway}/notes`, { form: { text: 'stolen' }, headers: { origin: settings.issuer, 'sec-fetch-site': 'cross-site' }, maxRedirects: 0 })
  assert.equal(posted.status(), 403)
})
await step('several tabs at once: each arrives where it wanted to', async () => {
  const will = await person()
  const tabs = await Promise.all(['one', 'two', 'three'].map(async (name) => [name, await will.newPage()]))
  for (const [name, tab] of tabs) {
    await tab.goto(`${settings.gateway}/page/${name}`)
    await chooseProvider(tab)
    await tab.waitForURL((url) => url.origin === settings.issuer)
  }
  // The first to sign in was the last to be opened.
  for (const [name, tab] of tabs.toReversed()) {
    await atProvider(tab, 'will')
    await tab.waitForURL(`${settings.gateway}/page/${name}`)
    assert.equal(await tab.locator('#user').innerText(), 'will')
  }
  for (const [name, tab] of tabs) {
    await tab.reload()
    assert.equal(path(tab), `/page/${name}`)
    assert.equal(await tab.locator('#user').innerText(), 'will')
  }
  await will.close()
})
await step('when the token has expired, many requests of many tabs refresh it once', async () => {
  await control('lifetime', { access: 4 })
  const ada = await person()
  const tab = await ada.newPage()
  await signIn(tab, '/page/notes', 'ada')
  const before = (await session(ada)).value
  await sleep(5000)
  await control('reset')
  const tabs = await Promise.all(Array.from({ length: 5 }, () => ada.newPage()))
  const loaded = await Promise.all(tabs.map((one, n) => one.goto(`${settings.gateway}/page/tab${n}`)))
  assert.deepEqual(loaded.map((one) => one.status()), [200, 200, 200, 200, 200])
  const statuses = await tab.evaluate(() => Promise.all(Array.from({ length: 40 }, async () => (await fetch('/api/me')).status)))
  assert.deepEqual(new Set(statuses), new Set([200]))
  assert.equal(await count('POST /token'), 1)
  await control('lifetime', { access: 3600 })
  assert.ok(before)
  await sleep(5100) // at most one refresh per session in five seconds
  await tab.reload()
  assert.equal(await tab.locator('#user').innerText(), 'ada')
  await ada.close()
})
await step('the provider down: the session goes on while its token does', async () => {
  await control('mode', { is: 'down' })
  const answer = await page.reload()
  assert.equal(answer.status(), 200)
  await control('mode')
})
await step('a refresh that fails for a while: 503 and no sign-in page, then it goes on', async () => {
  await control('lifetime', { access: 4 })
  const ada = await person()
  const tab = await ada.newPage()
  await signIn(tab, '/page/notes', 'ada')
  await control('mode', { is: '503', paths: '/token' })
  await sleep(5500)
  const answer = await tab.reload()
  assert.equal(answer.status(), 503)
  assert.equal(path(tab), '/page/notes')
  await shot(tab, `${kind}-3-unavailable`)
  assert.ok(await session(ada), 'the session was thrown away')
  await control('mode')
  await control('lifetime', { access: 3600 })
  await sleep(5100)
  const back = await tab.reload()
  assert.equal(back.status(), 200)
  assert.equal(await tab.locator('#user').innerText(), 'ada')
  await ada.close()
})
await step('a session that the provider ended leads to the sign-in page', async () => {
  await control('lifetime', { access: 4 })
  const ada = await person()
  const tab = await ada.newPage()
  await signIn(tab, '/page/notes', 'ada')
  await control('forget', { user: 'ada' })
  await sleep(5500)
  await tab.reload()
  await chooseProvider(tab)
  await control('lifetime', { access: 3600 })
  await atProvider(tab, 'ada')
  await tab.waitForURL(`${settings.gateway}/page/notes`)
  await ada.close()
})
await step('signing out ends it here and at the provider', async () => {
  const cookie = await session(rita)
  await page.goto(`${settings.gateway}/page/notes`)
  const requests = []
  page.on('request', (request) => requests.push(`${request.method()} ${request.url()}`))
  await page.click('#leave button')
  await page.waitForLoadState()
  await sleep(500)
  // The provider may ask whether to sign out there too.
  if (new URL(page.url()).origin === settings.issuer) {
    await shot(page, `${kind}-4-provider-logout`)
    await page.click('button[value=yes]')
    await page.waitForURL((url) => url.origin === settings.gateway)
  }
  await shot(page, `${kind}-5-after-logout`)
  assert.equal(await session(rita), undefined, 'the cookie is still there')
  const again = await fetch(`${settings.gateway}/api/me`, { headers: { cookie: `__Host-session=${cookie.value}` } })
  await status(again, 401)
  const live = await control('live', { user: 'rita' })
  assert.equal(live.Session ?? 0, 0, `the provider's session lives: ${JSON.stringify(live)}; ${requests.join(', ')}`)
})
await step('the back button shows no page of who has left', async () => {
  await page.goto(`${settings.gateway}/`)
  for (let n = 0; n < 3; n += 1) {
    await page.goBack()
    await page.waitForLoadState()
    assert.equal(await page.locator('#user').count(), 0, `${page.url()}: ${await page.locator('body').innerText()}`)
  }
})
await step('signed out at the provider, a password is asked for again', async () => {
  await page.goto(`${settings.gateway}/page/notes`)
  await chooseProvider(page)
  await page.waitForURL((url) => url.origin === settings.issuer)
  assert.equal(await page.locator('input[name=password]').count(), 1)
})
await step('a script signs out too: 204, and no way elsewhere', async () => {
  const will = await person()
  const tab = await will.newPage()
  await signIn(tab, '/page/notes', 'will')
  const left = await tab.evaluate(async () => (await fetch('/logout', { method: 'POST', headers: { accept: 'application/json' } })).status)
  assert.equal(left, 204)
  assert.equal(await session(will), undefined)
  await will.close()
})
await step('two people in one browser, one after the other: the second is not the first', async () => {
  const shared = await person()
  const tab = await shared.newPage()
  await signIn(tab, '/page/notes', 'rita')
  const first = (await session(shared)).value
  await tab.click('#leave button')
  await tab.waitForLoadState()
  await sleep(300)
  if (new URL(tab.url()).origin === settings.issuer) {
    await tab.click('button[value=yes]')
    await tab.waitForURL((url) => url.origin === settings.gateway)
  }
  await signIn(tab, '/page/notes', 'will')
  assert.notEqual((await session(shared)).value, first)
  await shared.close()
})
await close()
