/**
 * The journal: what is appended is read again, in order, once, by whoever asks from wherever.
 */
import * as SqlClient from "@effect/sql/SqlClient"
import { describe, expect, it } from "@effect/vitest"
import * as Cause from "effect/Cause"
import * as Context from "effect/Context"
import * as Deferred from "effect/Deferred"
import * as Effect from "effect/Effect"
import * as Either from "effect/Either"
import * as Exit from "effect/Exit"
import * as FastCheck from "effect/FastCheck"
import * as Fiber from "effect/Fiber"
import * as Layer from "effect/Layer"
import * as Schedule from "effect/Schedule"
import * as Scope from "effect/Scope"
import * as Stream from "effect/Stream"
import { Filter, Journal, Operation, Position, Source, Transaction } from "../../src/index.js"
import * as Database from "../support/Database.js"
import * as Proxy from "../support/Proxy.js"
import * as Store from "../support/Store.js"
import { all, count, flat, open, silent, strand } from "./Home.js"

const journalOf = (context: Context.Context<Journal.Journal>) => Context.get(context, Journal.Journal)

/** An operation made to follow the one at `prevOpIndex` with this hash. */
const following = (
  documentId: string,
  index: number,
  prevOpHash: string,
  change: Partial<Operation.Operation> = {}
) => {
  const plain = strand(documentId, index, 1)
  return {
    ...plain,
    operations: plain.operations.map((operation) => ({ ...operation, prevOpIndex: index - 1, prevOpHash, ...change }))
  }
}

const tagOf = <A, E extends { readonly _tag: string }>(outcome: Either.Either<A, E>) =>
  Either.match(outcome, { onLeft: ({ _tag }) => _tag, onRight: () => "stored" })

