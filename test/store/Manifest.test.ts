/**
 * A manifest: made, signed, read back and checked; rotation, modes, the counter that is kept in the database.
 */
import * as SqlClient from "@effect/sql/SqlClient"
import { describe, expect, it } from "@effect/vitest"
import * as ConfigProvider from "effect/ConfigProvider"
import * as Effect from "effect/Effect"
import * as Layer from "effect/Layer"
import * as Logger from "effect/Logger"
import * as Redacted from "effect/Redacted"
import { createHash, createPublicKey, verify } from "node:crypto"
import { readFileSync, rmSync, writeFileSync } from "node:fs"
import { join } from "node:path"
import { Ledger, Manifest, Migrator, Namespace } from "../../src/index.js"
import * as Database from "../support/Database.js"
import * as Directory from "../support/Directory.js"
import * as Store from "../support/Store.js"

const namespace = Namespace.make("shop")

const files = { "001-a.up.sql": "CREATE TABLE a (id TEXT);\n", "001-a.down.sql": "DROP TABLE a;\n" }

const sha256 = (bytes: Uint8Array) => createHash("sha256").update(bytes).digest("hex")

const stored = (path: string, name: string) => readFileSync(join(path, name))

const edit = (path: string, name: string, text: string) => Effect.sync(() => writeFileSync(join(path, name), text))

/** What is logged while `self` runs. */
const logged = <A, E, R>(self: Effect.Effect<A, E, R>) =>
  Effect.suspend(() => {
    const lines: Array<string> = []
    const logger = Logger.make(({ logLevel, message }) => lines.push(`${logLevel.label} ${String(message)}`))
    return Effect.map(
      Effect.provide(self, Logger.replace(Logger.defaultLogger, logger)),
      (value) => [value, lines] as const
    )
  })

describe("a manifest", () => {
  it.scopedLive("is canonical JSON, and its signature is one that any Ed25519 tool can check", () =>
    Effect.gen(function*() {
      const path = yield* Directory.make(files)
      const { keyId, privateKey, publicKey } = yield* Manifest.generateKeys
      const first = yield* Manifest.release(path, { namespace, privateKey })
      const bytes = stored(path, "manifest.json")
      expect(first.manifest).toEqual({
        type: "effect-processors/migrations/1",
        namespace,
        counter: 1,
        previous: null,
        createdAtMillis: expect.any(Number),
        keyId,
        files: (["001-a.down.sql", "001-a.up.sql"] as const).map((name) => ({
          name,
          sha256: sha256(Buffer.from(files[name])),
          textSha256: sha256(Buffer.from(files[name]))
        }))
      })
      expect(bytes.toString().startsWith(`{"counter":1,"createdAtMillis":`)).toBe(true)
      const signature = Buffer.from(stored(path, "manifest.json.sig").toString(), "base64")
      const key = createPublicKey({ key: Buffer.from(publicKey, "base64"), format: "der", type: "spki" })
      expect(verify(null, bytes, key, signature)).toBe(true)

      const second = yield* Manifest.release(path, { namespace, privateKey })
      expect(second.manifest).toMatchObject({ counter: 2, previous: sha256(bytes) })
    }))

  it.scopedLive.each(
    [
      ["not JSON", "{"],
      ["something else", "{}"],
      ["a key twice", (text: string) => text.replace("{", `{"counter":7,`)],
      ["other spaces", (text: string) => `${text}\n`]
    ] as const
  )("that is %s is malformed", ([, change]) =>
    Effect.gen(function*() {
      const path = yield* Directory.make(files)
      const { privateKey } = yield* Manifest.generateKeys
      yield* Manifest.release(path, { namespace, privateKey })
      const text = stored(path, "manifest.json").toString()
      yield* edit(path, "manifest.json", typeof change === "string" ? change : change(text))
      expect(yield* Effect.flip(Manifest.read(path))).toMatchObject({ _tag: "ManifestMalformed" })
    }))

  it("is configured with a mode and keys", () => {
    const read = (entries: ReadonlyArray<readonly [string, string]>) =>
      Effect.runSync(
        Effect.withConfigProvider(Manifest.config, ConfigProvider.fromMap(new Map(entries)))
      )
    expect(read([])).toEqual({ mode: "require", keys: [] })
    expect(read([["MIGRATION_SIGNATURES", "warn"], ["MIGRATION_KEYS", "a, b"]])).toEqual({
      mode: "warn",
      keys: ["a", "b"]
    })
    expect(() => read([["MIGRATION_SIGNATURES", "none"]])).toThrow("MIGRATION_SIGNATURES")
  })
})

