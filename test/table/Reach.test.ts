/**
 * Tables that cannot be folded: what only the database knows of comes to the same as with a statement for each operation.
 */
import * as SqlClient from "@effect/sql/SqlClient"
import type { SqlError } from "@effect/sql/SqlError"
import { describe, expect, it } from "@effect/vitest"
import * as Effect from "effect/Effect"
import * as Option from "effect/Option"
import * as Schema from "effect/Schema"
import { Definition, Draft, Migrator, Namespace, Table } from "../../src/index.js"
import * as Transaction from "../../src/store/Transaction.js"
import { folding } from "../../src/table/FoldingConnection.js"
import * as Reach from "../../src/table/Reach.js"
import * as Database from "../support/Database.js"
import * as Store from "../support/Store.js"

const Lists = Table.make("lists", Schema.Struct({ id: Schema.String, n: Schema.Int }), { key: ["id"] })
const Items = Table.make("items", Schema.Struct({ id: Schema.String, list: Schema.String }), { key: ["id"] })

const lists = "CREATE TABLE lists (id TEXT PRIMARY KEY, n BIGINT NOT NULL)"
const itemsThat = (does: string) =>
  `CREATE TABLE items (id TEXT PRIMARY KEY, list TEXT NOT NULL REFERENCES lists (id) ON DELETE ${does})`

const ran = (...texts: ReadonlyArray<string>) =>
  Effect.flatMap(SqlClient.SqlClient, (sql) => Effect.forEach(texts, (text) => sql.unsafe(text), { discard: true }))

const inHandler = <A, E>(body: Effect.Effect<A, E, SqlClient.SqlClient>) =>
  Transaction.run(folding(body, () => undefined))

const reach = Transaction.run(Effect.flatMap(
  Effect.all([SqlClient.SqlClient, SqlClient.TransactionConnection]),
  ([sql, [connection]]) => Effect.map(Reach.of(sql, connection), ({ tables }) => Array.from(tables))
) as Effect.Effect<ReadonlyArray<string>, SqlError, SqlClient.SqlClient>)

describe.each(Database.dialects)("on $dialect", ({ dialect, fresh }) => {
  const test = <E>(title: string, body: Effect.Effect<unknown, E, SqlClient.SqlClient | Namespace.Namespaces>) =>
    it.scopedLive(title, () => Effect.flatMap(fresh, (database) => Effect.provide(body, Store.layer(database))))

  test(
    "a row that leaves its parent before that is deleted with its children stays",
    Effect.gen(function*() {
      yield* ran(lists, itemsThat("CASCADE"), "INSERT INTO lists VALUES ('a', 1), ('b', 1)")
      yield* ran("INSERT INTO items VALUES ('moves', 'a'), ('stays', 'a')")
      yield* inHandler(Effect.all([
        Lists.update({ id: "b" }, { n: 2 }),
        Items.update({ id: "moves" }, { list: "b" }),
        Lists.delete({ id: "a" })
      ]))
      expect(yield* Items.find({})).toEqual([{ id: "moves", list: "b" }])
    })
  )

  test(
    "a row that comes after its parent was deleted with its children, and made again, stays",
    Effect.gen(function*() {
      yield* ran(lists, itemsThat("CASCADE"), "INSERT INTO lists VALUES ('a', 1)")
      const seen = yield* inHandler(Effect.gen(function*() {
        yield* Items.upsert({ id: "before", list: "a" })
        yield* Lists.delete({ id: "a" })
        const found = yield* Items.get({ id: "before" })
        yield* Lists.insert({ id: "a", n: 2 })
        yield* Items.upsert({ id: "after", list: "a" })
        return found
      }))
      expect(Option.isNone(seen)).toBe(true)
      expect(yield* Items.find({})).toEqual([{ id: "after", list: "a" }])
    })
  )

  test(
    "what a trigger writes is there for the next operation",
    Effect.gen(function*() {
      yield* ran(
        "CREATE TABLE items (id TEXT PRIMARY KEY, list TEXT NOT NULL)",
        lists,
        "INSERT INTO lists VALUES ('a', 0)",
        ...dialect === "sqlite"
          ? ["CREATE TRIGGER counts AFTER INSERT ON items BEGIN UPDATE lists SET n = n + 1 WHERE id = NEW.list; END"]
          : [
            "CREATE FUNCTION counted() RETURNS trigger LANGUAGE plpgsql AS " +
            "$$ BEGIN UPDATE lists SET n = n + 1 WHERE id = NEW.list; RETURN NEW; END $$",
            "CREATE TRIGGER counts AFTER INSERT ON items FOR EACH ROW EXECUTE FUNCTION counted()"
          ]
      )
      const seen = yield* inHandler(Effect.gen(function*() {
        yield* Lists.get({ id: "a" })
        yield* Items.insert({ id: "x", list: "a" })
        return Option.getOrThrow(yield* Lists.get({ id: "a" })).n
      }))
      expect(seen).toBe(1)
    })
  )

  test(
    "a key that the database compares in its own way is the row that it finds",
    Effect.gen(function*() {
      const key = dialect === "sqlite" ? "TEXT COLLATE NOCASE" : "CHAR(4)"
      const spelling = dialect === "sqlite" ? "A" : "a"
      yield* ran(`CREATE TABLE lists (id ${key} PRIMARY KEY, n BIGINT NOT NULL)`, "INSERT INTO lists VALUES ('a', 1)")
      const seen = yield* inHandler(Effect.gen(function*() {
        const found = yield* Lists.get({ id: spelling })
        yield* Lists.increment({ id: spelling }, { n: 1 })
        yield* Lists.increment({ id: "a" }, { n: 1 })
        return Option.getOrThrow(found).n
      }))
      expect(seen).toBe(1)
      expect((yield* Lists.find({})).map(({ n }) => n)).toEqual([3])
    })
  )

  test(
    "tables that are drafted, and those with foreign keys that only refuse, can be folded",
    Effect.gen(function*() {
      const drafted = Definition.make(
        "drafted",
        Schema.Struct({ id: Schema.String, name: Schema.String, kind: Schema.Literal("a", "b") }),
        { key: ["id"], unique: [["name"]], indexes: [["kind"]] }
      )
      yield* Migrator.up(Namespace.make("shop"), { "0001_drafted": Draft.migration(Draft.initial([drafted])) })
      yield* ran(lists, itemsThat("NO ACTION"))
      expect(yield* reach).toEqual([])
      yield* ran("CREATE TABLE more (id TEXT PRIMARY KEY, list TEXT NOT NULL REFERENCES lists (id) ON DELETE CASCADE)")
      Reach.forget(yield* SqlClient.SqlClient)
      expect(yield* reach).toEqual(["lists"])
    })
  )
})