describe.each(Database.dialects)("on $dialect", ({ dialect, fresh }) => {
  const home = Effect.flatMap(fresh, (database) => Effect.map(open(database), journalOf))
  const provided = <A, E>(use: (journal: Journal.Journal["Type"]) => Effect.Effect<A, E, SqlClient.SqlClient>) =>
    Effect.gen(function*() {
      const context = yield* open(yield* fresh)
      return yield* Effect.provide(use(journalOf(context)), context)
    })

  it.scopedLive("what is appended is read again, at the positions that the receipt tells", () =>
    Effect.gen(function*() {
      const journal = yield* home
      const given = [strand("a", 0, 3), strand("b", 0, 1), strand("a", 3, 2)]
      const receipt = yield* journal.append(given)
      expect(receipt).toEqual({ position: 6n, appended: 6, redelivered: 0, superseded: 0 })
      const read = yield* all(journal)
      expect(flat(read)).toEqual(flat(given))
      expect(read.map(({ position }) => position)).toEqual([3n, 4n, 6n])
      expect(yield* journal.bounds).toEqual({ head: 6n, floor: 0n })
    }))

  it.scopedLive("an append of nothing stores nothing, and there is nothing to be seen of it", () =>
    Effect.gen(function*() {
      const journal = yield* home
      for (const nothing of [[], [strand("a", 0, 0)]]) {
        expect(yield* journal.append(nothing)).toEqual({ position: 0n, appended: 0, redelivered: 0, superseded: 0 })
      }
      expect(yield* journal.bounds).toEqual({ head: 0n, floor: 0n })
    }))

  it.scopedLive(
    "any strands that are in order are read as they were appended, in whatever groups and pages",
    () =>
      Effect.gen(function*() {
        const database = yield* fresh
        const text = FastCheck.string({ unit: "binary", maxLength: 8 })
          .filter((some) => some.isWellFormed() && !some.includes("\u0000"))
        // As it is once it was text: JSON writes -0 as 0.
        const json = FastCheck.jsonValue({ maxDepth: 3 }).map((value): unknown => JSON.parse(JSON.stringify(value)))
        const name = FastCheck.constantFrom("a", "é", "日本", "a'b\"c", "%_\\")
        const anyOperation = FastCheck.record({
          id: text,
          type: name,
          hash: text,
          skip: FastCheck.constantFrom(0, 0, 0, 1),
          timestamp: FastCheck.constantFrom("2026-11-21T17:27:02.007Z", "1970-01-01T00:00:00Z"),
          input: json.filter((value) => Operation.inputFlaw(value) === undefined),
          error: FastCheck.option(text, { nil: undefined }),
          prevOpHash: FastCheck.option(text, { nil: undefined })
        }, { requiredKeys: ["id", "type", "hash", "skip", "timestamp", "input"] })
        const piece = FastCheck.record({
          documentId: name,
          scope: FastCheck.constantFrom("global", "local"),
          branch: FastCheck.constantFrom("main", "draft"),
          driveId: FastCheck.option(name, { nil: undefined }),
          documentType: name,
          protocol: FastCheck.constantFrom(1, 2),
          operations: FastCheck.array(anyOperation, { maxLength: 5 })
        })
        const appends = FastCheck.array(FastCheck.array(piece, { maxLength: 4 }), { maxLength: 8 })
        const property = FastCheck.asyncProperty(
          appends,
          FastCheck.integer({ min: 1, max: 9 }),
          FastCheck.integer({ min: 1, max: 400 }),
          (pieces, operations, bytes) =>
            Effect.gen(function*() {
              const journal = journalOf(yield* open(database, { name: `home ${tries++}` }))
              const heads = new Map<string, number>()
              const given = pieces.map((append) =>
                append.map((each): Source.Unplaced => ({
                  ...each,
                  bytes: 1,
                  operations: each.operations.map((operation) => {
                    const stream = JSON.stringify([each.documentId, each.scope, each.branch])
                    const index = (heads.get(stream) ?? -1) + 1 + operation.skip
                    heads.set(stream, index)
                    return { ...operation, index }
                  })
                } as unknown as Source.Unplaced))
              )
              yield* Effect.forEach(given, journal.append)
              const read = yield* all(journal, { operations, bytes })
              expect(flat(read)).toEqual(flat(given.flat()))
              let position = 0n
              for (const each of read) {
                position += BigInt(each.operations.length)
                expect(each.position).toBe(position)
              }
            }).pipe(Effect.scoped, Effect.runPromise)
        )
        let tries = 0
        yield* Effect.promise(() => FastCheck.assert(property, { numRuns: 25 }))
      })
  )

  describe("again", () => {
    it.scopedLive("appending again stores nothing again, and tells where it is", () =>
      Effect.gen(function*() {
        const journal = yield* home
        yield* journal.append([strand("a", 0, 3), strand("b", 0, 2)])
        const again = yield* journal.append([strand("a", 0, 3)])
        expect(again).toEqual({ position: 3n, appended: 0, redelivered: 3, superseded: 0 })
        const half = yield* journal.append([strand("b", 1, 3)])
        expect(half).toEqual({ position: 7n, appended: 2, redelivered: 1, superseded: 0 })
        const early = yield* journal.append([strand("b", 0, 1)])
        expect(early.position).toBe(5n)
        expect(flat(yield* all(journal))).toEqual(flat([strand("a", 0, 3), strand("b", 0, 4)]))
      }))

    it.scopedLive("a longer undo at the index of a shorter one is stored behind it, and found there again", () =>
      Effect.gen(function*() {
        const journal = yield* home
        const undo = (skip: number) => strand("a", 4, 1, { operations: [{ type: "NOOP", skip, hash: "" }] })
        const longer = strand("a", 4, 1, {
          operations: [{ type: "NOOP", skip: 2, hash: "" }, { type: "PUT", input: "on" }]
        })
        yield* journal.append([strand("a", 0, 4), undo(1)])
        yield* journal.append([longer])
        expect(yield* journal.append([undo(2)])).toEqual({ position: 7n, appended: 0, redelivered: 1, superseded: 0 })
        expect((yield* journal.append([strand("a", 2, 1)])).position).toBe(4n)
        expect(flat(yield* all(journal))).toEqual(flat([strand("a", 0, 4), undo(1), longer]))
      }))

    it.scopedLive("the same operations from many appenders of two clients at once are stored once", () =>
      Effect.gen(function*() {
        const database = yield* fresh
        const journals = [journalOf(yield* open(database)), journalOf(yield* open(database))]
        const receipts = yield* Effect.forEach(
          Array.from({ length: 24 }, (_, i) => journals[i % 2]!),
          (journal, i) => journal.append([strand("a", 0, 1 + i % 5)]),
          { concurrency: "unbounded" }
        )
        expect(receipts.reduce((sum, receipt) => sum + receipt.appended, 0)).toBe(5)
        expect(flat(yield* all(journals[0]!))).toEqual(flat([strand("a", 0, 5)]))
      }))

    it.scopedLive("journals of one database know nothing of each other", () =>
      Effect.gen(function*() {
        const database = yield* fresh
        const names = ["one", "two", "drei ✓"]
        const journals = yield* Effect.forEach(names, (name) => Effect.map(open(database, { name }), journalOf), {
          concurrency: "unbounded"
        })
        for (const [i, journal] of journals.entries()) {
          expect((yield* journal.append([strand("a", 0, i + 1)])).appended).toBe(i + 1)
        }
        for (const [i, journal] of journals.entries()) {
          expect(flat(yield* all(journal))).toEqual(flat([strand("a", 0, i + 1)]))
          expect(journal.name).toBe(names[i])
        }
      }))
  })

  describe("what is refused", () => {
    it.scopedLive("a gap refuses the whole append, and no other of its group", () =>
      Effect.gen(function*() {
        const journal = yield* home
        const outcomes = yield* Effect.all([
          Effect.either(journal.append([strand("a", 0, 1)])),
          Effect.either(journal.append([strand("b", 0, 1), strand("c", 1, 1)])),
          Effect.either(journal.append([strand("b", 1, 1)])),
          Effect.either(journal.append([strand("b", 0, 2)])),
          Effect.either(journal.append([strand("c", 0, 1)]))
        ], { concurrency: "unbounded" })
        expect(outcomes.map(tagOf)).toEqual(["stored", "StrandGap", "StrandGap", "stored", "stored"])
        expect(flat(yield* all(journal))).toEqual(flat([strand("a", 0, 1), strand("b", 0, 2), strand("c", 0, 1)]))
      }))

    it.scopedLive("another operation at an index that is taken is history rewritten", () =>
      Effect.gen(function*() {
        const journal = yield* home
        yield* journal.append([strand("a", 0, 3)])
        const other = strand("a", 1, 1, { operations: [{ type: "PUT", input: "other" }] })
        const refused = yield* Effect.either(journal.append([other]))
        expect(tagOf(refused)).toBe("HistoryRewritten")
        expect(yield* journal.bounds).toEqual({ head: 3n, floor: 0n })
      }))

    it.scopedLive("a skip takes the place of what is before it, and what comes for that place later is dropped", () =>
      Effect.gen(function*() {
        const journal = yield* home
        const skipping = strand("a", 4, 1, { operations: [{ type: "PUT", skip: 3, input: "instead" }] })
        yield* journal.append([strand("a", 0, 2)])
        expect((yield* journal.append([skipping])).appended).toBe(1)
        expect(yield* journal.append([strand("a", 3, 1)])).toEqual({
          position: 0n,
          appended: 0,
          redelivered: 0,
          superseded: 1
        })
        expect(flat(yield* all(journal))).toEqual(flat([strand("a", 0, 2), skipping]))
      }))

    it.scopedLive("an operation that names another one before it than there is breaks the chain", () =>
      Effect.gen(function*() {
        const journal = yield* home
        const hashOf = (index: number) => strand("a", index, 1).operations[0]!.hash
        yield* journal.append([strand("a", 0, 1), following("a", 1, hashOf(0))])
        yield* journal.append([following("a", 2, hashOf(1))])
        for (const broken of [[following("a", 3, "stray")], [strand("a", 3, 1), following("a", 4, "stray")]]) {
          const refused = yield* Effect.flip(journal.append(broken))
          expect(refused).toBeInstanceOf(Journal.ChainBroken)
          expect(refused.message).toContain(`was made to follow an operation with hash "stray"`)
        }
        // Put elsewhere by a reactor, behind what has no hash, or without a word about its place: nothing to be checked.
        yield* journal.append([following("a", 3, "stray", { prevOpIndex: 1 })])
        yield* journal.append([following("a", 5, "stray", { skip: 1 })])
        yield* journal.append([
          strand("a", 6, 1, { operations: [{ type: "NOOP", hash: "" }] }),
          following("a", 7, "stray")
        ])
        expect((yield* journal.bounds).head).toBe(7n)
        const carried = flat(yield* all(journal)).map(({ prevOpHash }) => prevOpHash)
        expect(carried).toEqual([undefined, hashOf(0), hashOf(1), "stray", "stray", undefined, "stray"])
      }))

    it.scopedLive("what cannot be stored safely is malformed, and what is too large is said to be", () =>
      Effect.gen(function*() {
        const journal = yield* home
        const put = (input: unknown) => strand("a", 0, 1, { operations: [{ type: "PUT", input, hash: "x" }] })
        let deep: unknown = 0
        for (let i = 0; i < 10_000; i++) deep = [deep]
        for (const input of ["\u0000", { a: ["\ud800"] }, { ["__proto__x".slice(0, 9)]: 1 }, 1n, deep]) {
          expect(tagOf(yield* Effect.either(journal.append([strand("b", 0, 1), put(input)])))).toBe(
            "MalformedOperation"
          )
        }
        const flawed = { ...put(1), operations: [{ ...put(1).operations[0]!, flaw: "the hash is a number" }] }
        expect(tagOf(yield* Effect.either(journal.append([flawed])))).toBe("MalformedOperation")
        const large = put("x".repeat(1024 * 1024))
        const tooLarge = yield* Effect.either(journal.append(Array.from({ length: 40 }, () => large)))
        expect(tagOf(tooLarge)).toBe("AppendTooLarge")
        expect(yield* journal.bounds).toEqual({ head: 0n, floor: 0n })
      }))

    it.scopedLive("what only the database refuses is one append's failure, and no other of its group", () =>
      Effect.gen(function*() {
        const context = yield* open(yield* fresh)
        const journal = journalOf(context)
        const sql = Context.get(context, SqlClient.SqlClient)
        yield* dialect === "sqlite"
          ? sql`CREATE TRIGGER no_c BEFORE INSERT ON processor_journal_strand WHEN NEW.document_id = 'c'
                BEGIN SELECT RAISE(ABORT, 'not c'); END`
          : sql`ALTER TABLE processor_journal_strand ADD CONSTRAINT no_c CHECK (document_id <> 'c')`
        const outcomes = yield* Effect.forEach(
          ["a", "b", "c", "d"],
          (documentId) => Effect.either(journal.append([strand(documentId, 0, 1)])),
          { concurrency: "unbounded" }
        )
        expect(outcomes.map(tagOf)).toEqual(["stored", "stored", "JournalUnavailable", "stored"])
        expect(outcomes[2]).toMatchObject({ left: { outcome: "nothing" } })
        expect(flat(yield* all(journal)).map(({ documentId }) => documentId)).toEqual(["a", "b", "d"])
      }))

    it.scopedLive("inside a transaction of SQLite it is a defect, since it would wait for itself; of PostgreSQL it is outside", () =>
      provided((journal) =>
        Effect.gen(function*() {
          const uses: ReadonlyArray<Effect.Effect<unknown, unknown>> = [
            journal.append([strand("a", 0, 1)]),
            journal.page(Position.origin),
            journal.bounds,
            journal.truncate(),
            Stream.runHead(journal.strands(Position.origin))
          ]
          for (const use of uses) {
            const exit = yield* Effect.exit(Transaction.run(Effect.zipRight(use, Effect.fail("taken back"))))
            expect(Exit.isFailure(exit) && Cause.isDie(exit.cause)).toBe(dialect === "sqlite")
          }
          expect((yield* journal.bounds).head).toBe(dialect === "sqlite" ? 0n : 1n)
        })
      ))
  })

  describe("pages", () => {
    it.scopedLive("a page ends at its bounds, and holds at least one strand", () =>
      Effect.gen(function*() {
        const journal = yield* home
        yield* journal.append([strand("a", 0, 4), strand("b", 0, 1), strand("c", 0, 700), strand("d", 0, 1)])
        const sizes = (reading: Journal.Reading) =>
          journal.pages(Position.origin, reading).pipe(
            Stream.takeUntil(({ head, position }) => position === head),
            Stream.map((page) => [page.strands.map(({ operations }) => operations.length), page.position]),
            Stream.runCollect,
            Effect.map((pages) => Array.from(pages))
          )
        // A strand of 700 is stored in two pieces.
        expect(yield* sizes({})).toEqual([[[4, 1, 500, 200, 1], 706n]])
        expect(yield* sizes({ operations: 5 })).toEqual([[[4, 1], 5n], [[500], 505n], [[200], 705n], [[1], 706n]])
        expect(yield* sizes({ operations: 1 })).toEqual([[[4], 4n], [[1], 5n], [[500], 505n], [[200], 705n], [
          [1],
          706n
        ]])
        expect((yield* sizes({ bytes: 1 })).map(([lengths]) => lengths)).toEqual([[4], [1], [500], [200], [1]])
        expect(yield* sizes({ operations: 0, bytes: -1 })).toHaveLength(5)
      }))

    it.scopedLive("a filter in the database finds what the same filter finds afterwards", () =>
      Effect.gen(function*() {
        const journal = yield* home
        const names = ["a", "b", "*", "A", "é"]
        const pick = (i: number) => names[i % names.length]!
        const given = Array.from({ length: 120 }, (_, i) =>
          strand(`doc ${pick(i)} ${i}`, 0, 1 + i % 2, {
            documentId: i % 7 === 0 ? pick(i) : `doc ${i}`,
            documentType: pick(i * 3),
            scope: pick(Math.floor(i / 5)),
            branch: pick(Math.floor(i / 25)),
            ...(i % 3 === 0 ? {} : { driveId: pick(i + 2) })
          })).filter(({ documentId }, i, those) => those.findIndex((each) => each.documentId === documentId) === i)
        yield* journal.append(given)
        const stored = yield* all(journal)
        const wanted = FastCheck.option(
          FastCheck.array(FastCheck.constantFrom(...names, "doc 8", "none", "\u0000", "\ud800"), { maxLength: 3 }),
          { nil: undefined, freq: 2 }
        )
        const filter = FastCheck.record({
          documentType: wanted,
          documentId: wanted,
          scope: wanted,
          branch: wanted,
          driveId: wanted
        })
        let matched = 0
        const property = FastCheck.asyncProperty(
          filter,
          FastCheck.constantFrom<Filter.Dialect>("drive", "reactor"),
          FastCheck.constantFrom(1, 7, 1_000),
          async (some, filterDialect, operations) => {
            const reading = { filter: some as Filter.Filter, filterDialect, operations }
            const found = await Effect.runPromise(all(journal, reading))
            const expected = stored.filter(Filter.compile(reading.filter, filterDialect))
            expect(found).toEqual(expected)
            matched += expected.length === 0 || expected.length === stored.length ? 0 : 1
          }
        )
        yield* Effect.promise(() => FastCheck.assert(property, { numRuns: 150 }))
        expect(matched).toBeGreaterThan(30)
      }))

    it.scopedLive("a reader of a long log leaves the event loop its turns", () =>
      Effect.gen(function*() {
        const journal = yield* home
        yield* journal.append(Array.from({ length: 600 }, (_, i) => strand(`doc ${i}`, 0, 1)))
        let turns = 0
        const tick = Effect.forever(Effect.zipRight(Transaction.turn, Effect.sync(() => turns++)))
        yield* Effect.forkScoped(tick)
        yield* journal.pages(Position.origin, { operations: 1 }).pipe(
          Stream.takeUntil(({ position }) => position === 600n),
          Stream.runDrain
        )
        expect(turns).toBeGreaterThan(500)
      }))

    it.scopedLive("where nothing is wanted a page tells how far it has looked", () =>
      Effect.gen(function*() {
        const journal = yield* home
        for (let from = 0; from < 80_000; from += 10_000) yield* journal.append([strand("a", from, 10_000)])
        yield* journal.append([strand("b", 0, 1)])
        const filter = { documentId: ["b"] }
        const first = yield* journal.page(Position.origin, { filter })
        expect([first.strands.length, first.position, first.head]).toEqual([0, 50_000n, 80_001n])
        const found = yield* journal.strands(Position.origin, { filter }).pipe(Stream.runHead)
        expect(found).toMatchObject({ value: { documentId: "b", position: 80_001n } })
        const none = yield* journal.page(Position.origin, { filter: { documentId: ["\u0000"] } })
        expect([none.strands.length, none.position]).toEqual([0, 50_000n])
      }))
  })

  describe("live", () => {
    it.scopedLive("those who wait read what this client and another one append", () =>
      Effect.gen(function*() {
        const database = yield* fresh
        const [here, there] = [journalOf(yield* open(database)), journalOf(yield* open(database))]
        const wanted = flat(Array.from({ length: 20 }, (_, i) => strand("a", i, 1)))
        const readers = yield* Effect.forEach([here, here, there], (journal) =>
          Effect.fork(journal.strands(Position.origin).pipe(Stream.take(20), Stream.runCollect)))
        for (let i = 0; i < 20; i++) {
          yield* (i % 3 === 0 ? here : there).append([strand("a", i, 1)])
        }
        for (const reader of readers) {
          expect(flat(yield* Fiber.join(reader))).toEqual(wanted)
        }
      }))

    it.scopedLive("without any hint the same, since looking is the truth", () =>
      Effect.gen(function*() {
        const database = yield* fresh
        const [deaf, there] = [journalOf(yield* open(database, { deaf: true })), journalOf(yield* open(database))]
        const reader = yield* Effect.fork(deaf.strands(Position.origin).pipe(Stream.take(20), Stream.runCollect))
        for (let i = 0; i < 20; i++) yield* there.append([strand("a", i, 1)])
        expect(flat(yield* Fiber.join(reader))).toEqual(flat([strand("a", 0, 20)]))
      }))

    it.scopedLive("a reader that stands beyond the end is told that this is not the journal it has read", () =>
      Effect.gen(function*() {
        const journal = yield* home
        yield* journal.append([strand("a", 0, 1)])
        const failure = yield* Effect.flip(journal.page(Position.make(2n)))
        expect(failure).toBeInstanceOf(Source.SourceShortened)
        expect(failure.message).toContain("position 2, to which it was read: the journal ends at 1")
      }))
  })

  describe("an append that does not come to its end", () => {
    it.scopedLive("interrupted in line it is not stored, interrupted in its commit it is waited for", () =>
      provided((journal) =>
        Effect.gen(function*() {
          const sql = yield* SqlClient.SqlClient
          const isHeld = yield* Deferred.make<void>()
          const release = yield* Deferred.make<void>()
          // Holds what the group needs, so that it stands in its transaction.
          const holder = yield* Effect.fork(Transaction.run(Effect.gen(function*() {
            yield* sql`UPDATE processor_journal SET head = head`
            yield* Deferred.succeed(isHeld, undefined)
            yield* Deferred.await(release)
          })))
          yield* Deferred.await(isHeld)
          const committing = yield* Effect.fork(journal.append([strand("a", 0, 1)]))
          yield* Effect.yieldNow().pipe(Effect.repeatN(50))
          const waiting = yield* Effect.fork(journal.append([strand("b", 0, 1)]))
          yield* Effect.yieldNow().pipe(Effect.repeatN(50))
          yield* Fiber.interrupt(waiting)
          const interrupting = yield* Fiber.interruptFork(committing).pipe(
            Effect.zipRight(Effect.fork(Fiber.await(committing)))
          )
          yield* Effect.yieldNow().pipe(Effect.repeatN(50))
          expect(interrupting.unsafePoll()).toBe(null)
          yield* Deferred.succeed(release, undefined)
          yield* Fiber.join(holder)
          yield* Fiber.join(interrupting)
          expect(flat(yield* all(journal)).map(({ documentId }) => documentId)).toEqual(["a"])
        })
      ))

    it.scopedLive("closing the journal brings what was begun to its end, and tells the others that nothing was stored", () =>
      Effect.gen(function*() {
        const database = yield* fresh
        const scope = yield* Scope.make()
        const journal = journalOf(yield* Effect.provideService(open(database), Scope.Scope, scope))
        const appends = yield* Effect.forEach(
          Array.from({ length: 40 }, (_, i) => strand(`doc ${i}`, 0, 400)),
          (each) => Effect.fork(Effect.either(journal.append([each])))
        )
        yield* Effect.fork(journal.append([strand("last", 0, 1)]))
        while ((yield* journal.bounds).head === 0n) yield* Effect.yieldNow()
        const late = yield* Effect.fork(Effect.either(journal.append([strand("late", 0, 1)])))
        yield* Scope.close(scope, Exit.void)
        const outcomes = yield* Effect.forEach(appends, Fiber.join)
        const stored = new Set<string>(
          flat(yield* all(journalOf(yield* open(database)))).map(({ documentId }) => documentId)
        )
        for (const [i, outcome] of outcomes.entries()) {
          if (Either.isLeft(outcome)) {
            expect(outcome.left).toMatchObject({ _tag: "JournalUnavailable", outcome: "nothing" })
          }
          expect(stored.has(`doc ${i}`)).toBe(Either.isRight(outcome))
        }
        expect(stored.has("late")).toBe(Either.isRight(yield* Fiber.join(late)))
        const closed = yield* Effect.flip(journal.append([strand("later", 0, 1)]))
        expect(closed.message).toContain("nothing was stored: it was closed")
      }))

    it.scopedLive("a table that is gone is no outage: the append fails at once, and readers are told for good", () =>
      provided((journal) =>
        Effect.gen(function*() {
          const sql = yield* SqlClient.SqlClient
          yield* sql`DROP TABLE processor_journal_strand`
          expect(yield* Effect.flip(journal.append([strand("a", 0, 1)]))).toMatchObject({
            _tag: "JournalUnavailable",
            outcome: "nothing"
          })
          expect(yield* Effect.flip(journal.page(Position.origin))).toBeInstanceOf(Source.MalformedSource)
        })
      ))
  })

  it.scopedLive("more appends at once than stand in line are stored all, but for those that leave", () =>
    Effect.gen(function*() {
      const journal = yield* home
      const appends = yield* Effect.forEach(
        Array.from({ length: 2_500 }, (_, i) => strand(`doc ${i}`, 0, 1)),
        (each) => Effect.fork(journal.append([each]))
      )
      yield* Effect.yieldNow()
      const leaving = appends.filter((_, i) => i % 50 === 49)
      yield* Fiber.interruptAll(leaving)
      yield* Effect.forEach(appends, Fiber.await)
      const stored = new Set<string>(
        flat((yield* journal.page(Position.origin, { operations: 5_000 })).strands).map(({ documentId }) => documentId)
      )
      for (const [i, append] of appends.entries()) {
        const exit = yield* Fiber.await(append)
        if (Exit.isSuccess(exit)) expect(stored.has(`doc ${i}`)).toBe(true)
        else expect(i % 50).toBe(49)
      }
      expect(stored.size).toBeGreaterThanOrEqual(2_450)
      expect(stored.size).toBeLessThan(2_500)
    }))

  it.scopedLive("a scope that closes leaves nothing behind, and a journal opened again goes on", () =>
    Effect.gen(function*() {
      const database = yield* fresh
      for (let i = 0; i < 3; i++) {
        yield* Effect.scoped(Effect.gen(function*() {
          const journal = journalOf(yield* open(database))
          yield* Effect.forkScoped(Stream.runDrain(journal.strands(Position.origin)))
          yield* journal.append([strand("a", i, 1)])
        }))
      }
      const context = yield* open(database)
      expect(flat(yield* all(journalOf(context)))).toEqual(flat([strand("a", 0, 3)]))
      expect(yield* Effect.provide(count("processor_journal"), context)).toBe(1)
    }))
})

