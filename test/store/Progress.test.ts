/**
 * Progress: where an operation stands in its stream, told the same after any number of commits and restarts.
 */
import * as SqlClient from "@effect/sql/SqlClient"
import { describe, expect, it } from "@effect/vitest"
import * as Effect from "effect/Effect"
import * as FastCheck from "effect/FastCheck"
import type { Operation } from "../../src/domain/Operation.js"
import { indexMax, skipMax } from "../../src/domain/Operation.js"
import type { Strand } from "../../src/domain/Strand.js"
import * as Outline from "../../src/store/Outline.js"
import * as Progress from "../../src/store/Progress.js"
import * as Slots from "../../src/store/Slots.js"
import * as Transaction from "../../src/store/Transaction.js"
import * as Follow from "../guarantees/Follow.js"
import * as Ledger from "../guarantees/Ledger.js"
import * as Database from "../support/Database.js"
import * as QueryPlan from "../support/QueryPlan.js"
import * as Store from "../support/Store.js"

const op = (index: number, skip = 0, hash = `${index}/${skip}`): Operation =>
  ({ id: "id", index, skip, hash, type: "ADD", timestamp: "2026-01-01T00:00:00Z", input: null }) as unknown as Operation

const strandOf = (operations: ReadonlyArray<Operation>, documentId = "d", scope = "global"): Strand =>
  ({ position: 1n, documentId, documentType: "t", scope, branch: "main", operations, bytes: 0 }) as unknown as Strand

const stream = () => new Progress.StreamProgress("global", "main")

/** A stream that has taken these operations. */
const after = (...operations: ReadonlyArray<Operation>) => {
  const progress = stream()
  for (const operation of operations) progress.advance(operation)
  return progress
}

const upTo = (last: number) => after(...Array.from({ length: last + 1 }, (_, i) => op(i)))

describe("an operation is placed by what its stream has taken", () => {
  it("the first is next at index 0, or where its skip reaches back to the beginning", () => {
    expect(stream().place(op(0))).toBe("next")
    expect(stream().place(op(1))).toBe("gap")
    expect(stream().place(op(5, 5))).toBe("next")
    expect(stream().place(op(5, 4))).toBe("gap")
  })

  it("one that continues is next, one that leaves indexes out is behind a gap, unless it takes those back", () => {
    expect(upTo(3).place(op(4))).toBe("next")
    expect(upTo(3).place(op(5))).toBe("gap")
    expect(upTo(3).place(op(5, 1))).toBe("next")
    expect(upTo(3).place(op(9, 6))).toBe("next")
    expect(upTo(3).place(op(9, 5))).toBe("next")
    expect(upTo(3).place(op(9, 4))).toBe("gap")
  })

  it("the very one that was applied is redelivered, however old; another one at its index rewrites history", () => {
    const progress = upTo(100)
    for (const index of [0, 31, 32, 63, 64, 99, 100]) {
      expect(progress.place(op(index))).toBe("redelivered")
      expect(progress.place(op(index, 0, "other"))).toBe("rewritten")
    }
  })

  it("one that a skip took back before it came is superseded, on every page that the skip jumped over", () => {
    const progress = after(op(0), op(200, 199))
    for (const index of [1, 31, 32, 100, 199]) expect(progress.place(op(index))).toBe("superseded")
    expect(progress.place(op(200, 199))).toBe("redelivered")
    expect(progress.place(op(201))).toBe("next")
  })

  it("an index that is used again with a longer skip takes the shorter one's place, and not the other way round", () => {
    const progress = after(op(0), op(1), op(2), op(3, 1))
    expect(progress.place(op(3, 2))).toBe("next")
    progress.advance(op(3, 2))
    expect(progress.place(op(3, 1))).toBe("superseded")
    expect(progress.place(op(3, 2))).toBe("redelivered")
    expect(progress.place(op(3, 3))).toBe("next")
    expect(progress.place(op(4))).toBe("next")
  })

  it("one that was left out counts as taken: the stream goes on after it", () => {
    const progress = upTo(1)
    progress.advance(op(4))
    expect(progress.place(op(5))).toBe("next")
    expect(progress.place(op(4))).toBe("redelivered")
    expect(progress.place(op(3))).toBe("superseded")
  })

  it("the largest index and the largest skip are placed like any other", () => {
    const progress = after(op(indexMax - 1, indexMax - 1))
    expect(progress.place(op(indexMax))).toBe("next")
    progress.advance(op(indexMax, skipMax))
    expect(progress.place(op(indexMax, skipMax))).toBe("redelivered")
    expect(progress.place(op(indexMax - 1, indexMax - 1))).toBe("redelivered")
    expect(progress.place(op(0))).toBe("superseded")
  })
})

