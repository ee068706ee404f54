// supabase-js, as anybody uses it, against whatever answers at `url`.
import { app as APP, ask, assert, bad, bearer, browse, claims, client, code, count, email, fail, fragment, gateway, good, header, key, mail, main, password, raw, scenario, seen, set, settings, signedUp, sleep, status, Storage, url } from './rig.mjs'

const CALLBACK = `${APP}/auth/callback`

scenario('sign-up', async () => {
  const { supabase, user, session } = await signedUp()
  assert.equal(user.role, 'authenticated')
  const said = claims(session.access_token)
  assert.equal(said.sub, user.id)
  assert.equal(said.aud, 'authenticated')
  assert.equal(said.aal, 'aal1')
  assert.equal(said.amr[0].method, 'password')
  assert.equal(good(await supabase.auth.getUser()).user.id, user.id)
  assert.equal(good(await supabase.auth.getClaims()).claims.sub, user.id)
  await bad(client().auth.signUp({ email: user.email, password }), { status: 422, code: 'user_already_exists' })
  await bad(client().auth.signUp({ email: email(), password: 'short' }), { status: 422, code: 'weak_password', name: 'AuthWeakPasswordError' })
})

scenario('sign-up with confirmation', async () => {
  await set({ mailer_autoconfirm: false })
  const supabase = client()
  const address = email()
  const { session, user } = good(await supabase.auth.signUp({ email: address, password, options: { emailRedirectTo: CALLBACK } }))
  assert.equal(session, null)
  assert.equal(user.email, address)
  await bad(supabase.auth.signInWithPassword({ email: address, password }), { status: 400, code: 'email_not_confirmed' })
  await bad(supabase.auth.resend({ type: 'signup', email: address }), { status: 429, code: 'over_email_send_rate_limit' })
  await set({ smtp_max_frequency: 0 })
  good(await supabase.auth.resend({ type: 'signup', email: address }))
  const { token_hash } = await mail(address)
  assert.equal(good(await supabase.auth.verifyOtp({ type: 'signup', token_hash })).user.email, address)
  const hidden = good(await client().auth.signUp({ email: address, password }))
  assert.equal(hidden.session, null, 'an existing user is not told')
})

scenario('sign-in', async () => {
  const { user } = await signedUp()
  const storage = new Storage()
  const supabase = client({ storage })
  const { session } = good(await supabase.auth.signInWithPassword({ email: user.email, password }))
  assert.equal(session.token_type, 'bearer')
  assert.equal(session.expires_in, 3600)
  assert.equal(good(await supabase.auth.getSession()).session.refresh_token, session.refresh_token)
  assert.equal(storage.size, 1)
  const again = client({ storage })
  assert.equal(good(await again.auth.getUser()).user.id, user.id, 'a page that is loaded again is signed in')
})

scenario('wrong password, and both formats of errors', async () => {
  const { user } = await signedUp()
  for (const address of [user.email, email('nobody')]) {
    const error = await bad(client().auth.signInWithPassword({ email: address, password: 'wrong horse' }),
      { status: 400, code: 'invalid_credentials', message: 'Invalid login credentials', name: 'AuthApiError' })
    assert.equal(error.__isAuthError, true)
  }
  const body = { email: user.email, password: 'wrong horse' }
  const old = await raw('POST', '/auth/v1/token?grant_type=password', { body })
  assert.deepEqual(await status(old, 400), { code: 400, error_code: 'invalid_credentials', msg: 'Invalid login credentials' })
  assert.equal(old.headers.get('x-sb-error-code'), 'invalid_credentials')
  const now = await raw('POST', '/auth/v1/token?grant_type=password', { body, headers: { 'x-supabase-api-version': '2024-01-01' } })
  assert.deepEqual(await status(now, 400), { code: 'invalid_credentials', message: 'Invalid login credentials' })
  assert.equal(now.headers.get('x-supabase-api-version'), '2024-01-01')
  const form = await raw('POST', '/auth/v1/token?grant_type=password', { body: 'username=a&password=b', headers: { 'content-type': 'application/x-www-form-urlencoded' } })
  assert.equal((await status(form, 400)).error_code, 'bad_json')
})

scenario('captcha and unusual bodies', async () => {
  await set({ security_captcha_enabled: true })
  const address = email()
  await bad(client().auth.signUp({ email: address, password }), { status: 400, code: 'captcha_failed' })
  good(await client().auth.signUp({ email: address, password, options: { captchaToken: 'good-captcha', data: { note: 'x'.repeat(20_000), name: 'Zoë 名' } } }))
  const sent = (await seen({ path: '/signup', last: 1 }))[0].body
  assert.deepEqual(sent.gotrue_meta_security, { captcha_token: 'good-captcha' })
  assert.equal(sent.data.name, 'Zoë 名')
})

scenario('refresh', async () => {
  const { supabase, session } = await signedUp()
  const fresh = good(await supabase.auth.refreshSession()).session
  assert.notEqual(fresh.refresh_token, session.refresh_token)
  assert.equal(claims(fresh.access_token).session_id, claims(session.access_token).session_id)
  assert.equal(good(await supabase.auth.getUser()).user.id, session.user.id)
  const parent = await client().auth.refreshSession({ refresh_token: session.refresh_token })
  assert.equal(good(parent).session.refresh_token, fresh.refresh_token, 'the parent gives the active token')
  await bad(client().auth.refreshSession({ refresh_token: 'abcdefghijkl' }), { status: 400, code: 'refresh_token_not_found' })
  assert.deepEqual(await status(raw('POST', '/auth/v1/token?grant_type=refresh_token', { body: {} }), 400),
    { error: 'invalid_request', error_description: 'refresh_token required' })
})

