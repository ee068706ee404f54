// simple-oauth2: ResourceOwnerPassword, with the client in a Basic header and in the body, as form and as JSON.
import { ResourceOwnerPassword } from 'simple-oauth2'
import { assert, call, ended, gateway, reader, status, step } from './steps.mjs'

const make = (options) =>
  new ResourceOwnerPassword({
    client: { id: 'notes-web', secret: '' },
    auth: { tokenHost: gateway, tokenPath: '/token', revokePath: '/revoke' },
    options,
  })

for (const options of [{}, { authorizationMethod: 'body' }, { bodyFormat: 'json' }]) {
  await step(`logs in, calls, refreshes and revokes ${JSON.stringify(options)}`, async () => {
    const oauth = make(options)
    const first = await oauth.getToken({ ...reader, scope: 'notes:read' })
    assert.equal(first.token.scope, 'notes:read')
    assert.equal(first.expired(), false)
    await status(call(first.token.access_token, 'GET', '/notes'), 200)
    const second = await first.refresh()
    assert.notEqual(second.token.refresh_token, first.token.refresh_token)
    await second.revokeAll()
    await ended(second.token.access_token)
    const error = await second.refresh().then(() => assert.fail('a revoked refresh token was taken'), (e) => e)
    assert.equal(error.data?.payload?.error, 'invalid_grant', String(error))
  })
}

await step('a wrong password is an error with the code in it', async () => {
  const error = await make({}).getToken({ ...reader, password: 'not the password' }).then(() => assert.fail('logged in'), (e) => e)
  assert.equal(error.output?.statusCode, 400, String(error))
  assert.equal(error.data?.payload?.error, 'invalid_grant')
})
