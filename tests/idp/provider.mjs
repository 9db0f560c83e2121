// The certified OpenID provider `oidc-provider`, several issuers in one process, driven by lines of JSON.
//
// First line in: {"issuers": {"corp": "RS256", ...}}; first line out: {"corp": "http://127.0.0.1:…", ...}.
// Then commands: {"op": "rotate", "issuer", "keep"} and {"op": "hits", "issuer"}; each gets one line.

import { generateKeyPairSync, randomBytes } from 'node:crypto';
import { createServer } from 'node:http';
import { createInterface } from 'node:readline';
import Provider from 'oidc-provider';

const KINDS = {
  RS256: ['rsa', { modulusLength: 2048 }],
  PS256: ['rsa', { modulusLength: 2048 }],
  ES256: ['ec', { namedCurve: 'P-256' }],
  EdDSA: ['ed25519', {}],
};
const PEOPLE = {
  alice: { email: 'Alice@example.com', email_verified: true, name: 'Alice Liddell', groups: ['makers', 'staff'] },
  bob: { email: 'bob@example.com', email_verified: true, name: 'Bob', groups: ['staff'] },
  mallory: { email: 'alice@example.com', email_verified: false, name: 'Not Alice', groups: [] },
  eve: { email: 'eve@elsewhere.test', email_verified: true, name: 'Eve', groups: ['makers'] },
};
const SECONDS = { 'https://tower.test/api': 300, 'https://other.test/api': 300 };

class Issuer {
  constructor(alg) {
    this.alg = alg;
    this.keys = [this.key()];
    this.hits = {};
    this.server = createServer((request, answer) => {
      const path = request.url.split('?')[0];
      this.hits[path] = (this.hits[path] ?? 0) + 1;
      this.handle(request, answer);
    });
  }

  key() {
    const [kind, options] = KINDS[this.alg];
    const made = generateKeyPairSync(kind, options).privateKey.export({ format: 'jwk' });
    return { ...made, use: 'sig', alg: this.alg, kid: randomBytes(6).toString('hex') };
  }

  async start() {
    await new Promise((done) => this.server.listen(0, '127.0.0.1', done));
    this.url = `http://127.0.0.1:${this.server.address().port}`;
    this.build();
    return this.url;
  }

  rotate(keep) {
    this.keys = keep ? [this.key(), ...this.keys] : [this.key()];
    this.build();
  }

  build() {
    const provider = new Provider(this.url, {
      clients: [
        {
          client_id: 'tower',
          client_secret: 'a secret of the tower+%',
          application_type: 'native',
          redirect_uris: ['corp', 'labs', 'edge'].map((name) => `http://127.0.0.1/signin/with/${name}/callback`),
          id_token_signed_response_alg: this.alg,
        },
        {
          client_id: 'terminal',
          token_endpoint_auth_method: 'none',
          application_type: 'native',
          redirect_uris: ['http://127.0.0.1/callback'],
          id_token_signed_response_alg: this.alg,
        },
        {
          client_id: 'robot',
          client_secret: 'robots-secret',
          grant_types: ['client_credentials'],
          response_types: [],
          redirect_uris: [],
          id_token_signed_response_alg: this.alg,
        },
      ],
      jwks: { keys: this.keys },
      cookies: { keys: ['test'] },
      scopes: ['openid', 'profile', 'email', 'groups', 'run'],
      claims: { openid: ['sub'], profile: ['name'], email: ['email', 'email_verified'], groups: ['groups'] },
      enabledJWA: { idTokenSigningAlgValues: ['RS256', 'PS256', 'ES256', 'EdDSA'] },
      findAccount: (context, id) => ({ accountId: id, claims: () => ({ sub: id, ...PEOPLE[id] }) }),
      extraTokenClaims: (context, token) => {
        const person = PEOPLE[token.accountId];
        return person ? { groups: person.groups } : {};
      },
      features: {
        clientCredentials: { enabled: true },
        devInteractions: { enabled: true },
        resourceIndicators: {
          enabled: true,
          getResourceServerInfo: (context, resource) => ({
            scope: 'openid run',
            audience: resource,
            accessTokenFormat: 'jwt',
            accessTokenTTL: SECONDS[resource] ?? 300,
            jwt: { sign: { alg: this.alg } },
          }),
          useGrantedResource: () => true,
        },
      },
    });
    this.handle = provider.callback();
  }
}

const issuers = {};
const say = (value) => process.stdout.write(`${JSON.stringify(value)}\n`);
console.warn = console.info = () => {};

for await (const line of createInterface({ input: process.stdin })) {
  const asked = JSON.parse(line);
  if (asked.issuers) {
    const urls = {};
    for (const [name, alg] of Object.entries(asked.issuers)) {
      issuers[name] = new Issuer(alg);
      urls[name] = await issuers[name].start();
    }
    say(urls);
  } else if (asked.op === 'rotate') {
    issuers[asked.issuer].rotate(asked.keep);
    say('rotated');
  } else if (asked.op === 'hits') {
    say(issuers[asked.issuer].hits);
  }
}
process.exit(0);