for (const version of [1, 2]) {
  scenario(`refresh: reuse ends the session (tokens v${version})`, async () => {
    await set({ security_refresh_token_algorithm_version: version, security_refresh_token_reuse_interval: 0 })
    const { supabase, session } = await signedUp()
    good(await supabase.auth.refreshSession())
    good(await supabase.auth.refreshSession())
    await bad(client().auth.refreshSession({ refresh_token: session.refresh_token }), { status: 400, code: 'refresh_token_already_used' })
    const { error } = await supabase.auth.refreshSession()
    assert.equal(error.status, 400, 'the whole family is gone')
  })
}

scenario('refresh with a stale bearer', async () => {
  await set({ jwt_exp: 1 })
  const { session } = await signedUp()
  await sleep(2100)
  const stale = await status(raw('POST', '/auth/v1/token?grant_type=refresh_token', { headers: bearer(session.access_token), body: { refresh_token: session.refresh_token } }), 200)
  assert.ok(stale.access_token)
  const nonsense = await status(raw('POST', '/auth/v1/token?grant_type=refresh_token', { headers: bearer('a.b.c'), body: { refresh_token: stale.refresh_token } }), 200)
  assert.ok(nonsense.access_token)
})

scenario('20 parallel refreshes', async () => {
  const { supabase, session } = await signedUp()
  const before = await count('POST auth/token?grant_type=refresh_token')
  const own = await Promise.all(Array.from({ length: 20 }, () => supabase.auth.refreshSession()))
  assert.equal(new Set(own.map((result) => good(result).session.refresh_token)).size, 1)
  const tabs = await Promise.all(Array.from({ length: 20 }, () => client().auth.refreshSession({ refresh_token: session.refresh_token })))
  assert.equal(new Set(tabs.map((result) => good(result).session.refresh_token)).size, 1, 'all tabs end with one token')
  assert.equal(await count('POST auth/token?grant_type=refresh_token'), before + 21, 'nothing was tried twice')
  good(await supabase.auth.refreshSession())
  assert.equal(good(await supabase.auth.getUser()).user.id, session.user.id)
})

scenario('user update', async () => {
  const { supabase, user, session } = await signedUp()
  const elsewhere = client()
  good(await elsewhere.auth.signInWithPassword({ email: user.email, password }))
  const updated = good(await supabase.auth.updateUser({ data: { plan: 'free', role: 'admin' } })).user
  assert.equal(updated.user_metadata.plan, 'free')
  await bad(supabase.auth.updateUser({ password }), { status: 422, code: 'same_password' })
  good(await supabase.auth.updateUser({ password: 'Another horse 8' }))
  await bad(elsewhere.auth.refreshSession(), { status: 400, code: 'refresh_token_not_found' })
  good(await client().auth.signInWithPassword({ email: user.email, password: 'Another horse 8' }))
  assert.equal((await status(raw('PUT', '/auth/v1/user', { headers: bearer(session.access_token), body: { app_metadata: { role: 'admin' } } }), 403)).error_code, 'not_admin')
  good(await supabase.auth.updateUser({ email: email('new') }))
  assert.match(good(await supabase.auth.getUser()).user.new_email, /^new-/)
})

scenario('logout: local', async () => {
  const { supabase, user, session } = await signedUp()
  const other = client()
  good(await other.auth.signInWithPassword({ email: user.email, password }))
  assert.equal((await supabase.auth.signOut({ scope: 'local' })).error, null)
  assert.equal(good(await supabase.auth.getSession()).session, null)
  assert.equal((await status(raw('GET', '/auth/v1/user', { headers: bearer(session.access_token) }), 403)).error_code, 'session_not_found')
  assert.equal(good(await other.auth.getUser()).user.id, user.id)
})

scenario('logout: global', async () => {
  const { supabase, user } = await signedUp()
  const other = client()
  good(await other.auth.signInWithPassword({ email: user.email, password }))
  assert.equal((await supabase.auth.signOut()).error, null)
  await bad(other.auth.refreshSession(), { status: 400, code: 'refresh_token_not_found' })
})

scenario('logout: others', async () => {
  const { supabase, user } = await signedUp()
  const other = client()
  good(await other.auth.signInWithPassword({ email: user.email, password }))
  assert.equal((await supabase.auth.signOut({ scope: 'others' })).error, null)
  assert.equal(good(await supabase.auth.getUser()).user.id, user.id)
  await bad(other.auth.refreshSession(), { status: 400, code: 'refresh_token_not_found' })
})

scenario('logout answers', async () => {
  const { session } = await signedUp()
  const answer = await raw('POST', '/auth/v1/logout?scope=elsewhere', { headers: bearer(session.access_token) })
  assert.equal((await status(answer, 400)).error_code, 'validation_failed')
  const done = await raw('POST', '/auth/v1/logout', { headers: bearer(session.access_token) })
  await status(done, 204)
  assert.equal(await done.text(), '')
  await status(raw('POST', '/auth/v1/logout', { headers: bearer(session.access_token) }), 403)
  const without = settings.bare ? [401, 'no_authorization'] : [403, 'bad_jwt'] // an edge puts the key in place of the bearer
  assert.equal((await status(raw('POST', '/auth/v1/logout'), without[0])).error_code, without[1])
})

