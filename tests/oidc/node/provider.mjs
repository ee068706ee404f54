// A certified OpenID provider (oidc-provider) on loopback, with pages of its own that need no scripts.
//
//   OIDC_PROVIDER='{"port":…, "control":…, "host":"localhost", "users":{"rita":{"password":"…","roles":["reader"]}}, …}' node provider.mjs
//
// Further settings make it look like others: `path` (of the issuer), `routes` (of its endpoints, below that), `audience` (of
// all access tokens, which are JWTs then), `claims` (by user or client, in access tokens instead of the usual ones).
//
// Prints one line of JSON when it is ready, and stays until its standard input ends. The control port takes
// POST /rotate, /mode, /lifetime, /forget, /reset and GET /counts: see `control` below.
import { randomBytes } from 'node:crypto'
import http from 'node:http'
import { exportJWK, generateKeyPair } from 'jose'
import { Provider } from 'oidc-provider'

const settings = JSON.parse(process.env.OIDC_PROVIDER)
const host = settings.host ?? 'localhost'
const issuer = `http://${host}:${settings.port}${settings.path ?? ''}`
/** The resource servers: one whose tokens say everything, and one whose tokens say nothing. */
const resources = { 'https://api.example/': 'jwt', 'https://opaque.example/': 'opaque' }
const lifetime = { access: 3600, session: 86400 }
const mode = { is: 'ok', delay: 0, paths: /./ }
let counts = {}

// --- what is kept: one store for all providers, so that a change of keys loses nothing

const kept = new Map()
class Kept {
  constructor(model) {
    this.model = model
  }
  async upsert(id, payload, expiresIn) {
    kept.set(`${this.model}:${id}`, { payload, until: expiresIn ? Date.now() + expiresIn * 1000 : Infinity })
  }
  async find(id) {
    const found = kept.get(`${this.model}:${id}`)
    return found && found.until > Date.now() ? found.payload : undefined
  }
  async findByUid(uid) {
    for (const { payload } of kept.values()) if (payload.kind === 'Session' && payload.uid === uid) return payload
    return undefined
  }
  async findByUserCode() {
    return undefined
  }
  async consume(id) {
    const found = await this.find(id)
    if (found) found.consumed = Math.floor(Date.now() / 1000)
  }
  async destroy(id) {
    kept.delete(`${this.model}:${id}`)
  }
  async revokeByGrantId(grantId) {
    for (const [key, { payload }] of kept) if (payload.grantId === grantId) kept.delete(key)
  }
}

// --- keys

const keyOf = async (alg) => {
  const { privateKey } = await generateKeyPair(alg, { extractable: true })
  return { ...(await exportJWK(privateKey)), alg, use: 'sig', kid: `${alg.toLowerCase()}-${randomBytes(4).toString('hex')}` }
}
/** All keys, the newest first; of each algorithm the first one signs. */
let keys = [await keyOf('RS256'), await keyOf('ES256')]
/** Keys only keep what they verify here (tokens of the provider's own); clients see `keys`. */
const kids = () => keys.map(({ kid }) => kid)

// --- the provider

