// What the scripts beside this one share: the settings that run.py hands over, steps that are told one by one, and the
// last exchanges, kept by a `fetch` that passes everything on. (run.py blots out passwords and tokens.)
import assert from 'node:assert/strict'

export { assert }
export const settings = JSON.parse(process.env.CLIENT_TEST)
export const gateway = settings.gateway
export const issuer = new URL(gateway)
export const reader = { username: 'rita', password: settings.users.rita }
export const writer = { username: 'will', password: settings.users.will }
export const auditor = { username: 'ada', password: settings.users.ada }
export const at = (path) => new URL(path, gateway)

const exchanges = []
const plain = globalThis.fetch
globalThis.fetch = async (input, init) => {
  const response = await plain(input, init)
  const sent = init ?? {}
  exchanges.push(`${sent.method ?? 'GET'} ${input?.url ?? input} ${String(sent.body ?? '').slice(0, 300)}`)
  const got = await response.clone().text()
  exchanges.push(`→ ${response.status} ${JSON.stringify(Object.fromEntries(response.headers))} ${got.slice(0, 300)}`)
  return response
}

export async function step(what, run) {
  try {
    const result = await run()
    console.log(`ok ${what}`)
    return result
  } catch (error) {
    const cause = error.cause ? ` (${JSON.stringify(error.cause)?.slice(0, 400) ?? error.cause})` : ''
    console.log(`FAIL ${what}: ${error.name}: ${error.message}${cause}`)
    for (const line of exchanges.slice(-3)) console.log(`  ${line}`)
    process.exit(1)
  }
}

export async function status(response, ...wanted) {
  response = await response
  if (!wanted.includes(response.status)) {
    assert.fail(`expected ${wanted}, got ${response.status}: ${(await response.text()).slice(0, 300)}`)
  }
  return response
}

export const call = (token, method, path, body) =>
  fetch(at(path), {
    method,
    headers: { authorization: `Bearer ${token}`, ...(body ? { 'content-type': 'application/json' } : {}) },
    body: body && JSON.stringify(body),
  })

/** A token that was good and is no longer: 401 that says so. */
export async function ended(token) {
  const response = await status(call(token, 'GET', '/notes'), 401)
  assert.match(response.headers.get('www-authenticate'), /error="invalid_token"/)
}