async function pkce(supabase, options = {}) {
  const { url: start } = good(await supabase.auth.signInWithOAuth({ provider: 'github', options: { redirectTo: CALLBACK, skipBrowserRedirect: true, ...options } }))
  return [start, await browse(start, APP)]
}

scenario('PKCE with a provider', async () => {
  const supabase = client({ flowType: 'pkce' })
  const [start, back] = await pkce(supabase, { scopes: 'repo', queryParams: { login_hint: 'grace@example.org' } })
  assert.match(new URL(start).searchParams.get('code_challenge_method'), /^s256$/i)
  assert.equal(back.pathname, '/auth/callback')
  const { session, user } = good(await supabase.auth.exchangeCodeForSession(back.searchParams.get('code')))
  assert.equal(user.email, 'grace@example.org')
  assert.ok(session.provider_token && session.provider_refresh_token)
  assert.equal(claims(session.access_token).amr[0].method, 'oauth')
  const body = { auth_code: back.searchParams.get('code'), code_verifier: 'x'.repeat(43) }
  assert.equal((await status(raw('POST', '/auth/v1/token?grant_type=pkce', { body }), 404)).error_code, 'flow_state_not_found')
  const [, second] = await pkce(supabase)
  const wrong = { auth_code: second.searchParams.get('code'), code_verifier: 'x'.repeat(43) }
  assert.equal((await status(raw('POST', '/auth/v1/token?grant_type=pkce', { body: wrong }), 400)).error_code, 'bad_code_verifier')
})

scenario('implicit flow with a provider', async () => {
  const supabase = client()
  const [, back] = await pkce(supabase)
  const said = fragment(back)
  const { user } = good(await supabase.auth.setSession({ access_token: said.get('access_token'), refresh_token: said.get('refresh_token') }))
  assert.equal(user.email, 'ada@provider.example')
})

