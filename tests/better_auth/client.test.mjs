// Better Auth's own client, as it comes from npm, against a server of keybearer.
//
// BASE is where it is served, SERVICE a service token of that server.

import assert from "node:assert/strict";
import { test } from "node:test";

import { apiKeyClient } from "@better-auth/api-key/client";
import { createAuthClient } from "better-auth/client";
import { jwtClient } from "better-auth/client/plugins";
import { createLocalJWKSet, jwtVerify } from "jose";

const { BASE, SERVICE } = process.env;
const PASSWORD = "plumqvortzixkedwy";
const ANN = { email: "ann@example.com", password: PASSWORD };

/** A client that keeps its cookie, as a browser does. */
function browser() {
  const jar = new Map();
  return createAuthClient({
    baseURL: BASE,
    plugins: [apiKeyClient(), jwtClient()],
    fetchOptions: {
      customFetchImpl: async (url, options) => {
        const headers = new Headers(options.headers);
        headers.set("origin", BASE);
        if (jar.size) headers.set("cookie", [...jar].map(([k, v]) => `${k}=${v}`).join("; "));
        const answer = await fetch(url, { ...options, headers });
        for (const cookie of answer.headers.getSetCookie()) {
          const [name, value] = cookie.split(";")[0].split(/=(.*)/s);
          if (value) jar.set(name, value);
          else jar.delete(name);
        }
        return answer;
      },
    },
  });
}

/** What a call answers; an error is one of the test. */
async function ok(call) {
  const { data, error } = await call;
  assert.equal(error, null, JSON.stringify(error));
  return data;
}

/** The error of a call that is refused. */
async function refused(call) {
  const { data, error } = await call;
  assert.equal(data, null);
  return error;
}

test("sign up, sign in, see who one is, sign out", async () => {
  const client = browser();
  const joined = await ok(client.signUp.email({ ...ANN, name: "Ann" }));
  assert.equal(joined.user.email, ANN.email);
  assert.equal(joined.token, null);
  assert.equal(await ok(client.getSession()), null);

  const wrong = await refused(client.signIn.email({ ...ANN, password: "wrong" }));
  assert.deepEqual([wrong.status, wrong.code], [401, "INVALID_EMAIL_OR_PASSWORD"]);

  const entered = await ok(client.signIn.email(ANN));
  assert.equal(entered.redirect, false);
  const { session, user } = await ok(client.getSession());
  assert.equal(user.name, "Ann");
  assert.equal(session.userId, user.id);
  assert.ok(session.expiresAt instanceof Date);

  await ok(client.updateUser({ name: "Ann B." }));
  assert.equal((await ok(client.getSession())).user.name, "Ann B.");

  assert.deepEqual(await ok(client.signOut()), { success: true });
  assert.equal(await ok(client.getSession()), null);
});

test("logins are seen and ended", async () => {
  const here = browser();
  const there = browser();
  await ok(here.signIn.email(ANN));
  await ok(there.signIn.email(ANN));
  const sessions = await ok(here.listSessions());
  assert.equal(sessions.length, 2);
  const other = sessions.find((each) => !each.current);
  assert.deepEqual(await ok(here.revokeSession({ token: other.token })), { status: true });
  assert.equal(await ok(there.getSession()), null);
  await ok(here.revokeOtherSessions());
  assert.equal((await ok(here.listSessions())).length, 1);
  await ok(here.revokeSessions());
  assert.equal((await refused(here.listSessions())).code, "UNAUTHORIZED");
});

test("a bearer token instead of a cookie", async () => {
  const client = createAuthClient({ baseURL: BASE, plugins: [apiKeyClient()] });
  let token = "";
  await ok(
    client.signIn.email(ANN, {
      onSuccess: ({ response }) => {
        token = response.headers.get("set-auth-token");
      },
    }),
  );
  assert.match(token, /^\w{32}\../);
  const auth = { type: "Bearer", token };
  assert.equal(await ok(client.getSession()), null);
  const { user } = await ok(client.getSession({ fetchOptions: { auth } }));
  assert.equal(user.email, ANN.email);
  const made = await ok(client.apiKey.create({ name: "by bearer", fetchOptions: { auth } }));
  assert.equal(made.referenceId, user.id);
  await ok(client.apiKey.delete({ keyId: made.id, fetchOptions: { auth } }));
  const bad = { type: "Bearer", token: `${token.slice(0, -2)}x=` };
  assert.equal((await refused(client.getSession({ fetchOptions: { auth: bad } }))).status, 401);
});