describe("an outline", () => {
  it("has the operations of each stream, in their order, and is the same for the same strands", () => {
    const strands = [
      strandOf([op(0), op(1)], "a"),
      strandOf([op(0)], "b"),
      strandOf([op(7)], "a", "local"),
      strandOf([], "c"),
      strandOf([op(2)], "a")
    ]
    const outline = Outline.of(strands)
    const told = outline.map(({ documentId, operations, scope }) => [documentId, scope, ...operations])
    expect(told).toEqual([["a", "global", op(0), op(1), op(2)], ["b", "global", op(0)], ["a", "local", op(7)], [
      "c",
      "global"
    ]])
    expect(Outline.of(strands)).toBe(outline)
    expect(Outline.of([...strands])).not.toBe(outline)
  })

  it("has no chain of operations that come again, leave others out, take a place again, or have a flaw", () => {
    const chained = (...operations: ReadonlyArray<Operation>) => Outline.make([strandOf(operations)])[0]!.chain()
    expect(chained(op(3), op(4), op(8, 3), op(9, 2))).toBeDefined()
    expect(chained()).toBeUndefined()
    expect(chained(op(3), op(3))).toBeUndefined()
    expect(chained(op(3), op(3, 1))).toBeUndefined()
    expect(chained(op(3), op(5))).toBeUndefined()
    expect(chained(op(3), op(5, 0), op(4))).toBeUndefined()
    expect(chained(op(3), { ...op(4), flaw: "is bad" })).toBeUndefined()
  })

  it("extends a stream by a chain exactly where each operation would be next and higher, and as if each was taken", () => {
    const steps = (minLength: number) =>
      FastCheck.array(
        FastCheck.record({
          leap: FastCheck.constantFrom(0, 0, 0, 0, 1, 40),
          covers: FastCheck.integer({ min: -1, max: 2 })
        }),
        { minLength, maxLength: 80 }
      )
    const operationsFrom = (head: number, some: ReadonlyArray<{ readonly leap: number; readonly covers: number }>) => {
      let last = head
      return some.map(({ covers, leap }, i) => {
        last += 1 + leap
        return op(last, Math.max(0, Math.min(last, leap + covers)), `${head} ${i}`)
      })
    }
    FastCheck.assert(
      FastCheck.property(steps(0), steps(1), FastCheck.integer({ min: -3, max: 1 }), (before, then, off) => {
        const [fast, slow] = [stream(), stream()]
        for (const each of operationsFrom(-1, before)) {
          for (const own of [fast, slow]) if (own.place(each) === "next") own.advance(each)
        }
        const unchanged = fast.changes("d")
        const operations = operationsFrom(Math.max(-1, fast.head + off), then)
        const isContinued = operations.every((each) => {
          const isNext = each.index > slow.head && slow.place(each) === "next"
          slow.advance(each)
          return isNext
        })
        const chain = Outline.make([strandOf(operations)])[0]!.chain()
        expect(chain !== undefined && fast.isContinuedBy(chain)).toBe(isContinued)
        if (isContinued) fast.extend(chain!)
        const byPage = (rows: ReturnType<typeof fast.changes>) => rows.toSorted((a, b) => a.page - b.page)
        expect(byPage(fast.changes("d"))).toEqual(byPage(isContinued ? slow.changes("d") : unchanged))
      }),
      { numRuns: 500 }
    )
  })
})

