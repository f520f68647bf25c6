/**
 * Guarantee 12: migrations are all or nothing, one runner at a time, complete and untampered.
 *
 * `MIGRATION_ROUNDS=20 npx vitest run test/guarantees/migrations.test.ts` races 20 rounds each of 8 and of 32 processes.
 */
import * as SqlClient from "@effect/sql/SqlClient"
import { describe, expect, it } from "@effect/vitest"
import * as Effect from "effect/Effect"
import * as Fiber from "effect/Fiber"
import * as Layer from "effect/Layer"
import * as Logger from "effect/Logger"
import * as LogLevel from "effect/LogLevel"
import type * as Scope from "effect/Scope"
import { generateKeyPairSync, sign } from "node:crypto"
import { readFileSync, rmSync, writeFileSync } from "node:fs"
import { join } from "node:path"
import { Catalogue, Manifest, Migrator } from "../../src/index.js"
import type { Migration } from "../../src/index.js"
import * as Database from "../support/Database.js"
import * as Directory from "../support/Directory.js"
import * as Store from "../support/Store.js"
import * as Fleet from "./Fleet.js"
import * as migrator from "./migrator.js"

const roundsAsked = process.env["MIGRATION_ROUNDS"]
const races = [
  { size: 8, rounds: Number(roundsAsked ?? 3) },
  { size: 32, rounds: Number(roundsAsked ?? 1) }
]

const { namespace } = migrator

const on = (database: Database.Database) => Effect.provide(Store.layer(database))

const catalogue = Effect.map(Catalogue.read, Catalogue.render)

const userCatalogue = Effect.map(
  Catalogue.read,
  (items) => Catalogue.render(items.filter((item) => !Catalogue.isOwn(item)))
)

const applied = (migrations: Migration.Migrations) =>
  Effect.map(Migrator.status(namespace, migrations), (all) => all.filter(({ state }) => state === "applied").length)

/** Between two statements, in milliseconds: together longer than a file's lock is waited for in one go. */
const pauseMillis = 10

/** All of them are given the order in the same turn. */
const raced = (fleet: ReadonlyArray<Fleet.Ship>, database: Database.Database, which: "ours" | "stock") =>
  Effect.forEach(fleet, (ship) => ship.order({ kind: "race", database, migrator: which, pauseMillis }), {
    concurrency: "unbounded"
  })

const quietly = Logger.withMinimumLogLevel(LogLevel.None)

