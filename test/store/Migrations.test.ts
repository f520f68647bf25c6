/**
 * Migrations: up, down, redo, status, plan, verify and the layers, on SQLite and on PostgreSQL.
 */
import * as SqlClient from "@effect/sql/SqlClient"
import { describe, expect, it } from "@effect/vitest"
import * as Deferred from "effect/Deferred"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import * as Fiber from "effect/Fiber"
import * as Layer from "effect/Layer"
import * as Logger from "effect/Logger"
import * as LogLevel from "effect/LogLevel"
import type * as Scope from "effect/Scope"
import * as Sqlite from "../../layers/Sqlite.js"
import { Catalogue, Drift, Ledger, Migration, Migrations, Migrator, Namespace, Transaction } from "../../src/index.js"
import * as Database from "../support/Database.js"
import * as Spans from "../support/Spans.js"
import * as Store from "../support/Store.js"

const shop = Namespace.make("shop")

const table = (name: string): Migration.Migration =>
  Migration.fromSql({ up: `CREATE TABLE ${name} (id TEXT PRIMARY KEY)`, down: `DROP TABLE ${name}` })

const three = {
  "0001_a": table("a"),
  "0002_b": Migration.fromSql({
    up: "ALTER TABLE a ADD COLUMN title TEXT; CREATE INDEX a_by_title ON a (title); INSERT INTO a (id) VALUES ('x')",
    down: "DELETE FROM a WHERE id = 'x'; DROP INDEX a_by_title; ALTER TABLE a DROP COLUMN title"
  }),
  "0010_c": table("c")
}

const ids = (summary: Migrator.Summary) => summary.steps.map(({ direction, id }) => `${direction} ${id}`)

const withSql = (run: (sql: SqlClient.SqlClient) => Migration.Migration["up"]): Migration.Migration["up"] =>
  Effect.flatMap(SqlClient.SqlClient, run)

const states = (migrations: Migration.Migrations) =>
  Effect.map(Migrator.status(shop, migrations), (all) => all.map(({ id, state }) => `${id} ${state}`))

const userTables = Effect.map(
  Catalogue.read,
  (items) => items.filter((item) => item.kind === "table" && !Catalogue.isOwn(item)).map(({ name }) => name)
)

