// What the scripts beside this one share: the settings that run.py hands over, the control port of the fake, scenarios that
// are told one by one. (run.py blots out tokens.)
import assert from 'node:assert/strict'
import { createClient } from '@supabase/supabase-js'
import WebSocket from 'ws'

export { assert }
export const settings = JSON.parse(process.env.SUPABASE_TEST)
export const { url, control, key, through, app } = settings
export const gateway = through === 'gateway'
export const password = 'Correct horse 7 battery'

export async function ask(method, path, body) {
  const response = await fetch(control + path, { method, body: body && JSON.stringify(body) })
  const answer = await response.json()
  assert.ok(response.ok, `control ${method} ${path}: ${JSON.stringify(answer)}`)
  return answer
}
export const set = (values) => ask('POST', '/settings', values)
export const fail = (fault) => ask('POST', '/faults', fault)
export const count = async (name) => (await ask('GET', '/counters'))[name]?.count ?? 0
export const seen = (query) => ask('GET', `/requests?${new URLSearchParams(query)}`)
export const header = (request, name) => request.headers.filter(([n]) => n.toLowerCase() === name).map(([, value]) => value)
export const mail = async (to) => (await ask('GET', `/mail?${new URLSearchParams({ to, last: 1 })}`))[0]
export const code = async (secret) => (await ask('GET', `/totp?${new URLSearchParams({ secret })}`)).code
export const sleep = (ms) => new Promise((done) => setTimeout(done, ms))
export const claims = (token) => JSON.parse(Buffer.from(token.split('.')[1], 'base64url'))
let people = 0
export const email = (name = 'user') => `${name}-${process.pid}-${++people}@example.com`

/** A storage as a browser has one, which a test can look into. */
export class Storage extends Map {
  getItem = (name) => this.get(name) ?? null
  setItem = (name, value) => void this.set(name, value)
  removeItem = (name) => void this.delete(name)
}

const clients = []
export function client({ apikey = key, ...auth } = {}) {
  const made = createClient(url, apikey, {
    auth: { autoRefreshToken: false, detectSessionInUrl: false, storage: new Storage(), ...auth },
    realtime: { transport: WebSocket },
  })
  clients.push(made)
  return made
}

/** What a call of supabase-js gives, or its error thrown. */
export function good({ data, error }) {
  if (error) throw error
  return data
}
export async function bad(promise, wanted) {
  const { data, error } = await promise
  assert.ok(error, `no error, but ${JSON.stringify(data)?.slice(0, 300)}`)
  for (const [name, value] of Object.entries(wanted)) {
    assert.equal(error[name], value, `${name} of ${error.name} ${error.status} ${error.code}: ${error.message}`)
  }
  return error
}
export async function signedUp(options = {}, name = 'user') {
  const supabase = client(options)
  const address = email(name)
  const { session, user } = good(await supabase.auth.signUp({ email: address, password }))
  return { supabase, email: address, session, user }
}

/** A request by hand. */
export const raw = (method, path, { headers = {}, body, ...more } = {}) =>
  fetch(url + path, {
    method,
    redirect: 'manual',
    headers: { apikey: key, ...(body && typeof body === 'object' ? { 'content-type': 'application/json' } : {}), ...headers },
    body: body && typeof body === 'object' && !(body instanceof Uint8Array) ? JSON.stringify(body) : body,
    ...more,
  })
export const bearer = (token) => ({ authorization: `Bearer ${token}` })
export async function status(response, wanted) {
  response = await response
  const text = await response.clone().text()
  assert.equal(response.status, wanted, `status; the body: ${text.slice(0, 300)}`)
  return text && response.headers.get('content-type')?.includes('json') ? JSON.parse(text) : text
}

/** Follows redirects by hand until one leaves for `target`; the last Location. */
export async function browse(start, target) {
  let location = start
  for (let hops = 0; hops < 6; hops++) {
    const response = await fetch(location, { redirect: 'manual' })
    assert.ok([302, 303].includes(response.status), `${location.split('?')[0]}: ${response.status} ${await response.text()}`)
    location = response.headers.get('location')
    if (location.startsWith(target)) return new URL(location)
  }
  assert.fail('too many redirects')
}
export const fragment = (location) => new URLSearchParams(location.hash.slice(1))

const all = []
export const scenario = (name, run, { only } = {}) => all.push({ name, run, only })

export async function main(close) {
  const wanted = process.argv[2] ?? ''
  let failed = 0
  for (const { name, run, only } of all) {
    if ((only && only !== through) || !name.includes(wanted)) continue
    await ask('POST', '/reset')
    const began = performance.now()
    try {
      await Promise.race([
        run(),
        new Promise((_, late) => setTimeout(() => late(new Error('not within 60 s')), 60_000).unref()),
      ])
      console.log(`ok ${name}  ${((performance.now() - began) / 1000).toFixed(1)} s`)
    } catch (error) {
      failed++
      const at = String(error.stack).split('\n').find((line) => line.includes('.mjs:'))?.trim() ?? ''
      console.log(`FAIL ${name}: ${error.name} ${error.status ?? ''} ${error.code ?? ''}: ${error.message} ${at}`.replaceAll('\n', ' '))
      for (const last of (await seen({ last: 3 })).slice(-3)) console.log(`  ${last.method} ${last.service} ${last.target.slice(0, 100)} → ${last.status}`)
    }
  }
  for (const made of clients) {
    made.realtime.disconnect()
    made.auth.dispose?.()
  }
  await close?.()
  process.exit(failed ? 1 : 0)
}
