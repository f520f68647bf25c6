/**
 * Retention: what all readers have passed is removed, and nothing else.
 */
import * as SqlClient from "@effect/sql/SqlClient"
import { describe, expect, it } from "@effect/vitest"
import * as Context from "effect/Context"
import * as Effect from "effect/Effect"
import * as FastCheck from "effect/FastCheck"
import * as Stream from "effect/Stream"
import { Cursors, Journal, Partition, Position, Reactor, Source } from "../../src/index.js"
import type { Namespace } from "../../src/index.js"
import type { ProcessorName } from "../../src/process/Processor.js"
import * as Database from "../support/Database.js"
import * as Ledger from "../support/Ledger.js"
import { all, count, flat, open, silent, strand } from "./Home.js"

const at = (position: number) => Position.make(BigInt(position))

describe.each(Database.dialects)("on $dialect", ({ fresh }) => {
  const provided = <A, E>(
    use: (
      journal: Journal.Journal["Type"]
    ) => Effect.Effect<A, E, Namespace.Namespaces | SqlClient.SqlClient | Journal.Journal | Source.Source>
  ) =>
    Effect.gen(function*() {
      const context = yield* open(yield* fresh)
      return yield* Effect.provide(use(Context.get(context, Journal.Journal)), context)
    })

  /** Sets a cursor of this database that follows the journal. */
  const cursor = (processor: string, position: number, source = "home") =>
    Effect.gen(function*() {
      const sql = yield* SqlClient.SqlClient
      yield* Cursors.claim({ processor: processor as ProcessorName, source: Source.name(source) })
      yield* sql`UPDATE processor_cursor SET position = ${position} WHERE processor = ${processor} AND source = ${source}`
    })

  /** Twelve operations: strands of 1, 2, 3, 1, 2 and 3, at positions 1, 3, 6, 7, 9 and 12. */
  const fill = (journal: Journal.Journal["Type"]) =>
    journal.append([1, 2, 3, 1, 2, 3].map((length, i) => strand(`doc ${i}`, 0, length)))

  it.scopedLive("without a cursor nothing is removed", () =>
    provided((journal) =>
      Effect.gen(function*() {
        yield* fill(journal)
        expect(yield* journal.truncate()).toBe(0n)
        expect(yield* journal.truncate({ through: at(12), cursors: [] })).toBe(0n)
        yield* cursor("other", 12, "another journal")
        expect(yield* journal.truncate()).toBe(0n)
        expect(yield* all(journal)).toHaveLength(6)
      })
    ))

  it.scopedLive("the lowest cursor holds what is above it, in this database or as it is given", () =>
    provided((journal) =>
      Effect.gen(function*() {
        yield* fill(journal)
        yield* cursor("fast", 12)
        yield* cursor("slow", 8)
        expect(yield* journal.truncate({ cursors: [at(6)] })).toBe(6n)
        expect(yield* journal.bounds).toEqual({ head: 12n, floor: 6n })
        // Position 8 is inside a strand, which a reader that stands there may have to read.
        expect(yield* journal.truncate()).toBe(7n)
        expect((yield* all(journal, {}, at(7))).map(({ position }) => position)).toEqual([9n, 12n])
        expect(yield* journal.truncate({ cursors: [at(0)] })).toBe(7n)
        yield* cursor("slow", 12)
        expect(yield* journal.truncate({ through: at(9) })).toBe(9n)
        expect(yield* journal.truncate({ through: at(9) })).toBe(9n)
        expect(yield* journal.truncate()).toBe(12n)
        expect(yield* count("processor_journal_strand")).toBe(0)
      })
    ))

  it.scopedLive("the partition of a processor that is furthest behind holds what is above it", () =>
    provided((journal) =>
      Effect.gen(function*() {
        yield* fill(journal)
        const sql = yield* SqlClient.SqlClient
        const key = { processor: "divided" as ProcessorName, source: Source.name("home") }
        yield* Cursors.claimAll(key, Partition.all(3).map(Partition.slices))
        yield* sql`UPDATE processor_cursor SET position = 12`
        yield* sql`UPDATE processor_cursor SET position = 6 WHERE first_slice > 0 AND last_slice < 1023`
        expect(yield* journal.truncate()).toBe(6n)
        // Put together they begin at the lowest, and what is kept is enough.
        yield* Cursors.claim(key)
        expect(yield* journal.truncate()).toBe(6n)
      })
    ))

  it.scopedLive(
    "whatever the cursors, nothing above the lowest is removed and everything up to it is",
    () =>
      provided((journal) =>
        Effect.gen(function*() {
          const context = yield* Effect.context<SqlClient.SqlClient>()
          yield* cursor("stored", 0)
          let next = 0
          const property = FastCheck.asyncProperty(
            FastCheck.array(FastCheck.integer({ min: 1, max: 4 }), { maxLength: 6 }),
            FastCheck.array(FastCheck.integer({ min: 0, max: 12 }), { minLength: 1, maxLength: 3 }),
            FastCheck.option(FastCheck.integer({ min: 0, max: 12 }), { nil: undefined }),
            (lengths, ahead, through) =>
              Effect.gen(function*() {
                yield* journal.append(lengths.map((length) => strand(`more ${next++}`, 0, length)))
                const { floor, head } = yield* journal.bounds
                const clamp = (steps: number) => Number(floor) + Math.min(steps, Number(head - floor))
                const cursors = ahead.map(clamp)
                yield* cursor("stored", cursors[0]!)
                const before = yield* all(journal, {}, floor)
                const lowest = Math.min(...cursors, ...through === undefined ? [] : [clamp(through)])
                yield* journal.truncate({
                  cursors: cursors.slice(1).map(at),
                  ...through === undefined ? {} : { through: at(clamp(through)) }
                })
                const after = yield* journal.bounds
                const kept = before.filter(({ position }) => position > lowest)
                expect(yield* all(journal, {}, after.floor)).toEqual(kept)
                expect(Number(after.floor)).toBeLessThanOrEqual(Math.max(lowest, Number(floor)))
                expect(yield* count("processor_journal_strand")).toBe(kept.length)
              }).pipe(Effect.provide(context), Effect.runPromise)
          )
          yield* Effect.promise(() => FastCheck.assert(property, { numRuns: 40 }))
        })
      )
  )

  it.scopedLive("many strands are removed step by step, while others append", () =>
    provided((journal) =>
      Effect.gen(function*() {
        yield* journal.append(Array.from({ length: 5_000 }, (_, i) => strand(`doc ${i}`, 0, 1)))
        yield* cursor("reader", 4_990)
        yield* Effect.all([
          Effect.forEach(Array.from({ length: 20 }, (_, i) => i), (i) => journal.append([strand("late", i, 1)])),
          journal.truncate()
        ], { concurrency: "unbounded" })
        expect(yield* journal.bounds).toEqual({ head: 5_020n, floor: 4_990n })
        expect(yield* all(journal, {}, at(4_990))).toHaveLength(30)
      })
    ))

  it.scopedLive("whoever comes from below the floor is told, and a new processor halts instead of missing operations", () =>
    provided((journal) =>
      Effect.gen(function*() {
        yield* fill(journal)
        expect(yield* journal.truncate({ cursors: [at(6)] })).toBe(6n)
        const failure = yield* Effect.flip(Stream.runHead(journal.strands(at(5))))
        expect(failure).toEqual(new Source.SourceTruncated({ source: "home", after: at(5), floor: at(6) }))
        expect(failure.message).toBe("source home was truncated up to position 6: what follows 5 is gone")
        const [outcome] = yield* Reactor.run(Ledger.make("late"))
        expect(outcome?.phase).toBe("halted")
        expect(outcome?.failure).toBeInstanceOf(Source.SourceTruncated)
      })
    ).pipe(Effect.provide(silent)))

  it.scopedLive("what was removed is still known: it is not stored again, and what follows it is in order", () =>
    provided((journal) =>
      Effect.gen(function*() {
        yield* journal.append([strand("a", 0, 3)])
        yield* journal.truncate({ cursors: [at(3)] })
        expect(yield* journal.append([strand("a", 0, 3)])).toEqual({
          position: 3n,
          appended: 0,
          redelivered: 3,
          superseded: 0
        })
        expect((yield* Effect.flip(journal.append([strand("a", 4, 1)])))._tag).toBe("StrandGap")
        yield* journal.append([strand("a", 3, 1)])
        expect(flat(yield* all(journal, {}, at(3)))).toEqual(flat([strand("a", 3, 1)]))
      })
    ))

  it.scopedLive("a reader in the midst of its pages is told as well", () =>
    provided((journal) =>
      Effect.gen(function*() {
        yield* fill(journal)
        const failure = yield* journal.pages(Position.origin, { operations: 1 }).pipe(
          Stream.runForEach(({ position }) => position === 3n ? journal.truncate({ cursors: [at(12)] }) : Effect.void),
          Effect.flip
        )
        expect(failure).toEqual(new Source.SourceTruncated({ source: "home", after: at(3), floor: at(12) }))
      })
    ))
})