it.scopedLive("on 'pg' appends that wait for a commit are committed together", () =>
  Effect.gen(function*() {
    const context = yield* open(yield* Database.postgres)
    const journal = journalOf(context)
    yield* Effect.forEach(
      Array.from({ length: 200 }, (_, i) => i),
      (i) => journal.append([strand(`doc ${i}`, 0, 1)]),
      { concurrency: "unbounded" }
    )
    const sql = Context.get(context, SqlClient.SqlClient)
    const [row] = yield* sql<{ readonly transactions: number; readonly strands: number }>`
      SELECT count(DISTINCT CAST(xmin AS TEXT)) AS transactions, count(*) AS strands FROM processor_journal_strand`
    expect(row?.strands).toBe(200)
    expect(row?.transactions).toBeLessThanOrEqual(3)
  }))

it.scopedLive("on 'pg' a journal that closes leaves no session that listens, and one that nobody reads has none", () =>
  Effect.gen(function*() {
    const store = yield* Layer.build(Store.layer(yield* Database.postgres))
    const sql = Context.get(store, SqlClient.SqlClient)
    // It asks with an empty statement, from time to time, whether its session is still there.
    const listening = Effect.map(
      sql<{ readonly n: number }>`
        SELECT count(*) AS n FROM pg_stat_activity
        WHERE datname = current_database() AND pid <> pg_backend_pid() AND application_name = 'effect-processors'
          AND (query LIKE 'LISTEN%' OR query = '')`,
      ([row]) => row!.n
    )
    const until = (n: number) => Effect.repeat(listening, { until: (now) => now === n, schedule: Schedule.spaced(5) })
    const opened = Effect.provide(Layer.build(Layer.merge(Journal.layer("home"), silent)), store)
    for (let i = 0; i < 5; i++) {
      yield* Effect.scoped(Effect.gen(function*() {
        const journal = journalOf(yield* opened)
        yield* journal.append([strand("a", i, 1)])
        yield* until(0)
        yield* Effect.forkScoped(Stream.runDrain(journal.strands(Position.origin)))
        yield* until(1)
      }))
      yield* until(0)
    }
  }))

