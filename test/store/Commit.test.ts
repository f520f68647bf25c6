/**
 * A commit: what becomes of operations behind gaps, of verdicts that cannot be carried out, and of letters set free.
 */
import * as SqlClient from "@effect/sql/SqlClient"
import { describe, expect, it } from "@effect/vitest"
import * as Data from "effect/Data"
import * as Effect from "effect/Effect"
import * as Policy from "../../src/process/Policy.js"
import type * as Processor from "../../src/process/Processor.js"
import { Halted } from "../../src/store/Commit.js"
import * as Cursors from "../../src/store/Cursors.js"
import * as DeadLetters from "../../src/store/DeadLetters.js"
import * as Follow from "../guarantees/Follow.js"
import * as Ledger from "../guarantees/Ledger.js"
import * as Database from "../support/Database.js"
import * as Store from "../support/Store.js"

describe.each(Database.dialects)("on $dialect", ({ fresh }) => {
  const kept = <A, E>(effect: Effect.Effect<A, E, SqlClient.SqlClient>) =>
    Effect.flatMap(fresh, (database) => Effect.provide(effect, Store.layer(database)))

  const key = Follow.keyOf(Ledger.make(), "s")
  const single = Ledger.make({ batch: { operations: 1 } })
  const op = (index: number, skip = 0, scope = "global", documentId = "d"): Ledger.Op => ({
    documentId,
    scope,
    index,
    skip,
    amount: Ledger.amountOf(scope, index)
  })
  const each = (...ops: ReadonlyArray<Ledger.Op>) => ops.map((one) => Ledger.strand([one]))
  const waiting = Effect.map(
    DeadLetters.list(key),
    (letters) => letters.map(({ cause, operation, strand }) => `${strand.scope} ${operation.index} ${cause}`)
  )
  const applied = Effect.map(Ledger.entries(), (entries) => entries.map((entry) => `${entry.scope} ${entry.index}`))

  it.scopedLive("an operation that came before its own stream's gap was seen is named as behind a gap too", () =>
    kept(Effect.gen(function*() {
      yield* Follow.follow(single, "s", each(op(2, 0, "a"), op(0, 0, "b"), op(3, 0, "b")))
      expect(yield* waiting).toEqual(["a 2 StrandGap", "b 0 Queued", "b 3 StrandGap"])
      const [, , last] = yield* DeadLetters.list(key)
      expect(last?.reason).toMatch(/indexes 1 to 2 are missing/)
    })))

  it.scopedLive("two gaps in one document close in either order, and nothing is left behind", () =>
    kept(Effect.gen(function*() {
      const held = [op(1, 0, "a"), op(0, 0, "b"), op(2, 0, "b")]
      for (const [i, fills] of [[op(0, 0, "a"), op(1, 0, "b")], [op(1, 0, "b"), op(0, 0, "a")]].entries()) {
        const own = [...held, ...fills].map((one) => ({ ...one, documentId: `d${i}` }))
        yield* Follow.follow(single, `s${i}`, each(...own))
        expect(yield* DeadLetters.list({ ...key, source: `s${i}` as typeof key.source })).toEqual([])
      }
      expect((yield* Ledger.balances()).map(({ n }) => n)).toEqual([2, 3, 2, 3])
    })))

  it.scopedLive("a letter that takes missing operations back leaves without them, and those that wait for them with it", () =>
    kept(Effect.gen(function*() {
      yield* Follow.follow(single, "s", each(op(1, 0, "a"), op(0, 0, "b"), op(2, 0, "b"), op(3, 2, "b"), op(0, 0, "a")))
      expect(yield* waiting).toEqual([])
      expect(yield* applied).toEqual(["a 0", "a 1", "b 0", "b 3"])
    })))

  it.scopedLive("a gap that is never closed holds its document, and no other", () =>
    kept(Effect.gen(function*() {
      const ops = [op(0), op(2), op(3), op(0, 0, "global", "e"), op(1, 0, "global", "e")]
      const { commits } = yield* Follow.follow(single, "s", each(...ops))
      expect(yield* waiting).toEqual(["global 2 StrandGap", "global 3 Queued"])
      expect(commits.at(-1)).toMatchObject({ position: 5n, waiting: 2 })
      expect((yield* Ledger.balances()).map(({ n }) => n)).toEqual([1, 2])
    })))

  it.scopedLive("an operation that waits and comes again waits once", () =>
    kept(Effect.gen(function*() {
      const { commits } = yield* Follow.follow(single, "s", each(op(1), op(1), op(2), op(1), op(2), op(2)))
      expect(yield* waiting).toEqual(["global 1 StrandGap", "global 2 Queued"])
      expect(commits.map((commit) => commit.redelivered)).toEqual([0, 1, 0, 1, 1, 1])
    })))

  it.scopedLive("letters that a gap has held fail like any other: the one that fails is parked, the rest stay behind it", () =>
    kept(Effect.gen(function*() {
      const processor = Ledger.make({
        batch: { operations: 1 },
        before: (_, { index }) => index === 2 ? new Ledger.Refused({ index }) : Effect.void
      })
      const { incidents } = yield* Follow.follow(processor, "s", each(op(1), op(2), op(3), op(0), op(4)))
      expect(yield* waiting).toEqual(["global 2 Refused", "global 3 Queued", "global 4 Queued"])
      expect(incidents.map((incident) => incident._tag)).toEqual(["Parked", "Parked"])
      expect(yield* applied).toEqual(["global 0", "global 1"])
    })))

  it.scopedLive("letters set free while the subscription was closed leave when it opens", () =>
    kept(Effect.gen(function*() {
      const bad = Ledger.make({ before: (_, { index }) => index === 1 ? new Ledger.Refused({ index }) : Effect.void })
      const strands = each(op(0), op(1), op(2), op(3))
      yield* Follow.follow(bad, "s", strands)
      const [first] = yield* DeadLetters.list(key)
      yield* DeadLetters.drop(key, first!.ordinal)
      const { commits } = yield* Follow.follow(Ledger.make(), "s", strands)
      expect(commits).toMatchObject([{ operations: 2, released: 2, waiting: 0 }])
      expect(yield* applied).toEqual(["global 0", "global 2", "global 3"])
    })))

  it.scopedLive("history that is rewritten is parked by name, and what was applied stays", () =>
    kept(Effect.gen(function*() {
      const other = Ledger.strand([op(1)], (operation) => ({ ...operation, hash: "other" }))
      yield* Follow.follow(single, "s", [...each(op(0), op(1), op(2)), other, ...each(op(3))])
      expect(yield* waiting).toEqual(["global 1 HistoryRewritten", "global 3 Queued"])
      expect(yield* applied).toEqual(["global 0", "global 1", "global 2"])
    })))

  it.scopedLive("a letter that the database refuses to keep halts, and is not tried for ever", () =>
    kept(Effect.gen(function*() {
      const sql = yield* SqlClient.SqlClient
      yield* Follow.prepare(Ledger.make())
      yield* sql.onDialectOrElse({
        sqlite: () =>
          sql`
          CREATE TRIGGER no_letters BEFORE INSERT ON processor_dead_letter
          BEGIN SELECT RAISE(ABORT, 'no room for letters'); END`,
        orElse: () => sql`ALTER TABLE processor_dead_letter ADD CHECK (attempts < 0)`
      })
      const bad = Ledger.make({ before: (_, { index }) => index === 1 ? new Ledger.Refused({ index }) : Effect.void })
      const { failure } = yield* Follow.follow(bad, "s", each(op(0), op(1), op(2)))
      expect(failure).toBeInstanceOf(Halted)
      expect(failure).toMatchObject({ at: { documentId: "d", index: 1 } })
      expect(yield* applied).toEqual(["global 0"])
      expect((yield* Cursors.peek(key))?.position).toBe(1n)
    })))

  it.scopedLive("a handler that blames an operation it made up itself does not get another one parked", () =>
    kept(Effect.gen(function*() {
      const inner = Ledger.make({
        before: (_, { index }) => index === 2 ? new Ledger.Refused({ index }) : Effect.void
      })
      const copying = {
        ...inner,
        handler: Effect.map(inner.handler, (handler) => ({
          run: (strands: Parameters<typeof handler.run>[0], attempt: Parameters<typeof handler.run>[1]) =>
            handler.run(
              strands.map((strand) => ({
                ...strand,
                operations: strand.operations.map((operation) => ({ ...operation }))
              })),
              attempt
            )
        }))
      } as Processor.Processor<never, SqlClient.SqlClient>
      yield* Follow.follow(copying, "s", each(op(0), op(1), op(2), op(3)))
      expect(yield* waiting).toEqual(["global 2 Refused", "global 3 Queued"])
      expect(yield* applied).toEqual(["global 0", "global 1"])
    })))

  it.scopedLive("an operation that one object stands for in two documents is parked where it fails, and not where it does not", () =>
    kept(Effect.gen(function*() {
      const processor = Ledger.make({
        before: ({ documentId }, { index }) => documentId === "bad" ? new Ledger.Refused({ index }) : Effect.void
      })
      const good = Ledger.strand([op(0)])
      const bad = { ...good, documentId: Ledger.strand([op(0, 0, "global", "bad")]).documentId }
      yield* Follow.follow(processor, "s", [good, bad])
      expect((yield* DeadLetters.list(key)).map(({ strand }) => strand.documentId)).toEqual(["bad"])
      expect(yield* applied).toEqual(["global 0"])
    })))

  it.scopedLive("a reason that is cut in the middle of a character is stored all the same", () =>
    kept(Effect.gen(function*() {
      class Wordy extends Data.TaggedError("Refused")<{ readonly index: number }> {
        override readonly message = `${"x".repeat(3_999)}😀`
      }
      yield* Follow.follow(Ledger.make({ before: (_, { index }) => new Wordy({ index }) }), "s", each(op(0)))
      expect((yield* DeadLetters.list(key)).map(({ reason }) => reason)).toEqual([`${"x".repeat(3_999)}\ufffd`])
    })))

  it.scopedLive("a failure that goes by the name of a letter which only waits blocks its document all the same", () =>
    kept(Effect.gen(function*() {
      for (const [i, tag] of ["Queued", "StrandGap"].entries()) {
        const failing = Ledger.make({
          before: () => Effect.fail({ _tag: tag } as unknown as Ledger.Refused),
          policy: { ["Queued" as "Refused"]: Policy.park }
        })
        const source = `s${i}`
        const strands = each(op(0, 0, "global", `d${i}`), op(1, 0, "global", `d${i}`))
        yield* Follow.follow(failing, source, strands)
        const { commits } = yield* Follow.follow(Ledger.make(), source, strands)
        expect(commits).toEqual([])
        const letters = yield* DeadLetters.list(Follow.keyOf(failing, source))
        expect(letters.map(({ attempts, cause }) => [cause, attempts])).toEqual([["Failure", 1], ["Queued", 0]])
      }
      expect(yield* applied).toEqual([])
    })))

  it.scopedLive("a cursor that the database refuses to move halts the subscription, also where nothing is to be applied", () =>
    kept(Effect.gen(function*() {
      const sql = yield* SqlClient.SqlClient
      yield* Follow.prepare(Ledger.make())
      yield* sql.onDialectOrElse({
        sqlite: () =>
          sql`
            CREATE TRIGGER kept BEFORE UPDATE OF sequence ON processor_cursor
            BEGIN SELECT RAISE(ABORT, 'kept'); END`,
        orElse: () => sql`ALTER TABLE processor_cursor ADD CHECK (sequence = 0)`
      })
      const indifferent = Ledger.make({ batch: { unwanted: 1 } })
      const { failure, transactions } = yield* Follow.follow(
        { ...indifferent, filter: { documentId: ["none"] } },
        "s",
        each(op(0), op(1))
      )
      expect(failure).toMatchObject({ _tag: "Halted", fault: "drift", at: undefined })
      // Where the cursor goes with COMMIT, whose failure it was shows in a second try, which sends one statement at a time.
      expect(transactions).toBe(sql.onDialectOrElse({ sqlite: () => 1, orElse: () => 2 }))
    })))

  it.scopedLive.each(["UPDATE processor_cursor SET sequence = sequence + 5", "DELETE FROM processor_cursor"])(
    "a handler that meddles with its own cursor (%s) has nothing committed",
    (meddling) =>
      kept(Effect.gen(function*() {
        const sql = yield* SqlClient.SqlClient
        const processor = Ledger.make({ before: () => Effect.asVoid(sql.unsafe(meddling)) })
        yield* Follow.follow(Ledger.make(), "s", each(op(0)))
        const before = yield* sql`SELECT position, sequence FROM processor_cursor`
        const { commits, failure } = yield* Follow.follow(processor, "s", each(op(0), op(1)))
        expect(failure).toMatchObject({ _tag: "CursorConflict" })
        expect(commits).toEqual([])
        expect(yield* sql`SELECT position, sequence FROM processor_cursor`).toEqual(before)
      }))
  )

  it.scopedLive("a gap behind letters of its document halts the subscription as well, where the policy says so", () =>
    kept(Effect.gen(function*() {
      const careful = Ledger.make({
        before: (_, { index }) => index === 1 ? new Ledger.Refused({ index }) : Effect.void,
        policy: { Refused: Policy.park, StrandGap: Policy.halt }
      })
      const { failure } = yield* Follow.follow(careful, "s", each(op(0), op(1), op(2), op(5)))
      expect(failure).toMatchObject({ _tag: "Halted", fault: "poison", at: { index: 5 }, cause: { expected: 3 } })
      expect((yield* Cursors.peek(Follow.keyOf(careful, "s")))?.position).toBe(3n)
    })))

  it.scopedLive("a statement that does not fit the tables halts the subscription before anything of the batch", () =>
    kept(Effect.gen(function*() {
      const drifting = Ledger.make({
        before: () => Effect.flatMap(SqlClient.SqlClient, (sql) => sql`INSERT INTO no_such_table VALUES (1)`)
      })
      const { failure } = yield* Follow.follow(drifting, "s", each(op(0)))
      expect(failure).toMatchObject({ _tag: "Halted", fault: "drift" })
      expect((yield* Cursors.peek(key))?.position).toBe(0n)
    })))

  it.scopedLive("a policy that skips gaps applies what comes after them", () =>
    kept(Effect.gen(function*() {
      const processor = Ledger.make({ batch: { operations: 1 }, policy: { StrandGap: Policy.skip } })
      const { incidents } = yield* Follow.follow(processor, "s", each(op(0), op(2), op(3), op(1)))
      expect(incidents.map((incident) => incident._tag)).toEqual(["Skipped"])
      expect(yield* applied).toEqual(["global 0", "global 3"])
      expect(yield* waiting).toEqual([])
    })))

  it.scopedLive("a strand longer than a batch is committed in pieces, and its cursor moves with the last", () =>
    kept(Effect.gen(function*() {
      const { commits } = yield* Follow.follow(
        Ledger.make({ batch: { operations: 3 } }),
        "s",
        [Ledger.strand(Ledger.history("long", 8)), Ledger.strand(Ledger.history("next", 1))]
      )
      expect(commits.map(({ operations, position }) => [operations, position])).toEqual([[3, 0n], [3, 0n], [3, 2n]])
      expect(yield* Ledger.balances()).toEqual(
        Ledger.fold([...Ledger.history("long", 8), ...Ledger.history("next", 1)])
      )
    })))
})