describe.each(Database.dialects)("on $dialect", ({ fresh }) => {
  it.scopedLive(
    "all or nothing: a step that fails at any statement leaves no trace, and the ones before it stay",
    () =>
      Effect.gen(function*() {
        for (let at = 0; at <= migrator.statementsMax; at++) {
          const database = yield* fresh
          yield* Effect.gen(function*() {
            const sql = yield* SqlClient.SqlClient
            const [first] = Object.entries(migrator.steps())
            yield* Migrator.up(namespace, Object.fromEntries([first!]))
            const before = yield* catalogue
            const failing = migrator.steps((statement) =>
              statement === at ? Effect.asVoid(sql`INSERT INTO nowhere VALUES (1)`) : Effect.void
            )
            const failure = yield* Effect.flip(Migrator.up(namespace, failing))
            expect(failure).toMatchObject({ _tag: "MigrationFailed", id: "0002_race", statements: at + 1 })
            expect(yield* catalogue).toBe(before)
            expect(yield* applied(failing)).toBe(1)
            yield* Migrator.up(namespace, migrator.steps())
            expect(yield* migrator.isComplete).toBe(true)
          }).pipe(on(database))
        }
      }).pipe(quietly)
  )

  it.scopedLive.each([
    { at: "its record", statements: ["DROP TABLE processor_migration"] },
    {
      at: "COMMIT",
      statements: [
        "CREATE TABLE parent (id INTEGER PRIMARY KEY)",
        "CREATE TABLE child (parent INTEGER NOT NULL REFERENCES parent (id) DEFERRABLE INITIALLY DEFERRED)",
        "INSERT INTO child VALUES (1)"
      ]
    }
  ])("all or nothing: a step that fails at $at leaves no trace", ({ statements }) =>
    Effect.gen(function*() {
      const sql = yield* SqlClient.SqlClient
      const [first] = Object.entries(migrator.steps())
      yield* Migrator.up(namespace, Object.fromEntries([first!]))
      const before = yield* catalogue
      const up = Effect.forEach(statements, (text) => sql.unsafe(text), { discard: true })
      const failing = { ...Object.fromEntries([first!]), "0002_late": { up, down: Effect.void } }
      const failure = yield* Effect.flip(Migrator.up(namespace, failing))
      expect(failure).toMatchObject({ _tag: "MigrationFailed", id: "0002_late" })
      expect(yield* catalogue).toBe(before)
      expect(yield* applied(failing)).toBe(1)
    }).pipe(Effect.provide(Layer.unwrapScoped(Effect.map(fresh, Store.layer))), quietly))

  it.scopedLive(
    "all or nothing: killed at any statement, the step is gone, and a restart completes it",
    () =>
      Effect.gen(function*() {
        const ships = yield* Fleet.make(migrator.statementsMax + 1)
        for (const [at, ship] of ships.entries()) {
          const database = yield* fresh
          expect(yield* ship.order({ kind: "hang", database, at, transactional: true })).toEqual({ kind: "hangs" })
          yield* ship.kill
          yield* Effect.gen(function*() {
            expect(yield* applied(migrator.steps())).toBe(1)
            expect(yield* userCatalogue).not.toContain("race_2")
            yield* Migrator.up(namespace, migrator.steps())
            expect(yield* migrator.isComplete).toBe(true)
            expect(yield* applied(migrator.steps())).toBe(3)
          }).pipe(on(database))
        }
      }).pipe(quietly)
  )

  it.scopedLive(
    "a step outside a transaction that was killed at any statement is resumed by the next process",
    () =>
      Effect.gen(function*() {
        const ships = yield* Fleet.make(3)
        for (const [at, ship] of ships.entries()) {
          const database = yield* fresh
          expect(yield* ship.order({ kind: "hang", database, at, transactional: false })).toEqual({ kind: "hangs" })
          yield* Effect.gen(function*() {
            const waits = Migrator.up(namespace, migrator.outside(), { lockTimeout: "200 millis" })
            expect(yield* Effect.flip(waits)).toMatchObject({ _tag: "MigrationLocked" })
            yield* ship.kill
            const [standing] = yield* Migrator.status(namespace, migrator.outside())
            expect(standing).toMatchObject({ state: "started" })
            const { steps } = yield* Migrator.up(namespace, migrator.outside())
            expect(steps).toMatchObject([{ id: "0001_outside", direction: "up" }])
            const sql = yield* SqlClient.SqlClient
            expect(yield* sql`SELECT id FROM outside`).toEqual([{ id: 1 }])
          }).pipe(on(database))
        }
      }).pipe(quietly)
  )

  it.scopedLive(
    "one runner at a time: who waits takes over from one that is killed, and completes it",
    () =>
      Effect.gen(function*() {
        const [first, ...others] = yield* Fleet.make(4)
        const database = yield* fresh
        expect(yield* first!.order({ kind: "hang", database, at: 2, transactional: true })).toEqual({ kind: "hangs" })
        const waiting = yield* Effect.fork(raced(others, database, "ours"))
        yield* Effect.sleep("300 millis")
        expect(waiting.unsafePoll()).toBeNull()
        yield* first!.kill
        const answers = yield* Fiber.join(waiting)
        expect(answers.every((answer) => answer.kind === "migrated" && answer.isComplete)).toBe(true)
        expect(answers.flatMap((answer) => answer.kind === "migrated" ? answer.applied : []).sort())
          .toEqual(["0002_race", "0003_race"])
      }).pipe(quietly)
  )

  for (const { rounds, size } of races) {
    it.scopedLive(
      `one runner at a time: ${size} processes race on an empty database, ${rounds} rounds`,
      () =>
        Effect.gen(function*() {
          const fleet = yield* Fleet.make(size)
          for (let round = 0; round < rounds; round++) {
            const database = yield* fresh
            const answers = yield* raced(fleet, database, "ours")
            expect(answers.filter(({ kind }) => kind !== "migrated"), "nobody fails").toEqual([])
            const migrated = answers.flatMap((answer) => answer.kind === "migrated" ? [answer] : [])
            expect(migrated.every(({ isComplete }) => isComplete), "nobody goes on before it is ready").toBe(true)
            const steps = migrated.flatMap((answer) => answer.applied).sort()
            expect(steps, "each step has one applier").toEqual(["0001_race", "0002_race", "0003_race"])
            expect(yield* Effect.provide(applied(migrator.steps()), Store.layer(database))).toBe(3)
          }
        }).pipe(quietly),
      60_000 + rounds * size * 500
    )
  }

  it.scopedLive("control: the migrator of @effect/sql fails the same race", () =>
    Effect.gen(function*() {
      const fleet = yield* Fleet.make(8)
      const wrong: Array<migrator.Answer> = []
      for (let round = 0; round < 10 && wrong.length === 0; round++) {
        const answers = yield* raced(fleet, yield* fresh, "stock")
        wrong.push(...answers.filter((answer) => answer.kind !== "migrated" || !answer.isComplete))
      }
      expect(wrong.length).toBeGreaterThan(0)
    }).pipe(quietly))

  it.scopedLive("up, down and up again leaves the catalogue equal byte for byte", () =>
    Effect.gen(function*() {
      yield* Migrator.up(namespace, migrator.steps())
      const after = yield* catalogue
      const { steps } = yield* Migrator.down(namespace, migrator.steps(), "nothing")
      expect(steps.map(({ id }) => id)).toEqual(["0003_race", "0002_race", "0001_race"])
      expect(yield* userCatalogue).toBe("")
      yield* Migrator.up(namespace, migrator.steps())
      expect(yield* catalogue).toBe(after)
      expect(yield* migrator.isComplete).toBe(true)
    }).pipe(Effect.provide(Layer.unwrapScoped(Effect.map(fresh, Store.layer))), quietly))

  describe("untampered", () => {
    const files = {
      "001-todos.up.sql": "CREATE TABLE todos (\n  id TEXT PRIMARY KEY\n);\n",
      "001-todos.down.sql": "DROP TABLE todos;\n",
      "002-done.js": Directory.module("done")
    }

    /** A signed directory, its key, and what a start does with it. */
    const setUp: Effect.Effect<
      {
        readonly path: string
        readonly keys: Effect.Effect.Success<typeof Manifest.generateKeys>
        readonly start: Effect.Effect<Migrator.Summary, StartError, SqlClient.SqlClient>
        readonly release: Effect.Effect<Manifest.Signed>
      },
      never,
      Scope.Scope
    > = Effect.gen(function*() {
      const path = yield* Directory.make(files)
      const keys = yield* Manifest.generateKeys
      const release = Effect.orDie(Manifest.release(path, { namespace, privateKey: keys.privateKey }))
      yield* release
      const start = Effect.flatMap(
        Manifest.load(path, { namespace, keys: [keys.publicKey] }),
        (migrations) => Migrator.up(namespace, migrations)
      )
      return { path, keys, start, release }
    })

    type StartError = Effect.Effect.Error<ReturnType<typeof Manifest.load>> | Migrator.MigrationError

    /** A start on an empty database fails with this error, and nothing was sent: not even the ledger is there. */
    const refuses = (
      title: string,
      tag: StartError["_tag"],
      tamper: (given: Effect.Effect.Success<typeof setUp>) => Effect.Effect<unknown, never, Scope.Scope> | void
    ) =>
      it.scopedLive(`${title} is ${tag}, before the first statement`, () =>
        Effect.gen(function*() {
          const given = yield* setUp
          yield* tamper(given) ?? Effect.void
          expect(yield* Effect.flip(given.start)).toMatchObject({ _tag: tag })
          expect(yield* catalogue).toBe("")
        }).pipe(Effect.provide(Layer.unwrapScoped(Effect.map(fresh, Store.layer))), quietly))

    const edit = (path: string, name: string, change: (text: string) => string) =>
      writeFileSync(join(path, name), change(readFileSync(join(path, name), "utf8")))

    refuses("an edited file", "FileTampered", ({ path }) => edit(path, "001-todos.up.sql", (text) => `${text} `))
    refuses(
      "an edited module",
      "FileTampered",
      ({ path }) => edit(path, "002-done.js", () => "throw new Error('it was imported')")
    )
    refuses(
      "a changed line ending",
      "FileLineEndings",
      ({ path }) => edit(path, "001-todos.up.sql", (text) => text.replaceAll("\n", "\r\n"))
    )
    refuses(
      "a byte order mark",
      "FileTampered",
      ({ path }) => edit(path, "001-todos.up.sql", (text) => `\ufeff${text}`)
    )
    refuses("a deleted file", "FileDeleted", ({ path }) => rmSync(join(path, "002-done.js")))
    refuses(
      "an added file",
      "FileUnsigned",
      ({ path }) => writeFileSync(join(path, "003-more.js"), Directory.module("more"))
    )
    refuses(
      "a look-alike name",
      "MigrationLookAlike",
      ({ path }) => writeFileSync(join(path, "002-d\u043ene.js"), Directory.module("done"))
    )
    refuses("a missing signature", "ManifestUnsigned", ({ path }) => rmSync(join(path, "manifest.json.sig")))
    refuses("a missing manifest", "ManifestUnsigned", ({ path }) => rmSync(join(path, "manifest.json")))
    refuses(
      "a changed manifest",
      "SignatureInvalid",
      ({ path }) => edit(path, "manifest.json", (text) => text.replace(`"counter":1`, `"counter":2`))
    )
    refuses(
      "a changed signature",
      "SignatureInvalid",
      ({ path }) => edit(path, "manifest.json.sig", (text) => (text.startsWith("A") ? "B" : "A") + text.slice(1))
    )
    refuses("another key's signature of the same manifest", "SignatureInvalid", ({ path }) => {
      const { privateKey } = generateKeyPairSync("ed25519")
      const signature = sign(null, readFileSync(join(path, "manifest.json")), privateKey)
      writeFileSync(join(path, "manifest.json.sig"), `${signature.toString("base64")}\n`)
    })
    refuses("a key that is not pinned", "SignerUnknown", ({ path }) =>
      Effect.gen(function*() {
        const { privateKey } = yield* Manifest.generateKeys
        yield* Effect.orDie(Manifest.release(path, { namespace, privateKey }))
      }))
    refuses(
      "another namespace's manifest",
      "ManifestMisplaced",
      ({ keys, path }) => Effect.orDie(Manifest.release(path, { namespace: "elsewhere", privateKey: keys.privateKey }))
    )

    it.scopedLive("an older manifest than the one that was accepted is ManifestOutdated, before the first statement", () =>
      Effect.gen(function*() {
        const { path, release, start } = yield* setUp
        const older = ["manifest.json", "manifest.json.sig"].map((name) =>
          [name, readFileSync(join(path, name))] as const
        )
        writeFileSync(join(path, "003-more.up.sql"), "CREATE TABLE more (id TEXT)")
        writeFileSync(join(path, "003-more.down.sql"), "DROP TABLE more")
        yield* release
        expect((yield* start).steps.map(({ id }) => id)).toEqual(["001-todos", "002-done", "003-more"])
        const before = yield* catalogue
        for (const [name, bytes] of older) writeFileSync(join(path, name), bytes)
        for (const name of ["003-more.up.sql", "003-more.down.sql"]) rmSync(join(path, name))
        expect(yield* Effect.flip(start)).toMatchObject({ _tag: "ManifestOutdated", counter: 1, accepted: 2 })
        expect(yield* catalogue).toBe(before)
      }).pipe(Effect.provide(Layer.unwrapScoped(Effect.map(fresh, Store.layer))), quietly))

    it.scopedLive("what is signed goes up, and is recorded with its key", () =>
      Effect.gen(function*() {
        const { keys, start } = yield* setUp
        expect((yield* start).steps.map(({ id }) => id)).toEqual(["001-todos", "002-done"])
        expect((yield* start).steps).toEqual([])
        const sql = yield* SqlClient.SqlClient
        expect(yield* sql`SELECT DISTINCT signed_by FROM processor_migration`).toEqual([{ signed_by: keys.keyId }])
      }).pipe(Effect.provide(Layer.unwrapScoped(Effect.map(fresh, Store.layer))), quietly))
  })
})
