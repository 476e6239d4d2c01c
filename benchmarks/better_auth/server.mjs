// One endpoint behind Better Auth's api-key plugin, on plain node:http.
//
//   database  each check reads and writes SQLite (WAL), as the plugin does by default
//   memory    its fastest: keys in a secondary storage in memory, writes deferred, no database
//
// Tells `{"port", "key"}` in one line on stdout once it listens, and ends with SIGTERM.

import { createServer } from "node:http";
import { apiKey } from "@better-auth/api-key";
import { betterAuth } from "better-auth";
import { getMigrations } from "better-auth/db/migration";
import Database from "better-sqlite3";

const [mode, file] = process.argv.slice(2);
const inMemory = mode === "memory";
const body = { message: "Hello from behind the guard", items: [1, 2, 3] };
const without_end = { enabled: true, timeWindow: 60_000, maxRequests: 1_000_000_000 };

const database = new Database(file);
database.pragma("journal_mode = WAL");

const stored = new Map();
const secondaryStorage = {
  get: (name) => stored.get(name) ?? null,
  set: (name, value) => void stored.set(name, value),
  delete: (name) => void stored.delete(name),
};

const auth = betterAuth({
  baseURL: "http://127.0.0.1:3000",
  secret: process.env.BENCH_SECRET,
  database,
  logger: { disabled: true },
  telemetry: { enabled: false },
  advanced: { backgroundTasks: { handler: (task) => void task } },
  ...(inMemory && { secondaryStorage }),
  plugins: [
    apiKey({
      rateLimit: without_end,
      ...(inMemory && { storage: "secondary-storage", deferUpdates: true }),
    }),
  ],
});

const { runMigrations } = await getMigrations(auth.options);
await runMigrations();
const context = await auth.$context;
const user = await context.internalAdapter.createUser({
  email: "a@example.com",
  name: "A",
  emailVerified: true,
});
const { key } = await auth.api.createApiKey({ body: { userId: user.id } });

const server = createServer(async (request, response) => {
  const presented = request.headers["x-api-key"] ?? "";
  const { valid } = await auth.api.verifyApiKey({ body: { key: presented } });
  const answer = JSON.stringify(valid ? body : { message: "Unauthorized" });
  response.writeHead(valid ? 200 : 401, {
    "content-type": "application/json",
    "content-length": Buffer.byteLength(answer),
  });
  response.end(answer);
});

server.listen(0, "127.0.0.1", () => {
  console.log(JSON.stringify({ port: server.address().port, key }));
});
process.on("SIGTERM", () => process.exit(0));