describe("on 'pg', cut", () => {
  it.scopedLive.each(["cutBeforeCommit", "cutAfterCommit"] as const)(
    "%s: an append whose COMMIT is not answered is stored once, and its appender hears that it is",
    (cut) =>
      Effect.gen(function*() {
        const database = yield* Database.postgres
        const proxy = yield* Proxy.make(database.url)
        const through = journalOf(yield* open({ dialect: "pg", url: proxy.url }))
        yield* through.append([strand("a", 0, 1)])
        const sprung = yield* proxy[cut]
        const receipt = yield* through.append([strand("a", 1, 2)])
        yield* sprung
        expect(receipt.position).toBe(3n)
        expect([receipt.appended, receipt.redelivered]).toEqual(cut === "cutBeforeCommit" ? [2, 0] : [0, 2])
        const direct = journalOf(yield* open(database))
        expect(flat(yield* all(direct))).toEqual(flat([strand("a", 0, 3)]))
      })
  )

  it.scopedLive("an append that the database never answers again says that nobody knows", () =>
    Effect.gen(function*() {
      const database = yield* Database.postgres
      const proxy = yield* Proxy.make(database.url)
      const through = journalOf(yield* open({ dialect: "pg", url: proxy.url }, { patience: "200 millis" }))
      const sprung = yield* proxy.cutAfterCommit
      const append = yield* Effect.fork(Effect.flip(through.append([strand("a", 0, 1)])))
      yield* sprung
      yield* proxy.setMode("refuse")
      yield* proxy.cutAll
      expect(yield* Fiber.join(append)).toMatchObject({ _tag: "JournalUnavailable", outcome: "unknown" })
      const nothing = yield* Effect.flip(through.append([strand("b", 0, 1)]))
      expect(nothing).toMatchObject({ _tag: "JournalUnavailable", outcome: "nothing" })
      expect(yield* Effect.flip(through.page(Position.origin))).toBeInstanceOf(Source.SourceUnavailable)
      const direct = journalOf(yield* open(database))
      expect(flat(yield* all(direct))).toEqual(flat([strand("a", 0, 1)]))
    }))

  it.scopedLive("a reader whose hints are lost with their session hears them again, and misses nothing meanwhile", () =>
    Effect.gen(function*() {
      const database = yield* Database.postgres
      const proxy = yield* Proxy.make(database.url)
      const through = journalOf(yield* open({ dialect: "pg", url: proxy.url }))
      const direct = journalOf(yield* open(database))
      const read: Array<bigint> = []
      const reader = yield* Effect.fork(Effect.retry(
        Effect.suspend(() =>
          through.strands(Position.make(read.at(-1) ?? 0n)).pipe(
            Stream.takeUntil(({ position }) => position === 30n),
            Stream.runForEach(({ position }) => Effect.sync(() => read.push(position)))
          )
        ),
        { while: (failure) => failure._tag === "SourceUnavailable" }
      ))
      for (let i = 0; i < 30; i++) {
        if (i % 10 === 5) yield* proxy.cutAll
        yield* direct.append([strand("a", i, 1)])
      }
      yield* Fiber.join(reader)
      expect(read).toEqual(Array.from({ length: 30 }, (_, i) => BigInt(i + 1)))
    }))
})

it.each(["", "a\u0000b", "x".repeat(10_000)])("a name that none can have is refused where it is given: %#", (name) => {
  expect(() => Journal.layer(name)).toThrow("text of 1 to 512 characters")
})