describe("a fingerprint", () => {
  it("tells skips and hashes apart, and is 8 characters whatever it is made of", () => {
    const seen = new Map<string, string>()
    for (let i = 0; i < 20_000; i++) {
      const operation = op(0, i % 7, `hash-${i}`)
      const print = Slots.fingerprint(operation)
      expect(print).toMatch(/^[A-Za-z0-9_-]{8}$/)
      expect(seen.get(print)).toBeUndefined()
      seen.set(print, operation.hash)
    }
  })

  it("is what databases hold of it, whoever has asked for which before", () => {
    const stored = [
      ["", 0, "8_ZHTCAA"],
      ["hash-1", 0, "XICJ08C5"],
      ["hash-1", 3, "GUb7oDek"],
      ["2jmj7l5rSw0yVb/vlWAYkK/YBwk=", 0, "sctYSt5G"]
    ] as const
    const ask = () => stored.map(([hash, skip]) => Slots.fingerprint(op(0, skip, hash)))
    const first = ask()
    expect(first).toEqual(stored.map(([, , print]) => print))
    for (let i = 0; i < 50_000; i++) Slots.fingerprint(op(0, i % 3, `another hash ${i}`))
    expect(ask()).toEqual(first)
  })

  it("tells hashes with one end apart, asked for in turns", () => {
    const alike = Array.from(
      { length: 100 },
      (_, i) => op(0, i % 2, `${Math.floor(i / 2) + 10}, and then the same end`)
    )
    const prints = alike.map(Slots.fingerprint)
    expect(new Set(prints).size).toBe(alike.length)
    for (let turn = 0; turn < 3; turn++) expect(alike.map(Slots.fingerprint)).toEqual(prints)
  })

  it("is the same for the same operation, hostile hashes included", () => {
    FastCheck.assert(FastCheck.property(FastCheck.fullUnicodeString(), FastCheck.nat(skipMax), (hash, skip) => {
      expect(Slots.fingerprint(op(0, skip, hash))).toBe(Slots.fingerprint(op(9, skip, hash)))
      expect(Slots.fingerprint(op(0, skip, hash))).toHaveLength(8)
    }))
  })
})

