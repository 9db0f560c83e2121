// Drives the strict client openid-client against a running Tower. Arguments: issuer, scenario. Standard input: one
// JSON object. Talks in lines of JSON on standard output; answers come as further lines on standard input.
import readline from 'node:readline'
import { createRequire } from 'node:module'
import { pathToFileURL } from 'node:url'
import path from 'node:path'

const [, , issuer, scenario] = process.argv
const require = createRequire(path.join(process.env.CLIENT_FOLDER, 'index.js'))
const client = await import(pathToFileURL(require.resolve('openid-client')).href)

const lines = readline.createInterface({ input: process.stdin })[Symbol.asyncIterator]()
const read = async () => JSON.parse((await lines.next()).value)
const say = (told) => console.log(JSON.stringify(told))
const given = await read()

const options = { execute: [client.allowInsecureRequests], algorithm: given.algorithm ?? 'oidc' }
const discover = (id, secret, how) => client.discovery(new URL(issuer), id, secret, how, options)

async function attempt(work) {
  try {
    return { good: await work() }
  } catch (error) {
    return { error: error.error ?? error.code ?? error.name, message: error.message }
  }
}

const scenarios = {
  async code() {
    const config = await discover('flyte', undefined, client.None())
    const verifier = client.randomPKCECodeVerifier()
    const [state, nonce] = [client.randomState(), client.randomNonce()]
    const redirect = 'http://127.0.0.1:49200/callback'
    const url = client.buildAuthorizationUrl(config, {
      redirect_uri: redirect,
      scope: 'openid profile all',
      code_challenge: await client.calculatePKCECodeChallenge(verifier),
      code_challenge_method: 'S256',
      state,
      nonce,
    })
    say({ url: url.href })
    const { location } = await read()
    const checks = { pkceCodeVerifier: verifier, expectedState: state, expectedNonce: nonce, idTokenExpected: true }
    const tokens = await client.authorizationCodeGrant(config, new URL(location), checks)
    const claims = tokens.claims()
    const user = await client.fetchUserInfo(config, tokens.access_token, claims.sub)
    const again = await attempt(() => client.authorizationCodeGrant(config, new URL(location), checks))
    say({
      subject: claims.sub,
      audience: claims.aud,
      issuer: claims.iss,
      user: user.sub,
      refreshed: Boolean(tokens.refresh_token),
      expires: tokens.expires_in,
      again,
      ended: await attempt(() => client.refreshTokenGrant(config, tokens.refresh_token)),
    })
  },

  async refresh() {
    const config = await discover('flyte', undefined, client.None())
    const first = given.refresh_token
    const second = (await client.refreshTokenGrant(config, first)).refresh_token
    const third = (await client.refreshTokenGrant(config, second)).refresh_token
    const reused = await attempt(() => client.refreshTokenGrant(config, first))
    const latest = await attempt(() => client.refreshTokenGrant(config, third))
    say({ different: new Set([first, second, third]).size, reused, latest })
  },

  async credentials() {
    const told = {}
    for (const [name, how] of Object.entries({ basic: client.ClientSecretBasic, post: client.ClientSecretPost })) {
      const config = await discover(given.id, undefined, how(given.secret))
      const tokens = await client.clientCredentialsGrant(config, { scope: 'all' })
      const before = await client.tokenIntrospection(config, tokens.access_token)
      await client.tokenRevocation(config, tokens.access_token)
      const after = await client.tokenIntrospection(config, tokens.access_token)
      told[name] = { subject: before.sub, before: before.active, after: after.active, type: tokens.token_type }
    }
    const wrong = await discover(given.id, undefined, client.ClientSecretBasic('x'.repeat(43)))
    told.wrong = await attempt(() => client.clientCredentialsGrant(wrong, {}))
    say(told)
  },

  async device() {
    const config = await discover('flyte', undefined, client.None())
    const asked = await client.initiateDeviceAuthorization(config, { scope: 'all' })
    say({ page: asked.verification_uri, code: asked.user_code, interval: asked.interval })
    await read()
    const tokens = await client.pollDeviceAuthorizationGrant(config, asked)
    say({ type: tokens.token_type, access: Boolean(tokens.access_token) })
  },

  // what a vault does with the identity token of a task: discovery, keys, signature, and every claim it needs
  async identity() {
    const jose = await import(pathToFileURL(require.resolve('jose')).href)
    const found = await (await fetch(`${issuer}/.well-known/openid-configuration`)).json()
    const keys = jose.createRemoteJWKSet(new URL(found.jwks_uri))
    const verify = (token, audience, typ = 'run-identity+jwt') =>
      attempt(async () => {
        const options = { issuer: found.issuer, audience, typ, algorithms: ['RS256'], maxTokenAge: '10 minutes' }
        const requiredClaims = ['sub', 'act', 'run', 'task', 'code_digest', 'exp', 'nbf', 'jti']
        const { payload } = await jose.jwtVerify(token, keys, { ...options, requiredClaims })
        return payload.sub
      })
    say({
      own: await verify(given.token, given.audience),
      other: await verify(given.token, 'https://other.example.com'),
      access: await verify(given.token, given.audience, 'at+jwt'),
      forged: await verify(given.token.slice(0, -8) + 'AAAAAAAA', given.audience),
    })
  },

  async exchange() {
    const config = await discover(given.id, undefined, client.ClientSecretPost(given.secret))
    const ask = (audience) =>
      attempt(() =>
        client.genericGrantRequest(config, 'urn:ietf:params:oauth:grant-type:token-exchange', {
          subject_token: given.subject_token,
          subject_token_type: 'urn:ietf:params:oauth:token-type:access_token',
          audience,
        }),
      )
    say({ none: await ask('not-an-app'), own: await ask('flytesnacks/development/hook') })
  },
}

await scenarios[scenario]()
process.exit(0)
