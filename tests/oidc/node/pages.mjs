// The sign-in page of `login: supabase` in Chromium, with scripts or without: every way in, every way to fail, and what
// it looks like: light and dark, wide and narrow.
import { assert, launch, path, seen, session, settings, sleep, status, step, until } from './steps.mjs'

const { person, close } = await launch()
const scripts = settings.scripts ?? true
const look = { javaScriptEnabled: scripts, viewport: { width: 900, height: 820 } }
const shot = (page, name) => (scripts ? page.screenshot({ path: `${settings.artefacts}/pages-${name}.png`, fullPage: true }) : undefined)
const fake = async (method, at, body) => {
  const response = await fetch(settings.fake + at, { method, body: body && JSON.stringify(body), headers: { 'content-type': 'application/json' } })
  const text = await response.text()
  assert.ok(response.ok, `${at}: ${response.status} ${text}`)
  return text && JSON.parse(text)
}
const mail = async (to) => (await fake('GET', `/mail?to=${encodeURIComponent(to)}&last=1`)).at(-1)
const problem = (page) => page.locator('#problem').innerText()
const password = settings.users.rita
/** Tries are counted for each account. */
const me = scripts ? 'rita@example.com' : 'will@example.com'

const context = await person(look)
const page = await context.newPage()
const complaints = []
page.on('console', (message) => ['error', 'warning'].includes(message.type()) && !/status of (4|5)/.test(message.text()) && complaints.push(message.text()))
page.on('pageerror', (error) => complaints.push(String(error)))
const elsewhere = []
page.on('request', (request) => request.url().startsWith('http') && !request.url().startsWith(settings.gateway) && elsewhere.push(request.url()))