scenario('error redirects', async () => {
  await set({ provider_error: { error: 'access_denied', error_description: 'The user said no' } })
  const [start, back] = await pkce(client({ flowType: 'pkce' }))
  assert.equal(back.searchParams.get('error'), 'access_denied')
  assert.equal(fragment(back).get('error_description'), 'The user said no')
  const unknown = await raw('GET', '/auth/v1/callback?code=x&state=00000000-0000-4000-8000-000000000000')
  assert.equal(unknown.status, 303)
  const location = new URL(unknown.headers.get('location'))
  assert.equal(location.origin, APP, 'to the site, and untouched')
  assert.equal(location.searchParams.get('error_code'), 'bad_oauth_state')
  const used = await raw('GET', `/auth/v1/callback?code=x&state=${new URL((await raw('GET', start.slice(url.length))).headers.get('location')).searchParams.get('state')}`)
  assert.match(used.headers.get('location'), /error=server_error/)
  assert.equal((await status(raw('GET', '/auth/v1/authorize?provider=nobody'), 400)).error_code, 'validation_failed')
  assert.equal((await status(raw('GET', '/auth/v1/authorize?provider=github&code_challenge=short&code_challenge_method=s256'), 400)).error_code, 'validation_failed')
  const expired = await raw('GET', `/auth/v1/verify?token=pkce_00&type=magiclink&redirect_to=${encodeURIComponent(CALLBACK)}`)
  assert.equal(expired.status, 303)
  assert.match(expired.headers.get('location'), /\?error=access_denied&error_code=otp_expired.*#error=access_denied/)
  const elsewhere = await raw('GET', '/auth/v1/verify?token=00&type=magiclink&redirect_to=https%3A%2F%2Fevil.example%2F')
  assert.ok(elsewhere.headers.get('location').startsWith(`${APP}#`), elsewhere.headers.get('location'))
})

scenario('open routes need no key', async () => {
  const without = (path) => fetch(url + path, { redirect: 'manual' })
  assert.equal((await without('/auth/v1/authorize?provider=github')).status, 302)
  assert.equal((await without('/auth/v1/verify?token=00&type=magiclink')).status, 303)
  const keys = await status(without('/auth/v1/.well-known/jwks.json'), 200)
  assert.equal(keys.keys.length, settings.legacy ? 0 : 1)
  assert.ok((await status(without('/auth/v1/.well-known/openid-configuration'), 200)).jwks_uri)
})

scenario('OTP by mail: code', async () => {
  const supabase = client()
  const address = email('otp')
  good(await supabase.auth.signInWithOtp({ email: address }))
  await bad(supabase.auth.signInWithOtp({ email: address }), { status: 429, code: 'over_email_send_rate_limit' })
  await bad(supabase.auth.verifyOtp({ email: address, token: '000000', type: 'email' }), { status: 403, code: 'otp_expired' })
  const { session } = good(await supabase.auth.verifyOtp({ email: address, token: (await mail(address)).otp, type: 'email' }))
  assert.equal(claims(session.access_token).amr[0].method, 'otp')
  await bad(client().auth.signInWithOtp({ email: email('nobody'), options: { shouldCreateUser: false } }), { status: 422, code: 'otp_disabled' })
})

scenario('OTP by mail: link', async () => {
  const supabase = client({ flowType: 'pkce' })
  const address = email('link')
  good(await supabase.auth.signInWithOtp({ email: address, options: { emailRedirectTo: CALLBACK } }))
  const { link } = await mail(address)
  assert.ok(link.startsWith(`${url}/auth/v1/verify?token=pkce_`), `the link leads through here: ${link}`)
  const back = await browse(link, APP)
  assert.equal(good(await supabase.auth.exchangeCodeForSession(back.searchParams.get('code'))).user.email, address)
  const implicit = email('implicit')
  good(await client().auth.signInWithOtp({ email: implicit, options: { emailRedirectTo: CALLBACK } }))
  assert.ok(fragment(await browse((await mail(implicit)).link, APP)).get('access_token'))
})

scenario('OTP by SMS', async () => {
  const supabase = client()
  good(await supabase.auth.signInWithOtp({ phone: '+436601234567' }))
  const { session, user } = good(await supabase.auth.verifyOtp({ phone: '+436601234567', token: (await mail('436601234567')).otp, type: 'sms' }))
  assert.equal(user.phone, '436601234567')
  assert.equal(claims(session.access_token).phone, '436601234567')
})

scenario('password recovery', async () => {
  const { user } = await signedUp()
  const supabase = client({ flowType: 'pkce' })
  good(await supabase.auth.resetPasswordForEmail(user.email, { redirectTo: CALLBACK }))
  const back = await browse((await mail(user.email)).link, APP)
  good(await supabase.auth.exchangeCodeForSession(back.searchParams.get('code')))
  good(await supabase.auth.updateUser({ password: 'Remembered horse 9' }))
  good(await client().auth.signInWithPassword({ email: user.email, password: 'Remembered horse 9' }))
  good(await client().auth.resetPasswordForEmail(email('nobody')))
})

scenario('anonymous sign-in', async () => {
  const supabase = client()
  const { user, session } = good(await supabase.auth.signInAnonymously())
  assert.equal(user.is_anonymous, true)
  assert.equal(claims(session.access_token).role, 'authenticated')
  const address = email('named')
  assert.equal(good(await supabase.auth.updateUser({ email: address })).user.email, address)
  assert.equal(claims(good(await supabase.auth.refreshSession()).session.access_token).is_anonymous, false)
})

/** A user with a verified factor, at aal2. */
async function withFactor() {
  const made = await signedUp()
  const { id: factorId, totp } = good(await made.supabase.auth.mfa.enroll({ factorType: 'totp', friendlyName: 'phone' }))
  const { id: challengeId } = good(await made.supabase.auth.mfa.challenge({ factorId }))
  await bad(made.supabase.auth.mfa.verify({ factorId, challengeId, code: '000000' }), { status: 422, code: 'mfa_verification_failed' })
  good(await made.supabase.auth.mfa.verify({ factorId, challengeId, code: await code(totp.secret) }))
  return { ...made, factorId, secret: totp.secret }
}

scenario('MFA: enrol, challenge, verify', async () => {
  const { supabase, user, factorId, secret } = await withFactor()
  const level = good(await supabase.auth.mfa.getAuthenticatorAssuranceLevel())
  assert.equal(level.currentLevel, 'aal2')
  const next = client()
  good(await next.auth.signInWithPassword({ email: user.email, password }))
  assert.deepEqual((({ currentLevel, nextLevel }) => [currentLevel, nextLevel])(good(await next.auth.mfa.getAuthenticatorAssuranceLevel())), ['aal1', 'aal2'])
  await bad(next.auth.updateUser({ password: 'Third horse 3' }), { status: 401, code: 'insufficient_aal' })
  good(await next.auth.mfa.challengeAndVerify({ factorId, code: await code(secret) }))
  const { session } = good(await next.auth.getSession())
  assert.equal(claims(session.access_token).aal, 'aal2')
  assert.equal(claims(session.access_token).amr[0].method, 'totp')
  good(await next.auth.mfa.unenroll({ factorId }))
})

scenario('MFA: the address stays the same', async () => {
  const { session } = await signedUp()
  const post = (path, body, from) => raw('POST', `/auth/v1${path}`, { headers: { ...bearer(session.access_token), 'x-forwarded-for': from }, body })
  const factor = await status(post('/factors', { factor_type: 'totp' }, '198.51.100.1'), 200)
  const challenge = await status(post(`/factors/${factor.id}/challenge`, {}, '198.51.100.1'), 200)
  const answer = await post(`/factors/${factor.id}/verify`, { challenge_id: challenge.id, code: await code(factor.totp.secret) }, '198.51.100.2')
  if (gateway) return void (await status(answer, 200)) // what a client says about its address does not count
  assert.equal((await status(answer, 422)).error_code, 'mfa_ip_address_mismatch')
})

scenario('rest: rows of one user only', async () => {
  const ada = await signedUp({}, 'ada')
  const bob = await signedUp({}, 'bob')
  const [row] = good(await ada.supabase.from('notes').insert({ text: 'of Ada' }).select())
  assert.equal(row.user_id, ada.user.id)
  good(await bob.supabase.from('notes').insert([{ text: 'of Bob' }, { text: 'of Bob, too' }]))
  assert.deepEqual(good(await ada.supabase.from('notes').select()).map((r) => r.text), ['of Ada'])
  const counted = await bob.supabase.from('notes').select('*', { count: 'exact', head: true })
  assert.equal(counted.count, 2)
  assert.deepEqual(good(await client().from('notes').select()), [])
  const refused = await client().from('notes').insert({ text: 'of nobody' })
  assert.deepEqual([refused.status, refused.error.code], [401, '42501'])
  const forged = await bob.supabase.from('notes').insert({ text: 'forged', user_id: ada.user.id })
  assert.deepEqual([forged.status, forged.error.code], [403, '42501'])
  assert.equal(good(await ada.supabase.from('notes').select().eq('id', row.id).single()).text, 'of Ada')
  const none = await bob.supabase.from('notes').select().eq('id', row.id).single()
  assert.equal(none.status, 406)
  good(await ada.supabase.from('notes').update({ text: 'changed' }).eq('id', row.id))
  assert.equal((await ada.supabase.from('notes').delete().eq('id', row.id)).status, 204)
  assert.equal(good(await ada.supabase.rpc('whoami', { a: 1 })).sub, ada.user.id)
})

scenario('rest: a bad token is refused', async () => {
  const { session } = await signedUp()
  const forged = session.access_token.slice(0, -8) + 'AAAAAAAA'
  await status(raw('GET', '/rest/v1/notes?select=*', { headers: bearer(forged) }), 401)
  await status(raw('GET', '/rest/v1/notes?select=*', { headers: bearer(session.access_token) }), 200)
})

scenario('rest: keys', async () => {
  for (const apikey of [settings.anon_key, settings.publishable_key]) {
    assert.deepEqual(good(await client({ apikey }).from('notes').select()), [], 'the key as bearer is nobody')
  }
  const { message } = await status(raw('GET', '/rest/v1/notes', { headers: { apikey: 'sb_publishable_wrong' } }), 401)
  assert.ok(message)
})

scenario('storage', async () => {
  const ada = await signedUp({}, 'ada')
  const bucket = ada.supabase.storage.from('files')
  const big = Buffer.alloc(20 * 1024 * 1024, 'Portcullis ')
  good(await bucket.upload('reports/big.bin', big, { contentType: 'application/octet-stream' }))
  good(await bucket.upload('reports/Größe & more.txt', new Blob(['hello'], { type: 'text/plain' })))
  assert.ok(Buffer.from(await good(await bucket.download('reports/big.bin')).arrayBuffer()).equals(big))
  assert.equal(await good(await bucket.download('reports/Größe & more.txt')).text(), 'hello')
  assert.deepEqual(good(await bucket.list('reports')).map((f) => f.name).sort(), ['Größe & more.txt', 'big.bin'])
  await bad(bucket.upload('reports/big.bin', 'again'), { message: 'The resource already exists' })
  const { signedUrl } = good(await bucket.createSignedUrl('reports/big.bin', 60))
  assert.equal((await (await fetch(signedUrl)).arrayBuffer()).byteLength, big.length)
  const bob = await signedUp({}, 'bob')
  assert.ok((await bob.supabase.storage.from('files').download('reports/big.bin')).error, 'not his')
  assert.ok((await client().storage.from('files').upload('x', 'y')).error, 'not signed in')
  good(await ada.supabase.storage.from('avatars').upload('logo.svg', '<svg/>', { contentType: 'image/svg+xml' }))
  const shown = await fetch(client().storage.from('avatars').getPublicUrl('logo.svg').data.publicUrl)
  assert.equal(await status(shown, 200), '<svg/>')
  good(await bucket.remove(['reports/big.bin']))
})

scenario('functions', async () => {
  const { supabase, user } = await signedUp()
  const said = good(await supabase.functions.invoke('hello', { body: { name: 'Ada' }, headers: { 'x-own': 'yes' } }))
  assert.equal(said.sub, user.id)
  assert.deepEqual(said.sent, { name: 'Ada' })
  assert.equal(said.headers['x-own'], 'yes')
  assert.equal(good(await client().functions.invoke('hello', { method: 'GET' })).sub, null)
  const { error } = await supabase.functions.invoke('fails', { body: {} })
  assert.equal(error.name, 'FunctionsHttpError')
  assert.equal((await error.context.json()).error, 'the function failed')
})

const within = (ms, promise, what) => Promise.race([promise, sleep(ms).then(() => assert.fail(`${what}: not within ${ms} ms`))])
const joined = (channel) => within(10_000, new Promise((done, failed) => channel.subscribe((state, error) => {
  if (state === 'SUBSCRIBED') done()
  else if (state !== 'CLOSED') failed(error ?? new Error(state))
})), 'joining')

scenario('realtime: join, broadcast, heartbeat, token', async () => {
  const ada = await signedUp({}, 'ada')
  const bob = await signedUp({}, 'bob')
  const room = (who) => who.supabase.channel('room', { config: { private: true, broadcast: { ack: true } } })
  const heard = []
  const bobs = room(bob).on('broadcast', { event: 'shout' }, ({ payload }) => heard.push(payload))
  await joined(bobs)
  const adas = room(ada)
  await joined(adas)
  assert.equal(await adas.send({ type: 'broadcast', event: 'shout', payload: { text: 'Zoë 名', n: 1 } }), 'ok')
  await within(5000, (async () => { while (!heard.length) await sleep(20) })(), 'the broadcast')
  assert.deepEqual(heard[0], { text: 'Zoë 名', n: 1 })
  const sockets = await ask('GET', '/realtime')
  const subs = sockets.map((s) => s.topics['realtime:room']?.sub).sort()
  assert.deepEqual(subs, [ada.user.id, bob.user.id].sort(), 'joined as their users')
  assert.equal(sockets[0].vsn, '2.0.0')
  await ada.supabase.realtime.sendHeartbeat()
  await sleep(1100) // an HS256 token of the same second is the same token
  good(await ada.supabase.auth.refreshSession())
  await within(5000, (async () => {
    while (!(await ask('GET', '/realtime')).some((s) => s.heartbeats > 0 && s.topics['realtime:room']?.updates > 0)) await sleep(50)
  })(), 'heartbeat and new token')
  await adas.httpSend('shout', { text: 'by HTTP' })
  await within(5000, (async () => { while (heard.length < 2) await sleep(20) })(), 'the broadcast over HTTP')
  assert.deepEqual(heard[1], { text: 'by HTTP' })
  const nobody = client()
  const refused = nobody.channel('room', { config: { private: true } })
  await assert.rejects(joined(refused), 'a private channel is not for the anonymous')
  for (const who of [ada.supabase, bob.supabase, nobody]) await who.removeAllChannels()
})

scenario('realtime: a wrong key is no socket', async () => {
  const { default: WebSocket } = await import('ws')
  const state = (query) => new Promise((done) => {
    const socket = new WebSocket(`${url.replace('http', 'ws')}/realtime/v1/websocket?${query}`)
    socket.on('open', () => { socket.close(); done(101) })
    socket.on('unexpected-response', (_, response) => done(response.statusCode))
    socket.on('error', () => {})
  })
  assert.equal(await state(`apikey=${key}&vsn=1.0.0`), 101)
  for (const query of ['vsn=1.0.0', 'apikey=wrong&vsn=1.0.0']) {
    const got = await state(query)
    assert.ok([401, 403].includes(got), `${query}: ${got}`)
  }
})

scenario('preflights', async () => {
  const asked = 'authorization,x-client-info,apikey,content-type,x-supabase-api-version,prefer,accept-profile,content-profile,x-upsert,x-retry-count'
  for (const path of ['/auth/v1/token?grant_type=password', '/rest/v1/notes', '/storage/v1/object/files/a', '/functions/v1/hello']) {
    const preflight = await fetch(url + path, {
      method: 'OPTIONS',
      headers: { origin: APP, 'access-control-request-method': 'POST', 'access-control-request-headers': asked },
    })
    assert.ok([200, 204].includes(preflight.status), `${path}: ${preflight.status}`)
    assert.ok(['*', APP].includes(preflight.headers.get('access-control-allow-origin')), path)
    const allowed = preflight.headers.get('access-control-allow-headers').toLowerCase().split(/, */)
    for (const name of asked.split(',')) assert.ok(allowed.includes(name) || allowed.includes('*'), `${path}: ${name}`)
    if (gateway) assert.equal(preflight.headers.get('x-answered-by'), null, 'the gateway answers')
    const actual = await raw('GET', '/auth/v1/settings', { headers: { origin: APP } })
    assert.ok(['*', APP].includes(actual.headers.get('access-control-allow-origin')), 'one value, not two')
  }
  const refused = await raw('GET', '/auth/v1/user', { headers: { origin: APP, authorization: 'Bearer x' } })
  assert.ok(refused.headers.get('access-control-allow-origin'), 'refusals can be read by pages, too')
})

scenario('session_not_found signs out', async () => {
  const { supabase, session } = await signedUp()
  await ask('POST', `/sessions/${claims(session.access_token).session_id}/end`)
  const { error } = await supabase.auth.getUser()
  assert.equal(error.name, 'AuthSessionMissingError')
  assert.equal(good(await supabase.auth.getSession()).session, null)
})

scenario('banned', async () => {
  const { supabase, user } = await signedUp()
  await ask('POST', `/users/${user.id}`, { banned_until: '2999-01-01T00:00:00Z' })
  await bad(client().auth.signInWithPassword({ email: user.email, password }), { status: 400, code: 'user_banned' })
  await bad(supabase.auth.refreshSession(), { status: 400, code: 'user_banned' })
})

const refresh = { service: 'auth', path: '/token', grant_type: 'refresh_token' }

/** A client whose access token has expired. */
async function expired() {
  await set({ jwt_exp: 1 })
  const storage = new Storage()
  const made = await signedUp({ storage })
  await sleep(2100)
  await set({ jwt_exp: 3600 })
  return { ...made, storage }
}

for (const broken of [500, 503, 504]) {
  scenario(`a ${broken} on refresh keeps the session`, async () => {
    const { supabase } = await expired()
    await fail({ ...refresh, status: broken, times: 2 })
    assert.ok(good(await supabase.auth.refreshSession()).session, 'tried again, with the same token')
  })
}

scenario('a lost answer on refresh keeps the session', async () => {
  const { supabase } = await expired()
  await fail([{ ...refresh, drop: 'after', times: 1 }, { ...refresh, drop: 'before', times: 1 }])
  assert.ok(good(await supabase.auth.refreshSession()).session)
})

for (const [broken, error_code] of [[429, 'over_request_rate_limit'], [409, 'conflict']]) {
  scenario(`a ${broken} on refresh: the client would end its session`, async () => {
    const { supabase, storage } = await expired()
    await fail({ ...refresh, status: broken, code: error_code, times: 1 })
    await bad(supabase.auth.refreshSession(), { status: broken })
    assert.equal(storage.size, 0, 'signed out: what the gateway has to prevent')
  }, { only: 'direct' })

  scenario(`a ${broken} on refresh arrives as 503, and the session is kept`, async () => {
    const { supabase } = await expired()
    await fail({ ...refresh, status: broken, code: error_code, times: 2 })
    assert.ok(good(await supabase.auth.refreshSession()).session)
    await fail({ clear: true, ...refresh, status: broken, code: error_code })
    const answer = await raw('POST', '/auth/v1/token?grant_type=refresh_token', { body: { refresh_token: 'abcdefghijkl' } })
    await status(answer, 503)
    assert.ok(Number(answer.headers.get('retry-after')) > 0)
    await fail({ clear: true, service: 'auth', path: '/token', grant_type: 'password', status: broken, code: error_code })
    await status(raw('POST', '/auth/v1/token?grant_type=password', { body: { email: email(), password } }), broken)
  }, { only: 'gateway' })
}

scenario('X-JWT-AUD', async () => {
  const { session, user } = await signedUp()
  const chosen = await raw('POST', '/auth/v1/signup', { headers: { 'x-jwt-aud': 'admins' }, body: { email: email(), password } })
  assert.equal(claims((await status(chosen, 200)).access_token).aud, gateway ? 'authenticated' : 'admins')
  assert.equal((await raw('GET', '/auth/v1/user', { headers: { ...bearer(session.access_token), 'x-jwt-aud': 'admins' } })).status, gateway ? 200 : 400)
  assert.ok(user)
})

scenario('admin paths', async () => {
  const headers = { apikey: settings.service_role_key, ...bearer(settings.service_role_key) }
  for (const path of ['/auth/v1/admin/users', '/auth/v1/admin/audit', '/auth/v1/admin/', '/auth/v1/scim/v2/Users']) {
    const { status: got } = await raw('GET', path, { headers })
    assert.ok(gateway ? [403, 404].includes(got) : [200, 404].includes(got), `${path}: ${got}`)
  }
  const invited = await raw('POST', '/auth/v1/invite', { headers, body: { email: email() } })
  assert.ok(gateway ? [403, 404].includes(invited.status) : invited.status === 200, `invite: ${invited.status}`)
  assert.equal((await seen({ service: 'auth', path: '/admin*' })).length, gateway ? 0 : 3, 'what arrived')
})

scenario('the client address that arrives', async () => {
  await raw('GET', '/auth/v1/settings', { headers: { 'x-forwarded-for': '198.51.100.7', 'sb-forwarded-for': '198.51.100.7' } })
  const [last] = await seen({ path: '/settings', last: 1 })
  assert.equal(last.client_ip, gateway ? '127.0.0.1' : '198.51.100.7')
  if (gateway) assert.deepEqual(header(last, 'sb-forwarded-for').filter((v) => v.includes('198.51')), [])
})

scenario('the client address that a hosted project believes', async () => {
  if (settings.legacy || settings.bare) return
  await set({ security_sb_forwarded_for_enabled: true, rate_limit_burst: 3 })
  const { session } = await signedUp()
  await raw('GET', '/auth/v1/user', { headers: { ...bearer(session.access_token), 'sb-forwarded-for': '198.51.100.7' } })
  const [last] = await seen({ path: '/user', last: 1 })
  assert.deepEqual(header(last, 'sb-forwarded-for'), ['127.0.0.1'])
  assert.deepEqual(header(last, 'apikey'), [settings.secret_key])
  assert.deepEqual(header(last, 'authorization'), [`Bearer ${session.access_token}`])
  const answers = []
  for (let n = 0; n < 5; n++) answers.push((await raw('POST', '/auth/v1/recover', { headers: { 'user-agent': 'Mozilla/5.0 (X11)' }, body: { email: email() } })).status)
  assert.deepEqual(answers, [200, 200, 200, 200, 200], 'who sends no bearer gets no key lent')
  answers.length = 0
  for (let n = 0; n < 5; n++) answers.push((await raw('POST', '/auth/v1/recover', { headers: { ...bearer(key), 'user-agent': 'Mozilla/5.0 (X11)' }, body: { email: email() } })).status)
  assert.deepEqual(answers.slice(-2), [429, 429], 'a browser is told apart, too')
  await set({ security_captcha_enabled: true, security_sb_forwarded_for_enabled: false })
  for (const headers of [bearer(key), {}, { authorization: '' }, bearer('sb_secret_0'), { authorization: 'bearer ' + key }]) {
    const answer = await raw('POST', '/auth/v1/signup', { headers, body: { email: email(), password } })
    assert.equal((await status(answer, 400)).error_code, 'captcha_failed', `the rights of the lent key, with ${JSON.stringify(headers).slice(0, 40)}`)
  }
  await set({ security_captcha_enabled: false })
  await raw('GET', '/rest/v1/notes', { headers: bearer(session.access_token) })
  assert.deepEqual(header((await seen({ service: 'rest', last: 1 }))[0], 'apikey'), [key], 'nowhere else')
  await status(raw('POST', '/auth/v1/token?grant_type=password', { headers: bearer(key), body: { email: email(), password } }), 400)
}, { only: 'gateway' })

scenario('answers with tokens are not stored', async () => {
  const answer = await raw('POST', '/auth/v1/signup', { body: { email: email(), password } })
  await status(answer, 200)
  assert.match(answer.headers.get('cache-control') ?? '', /no-store/)
}, { only: 'gateway' })

scenario('a logout kills the access token at once', async () => {
  const { supabase, session } = await signedUp()
  good(await supabase.from('notes').select())
  assert.equal((await supabase.auth.signOut({ scope: 'local' })).error, null)
  const later = await raw('GET', '/rest/v1/notes?select=*', { headers: bearer(session.access_token) })
  assert.equal(later.status, gateway ? 401 : 200, 'Supabase alone accepts it until it expires')
})

for (const scope of ['global', 'others']) {
  scenario(`a logout kills access tokens at once: ${scope}`, async () => {
    const { supabase, user, session } = await signedUp()
    const other = client()
    const { session: elsewhere } = good(await other.auth.signInWithPassword({ email: user.email, password }))
    const visit = async (token, at = url) => (await fetch(`${at}/rest/v1/notes?select=*`, { headers: { apikey: key, ...bearer(token) } })).status
    assert.deepEqual([await visit(session.access_token), await visit(elsewhere.access_token)], [200, 200])
    await sleep(1100) // what is of the second of the logout may be of a login after it
    assert.equal((await supabase.auth.signOut({ scope })).error, null)
    assert.deepEqual([await visit(session.access_token), await visit(elsewhere.access_token)], [scope === 'others' ? 200 : 401, 401])
    const again = good(await client().auth.signInWithPassword({ email: user.email, password })).session
    assert.equal(await visit(again.access_token), 200, 'a login at once after it')
    let second
    for (let tries = 0; tries < 40 && second !== 401; tries++) {
      second = await visit(elsewhere.access_token, settings.second)
      await sleep(250)
    }
    assert.equal(second, 401, 'at another gateway, soon')
    assert.equal(await visit(again.access_token, settings.second), 200)
  }, { only: 'gateway' })
}

scenario('MFA step-up to a route that wants it', async () => {
  const { supabase, user, factorId, secret } = await withFactor()
  const next = client()
  good(await next.auth.signInWithPassword({ email: user.email, password }))
  const visit = async (who) => raw('GET', '/account/secrets', { headers: bearer(good(await who.auth.getSession()).session.access_token) })
  const refused = await visit(next)
  assert.equal((await status(refused, 401)).code, 'insufficient_user_authentication')
  good(await next.auth.mfa.challengeAndVerify({ factorId, code: await code(secret) }))
  assert.equal((await status(visit(next), 200)).aal, 'aal2')
  await status(raw('GET', '/account/secrets'), 401)
  await status(visit(supabase), 200)
}, { only: 'gateway' })

scenario('where the session is checked online', async () => {
  const { session } = await signedUp()
  const visit = () => raw('GET', '/account/checked', { headers: bearer(session.access_token) })
  for (const answer of await Promise.all(Array.from({ length: 20 }, visit))) await status(answer, 200)
  assert.ok((await count('GET auth/user')) <= 2, `asked ${await count('GET auth/user')} times`)
  await sleep(1100)
  await fail({ service: 'auth', path: '/user', status: 500 })
  await status(visit(), 503)
  await fail({ clear: true })
  await sleep(1100)
  await status(visit(), 200)
  await ask('POST', `/sessions/${claims(session.access_token).session_id}/end`)
  await sleep(1100)
  const refused = await visit()
  assert.equal((await status(refused, 401)).code, 'invalid_token')
  await status(raw('GET', '/account', { headers: bearer(session.access_token) }), 200)
}, { only: 'gateway' })

scenario('anonymous users, API keys and service keys at an own route', async () => {
  const { session } = good(await client().auth.signInAnonymously())
  await status(raw('GET', '/account', { headers: bearer(session.access_token) }), 403)
  await status(raw('GET', '/account', { headers: bearer(key) }), 401)
  await status(raw('GET', '/account', { headers: bearer(settings.anon_key) }), 401)
  await status(raw('GET', '/account', { headers: bearer(settings.service_role_key) }), 401)
  await status(raw('GET', '/account', { headers: bearer('sb_secret_0123456789') }), 401)
  const made = await signedUp()
  assert.equal((await status(raw('GET', '/account', { headers: bearer(made.session.access_token) }), 200)).sub, made.user.id)
}, { only: 'gateway' })

scenario('keys are rotated under way', async () => {
  const { supabase, session } = await signedUp()
  await ask('POST', '/keys', { use: 'RS256' })
  const fresh = good(await supabase.auth.refreshSession()).session
  good(await supabase.from('notes').select())
  await status(raw('GET', '/rest/v1/notes?select=*', { headers: bearer(session.access_token) }), 200)
  assert.equal(JSON.parse(Buffer.from(fresh.access_token.split('.')[0], 'base64url')).alg, 'RS256')
  await ask('POST', '/reset', { keys: true })
})

await main()