describe.each(Database.dialects)("on $dialect", ({ fresh }) => {
  const store = Layer.unwrapScoped(Effect.map(fresh, Store.layer))

  it.scopedLive("two pinned keys let one take over from the other, and one that is gone signs no more", () =>
    Effect.gen(function*() {
      const path = yield* Directory.make(files)
      const old = yield* Manifest.generateKeys
      const next = yield* Manifest.generateKeys
      const load = (...keys: ReadonlyArray<string>) => Manifest.load(path, { namespace, keys })
      yield* Manifest.release(path, { namespace, privateKey: old.privateKey })
      yield* load(old.publicKey)
      yield* load(old.publicKey, next.publicKey)
      yield* Manifest.release(path, { namespace, privateKey: next.privateKey })
      expect(yield* Effect.flip(load(old.publicKey))).toMatchObject({
        _tag: "SignerUnknown",
        keyId: next.keyId,
        pinned: [old.keyId]
      })
      const loaded = yield* load(old.publicKey, next.publicKey)
      expect(loaded["001-a"]?.signedBy).toBe(next.keyId)
      // As PEM too.
      const pem = createPublicKey(Redacted.value(next.privateKey)).export({ type: "spki", format: "pem" }).toString()
      yield* load(pem)
      expect(yield* Effect.flip(load("bm8ga2V5"))).toMatchObject({ _tag: "ManifestMalformed" })
      expect(yield* Effect.flip(load())).toMatchObject({ _tag: "SignerUnknown", pinned: [] })
    }).pipe(Effect.provide(store)))

  it.scopedLive("one that was never accepted but has the counter of one that was is ManifestForked", () =>
    Effect.gen(function*() {
      const path = yield* Directory.make(files)
      const { privateKey, publicKey } = yield* Manifest.generateKeys
      const load = Manifest.load(path, { namespace, keys: [publicKey] })
      yield* Manifest.release(path, { namespace, privateKey })
      yield* load
      rmSync(join(path, "manifest.json"))
      yield* edit(path, "002-b.up.sql", "CREATE TABLE b (id TEXT)")
      yield* edit(path, "002-b.down.sql", "DROP TABLE b")
      yield* Manifest.release(path, { namespace, privateKey })
      expect(yield* Effect.flip(load)).toMatchObject({ _tag: "ManifestForked", counter: 1 })
      // Nor does its successor follow what was accepted.
      yield* Manifest.release(path, { namespace, privateKey })
      expect(yield* Effect.flip(load)).toMatchObject({ _tag: "ManifestForked", counter: 2 })
      // With more in between nobody here can tell, and the counter alone decides.
      yield* Manifest.release(path, { namespace, privateKey })
      yield* load
      const sql = yield* SqlClient.SqlClient
      expect(yield* sql`SELECT counter FROM processor_manifest`).toEqual([{ counter: 3 }])
    }).pipe(Effect.provide(store)))

  it.scopedLive("that was accepted before is accepted again without a lock", () =>
    Effect.gen(function*() {
      const database = yield* fresh
      const path = yield* Directory.make(files)
      const { privateKey, publicKey } = yield* Manifest.generateKeys
      yield* Manifest.release(path, { namespace, privateKey })
      const load = Manifest.load(path, { namespace, keys: [publicKey], lockTimeout: 0 })
      yield* Effect.provide(load, Store.layer(database))
      yield* Effect.provide(load, Store.layer(database))
      expect(yield* Effect.provide(Ledger.read(namespace), Store.layer(database))).toEqual([])
    }))

  it.scopedLive("in the mode `warn` says what is wrong and goes on, in the mode `off` says that it does not look", () =>
    Effect.gen(function*() {
      const path = yield* Directory.make(files)
      const { privateKey, publicKey } = yield* Manifest.generateKeys
      yield* Manifest.release(path, { namespace, privateKey })
      yield* edit(path, "001-a.up.sql", "CREATE TABLE edited (id TEXT)")
      const load = (mode: Manifest.Mode) => logged(Manifest.load(path, { namespace, mode, keys: [publicKey] }))
      const [warned, warnings] = yield* load("warn")
      expect(warned["001-a"]?.signedBy).toBeUndefined()
      expect(warnings).toEqual([
        expect.stringMatching(/^WARN the migrations are not verified: 001-a.up.sql is not what was/)
      ])
      const [, said] = yield* load("off")
      expect(said).toEqual([expect.stringMatching(/^INFO signatures are off/)])
      expect(yield* Effect.flip(load("require"))).toMatchObject({ _tag: "FileTampered" })
      yield* Migrator.up(namespace, warned)
    }).pipe(Effect.provide(store)))
})