describe.each(Database.dialects)("on $dialect", ({ dialect, fresh }) => {
  /** A test with a database of its own. */
  const test = <E>(
    title: string,
    body: (
      database: Database.Database
    ) => Effect.Effect<unknown, E, SqlClient.SqlClient | Namespace.Namespaces | Scope.Scope>
  ) =>
    it.scopedLive(
      title,
      () =>
        Effect.flatMap(fresh, (database) => Effect.provide(body(database), Store.layer(database))).pipe(
          Logger.withMinimumLogLevel(LogLevel.Warning)
        )
    )

  test("steps go up in the order of their numbers, once, each with a record", () =>
    Effect.gen(function*() {
      expect(yield* states(three)).toEqual(["0001_a pending", "0002_b pending", "0010_c pending"])
      const first = yield* Migrator.up(shop, three)
      expect(ids(first)).toEqual(["up 0001_a", "up 0002_b", "up 0010_c"])
      expect(ids(yield* Migrator.up(shop, three))).toEqual([])
      const entries = yield* Ledger.read(shop)
      expect(entries?.map(({ appliedBy, digest, id, ordinal, state }) => ({ appliedBy, digest, id, ordinal, state })))
        .toEqual(
          Object.entries(three).map(([id, { digest }], i) => ({
            id,
            digest,
            ordinal: i + 1,
            state: "applied",
            appliedBy: expect.stringMatching(new RegExp(`:${process.pid}$`))
          }))
        )
      expect(yield* states(three)).toEqual(["0001_a applied", "0002_b applied", "0010_c applied"])
    }))

  test("nothing to do takes no lock", (database) =>
    Effect.gen(function*() {
      yield* Migrator.up(shop, three)
      const entered = yield* Deferred.make<void>()
      const other = yield* Ledger.lock(shop).pipe(
        Effect.zipRight(Deferred.succeed(entered, undefined)),
        Effect.zipRight(Effect.never),
        Transaction.run,
        Effect.provide(Store.layer(database)),
        Effect.fork
      )
      yield* Deferred.await(entered)
      expect(ids(yield* Migrator.up(shop, three, { lockTimeout: 0 }))).toEqual([])
      const more = { ...three, "0011_d": table("d") }
      expect(yield* Effect.flip(Migrator.up(shop, more, { lockTimeout: 0 }))).toMatchObject({ _tag: "MigrationLocked" })
      yield* Fiber.interrupt(other)
      expect(ids(yield* Migrator.up(shop, more, { lockTimeout: 0 }))).toEqual(["up 0011_d"])
    }))

  test("two namespaces have histories of their own", () =>
    Effect.gen(function*() {
      yield* Migrator.up(shop, { "0001_a": table("a") })
      expect(ids(yield* Migrator.up(Namespace.make("other"), { "0001_a": table("other_a") }))).toEqual(["up 0001_a"])
    }))

  test("processors of one namespace bring one set, and the same step twice is one", (database) =>
    Effect.gen(function*() {
      const summaries = yield* Migrator.upAll([
        { namespace: shop, migrations: { "0002_b": table("b"), "0001_a": table("a") } },
        { namespace: shop, migrations: { "0003_c": table("c"), "0001_a": table("a") } },
        { namespace: Namespace.make("other"), migrations: { "0001_x": table("x") } }
      ])
      expect(summaries.map(({ namespace, steps }) => [namespace, steps.map(({ id }) => id)])).toEqual([
        ["shop", ["0001_processors", "0001_a", "0002_b", "0003_c"]],
        ["other", ["0001_processors", "0001_x"]]
      ])
      const conflict = yield* Effect.flip(Migrator.upAll([
        { namespace: shop, migrations: { "0004_d": table("d") } },
        { namespace: shop, migrations: { "0004_d": table("e") } }
      ]))
      expect(conflict).toMatchObject({ _tag: "MigrationConflict", namespace: "shop", id: "0004_d" })
    }).pipe(Effect.provide(Store.layerMany(database))))

  test("a late step is an error that names it before anything runs, or is applied where allowed", () =>
    Effect.gen(function*() {
      yield* Migrator.up(shop, { "0001_a": three["0001_a"], "0010_c": three["0010_c"] })
      const late = { ...three, "0011_d": table("d") }
      expect(yield* Effect.flip(Migrator.up(shop, late))).toMatchObject({
        _tag: "MigrationLate",
        id: "0002_b",
        after: "0010_c"
      })
      expect(yield* states(late)).toEqual(["0001_a applied", "0002_b late", "0010_c applied", "0011_d pending"])
      expect(ids(yield* Migrator.up(shop, late, { allowLate: true }))).toEqual(["up 0002_b", "up 0011_d"])
      // Down is the order in which they came, not that of their numbers.
      expect(ids(yield* Migrator.down(shop, late, "nothing"))).toEqual([
        "down 0011_d",
        "down 0002_b",
        "down 0010_c",
        "down 0001_a"
      ])
    }))

  test("an edited step is an error before anything runs, and a changed line ending is told apart", () =>
    Effect.gen(function*() {
      const text = { up: "CREATE TABLE a (\n  id TEXT\n)", down: "DROP TABLE a" }
      yield* Migrator.up(shop, { "0001_a": Migration.fromSql(text) })
      const edit = (up: string) => ({ "0001_a": Migration.fromSql({ ...text, up }), "0002_b": table("b") })
      expect(yield* Effect.flip(Migrator.up(shop, edit("CREATE TABLE a (id TEXT)")))).toMatchObject({
        _tag: "MigrationEdited",
        id: "0001_a",
        lineEndingsOnly: false,
        message: expect.stringContaining("what is new belongs in a step of its own")
      })
      const crlf = edit(text.up.replaceAll("\n", "\r\n"))
      expect(yield* Effect.flip(Migrator.up(shop, crlf))).toMatchObject({
        _tag: "MigrationEdited",
        lineEndingsOnly: true
      })
      expect(yield* Effect.flip(Migrator.down(shop, crlf, "nothing"))).toMatchObject({ _tag: "MigrationEdited" })
      expect(yield* states(crlf)).toEqual(["0001_a edited", "0002_b pending"])
      expect(yield* userTables).toEqual(["a"])
    }))

  test("effects without a digest are taken at their word", () =>
    Effect.gen(function*() {
      const { digest: _, ...bare } = table("a")
      yield* Migrator.up(shop, { "0001_a": bare })
      yield* Migrator.up(shop, { "0001_a": table("a") })
      expect(yield* states({ "0001_a": table("a") })).toEqual(["0001_a applied"])
    }))

  test("down goes to a step or to nothing, redo repeats the latest", () =>
    Effect.gen(function*() {
      yield* Migrator.up(shop, three)
      expect(ids(yield* Migrator.redo(shop, three))).toEqual(["down 0010_c", "up 0010_c"])
      expect(ids(yield* Migrator.down(shop, three, { to: "0001_a" }))).toEqual(["down 0010_c", "down 0002_b"])
      expect(yield* userTables).toEqual(["a"])
      expect(yield* Effect.flip(Migrator.down(shop, three, { to: "0002_b" }))).toMatchObject({
        _tag: "MigrationMissing",
        id: "0002_b"
      })
      expect(ids(yield* Migrator.redo(shop, three))).toEqual(["down 0001_a", "up 0001_a"])
      expect(ids(yield* Migrator.down(shop, three, "nothing"))).toEqual(["down 0001_a"])
      expect(ids(yield* Migrator.down(shop, three, "nothing"))).toEqual([])
      expect(yield* userTables).toEqual([])
    }))

  test("a recorded step that is gone stops down and verify before anything runs, and not up", () =>
    Effect.gen(function*() {
      yield* Migrator.up(shop, three)
      const { "0002_b": _, ...rest } = three
      const missing = { _tag: "MigrationMissing", id: "0002_b" }
      expect(yield* Effect.flip(Migrator.down(shop, rest, "nothing"))).toMatchObject(missing)
      expect(yield* Effect.flip(Drift.verify(shop, rest))).toMatchObject(missing)
      expect(ids(yield* Migrator.up(shop, rest))).toEqual([])
      expect(yield* states(rest)).toEqual(["0001_a applied", "0002_b missing", "0010_c applied"])
    }))

  test("ids that are no ids, or that look the same, are refused before anything runs", () =>
    Effect.gen(function*() {
      for (const id of ["a", "0001 a", "0001_\u0430", "-1_a", "0001_A", "1e3_a.b"]) {
        const failure = yield* Effect.flip(Migrator.up(shop, { "0000_ok": table("ok"), [id]: table("x") }))
        expect(failure).toMatchObject({ _tag: "MigrationMisnamed", namespace: "shop", name: id })
      }
      const twice = yield* Effect.flip(Migrator.up(shop, { "0001_a": table("a"), "1-a": table("b") }))
      expect(twice).toMatchObject({ _tag: "MigrationMisnamed" })
      expect(yield* userTables).toEqual([])
    }))

  test("plan tells the statements, parameters included, and changes nothing", () =>
    Effect.gen(function*() {
      yield* Migrator.up(shop, { "0001_a": three["0001_a"] })
      const before = Catalogue.render(yield* Catalogue.read)
      const filled: Migration.Migration = {
        up: withSql((sql) =>
          Effect.gen(function*() {
            yield* sql`INSERT INTO a (id) VALUES (${"1"})`
            const rows = yield* sql<{ readonly n: number }>`SELECT count(*) AS n FROM a`
            yield* sql`INSERT INTO a (id) VALUES (${`after ${rows[0]?.n}`})`
          })
        ),
        down: Effect.void
      }
      const all = {
        ...three,
        "0011_fill": filled,
        "0012_outside": { ...table("never"), transactional: false as const }
      }
      const planned = yield* Migrator.plan(shop, all)
      expect(planned.map(({ id, statements, transactional }) => [id, transactional, statements.length])).toEqual([
        ["0002_b", true, 3],
        ["0010_c", true, 1],
        ["0011_fill", true, 3],
        ["0012_outside", false, 1]
      ])
      expect(planned[2]?.statements[2]?.parameters).toEqual(["after 2"])
      expect(Catalogue.render(yield* Catalogue.read)).toBe(before)
      expect(yield* Migrator.plan(shop, { "0001_a": three["0001_a"] })).toEqual([])
    }))

  test("a plan on an empty database leaves it empty", () =>
    Effect.gen(function*() {
      expect((yield* Migrator.plan(shop, three)).map(({ id }) => id)).toEqual(["0001_a", "0002_b", "0010_c"])
      expect(yield* Catalogue.read).toEqual([])
    }))

  for (const control of ["COMMIT", "ROLLBACK", "BEGIN", "  -- done\n commit;", "End"]) {
    test(`a migration that runs ${JSON.stringify(control)} is refused, and nothing of it stays`, () =>
      Effect.gen(function*() {
        const step = (body: Migration.Migration["up"]) => ({ "0001_a": { up: body, down: Effect.void } })
        const failing = step(withSql((sql) => Effect.zipRight(sql`CREATE TABLE half (id TEXT)`, sql.unsafe(control))))
        expect(yield* Effect.flip(Migrator.up(shop, failing))).toMatchObject({
          _tag: "MigrationEndedTransaction",
          id: "0001_a",
          statement: expect.stringMatching(/^(COMMIT|ROLLBACK|BEGIN|END)$/i)
        })
        const swallowing = step(
          withSql((sql) => Effect.zipRight(sql`CREATE TABLE half (id TEXT)`, Effect.ignore(sql.unsafe(control))))
        )
        expect(yield* Effect.flip(Migrator.up(shop, swallowing))).toMatchObject({ _tag: "MigrationEndedTransaction" })
        expect(yield* userTables).toEqual([])
        expect(yield* states(failing)).toEqual(["0001_a pending"])
      }))
  }

  if (dialect === "pg") {
    test("a COMMIT that is not known for one is found out, recorded as failed, and waits to be settled", () =>
      Effect.gen(function*() {
        const step = {
          "0001_a": {
            up: withSql((sql) =>
              Effect.gen(function*() {
                yield* sql`SET standard_conforming_strings = off`
                yield* sql`CREATE TABLE half (id TEXT)`
                yield* sql.unsafe(String.raw`SELECT 'a\''; COMMIT; --'`)
              })
            ),
            down: Effect.void
          }
        }
        expect(yield* Effect.flip(Migrator.up(shop, step))).toMatchObject({
          _tag: "MigrationEndedTransaction",
          id: "0001_a",
          statement: undefined
        })
        expect(yield* states(step)).toEqual(["0001_a failed"])
        const again = { "0001_a": step["0001_a"], "0002_b": table("b") }
        const unfinished = { _tag: "MigrationUnfinished", id: "0001_a", state: "failed" }
        expect(yield* Effect.flip(Migrator.up(shop, again))).toMatchObject(unfinished)
        expect(yield* Effect.flip(Migrator.down(shop, again, "nothing"))).toMatchObject(unfinished)
        yield* Migrator.settle(shop, "0001_a", "applied")
        expect(ids(yield* Migrator.up(shop, again))).toEqual(["up 0002_b"])
        yield* Migrator.settle(shop, "0002_b", "absent")
        expect(yield* states(again)).toEqual(["0001_a applied", "0002_b pending"])
      }))

    test("an index is built concurrently where the step says so, and nowhere else", () =>
      Effect.gen(function*() {
        const index = {
          up: "CREATE INDEX CONCURRENTLY IF NOT EXISTS a_id ON a (id)",
          down: "DROP INDEX CONCURRENTLY IF EXISTS a_id"
        }
        const undeclared = { "0001_a": table("a"), "0002_index": Migration.fromSql(index) }
        expect(yield* Effect.flip(Migrator.up(shop, undeclared))).toMatchObject({
          _tag: "MigrationFailed",
          statements: 1
        })
        const declared = { "0001_a": table("a"), "0002_index": Migration.fromSql({ ...index, transactional: false }) }
        expect(ids(yield* Migrator.up(shop, declared))).toEqual(["up 0002_index"])
        expect(yield* Drift.verify(shop, declared, { exclusive: true })).toEqual({
          namespace: "shop",
          standings: [],
          differences: []
        })
        expect(ids(yield* Migrator.down(shop, declared, { to: "0001_a" }))).toEqual(["down 0002_index"])
      }))
  }

  test("savepoints are a migration's own business", () =>
    Effect.gen(function*() {
      const step: Migration.Migration = {
        up: withSql((sql) =>
          Effect.gen(function*() {
            yield* sql`CREATE TABLE kept (id TEXT)`
            yield* Effect.ignore(sql.withTransaction(sql`INSERT INTO nowhere VALUES (1)`))
            yield* sql`INSERT INTO kept VALUES ('x')`
          })
        ),
        down: withSql((sql) => sql`DROP TABLE kept`)
      }
      expect(ids(yield* Migrator.up(shop, { "0001_kept": step }))).toEqual(["up 0001_kept"])
    }))

  test("a step outside a transaction that fails is resumed, and is applied once it is through", () =>
    Effect.gen(function*() {
      let fails = true
      const step: Migration.Migration = {
        transactional: false,
        up: withSql((sql) =>
          Effect.gen(function*() {
            yield* sql`CREATE TABLE IF NOT EXISTS half (id TEXT)`
            if (fails) yield* sql`INSERT INTO nowhere VALUES (1)`
          })
        ),
        down: withSql((sql) => sql`DROP TABLE IF EXISTS half`)
      }
      const steps = { "0001_half": step, "0002_b": table("b") }
      expect(yield* Effect.flip(Migrator.up(shop, steps))).toMatchObject({ _tag: "MigrationFailed", id: "0001_half" })
      expect(yield* states(steps)).toEqual(["0001_half started", "0002_b pending"])
      expect(yield* userTables).toEqual(["half"])
      fails = false
      expect(ids(yield* Migrator.up(shop, steps))).toEqual(["up 0001_half", "up 0002_b"])
      expect(ids(yield* Migrator.down(shop, steps, "nothing"))).toEqual(["down 0002_b", "down 0001_half"])
      expect(yield* userTables).toEqual([])
    }))

  test("two side by side outside a transaction: one runs it, the other waits and finds it done", () =>
    Effect.gen(function*() {
      let runs = 0
      const step: Migration.Migration = {
        transactional: false,
        up: Effect.zipRight(Effect.sync(() => runs++), Effect.sleep("200 millis")),
        down: Effect.void
      }
      const one = Migrator.up(shop, { "0001_slow": step })
      const both = yield* Effect.all([one, one], { concurrency: 2 })
      expect(both.flatMap(ids)).toEqual(["up 0001_slow"])
      expect(runs).toBe(1)
    }))

  test("the wait for the lock is bounded, and an interrupted holder has let go", () =>
    Effect.gen(function*() {
      yield* Migrator.up(shop, { "0001_a": table("a") })
      const entered = yield* Deferred.make<void>()
      const slow: Migration.Migration = {
        transactional: false,
        up: Effect.zipRight(Deferred.succeed(entered, undefined), Effect.never),
        down: Effect.void
      }
      const steps = { "0001_a": table("a"), "0002_slow": slow }
      const holder = yield* Effect.fork(Migrator.up(shop, steps))
      yield* Deferred.await(entered)
      expect(yield* Effect.flip(Migrator.up(shop, steps, { lockTimeout: "200 millis" }))).toMatchObject({
        _tag: "MigrationLocked",
        namespace: "shop",
        waitedMillis: 200
      })
      yield* Fiber.interrupt(holder)
      const quick = { ...steps, "0002_slow": { ...slow, up: Effect.void } }
      expect(ids(yield* Migrator.up(shop, quick, { lockTimeout: "200 millis" }))).toEqual(["up 0002_slow"])
    }))

  test("verify finds what was changed behind the migrations' back, and changes nothing", () =>
    Effect.gen(function*() {
      yield* Migrator.up(shop, three)
      yield* Migrator.up(Namespace.make("other"), { "0001_x": table("x") })
      const sql = yield* SqlClient.SqlClient
      const options = { shadow: Sqlite.layerMemory }
      const before = Catalogue.render(yield* Catalogue.read)
      expect(Drift.isNone(yield* Drift.verify(shop, three, options))).toBe(true)
      expect(Catalogue.render(yield* Catalogue.read)).toBe(before)
      if (dialect === "sqlite") expect(yield* Drift.verify(shop, three)).toMatchObject({ differences: undefined })

      yield* sql`DROP INDEX a_by_title`
      yield* sql`CREATE INDEX a_other ON a (title)`
      yield* sql`DROP TABLE c`
      yield* sql`CREATE TABLE c (id INTEGER PRIMARY KEY)`
      yield* sql`CREATE TABLE stray (id TEXT)`
      const { differences = [] } = yield* Drift.verify(shop, three, options)
      const told = differences.map(({ kind, name, where }) => `${where} ${kind} ${name}`)
      expect(told).toContain("missing index a_by_title")
      expect(told).toContain("extra index a_other")
      expect(told).toContain(dialect === "pg" ? "changed column 0001 id" : "changed table c")
      expect(told.join()).not.toContain("stray")
      const exclusive = yield* Drift.verify(shop, three, { ...options, exclusive: true })
      expect(exclusive.differences?.map(({ name, where }) => `${where} ${name}`)).toContain("extra stray")
    }))

  test("layer is ready after its tables are", () =>
    Effect.gen(function*() {
      expect(yield* Effect.provide(userTables, Migrations.layer("shop", three))).toEqual(["a", "c"])
      expect(yield* userTables).toEqual(["a", "c"])
    }))

  test("layerScoped takes back what it applied, and no more", () =>
    Effect.gen(function*() {
      yield* Migrator.up(shop, { "0001_a": three["0001_a"] })
      const inside = yield* Effect.provide(userTables, Migrations.layerScoped("shop", Effect.succeed(three)))
      expect(inside).toEqual(["a", "c"])
      expect(yield* userTables).toEqual(["a"])
      expect(yield* states(three)).toEqual(["0001_a applied", "0002_b pending", "0010_c pending"])
    }))

  test("layerScoped that is interrupted or fails on its way up takes back what it had applied", () =>
    Effect.gen(function*() {
      const failing = { ...three, "0011_bad": { up: withSql((sql) => sql`SELECT * FROM nowhere`), down: Effect.void } }
      const exit = yield* Effect.exit(Effect.scoped(Layer.build(Migrations.layerScoped("shop", failing))))
      expect(Exit.isFailure(exit)).toBe(true)
      expect(yield* userTables).toEqual([])

      const entered = yield* Deferred.make<void>()
      const hanging = {
        ...three,
        "0011_hangs": { up: Effect.zipRight(Deferred.succeed(entered, undefined), Effect.never), down: Effect.void }
      }
      const fiber = yield* Effect.fork(Effect.scoped(Layer.build(Migrations.layerScoped("shop", hanging))))
      yield* Deferred.await(entered)
      yield* Fiber.interrupt(fiber)
      expect(yield* userTables).toEqual([])
      expect(yield* states(three)).toEqual(["0001_a pending", "0002_b pending", "0010_c pending"])
    }))

  test("a restart with nothing to do is two statements for each namespace", (database) =>
    Effect.gen(function*() {
      const namespaces = Array.from({ length: 20 }, (_, i) => Namespace.make(`n${i}`))
      const owners = namespaces.map((namespace) => ({ namespace, migrations: { "0001_t": table("t") } }))
      const start = Effect.provide(Migrator.upAll(owners), Layer.fresh(Store.layerMany(database)))
      expect((yield* start).flatMap(ids).length).toBeGreaterThan(0)
      const { names, tracer } = Spans.recording()
      expect((yield* Effect.withTracer(start, tracer)).flatMap(ids)).toEqual([])
      expect(names.filter((name) => name === "sql.execute")).toHaveLength(2 * namespaces.length)
    }))
})