await step('a page that needs somebody leads to the sign-in page, which leads back', async () => {
  await page.goto(`${settings.gateway}/page/notes?of=me`)
  await page.waitForURL((url) => url.pathname === '/login')
  assert.deepEqual(elsewhere, [], 'something came from elsewhere')
  assert.equal(await page.locator('h1').innerText(), 'Sign in to notes')
  await shot(page, '1-sign-in')
})
await step('it has a language, labels, and names for password managers', async () => {
  assert.equal(await page.locator('html').getAttribute('lang'), 'en')
  for (const [label, autocomplete] of [['Email', 'username'], ['Password', 'current-password']]) {
    assert.equal(await page.getByLabel(label, { exact: true }).first().getAttribute('autocomplete'), autocomplete)
  }
  assert.equal(await page.locator('#password-up').getAttribute('autocomplete'), 'new-password')
  assert.ok(await page.locator('meta[name=viewport]').count())
})
await step('dark, narrow, and at twice the size of text: nothing is cut off', async () => {
  for (const [name, more] of [
    ['dark', { colorScheme: 'dark' }], ['narrow', { viewport: { width: 320, height: 640 } }],
    ['narrow-dark', { colorScheme: 'dark', viewport: { width: 390, height: 844 } }], ['low', { viewport: { width: 700, height: 300 } }],
  ]) {
    const other = await person({ ...look, ...more })
    const tab = await other.newPage()
    await tab.goto(`${settings.gateway}/login?return_to=/page/notes`)
    await tab.click('summary')
    await shot(tab, `2-${name}`)
    if (scripts) {
      const [wide, inner, top] = await tab.evaluate(() => [document.documentElement.scrollWidth, innerWidth, document.querySelector('h1').getBoundingClientRect().top + scrollY])
      assert.ok(wide <= inner, `${name}: ${wide} > ${inner}`)
      assert.ok(top >= 0, `${name}: the heading is above the page (${top})`)
    }
    await other.close()
  }
})
await step('signing up with a password that is too short says so, and keeps the address', async () => {
  await page.click('summary')
  await page.fill('#account-up', me)
  await page.fill('#password-up', 'abc')
  await page.click('button[value=sign_up]')
  assert.match(await problem(page), /easily guessed|longer/)
  assert.equal(await page.locator('#account-up').inputValue(), me)
  assert.equal(await page.locator('#password-up').inputValue(), '')
  assert.ok(await page.locator('#account-up').isVisible(), 'the form is closed')
  await shot(page, '3-weak-password')
})
await step('signing up leads to “check your mail”', async () => {
  await page.fill('#account-up', me)
  await page.fill('#password-up', password)
  await page.click('button[value=sign_up]')
  await page.getByText('Check your mail').waitFor()
  assert.equal(await session(context), undefined)
  await shot(page, '4-check-mail')
})
await step('before the mail is confirmed nobody gets in, and is told why', async () => {
  await page.goto(`${settings.gateway}/login?return_to=/page/notes`)
  await page.fill('#account-in', me)
  await page.fill('#password-in', password)
  await page.click('button[value=sign_in]')
  assert.match(await problem(page), /confirm/i)
  assert.equal(await session(context), undefined)
  await shot(page, '5-unconfirmed')
})
await step('the link in the mail signs in, and leads to where one wanted to go', async () => {
  const { link } = await until('a mail', () => mail(me))
  await page.goto(link)
  await page.waitForURL(`${settings.gateway}/page/notes?of=me`)
  assert.ok(await session(context))
  await shot(page, '6-confirmed')
})
await step('the cookie cannot be read by scripts, and the app gets a token in its place', async () => {
  const cookie = await session(context)
  assert.deepEqual([cookie.httpOnly, cookie.secure, cookie.sameSite, cookie.path], [true, true, 'Lax', '/'])
  const request = (await seen()).filter(({ target }) => target.startsWith('/page/')).at(-1)
  assert.match(request.header('authorization'), /^Bearer eyJ/)
  assert.equal(request.header('x-auth-email'), me)
  assert.equal(request.header('cookie'), undefined)
})
await step('who is signed in and opens the sign-in page is sent on', async () => {
  await page.goto(`${settings.gateway}/login?return_to=/page/other`)
  assert.equal(path(page), '/page/other')
})
await step('signing out ends the session here and at Supabase', async () => {
  const cookie = await session(context)
  await page.goto(`${settings.gateway}/page/notes`)
  await page.click('#leave button')
  await page.waitForURL(`${settings.gateway}/`)
  assert.equal(await session(context), undefined)
  await status(fetch(`${settings.gateway}/api/me`, { headers: { cookie: `__Host-session=${cookie.value}` } }), 401)
  await until('the session at Supabase ends', async () => (await fake('GET', '/sessions')).length === 0)
})
await step('a wrong password and an unknown account get the same words', async () => {
  const words = []
  for (const account of [me, 'nobody@example.com']) {
    await page.goto(`${settings.gateway}/login?return_to=/page/notes`)
    await page.fill('#account-in', account)
    await page.fill('#password-in', 'not the password')
    const [answer] = await Promise.all([page.waitForResponse((response) => response.request().method() === 'POST'), page.click('button[value=sign_in]')])
    words.push([answer.status(), await problem(page)])
    assert.equal(await page.locator('#account-in').inputValue(), account)
    assert.equal(await page.locator('#password-in').inputValue(), '')
  }
  assert.deepEqual(words[0], words[1])
  await shot(page, '7-wrong-password')
})
await step('signing up with an account that exists tells nothing', async () => {
  await page.goto(`${settings.gateway}/login`)
  await page.click('summary')
  await page.fill('#account-up', me)
  await page.fill('#password-up', password)
  await page.click('button[value=sign_up]')
  await page.getByText('Check your mail').waitFor()
})
await step('the right password signs in', async () => {
  await page.goto(`${settings.gateway}/page/other?x=1&y=%C3%A9`)
  await page.fill('#account-in', me)
  await page.fill('#password-in', password)
  await page.keyboard.press('Enter')
  await page.waitForURL(`${settings.gateway}/page/other?x=1&y=%C3%A9`)
  await page.click('#leave button')
  await page.waitForURL(`${settings.gateway}/`)
})
await step('a provider (PKCE)', async () => {
  await page.goto(`${settings.gateway}/page/other`)
  await page.click('text=Continue with GitHub')
  await page.waitForURL(`${settings.gateway}/page/other`)
  const request = (await seen()).filter(({ target }) => target.startsWith('/page/')).at(-1)
  assert.equal(request.header('x-auth-email'), 'ada@provider.example')
  await page.click('#leave button')
  await page.waitForURL(`${settings.gateway}/`)
})
await step('a provider that says no', async () => {
  await fake('POST', '/settings', { provider_error: { error: 'access_denied', error_description: '<b>The user has denied your application access</b>' } })
  await page.goto(`${settings.gateway}/page/other`)
  await page.click('text=Continue with GitHub')
  await page.waitForURL((url) => url.pathname === '/auth/callback')
  assert.equal(await page.locator('b').count(), 0)
  assert.match(await page.locator('h1').innerText(), /\w/)
  assert.equal(await session(context), undefined)
  await shot(page, '8-provider-refused')
  await fake('POST', '/settings', { provider_error: {} })
})
await step('Supabase down: kind words, and nobody is in', async () => {
  await fake('POST', '/faults', { service: 'auth', status: 500, code: 'unexpected_failure', msg: 'boom' })
  await page.goto(`${settings.gateway}/login?return_to=/page/notes`)
  await page.fill('#account-in', me)
  await page.fill('#password-in', password)
  await page.click('button[value=sign_in]')
  assert.match(await problem(page), /right now|moment/)
  await shot(page, '9-unavailable')
  await fake('POST', '/faults', { clear: true })
})
await step('too many tries: to wait', async () => {
  for (let n = 0; n < 8; n += 1) {
    await page.goto(`${settings.gateway}/login`)
    await page.fill('#account-in', `mallory-${me}`)
    await page.fill('#password-in', `guess ${n}`)
    await page.click('button[value=sign_in]')
  }
  assert.match(await problem(page), /too many/i)
  await shot(page, '10-too-many')
})
await step('a form of another site does not sign anybody in', async () => {
  const evil = await context.newPage()
  await evil.route('http://evil.localhost/**', (route) =>
    route.fulfill({ contentType: 'text/html', body: `<form method=post action="${settings.gateway}/login"><input name=username value=${me}><input name=password value="${password}"><button name=action value=sign_in>go</button></form>` }))
  await evil.goto('http://evil.localhost/')
  const [answer] = await Promise.all([evil.waitForResponse((response) => response.url().startsWith(settings.gateway)), evil.click('button')])
  assert.equal(answer.status(), 403)
  assert.equal(await session(context), undefined)
  await shot(evil, '11-other-site')
  await evil.close()
})
await step('the browser had nothing to complain of', () => assert.deepEqual(complaints, []))
void sleep
await close()
