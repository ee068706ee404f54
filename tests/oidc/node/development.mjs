// `__Host-` cookies without TLS: Chromium takes them from this machine alone, under each of its names.
import { assert, atProvider, chooseProvider, launch, settings, step } from './steps.mjs'

const { person, close } = await launch({ args: ['--host-resolver-rules=MAP dev.example 127.0.0.1, MAP *.localhost 127.0.0.1'] })
/** What the browser keeps of the cookies that an app under this name sets. */
async function kept(name) {
  const somebody = await person()
  const page = await somebody.newPage()
  await page.goto(`http://${name}:${new URL(settings.app).port}/cookies/x`)
  const found = (await somebody.cookies()).map((cookie) => cookie.name)
  await somebody.close()
  return found
}
await step('Chromium keeps `__Host-` cookies of http://localhost and http://127.0.0.1, and of no other name', async () => {
  for (const name of ['localhost', '127.0.0.1', 'app.localhost']) assert.deepEqual(await kept(name), ['app', '__Host-session'], name)
  assert.deepEqual(await kept('dev.example'), ['app'])
})
await step('a sign-in at http://127.0.0.1 works', async () => {
  const rita = await person()
  const page = await rita.newPage()
  await page.goto(`${settings.gateway}/page/notes`)
  await chooseProvider(page)
  await atProvider(page)
  await page.waitForURL(`${settings.gateway}/page/notes`)
  await rita.close()
})
await step('one that began at http://localhost ends at the name that the provider knows', async () => {
  const rita = await person()
  const page = await rita.newPage()
  await page.goto(`${settings.gateway.replace('127.0.0.1', 'localhost')}/page/notes?of=me`)
  await chooseProvider(page)
  await atProvider(page)
  await page.waitForURL(`${settings.gateway}/page/notes?of=me`)
  await rita.close()
})
await close()