test("a jwt, and the keys to check it with", async () => {
  const client = browser();
  await ok(client.signIn.email(ANN));
  const { token } = await ok(client.token());
  const keys = createLocalJWKSet(await ok(client.jwks()));
  const { payload } = await jwtVerify(token, keys, { issuer: BASE, audience: BASE });
  const { user } = await ok(client.getSession());
  assert.equal(payload.sub, user.id);
  let beside = "";
  await ok(
    client.getSession({
      fetchOptions: { onSuccess: ({ response }) => (beside = response.headers.get("set-auth-jwt")) },
    }),
  );
  assert.equal((await jwtVerify(beside, keys)).payload.sub, user.id);
});

test("the life of a key", async () => {
  const client = browser();
  await ok(client.signIn.email(ANN));
  const week = 7 * 24 * 3600;
  const made = await ok(
    client.apiKey.create({ name: "ci", expiresIn: week, metadata: { plan: "pro" } }),
  );
  assert.ok(made.key.startsWith("kb_"));
  assert.ok(made.expiresAt instanceof Date);
  assert.deepEqual(made.metadata, { plan: "pro" });

  const listed = await ok(client.apiKey.list({ query: { limit: 10, sortBy: "createdAt" } }));
  assert.deepEqual(listed.apiKeys.map((key) => key.id), [made.id]);
  assert.equal(listed.apiKeys[0].key, undefined);
  const got = await ok(client.apiKey.get({ query: { id: made.id } }));
  assert.equal(got.start, made.key.slice(0, got.start.length));

  assert.equal((await verify(made.key)).valid, true);
  const renamed = await ok(client.apiKey.update({ keyId: made.id, name: "deploy" }));
  assert.equal(renamed.name, "deploy");
  await ok(client.apiKey.update({ keyId: made.id, enabled: false }));
  assert.equal((await verify(made.key)).error.code, "KEY_DISABLED");
  await ok(client.apiKey.update({ keyId: made.id, enabled: true }));
  assert.equal((await verify(made.key)).valid, true);

  const server = await refused(client.apiKey.create({ remaining: 5 }));
  assert.deepEqual([server.status, server.code], [400, "SERVER_ONLY_PROPERTY"]);
  const missing = await refused(client.apiKey.get({ query: { id: "missing" } }));
  assert.deepEqual([missing.status, missing.code], [404, "KEY_NOT_FOUND"]);

  const ended = await ok(client.apiKey.delete({ keyId: made.id }));
  assert.equal(ended.success, true);
  assert.equal((await verify(made.key)).valid, false);
  assert.deepEqual((await ok(client.apiKey.list())).apiKeys, []);
});

/** What an app of the same operator hears of a key. */
async function verify(key) {
  const client = createAuthClient({ baseURL: BASE, plugins: [apiKeyClient()] });
  const auth = { type: "Bearer", token: SERVICE };
  return ok(client.apiKey.verify({ key, fetchOptions: { auth } }));
}

test("a changed password ends other logins", async () => {
  const here = browser();
  const there = browser();
  await ok(here.signIn.email(ANN));
  await ok(there.signIn.email(ANN));
  const newPassword = "fjordwaltznymphquick";
  const wrong = { currentPassword: "wrong", newPassword, revokeOtherSessions: true };
  assert.equal((await refused(here.changePassword(wrong))).code, "INVALID_PASSWORD");
  const right = { ...wrong, currentPassword: PASSWORD };
  assert.equal((await ok(here.changePassword(right))).user.email, ANN.email);
  assert.notEqual(await ok(here.getSession()), null);
  assert.equal(await ok(there.getSession()), null);
});
