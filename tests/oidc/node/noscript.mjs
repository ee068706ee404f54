// The same way without JavaScript.
import { assert, launch, session, settings, shot, signIn, sleep, step } from './steps.mjs'

const { person, close } = await launch()
const rita = await person({ javaScriptEnabled: false, viewport: { width: 390, height: 780 } })
const page = await rita.newPage()
await step('signing in', async () => {
  await signIn(page, '/page/notes?of=me')
  assert.equal(await page.locator('#script').innerText(), 'no script ran')
})
await step('writing', async () => {
  await page.fill('#write input', 'without scripts')
  await page.click('#write button')
  await page.waitForURL(`${settings.gateway}/page/notes`)
  assert.ok((await page.locator('#notes').innerText()).includes('without scripts'))
})
await step('signing out', async () => {
  await page.click('#leave button')
  await page.waitForLoadState()
  await sleep(500)
  if (new URL(page.url()).origin === settings.issuer) {
    await page.click('button[value=yes]')
    await page.waitForURL((url) => url.origin === settings.gateway)
  }
  assert.equal(await session(rita), undefined)
  await shot(page, 'noscript-signed-out')
})
await close()