const html = (title, body) => `<!doctype html><html lang="en"><meta charset="utf-8"><title>${title}</title>
<meta name="viewport" content="width=device-width, initial-scale=1">
<style>body{font:16px system-ui,sans-serif;max-width:22rem;margin:4rem auto;padding:0 1rem}
input,button{display:block;width:100%;box-sizing:border-box;font:inherit;padding:.5rem;margin:.25rem 0 1rem}</style>
<h1>${title}</h1>${body}</html>`
const escaped = (text) => String(text).replace(/[&<>"']/g, (c) => `&#${c.charCodeAt(0)};`)

async function findAccount(_ctx, sub) {
  const user = settings.users[sub]
  if (!user) return undefined
  const claims = {
    sub, name: user.name ?? sub, preferred_username: sub, email: `${sub}@example.com`, email_verified: true,
    roles: user.roles ?? [],
  }
  return { accountId: sub, claims: async () => claims }
}

function make() {
  const provider = new Provider(issuer, {
    adapter: Kept,
    clients: settings.clients,
    jwks: { keys },
    ...(settings.routes && { routes: settings.routes }),
    cookies: { keys: [settings.cookie_key] },
    findAccount,
    conformIdTokenClaims: false, // claims of scopes are in the ID token, as most providers do it
    claims: {
      openid: ['sub', 'roles'], profile: ['name', 'preferred_username'], email: ['email', 'email_verified'],
    },
    scopes: ['openid', 'offline_access'],
    pkce: { required: () => true },
    features: {
      devInteractions: { enabled: false },
      clientCredentials: { enabled: true },
      introspection: { enabled: true, allowedPolicy: (_ctx, client) => client.clientAuthMethod !== 'none' },
      revocation: { enabled: true },
      rpInitiatedLogout: {
        enabled: true,
        logoutSource: (ctx, form) => {
          ctx.body = html('Sign out', `${form}<button form="op.logoutForm" name="logout" value="yes">Sign out here too</button>`)
        },
        postLogoutSuccessSource: (ctx) => {
          ctx.body = html('Signed out', '<p>You are signed out at the provider.</p>')
        },
      },
      resourceIndicators: {
        enabled: true,
        // What a client asks for that names no resource; without one, access tokens are opaque and for userinfo.
        defaultResource: (_ctx, client, oneOf) => oneOf ?? (settings.audience || client.clientId.endsWith('-jwt') ? 'https://api.example/' : undefined),
        useGrantedResource: () => true,
        getResourceServerInfo: (_ctx, resource) => {
          if (!resources[resource]) throw new Error(`no such resource: ${resource}`)
          return {
            scope: 'notes:read notes:write', audience: settings.audience ?? resource, accessTokenTTL: lifetime.access,
            accessTokenFormat: resources[resource], jwt: { sign: { alg: settings.access_alg ?? 'ES256' } },
          }
        },
      },
    },
    extraTokenClaims: (_ctx, token) => {
      const user = settings.users[token.accountId]
      const own = settings.claims?.[token.accountId ?? token.clientId]
      if (own) return own
      return user && { roles: user.roles ?? [], email: `${token.accountId}@example.com` }
    },
    issueRefreshToken: (_ctx, client) => client.grantTypeAllowed('refresh_token'),
    expiresWithSession: () => false,
    rotateRefreshToken: true,
    ttl: {
      AccessToken: () => lifetime.access, ClientCredentials: () => lifetime.access, AuthorizationCode: 60,
      IdToken: () => lifetime.access, RefreshToken: lifetime.session, Interaction: 600, Session: lifetime.session,
      Grant: lifetime.session,
    },
    interactions: { url: (_ctx, { uid }) => `${settings.path ?? ''}/interaction/${uid}` },
    // Clients are the provider's own: nobody is asked whether they may.
    loadExistingGrant: async (ctx) => {
      const { provider, client, session } = ctx.oidc
      const known = session.grantIdFor(client.clientId)
      const grant = (known && (await provider.Grant.find(known))) ?? new provider.Grant({ clientId: client.clientId, accountId: session.accountId })
      grant.addOIDCScope('openid profile email offline_access')
      for (const resource of Object.keys(resources)) grant.addResourceScope(resource, 'notes:read notes:write')
      await grant.save()
      return grant
    },
    renderError: (ctx, out) => {
      ctx.type = 'html'
      ctx.body = html('That did not work', `<pre>${escaped(JSON.stringify(out, null, 1))}</pre>`)
    },
  })
  provider.on('server_error', (_ctx, error) => console.error(error))
  for (const event of ['grant.error', 'authorization.error', 'introspection.error', 'revocation.error', 'end_session.error']) {
    provider.on(event, (_ctx, error) => console.error(event, error.error, error.error_description, error.error_detail ?? ''))
  }
  return provider
}
let provider = make()
let answer = provider.callback()

async function interaction(request, response) {
  const details = await provider.interactionDetails(request, response)
  const show = (status, error) => {
    response.writeHead(status, { 'content-type': 'text/html; charset=utf-8', 'cache-control': 'no-store' })
    const why = details.prompt.name === 'login' ? '' : `<pre>${escaped(JSON.stringify(details.prompt))}</pre>`
    response.end(html('Provider sign-in', `${why}${error ? `<p id="error">${escaped(error)}</p>` : ''}
      <form method="post" autocomplete="off"><label>Name <input name="name" autofocus value="${escaped(details.params.login_hint ?? '')}"></label>
      <label>Password <input name="password" type="password"></label>
      <button name="do" value="sign-in">Sign in</button><button name="do" value="cancel">Cancel</button></form>`))
  }
  if (request.method !== 'POST') return show(200)
  let body = ''
  for await (const chunk of request) body += chunk
  const form = new URLSearchParams(body)
  if (form.get('do') === 'cancel') {
    return provider.interactionFinished(request, response, { error: 'access_denied', error_description: 'The user cancelled' })
  }
  const name = form.get('name')
  if (settings.users[name]?.password !== form.get('password')) return show(401, 'Wrong name or password')
  return provider.interactionFinished(request, response, { login: { accountId: name, remember: true } })
}

const server = http.createServer((request, response) => {
  const path = request.url.split('?')[0]
  const what = `${request.method} ${path.replace(/\/interaction\/.*|\/auth\/.+/, (found) => `/${found.split('/')[1]}/…`)}`
  counts[what] = (counts[what] ?? 0) + 1
  const serve = () => {
    if (path.startsWith(`${settings.path ?? ''}/interaction/`)) {
      return interaction(request, response).catch((error) => {
        response.writeHead(error.statusCode ?? 500, { 'content-type': 'text/html; charset=utf-8' })
        response.end(html('That did not work', `<pre>${escaped(error.message)}</pre>`))
      })
    }
    if (settings.path && request.url.startsWith(settings.path + '/')) {
      // Mounted there, as a realm of several is.
      request.originalUrl = request.url
      request.url = request.url.slice(settings.path.length)
    }
    return answer(request, response)
  }
  if (mode.is === 'ok' || !mode.paths.test(path)) return serve()
  if (mode.is === 'down') return request.socket.destroy()
  if (mode.is === 'slow') return setTimeout(serve, mode.delay)
  if (mode.is === 'lose') {
    // It does what it is asked for, and the answer gets lost.
    response.end = () => request.socket.destroy()
    response.write = () => true
    return serve()
  }
  response.writeHead(Number(mode.is), { 'content-type': 'application/json' })
  return response.end('{"error":"temporarily_unavailable"}')
})

// --- control

const control = {
  /** New keys, that sign at once. `drop: true`: the old ones are gone; else they stay in the set. */
  async rotate({ drop = false }) {
    const fresh = [await keyOf('RS256'), await keyOf('ES256')]
    keys = drop ? fresh : [...fresh, ...keys]
    provider = make()
    answer = provider.callback()
    return { kids: kids() }
  },
  /** `is`: ok, down (connections are cut), slow (after `delay` ms), lose (done, but the answer is lost), or a status; `paths`: a pattern. */
  async mode({ is = 'ok', delay = 0, paths = '.' }) {
    Object.assign(mode, { is, delay, paths: new RegExp(paths) })
    return {}
  },
  /** How long tokens live from now on, in seconds. */
  async lifetime({ access }) {
    lifetime.access = access
    return lifetime
  },
  /** Everything that was ever given to a user ends: sessions, grants, tokens. */
  async forget({ user }) {
    let ended = 0
    for (const [key, { payload }] of kept) if (payload.accountId === user && kept.delete(key)) ended += 1
    return { ended }
  },
  /** What is live for a user: `{ Session: 1, RefreshToken: 2, … }`. */
  async live({ user }) {
    const live = {}
    for (const { payload, until } of kept.values()) {
      if (payload.accountId === user && until > Date.now() && !payload.consumed) live[payload.kind] = (live[payload.kind] ?? 0) + 1
    }
    return live
  },
  async counts() {
    return counts
  },
  async reset() {
    counts = {}
    return {}
  },
}
const controls = http.createServer(async (request, response) => {
  let body = ''
  for await (const chunk of request) body += chunk
  const run = control[request.url.slice(1)]
  const [status, text] = run
    ? await run(JSON.parse(body || '{}')).then((value) => [200, value], (error) => [500, { error: String(error) }])
    : [404, {}]
  response.writeHead(status, { 'content-type': 'application/json' })
  response.end(JSON.stringify(text))
})

await new Promise((done) => controls.listen(settings.control, '127.0.0.1', done))
await new Promise((done) => server.listen(settings.port, '127.0.0.1', done))
console.log(JSON.stringify({ issuer, control: `http://127.0.0.1:${settings.control}`, kids: kids() }))
process.stdin.resume().on('end', () => process.exit(0))
