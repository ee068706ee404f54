// Swagger UI in headless Chromium, in front of an app that has no line of authentication: locks, scopes with their
// descriptions, the Authorize dialog, a wrong password, operations allowed and refused, logout. Leaves screenshots.
import { chromium } from 'playwright-core'
import { assert, at, reader, settings, step } from './steps.mjs'

const browser = await chromium.launch({ executablePath: settings.chromium })
const page = await browser.newPage({ viewport: { width: 1200, height: 1050 } })
page.setDefaultTimeout(10_000)
const elsewhere = []
const problems = []
const logins = []
page.on('request', (request) => {
  const url = new URL(request.url())
  if (url.protocol.startsWith('http') && url.origin !== at('/').origin) elsewhere.push(url.origin)
  if (url.pathname === '/token') logins.push(request)
})
page.on('pageerror', (error) => problems.push(String(error)))

const shot = (name) => page.screenshot({ path: `${settings.artefacts}/swagger-${name}.png` })
const operation = (method, path) =>
  page.locator('.opblock', { has: page.locator(`[data-path="${path}"]`) }).and(page.locator(`.opblock-${method}`))
const dialog = page.locator('.dialog-ux .modal-ux')
const openDialog = () => page.locator('.scheme-container .auth-wrapper .authorize').click()
const closeDialog = () => dialog.locator('.close-modal').click()

/** Executes an operation on the page, and returns the status that is shown with the text of the answer. */
async function execute(method, path) {
  const block = operation(method, path)
  if (!(await block.locator('.opblock-body').isVisible())) await block.locator('.opblock-summary-control').click()
  await block.locator('.try-out__btn').waitFor()
  const tryIt = block.locator('.try-out__btn:not(.cancel)')
  if (await tryIt.count()) await tryIt.click()
  const clear = block.locator('.btn-clear')
  if (await clear.count()) await clear.click()
  await block.locator('button.execute').click()
  const answer = block.locator('.live-responses-table tbody tr.response').first()
  return [await answer.locator('.response-col_status').innerText(), await answer.innerText()]
}

await step('the page loads from the gateway alone', async () => {
  await page.goto(at('/docs').href)
  await operation('get', '/notes').waitFor()
  assert.deepEqual(elsewhere, [])
  assert.deepEqual(problems, [])
})

await step('locks on what is protected, none on what is public', async () => {
  for (const [method, path] of [['get', '/notes'], ['post', '/notes'], ['delete', '/notes/{note_id}'], ['get', '/users/me']]) {
    const lock = operation(method, path).locator('.authorization__btn')
    assert.equal(await lock.count(), 1, `${method} ${path} has no lock`)
    assert.equal(await lock.getAttribute('aria-label'), 'authorization button unlocked')
  }
  assert.equal(await operation('get', '/').locator('.authorization__btn').count(), 0, 'the home page has a lock')
  await shot('1-locks')
})

await step('without a login an operation is refused', async () => {
  const [status, text] = await execute('get', '/notes')
  assert.match(status, /^401/)
  assert.match(text, /unauthenticated/)
})

await step('the Authorize dialog shows the scopes with the words of the policy', async () => {
  await openDialog()
  const text = await dialog.innerText()
  for (const word of ['notes:read', 'Read notes', 'notes:write', 'Write and delete notes', '/token', 'password']) {
    assert.ok(text.includes(word), `no "${word}" in the dialog: ${text}`)
  }
  assert.equal(await dialog.locator('.scopes input[type=checkbox]').count(), 2)
  await dialog.locator('.auth-btn-wrapper').scrollIntoViewIfNeeded()
  await shot('2-authorize')
})

const login = async (user, password) => {
  await dialog.locator('#oauth_username').fill(user)
  await dialog.locator('#oauth_password').fill(password)
  await dialog.locator('.auth-btn-wrapper .authorize').click()
}

await step('a wrong password is told in words', async () => {
  await login(reader.username, 'not the password')
  const errors = dialog.locator('.errors')
  await errors.first().waitFor()
  const text = await errors.allInnerTexts()
  assert.ok(text.some((line) => line.includes('Incorrect username or password')), text.join('; '))
  await shot('3-wrong-password')
})

await step('logs in with the password form', async () => {
  const selectAll = dialog.locator('.scopes h2 a').first()
  if (await selectAll.count()) await selectAll.click()
  await login(reader.username, reader.password)
  await dialog.locator('.auth-btn-wrapper button', { hasText: 'Logout' }).waitFor()
  const request = logins.at(-1)
  const headers = await request.allHeaders()
  assert.equal(headers['x-requested-with'], 'XMLHttpRequest')
  assert.equal(headers.authorization, 'Basic Og==', 'what Swagger UI sends has changed')
  const form = new URLSearchParams(request.postData())
  assert.equal(form.get('grant_type'), 'password')
  assert.deepEqual(form.get('scope').split(' ').toSorted(), ['notes:read', 'notes:write'])
  const token = await (await request.response()).json()
  assert.equal(token.scope, 'notes:read')
  await shot('4-logged-in')
  await closeDialog()
  assert.equal(await page.locator('.opblock .authorization__btn[aria-label="authorization button locked"]').count(), 4)
})

await step('an allowed operation answers 200', async () => {
  const [status, text] = await execute('get', '/notes')
  assert.match(status, /^200/)
  assert.match(text, /hinges/)
  await operation('get', '/notes').locator('.live-responses-table').scrollIntoViewIfNeeded()
  await shot('5-allowed')
})

await step('a forbidden one 403, and says which scope is missing', async () => {
  const [status, text] = await execute('post', '/notes')
  assert.match(status, /^403/)
  assert.match(text, /insufficient_scope/)
  assert.match(text, /notes:write/)
  await operation('post', '/notes').locator('.live-responses-table').scrollIntoViewIfNeeded()
  await shot('6-forbidden')
})

await step('after Logout an operation is refused', async () => {
  await openDialog()
  await dialog.locator('.auth-btn-wrapper button', { hasText: 'Logout' }).click()
  await dialog.locator('#oauth_username').waitFor()
  await closeDialog()
  const [status] = await execute('get', '/notes')
  assert.match(status, /^401/)
})

await step('nothing came from elsewhere, and no script failed', async () => {
  assert.deepEqual(elsewhere, [])
  assert.deepEqual(problems, [])
})
await browser.close()
