// What the scripts beside this one share: steps (those of tests/clients, by the link that tests/setup.sh makes), the
// provider's control port, a user who fills in the provider's form without a browser, and Chromium.
import { assert, settings, step } from '../scripts/steps.mjs'

export * from '../scripts/steps.mjs'

export const api = 'https://api.example/'
export const opaque = 'https://opaque.example/'

/** A command for the provider: see `control` in provider.mjs. */
export async function control(command, options = {}) {
  const response = await fetch(`${settings.control}/${command}`, { method: 'POST', body: JSON.stringify(options) })
  assert.equal(response.status, 200, `${command}: ${await response.clone().text()}`)
  return response.json()
}
/** How many requests of a kind the provider got since the last `reset`, e.g. `POST /token`. */
export const count = async (what) => (await control('counts'))[what] ?? 0
export const sleep = (ms) => new Promise((done) => setTimeout(done, ms))

export async function until(what, condition, seconds = 10) {
  const end = Date.now() + seconds * 1000
  let last
  while (Date.now() < end) {
    try {
      last = await condition()
      if (last) return last
    } catch (error) {
      last = error
    }
    await sleep(50)
  }
  assert.fail(`${what}: not within ${seconds} s (${last})`)
}

/** What the app saw since the last call. */
let looked = 0
export async function seen() {
  const all = await (await fetch(`${settings.app}/seen`)).json()
  const fresh = all.slice(looked)
  looked = all.length
  return fresh.map(({ method, target, headers }) => ({ method, target, headers, header: (name) => headers.find(([n]) => n === name)?.[1] }))
}

/** Follows an authorization URL as a user would, with the provider's form; returns the URL that the code was sent to. */
export async function authorize(url, name, password = settings.users[name]) {
  const jar = new Map()
  const go = async (at, init = {}) => {
    const headers = { ...init.headers, cookie: [...jar].map(([n, v]) => `${n}=${v}`).join('; ') }
    const response = await fetch(at, { ...init, headers, redirect: 'manual' })
    for (const line of response.headers.getSetCookie()) {
      const [, n, v] = /^([^=]+)=([^;]*)/.exec(line)
      if (v === '') jar.delete(n)
      else jar.set(n, v)
    }
    const to = response.headers.get('location')
    if (!to) return { at, response }
    const next = new URL(to, at)
    return next.href.startsWith(settings.redirect) ? { done: next } : go(next)
  }
  let reached = await go(new URL(url))
  if (reached.done) return reached.done
  assert.equal(reached.response.status, 200, await reached.response.clone().text())
  reached = await go(reached.at, { method: 'POST', body: new URLSearchParams({ name, password, do: 'sign-in' }) })
  assert.ok(reached.done, reached.response && (await reached.response.text()))
  return reached.done
}

// --- Chromium. Scripts that need none never load it.

export async function launch(options = {}) {
  const { chromium } = await import('playwright-core')
  const browser = await chromium.launch({ executablePath: settings.chromium, args: options.args })
  /** A browser of somebody: cookies of his own. */
  const person = async (more = {}) => {
    const context = await browser.newContext({ viewport: { width: 1000, height: 750 }, ...more })
    context.setDefaultTimeout(10_000)
    return context
  }
  return { browser, person, close: () => browser.close() }
}

export const shot = (page, name) => page.screenshot({ path: `${settings.artefacts}/oidc-${name}.png`, fullPage: true })
export const path = (page) => new URL(page.url()).pathname + new URL(page.url()).search

/** The provider's page: signs in. */
export async function atProvider(page, name = 'rita', password = settings.users[name]) {
  await page.waitForURL((url) => url.origin === settings.issuer)
  await page.fill('input[name=name]', name)
  await page.fill('input[name=password]', password)
  await page.click('button[value=sign-in]')
}
/** From the gateway's sign-in page to the provider's, where there is a page and not at once a redirect. */
export async function chooseProvider(page) {
  await page.waitForLoadState()
  if (new URL(page.url()).origin === settings.issuer) return
  await page.click('a[href*="/login/idp"], form[action*="/login/idp"] button')
}
/** Opens a page that needs somebody, and becomes somebody. */
export async function signIn(page, to = '/page/notes?of=me', name = 'rita') {
  await page.goto(settings.gateway + to)
  await chooseProvider(page)
  await atProvider(page, name)
  await page.waitForURL(settings.gateway + to)
  assert.equal(await page.locator('#user').innerText(), name)
}
export const session = async (context) => (await context.cookies()).find(({ name }) => name === '__Host-session')
export { step }
