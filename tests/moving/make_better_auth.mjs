// Makes a small Better Auth database with throw-away people and keys, by the real thing.
//
//   node make_better_auth.mjs FILE.db | postgresql://…   ▸ what was given out, as JSON on stdout
//
// better_auth.sql and better_auth_postgres.sql are dumps of what it made, better_auth.json is what
// it said. Packages: better-auth @better-auth/api-key better-sqlite3 pg.

import { apiKey } from "@better-auth/api-key";
import { betterAuth } from "better-auth";
import { getMigrations } from "better-auth/db/migration";
import { admin, bearer, jwt, organization } from "better-auth/plugins";

const where = process.argv[2];
const inPostgres = where.startsWith("postgresql:");
const database = inPostgres
  ? new (await import("pg")).default.Pool({ connectionString: where })
  : new (await import("better-sqlite3")).default(where);

const auth = betterAuth({
  baseURL: "http://127.0.0.1:3000",
  secret: "throw-away-secret-of-a-test-database-0123456789",
  database,
  logger: { disabled: true },
  telemetry: { enabled: false },
  emailAndPassword: { enabled: true },
  plugins: [
    admin(), bearer(), jwt(), organization(),
    apiKey([
      { configId: "default", enableMetadata: true },
      { configId: "team", references: "organization", defaultPrefix: "team_" },
    ]),
  ],
});
const { runMigrations } = await getMigrations(auth.options);
await runMigrations();
const context = await auth.$context;

const given = { people: {}, keys: {} };
for (const [name, password] of [
  ["ada", "analytical engine"], ["grace", "ﬁrst compiler ever"], ["mallory", "let me in, please"],
]) {
  const email = `${name}@example.com`;
  const made = await auth.api.signUpEmail({ body: { name, email, password } });
  given.people[name] = { id: made.user.id, email, password, token: made.token };
}
const { ada, grace, mallory } = given.people;
await context.internalAdapter.updateUser(ada.id, { emailVerified: true, role: "admin" });
await context.internalAdapter.updateUser(grace.id, { emailVerified: true });
await context.internalAdapter.updateUser(mallory.id, { emailVerified: true, banned: true });
const byMail = { name: "Only Mail", email: "only@example.com", emailVerified: true };
const only = await context.internalAdapter.createUser(byMail);
given.people.only = { id: only.id, email: "only@example.com" };
await context.internalAdapter.createAccount({
  userId: only.id, accountId: "4711", providerId: "github", accessToken: "throw-away",
});

const headers = new Headers({ authorization: `Bearer ${ada.token}` });
const { id: organizationId } = await auth.api.createOrganization({
  body: { name: "Engines", slug: "engines" }, headers,
});
given.organization = organizationId;

const keys = {
  plain: { userId: ada.id },
  full: {
    userId: ada.id, name: "deploy", prefix: "acme_", expiresIn: 86400 * 300,
    remaining: 5, refillAmount: 10, refillInterval: 3600000,
    rateLimitEnabled: true, rateLimitMax: 7, rateLimitTimeWindow: 60000,
    permissions: { files: ["read", "write"], deploy: ["run"] },
    metadata: { plan: "pro", seats: [1, 2, { three: null }] },
  },
  unlimited: { userId: grace.id, name: "no limit", rateLimitEnabled: false },
  disabled: { userId: grace.id, name: "off", rateLimitEnabled: false },
  banned: { userId: mallory.id, rateLimitEnabled: false },
  like_ours: { userId: grace.id, prefix: "kb_", rateLimitEnabled: false },
  bad_name: { userId: ada.id, permissions: { Files: ["readAll"] } },
  team: { configId: "team", organizationId, userId: ada.id },
};
for (const [name, body] of Object.entries(keys)) {
  const { id, key } = await auth.api.createApiKey({ body });
  given.keys[name] = { id, key };
}
await auth.api.updateApiKey({
  body: { keyId: given.keys.disabled.id, userId: grace.id, enabled: false },
});
await auth.api.verifyApiKey({ body: { key: given.keys.full.key } });

// A key whose owner was deleted: there it goes on to be good.
const gone = await context.internalAdapter.createUser({ ...byMail, email: "gone@example.com" });
const { id, key } = await auth.api.createApiKey({ body: { userId: gone.id } });
given.keys.gone = { id, key };
await context.internalAdapter.deleteUser(gone.id);

console.log(JSON.stringify(given, null, 1));
process.exit(0);
