// What an attacker tries at the edges of a sign-in: other browsers, other times, other issuers, other cookies.
import { assert, atProvider, chooseProvider, launch, session, settings, shot, signIn, status, step } from './steps.mjs'

const { person, close } = await launch()

/** Signs in at the provider, and stops before the callback reaches the gateway: its URL. */
async function stopped(context, name = 'rita', to = '/page/notes') {
  const page = await context.newPage()
  // What a redirect leads to is only seen below the level of routes.
  const cdp = await context.newCDPSession(page)
  await cdp.send('Fetch.enable', { patterns: [{ urlPattern: '*/auth/callback*' }] })
  const caught = new Promise((done) => {
    cdp.on('Fetch.requestPaused', async ({ requestId, request }) => {
      await cdp.send('Fetch.fulfillRequest', { requestId, responseCode: 200, body: btoa('stopped') })
      done(request.url)
    })
  })
  await page.goto(settings.gateway + to)
  await chooseProvider(page)
  await atProvider(page, name)
  await page.getByText('stopped').waitFor()
  await cdp.send('Fetch.disable')
  return { page, url: new URL(await caught) }
}
/** Opens a callback that must not work. */
async function refused(page, url, what) {
  const answer = await page.goto(url.href)
  assert.equal(answer.status(), 400, `${what}: ${answer.status()}`)
  assert.match(answer.headers()['cache-control'] ?? '', /no-store/, what)
  return answer
}

await step('an answer for another browser (login CSRF) is refused', async () => {
  const [attacker, victim] = [await person(), await person()]
  const { url } = await stopped(attacker, 'will')
  const page = await victim.newPage()
  await refused(page, url, 'no flow cookie')
  await shot(page, 'attack-another-browser')
  assert.equal(await session(victim), undefined)
  // A victim who has a flow of his own under way.
  await page.goto(`${settings.gateway}/page/notes`)
  await chooseProvider(page)
  await page.waitForURL((at) => at.origin === settings.issuer)
  await refused(page, url, 'another flow')
  assert.equal(await session(victim), undefined)
  // The attacker himself can go on.
  const own = await attacker.newPage()
  await own.goto(url.href)
  assert.equal(await own.locator('#user').innerText(), 'will')
  await attacker.close()
  await victim.close()
})
await step('an answer twice is refused the second time, and the session stays', async () => {
  const rita = await person()
  const { page, url } = await stopped(rita)
  await page.goto(url.href)
  assert.equal(await page.locator('#user').innerText(), 'rita')
  const before = (await session(rita)).value
  await refused(page, url, 'replayed')
  assert.equal((await session(rita)).value, before)
  await page.goto(`${settings.gateway}/page/notes`)
  assert.equal(await page.locator('#user').innerText(), 'rita')
  await rita.close()
})
for (const [what, change] of [
  ['another state', (query) => query.set('state', 'A'.repeat(43))],
  ['no state', (query) => query.delete('state')],
  ['two states', (query) => query.append('state', query.get('state'))],
  ['another `iss` (RFC 9207)', (query) => query.set('iss', 'https://evil.example')],
  ['no `iss`', (query) => query.delete('iss')],
  ['no code', (query) => query.delete('code')],
  ['two codes', (query) => query.append('code', 'x')],
  ['another code', (query) => query.set('code', 'x'.repeat(43))],
]) {
  await step(`${what}: refused, and nobody is signed in`, async () => {
    const rita = await person()
    const { page, url } = await stopped(rita)
    change(url.searchParams)
    await refused(page, url, what)
    assert.equal(await session(rita), undefined)
    await rita.close()
  })
}
await step('who cancels at the provider is told so, and can try again', async () => {
  const rita = await person()
  const page = await rita.newPage()
  await page.goto(`${settings.gateway}/page/notes`)
  await chooseProvider(page)
  await page.waitForURL((url) => url.origin === settings.issuer)
  await page.click('button[value=cancel]')
  await page.waitForURL((url) => url.origin === settings.gateway)
  await page.waitForLoadState()
  await shot(page, 'cancelled')
  const text = await page.locator('body').innerText()
  assert.doesNotMatch(text, /\bundefined\b|\{|error_description/)
  assert.equal(await session(rita), undefined)
  await page.goto(`${settings.gateway}/page/notes`)
  await chooseProvider(page)
  await atProvider(page)
  await page.waitForURL(`${settings.gateway}/page/notes`)
  await rita.close()
})
await step('the session has a new id with each sign-in, and the old one is dead', async () => {
  const rita = await person()
  const page = await rita.newPage()
  await signIn(page, '/page/notes')
  const first = (await session(rita)).value
  await page.goto(`${settings.gateway}/login/idp?return_to=/page/other`)
  if (new URL(page.url()).origin === settings.issuer) await atProvider(page)
  await page.waitForURL(`${settings.gateway}/page/other`)
  const second = (await session(rita)).value
  assert.notEqual(second, first)
  await status(fetch(`${settings.gateway}/api/me`, { headers: { cookie: `__Host-session=${first}` } }), 401)
  await rita.close()
})
await step('a planted session cookie is not taken over (fixation)', async () => {
  const rita = await person()
  await rita.addCookies([{ name: '__Host-session', value: 'A'.repeat(43), domain: '127.0.0.1', path: '/', secure: true, httpOnly: true, sameSite: 'Lax' }])
  const page = await rita.newPage()
  await signIn(page, '/page/notes')
  assert.notEqual((await session(rita)).value, 'A'.repeat(43))
  await rita.close()
})
await step('an app cannot set the session cookie; its own it can', async () => {
  const rita = await person()
  const page = await rita.newPage()
  await page.goto(`${settings.gateway}/cookies/planted`)
  assert.deepEqual((await rita.cookies(settings.gateway)).map(({ name, value }) => `${name}=${value}`), ['app=planted'])
  await rita.close()
})
await step('two values of the session cookie: refused', async () => {
  await status(fetch(`${settings.gateway}/api/me`, { headers: { cookie: `__Host-session=${'A'.repeat(43)}; __Host-session=${'B'.repeat(43)}` } }), 400)
})
await step('no answer leads elsewhere', async () => {
  const rita = await person()
  for (const to of ['https://evil.example/', '//evil.example', '/\\evil.example', '/%09/evil.example', 'javascript:alert(1)', '/\t/evil.example']) {
    const page = await rita.newPage()
    await page.goto(`${settings.gateway}/login/idp?return_to=${encodeURIComponent(to)}`)
    if (new URL(page.url()).origin === settings.issuer) await atProvider(page)
    await page.waitForURL((url) => url.origin === settings.gateway)
    assert.equal(page.url(), `${settings.gateway}/`, to)
    await page.close()
  }
  await rita.close()
})
await step('the sign-in page cannot be framed', async () => {
  const answer = await fetch(`${settings.gateway}/login`, { headers: { accept: 'text/html' }, redirect: 'manual' })
  const policy = answer.headers.get('content-security-policy') ?? ''
  if (answer.status === 200) assert.match(policy, /frame-ancestors 'none'/)
  assert.match(answer.headers.get('cache-control'), /no-store/)
})
await close()