describe.each(Database.dialects)("kept on $dialect", ({ fresh }) => {
  const key = Follow.keyOf(Ledger.make(), "s")

  const kept = <A, E>(effect: Effect.Effect<A, E, SqlClient.SqlClient>) =>
    Effect.flatMap(
      fresh,
      (database) => Effect.zipRight(Follow.prepare(Ledger.make()), effect).pipe(Effect.provide(Store.layer(database)))
    )

  /** Loads, places each operation, takes those that are next, and saves: what a commit does. */
  const commit = (...operations: ReadonlyArray<Operation>) =>
    Effect.gen(function*() {
      const progress = yield* Progress.load(key, [strandOf(operations)])
      const own = progress.of(strandOf(operations))
      const places = operations.map((operation) => {
        const place = own.place(operation)
        if (place === "next") own.advance(operation)
        return place
      })
      yield* Progress.save(key, progress)
      return places
    })

  it.scopedLive("across the borders of pages, one operation at a time and many at once", () =>
    kept(Effect.gen(function*() {
      for (let i = 0; i < 70; i++) expect(yield* commit(op(i))).toEqual(["next"])
      expect(yield* commit(...Array.from({ length: 70 }, (_, i) => op(i)))).toEqual(new Array(70).fill("redelivered"))
      expect(yield* commit(op(72), op(70), op(71), op(72))).toEqual(["gap", "next", "next", "next"])
      expect(yield* commit(op(31, 0, "x"), op(32, 0, "x"), op(63), op(64))).toEqual([
        "rewritten",
        "rewritten",
        "redelivered",
        "redelivered"
      ])
    })))

  it.scopedLive("a skip that jumps over pages leaves what it jumped over superseded, and does not forget what was before", () =>
    kept(Effect.gen(function*() {
      yield* commit(...Array.from({ length: 40 }, (_, i) => op(i)))
      expect(yield* commit(op(300, 270))).toEqual(["next"])
      expect(yield* commit(op(29), op(35), op(45), op(250), op(299), op(300, 270))).toEqual([
        "redelivered",
        "redelivered",
        "superseded",
        "superseded",
        "superseded",
        "redelivered"
      ])
      expect(yield* commit(op(301))).toEqual(["next"])
    })))

  it.scopedLive("very old operations are recognised exactly, without reading every page to place new ones", () =>
    kept(Effect.gen(function*() {
      for (let i = 0; i < 1_000; i += 100) yield* commit(...Array.from({ length: 100 }, (_, j) => op(i + j)))
      expect(yield* commit(op(0), op(0, 0, "x"), op(500), op(500, 1), op(1_000))).toEqual([
        "redelivered",
        "rewritten",
        "redelivered",
        "rewritten",
        "next"
      ])
      expect(yield* commit(op(1_001))).toEqual(["next"])
    })))

  it.scopedLive("the key leads to the pages that are asked for, past a long history and before there is any", () =>
    kept(Effect.gen(function*() {
      const sql = yield* SqlClient.SqlClient
      const outline = Outline.make([strandOf([op(3_200)])])
      const [one, many] = [
        Progress.loading(sql, key, outline),
        Progress.loadingAll(sql, [{ follower: key, outline }])
      ]
      const plans = Effect.forEach([...one.statements, ...many.statements], QueryPlan.of)
      const byKey = /SEARCH s USING PRIMARY KEY .*page>\?|Index Scan .*\n.*Index Cond: .*page >= /
      for (const plan of yield* plans) expect(plan).toMatch(byKey)
      yield* commit(...Array.from({ length: 3_200 }, (_, i) => op(i)))
      for (const plan of yield* plans) expect(plan).toMatch(byKey)
      const [rows] = yield* Effect.forEach(one.statements, (each) => each)
      expect(rows).toHaveLength(1)
    })))

  it.scopedLive("pages that are new and pages that are not, many and few, are saved side by side", () =>
    kept(Effect.gen(function*() {
      const documents = Array.from({ length: 30 }, (_, i) => `d${i}`)
      const heads = new Map<string, number>()
      // Each document is somewhere else in its pages; some are there, some come, and one has no row yet in any round.
      for (const round of [0, 1, 2, 3]) {
        const strands = [...documents, `late${round}`].map((documentId, i) => {
          const from = (heads.get(documentId) ?? -1) + 1
          return strandOf(Array.from({ length: 1 + (i * 7 + round * 29) % 90 }, (_, k) => op(from + k)), documentId)
        })
        const progress = yield* Progress.load(key, strands)
        for (const strand of strands) {
          const own = progress.of(strand)
          for (const operation of strand.operations) {
            expect(own.place(operation)).toBe("next")
            own.advance(operation)
          }
          heads.set(strand.documentId, own.head)
        }
        yield* Progress.save(key, progress)
      }
      const all = Array.from(
        heads,
        ([documentId, head]) => strandOf(Array.from({ length: head + 1 }, (_, i) => op(i)), documentId)
      )
      const progress = yield* Progress.load(key, all)
      for (const strand of all) {
        for (const each of strand.operations) expect(progress.of(strand).place(each)).toBe("redelivered")
        expect(progress.of(strand).place(op(strand.operations.length))).toBe("next")
      }
    })))

  it.scopedLive("a page that is written again is put beside itself, where the index need not be told", () =>
    kept(Effect.gen(function*() {
      const sql = yield* SqlClient.SqlClient
      // SQLite keeps rows in the index.
      const elsewhere = sql.onDialectOrElse({
        sqlite: () => Effect.succeed(0),
        orElse: () =>
          Effect.map(
            sql<{ readonly count: number }>`
              SELECT n_tup_upd - n_tup_hot_upd AS count FROM pg_stat_xact_user_tables WHERE relname = 'processor_stream'`,
            ([row]) => row!.count
          )
      })
      const take = (documents: ReadonlyArray<number>, ...operations: ReadonlyArray<Operation>) =>
        Transaction.run(Effect.gen(function*() {
          const before = yield* elsewhere
          const strands = documents.map((d) => strandOf(operations, `document ${d}`))
          const progress = yield* Progress.load(key, strands)
          for (const strand of strands) for (const each of operations) progress.of(strand).advance(each)
          yield* Progress.save(key, progress)
          return (yield* elsewhere) - before
        }))
      const all = Array.from({ length: 1_000 }, (_, d) => d)
      yield* take(all, ...Array.from({ length: 12 }, (_, i) => op(i)))
      // Two or three of each of the database's pages.
      expect(yield* take(all.filter((d) => d % 10 === 0), op(12))).toBeLessThan(10)
    })))

  it.scopedLive("an index used again with a longer skip is recognised after a restart, at a border of pages too", () =>
    kept(Effect.gen(function*() {
      for (const at of [5, 31, 32]) {
        const before = (yield* Progress.load(key, [strandOf([op(0)])])).of(strandOf([])).head
        yield* commit(...Array.from({ length: at - before - 1 }, (_, i) => op(before + 1 + i)), op(at, 1))
        expect(yield* commit(op(at, 2))).toEqual(["next"])
        expect(yield* commit(op(at, 1), op(at, 2), op(at))).toEqual(["superseded", "redelivered", "superseded"])
      }
    })))

  it.scopedLive("the largest index is kept, and what lies far below it is found", () =>
    kept(Effect.gen(function*() {
      expect(yield* commit(op(0), op(indexMax - 1, indexMax - 2), op(indexMax))).toEqual(["next", "next", "next"])
      expect(yield* commit(op(indexMax), op(indexMax - 1, indexMax - 2), op(0), op(7))).toEqual([
        "redelivered",
        "redelivered",
        "redelivered",
        "superseded"
      ])
    })))

  it.scopedLive("streams of one document, and names that look alike, are kept apart", () =>
    kept(Effect.gen(function*() {
      const names = ["d", "D", "d ", "ḋ", "d'; --", "\"d\"", "d\\", "%", "_", "d𝒟"]
      const strands = names.flatMap((name) => [strandOf([op(0)], name, "global"), strandOf([op(0)], name, "Global")])
      const progress = yield* Progress.load(key, strands)
      strands.forEach((strand, i) => {
        for (let n = 0; n <= i; n++) progress.of(strand).advance(op(n))
      })
      yield* Progress.save(key, progress)
      const again = yield* Progress.load(key, strands)
      expect(strands.map((strand) => again.of(strand).head)).toEqual(strands.map((_, i) => i))
      const other = yield* Progress.load({ ...key, source: "other" as typeof key.source }, strands)
      expect(other.of(strands[0]!).head).toBe(-1)
    })))

  it.scopedLive(
    "any series of commits is placed as if it had never been written down",
    () =>
      kept(Effect.flatMap(Effect.runtime<SqlClient.SqlClient>(), (runtime) => {
        let run = 0
        const operations = FastCheck.array(
          FastCheck.record({
            index: FastCheck.nat(100),
            skip: FastCheck.nat(40),
            hash: FastCheck.constantFrom("a", "b")
          }),
          { minLength: 1, maxLength: 12 }
        )
        return Effect.promise(() =>
          FastCheck.assert(
            FastCheck.asyncProperty(FastCheck.array(operations, { maxLength: 8 }), (commits) =>
              Effect.runPromise(
                Effect.gen(function*() {
                  const documentId = `run-${++run}`
                  const memory = stream()
                  for (const some of commits) {
                    const ops = some.map(({ hash, index, skip }) => op(index, Math.min(skip, index), hash))
                    const progress = yield* Progress.load(key, [strandOf(ops, documentId)])
                    const own = progress.of(strandOf([], documentId))
                    for (const each of ops) {
                      expect(own.place(each)).toBe(memory.place(each))
                      if (own.place(each) !== "next") continue
                      own.advance(each)
                      memory.advance(each)
                    }
                    yield* Progress.save(key, progress)
                  }
                }).pipe(Effect.provide(runtime))
              )),
            { numRuns: 60 }
          )
        )
      }))
  )
})
