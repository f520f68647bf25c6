/**
 * A group: what becomes of appends that are committed together is what would become of each by itself, one after another.
 */
import * as SqlClient from "@effect/sql/SqlClient"
import { describe, expect, it } from "@effect/vitest"
import * as Effect from "effect/Effect"
import * as Either from "effect/Either"
import * as FastCheck from "effect/FastCheck"
import { Journal, Source, Transaction } from "../../src/index.js"
import * as Admission from "../../src/journal/Admission.js"
import * as Group from "../../src/journal/Group.js"
import * as Log from "../../src/journal/Log.js"
import * as Database from "../support/Database.js"
import * as Spans from "../support/Spans.js"
import { all, flat, open, strand } from "./Home.js"

type Append = ReadonlyArray<Source.Unplaced>

/** A strand whose first operation says that it follows one with this hash. */
const chained = (documentId: string, from: number, prevOpHash: string): Source.Unplaced => {
  const plain = strand(documentId, from, 1)
  return {
    ...plain,
    operations: plain.operations.map((operation) => ({ ...operation, prevOpIndex: from - 1, prevOpHash }))
  }
}

interface Piece {
  readonly document: string
  readonly from: number
  readonly count: number
  readonly kind: "next" | "given" | "other" | "chained"
}

/** Appends as one group, whose statements are told. */
const together = (name: string, appends: ReadonlyArray<Append>) =>
  Effect.gen(function*() {
    const log = yield* Log.open(Source.name(name))
    const prepared = yield* Effect.forEach(appends, Admission.prepare)
    const { names, tracer } = Spans.recording()
    const { outcomes } = yield* Effect.withTracer(Transaction.run(Group.write(log, prepared)), tracer)
    return { outcomes, statements: names.filter((each) => each === "sql.execute").length }
  })

/** What is kept of the streams of a journal. On other pages than the newest, index and skip are stale. */
const streams = (name: string) =>
  Effect.flatMap(SqlClient.SqlClient, (sql) =>
    sql`
      SELECT document_id, page, slots, CASE page WHEN 2147483647 THEN last_index END AS last_index,
        CASE page WHEN 2147483647 THEN last_skip END AS last_skip
      FROM processor_stream WHERE source = ${name} ORDER BY document_id, page`)

const tagOf = Either.match({
  onLeft: ({ _tag }: { readonly _tag: string }) => _tag,
  onRight: ({ appended, redelivered, superseded }: Group.Receipt) => `${appended} ${redelivered} ${superseded}`
})

describe.each(Database.dialects)("on $dialect", ({ fresh }) => {
  it.scopedLive("asks the database as often for refused appends as for others", () =>
    Effect.gen(function*() {
      const context = yield* open(yield* fresh)
      // Each brings what is in order first, so that it is refused half way.
      const group = (refused: number): ReadonlyArray<Append> =>
        Array.from({ length: 40 }, (_, i) => [
          strand(`a${i}`, 0, 2),
          strand(`b${i}`, i < refused ? 1 : 0, 1),
          chained(`a${i}`, 2, i === 39 && refused > 0 ? "stray" : strand(`a${i}`, 1, 1).operations[0]!.hash)
        ])
      const counts: Array<number> = []
      for (const refused of [0, 1, 20, 39]) {
        const { outcomes, statements } = yield* Effect.provide(together(`refused ${refused}`, group(refused)), context)
        expect(outcomes.filter(Either.isLeft)).toHaveLength(refused === 0 ? 0 : refused + 1)
        counts.push(statements)
      }
      // On SQLite rows are sent in pieces that are powers of two, of which there may be some more for fewer rows.
      expect(counts[0]).toBeGreaterThan(0)
      expect(Math.max(...counts)).toBeLessThanOrEqual(counts[0]! + 4)
    }))

  it.scopedLive(
    "of appends that are refused half way, and others, each comes to what it would by itself",
    () =>
      Effect.gen(function*() {
        const context = yield* open(yield* fresh)
        const piece: FastCheck.Arbitrary<Piece> = FastCheck.record({
          document: FastCheck.constantFrom("a", "b"),
          from: FastCheck.integer({ min: 0, max: 70 }),
          count: FastCheck.constantFrom(1, 2, 33),
          kind: FastCheck.constantFrom("next" as const, "next", "given", "other", "chained")
        })
        /** Mostly where a document ends, were all before it admitted. */
        const appendsOf = (given: ReadonlyArray<ReadonlyArray<Piece>>) => {
          const ends = new Map<string, number>()
          return given.map((pieces) =>
            pieces.map(({ count, document, from, kind }): Source.Unplaced => {
              const end = ends.get(document) ?? 0
              if (kind === "given") return strand(document, Math.min(from, end + 1), count)
              if (kind === "other") {
                return strand(document, Math.min(from, end), 1, { operations: [{ type: "PUT", input: "other" }] })
              }
              ends.set(document, end + (kind === "chained" ? 1 : count))
              return kind === "chained" ? chained(document, end, `${from % 2}`) : strand(document, end, count)
            })
          )
        }
        let round = 0
        const seen = new Set<string>()
        const property = FastCheck.asyncProperty(
          FastCheck.array(FastCheck.array(piece, { minLength: 1, maxLength: 4 }), { minLength: 2, maxLength: 8 }),
          (given) =>
            Effect.runPromise(
              Effect.gen(function*() {
                const appends = appendsOf(given)
                const [one, many] = [`one ${++round}`, `many ${round}`]
                const { outcomes } = yield* together(one, appends)
                const alone: Array<Group.Outcome> = []
                for (const append of appends) alone.push(...(yield* together(many, [append])).outcomes)
                expect(outcomes.map(tagOf)).toEqual(alone.map(tagOf))
                expect(outcomes).toEqual(alone)
                for (const outcome of outcomes) seen.add(tagOf(outcome))
                const [read, again] = yield* Effect.forEach(
                  [one, many],
                  (name) => Effect.scoped(Effect.flatMap(Journal.make(name), (journal) => all(journal)))
                )
                expect(flat(read!)).toEqual(flat(again!))
                const [saved, savedAgain] = yield* Effect.forEach([one, many], streams)
                expect(saved).toEqual(savedAgain)
              }).pipe(Effect.provide(context))
            )
        )
        yield* Effect.promise(() => FastCheck.assert(property, { numRuns: 40 }))
        for (const tag of ["StrandGap", "HistoryRewritten", "ChainBroken"]) expect(seen).toContain(tag)
      })
  )
})
