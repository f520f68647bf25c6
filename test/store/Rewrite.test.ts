/**
 * A rewrite: after each commit, the rows of every document are the projection of the operations that survive, as the real
 * packages say which those are.
 */
import type * as SqlClient from "@effect/sql/SqlClient"
import { describe, expect, it } from "@effect/vitest"
import * as Effect from "effect/Effect"
import * as Either from "effect/Either"
import * as Layer from "effect/Layer"
import * as Schema from "effect/Schema"
import * as Stream from "effect/Stream"
import { fileURLToPath } from "node:url"
import * as Test from "../../layers/Test.js"
import * as DocumentModel from "../../src/domain/DocumentModel.js"
import { surviving } from "../../src/domain/History.js"
import type { Operation } from "../../src/domain/Operation.js"
import * as Position from "../../src/domain/Position.js"
import * as Ndjson from "../../src/ingest/Ndjson.js"
import * as Source from "../../src/ingest/Source.js"
import * as Journal from "../../src/journal/Journal.js"
import * as Policy from "../../src/process/Policy.js"
import * as Processor from "../../src/process/Processor.js"
import { Replaying } from "../../src/process/Replaying.js"
import * as DeadLetters from "../../src/store/DeadLetters.js"
import * as Subscription from "../../src/Subscription.js"
import * as Table from "../../src/table/Table.js"
import * as Follow from "../guarantees/Follow.js"
import * as Database from "../support/Database.js"
import * as Lists from "../support/Lists.js"
import { recorded, traceOf } from "../support/RealHistories.js"
import type { ListOperation, RealHistory } from "../support/RealHistories.js"
import * as Store from "../support/Store.js"

/** So many histories of each truth that is known operation by operation, those with most skips first. */
const sample = (perTruth: number): ReadonlyArray<RealHistory> => {
  const chosen = new Map<string, Array<RealHistory>>()
  const skips = ({ steps }: RealHistory) => steps.filter(([{ skip }]) => skip > 0).length
  const whole = recorded().filter((each) => Lists.isWhole(each) && each.steps.every(([, left]) => left !== null))
  for (const each of whole.toSorted((a, b) => skips(b) - skips(a))) {
    const own = chosen.get(each.truth) ?? []
    if (own.length < perTruth) own.push(each)
    chosen.set(each.truth, own)
  }
  return Array.from(chosen.values()).flat()
}

const op = (index: number, skip = 0, number = index): ListOperation => ({ type: "PUSH", index, skip, number })
const mark = (index: number, skip = 1): ListOperation => ({ type: "NOOP", index, skip, number: -1 })

describe.each(Database.dialects)("on $dialect", ({ fresh }) => {
  const kept = <A, E>(effect: Effect.Effect<A, E, SqlClient.SqlClient>) =>
    Effect.flatMap(fresh, (database) => Effect.provide(effect, Store.layer(database)))

  const histories = sample(8)
  const world = Lists.worldOf(histories)

  /** Follows the world, and compares the tables after each commit. */
  const compare = (options: Lists.Options) =>
    kept(Effect.gen(function*() {
      const processor = Lists.make(options)
      yield* Follow.prepare(processor)
      const wrong: Array<string> = []
      let replayed = 0
      yield* Subscription.commits(processor).pipe(
        Stream.runForEachChunk((commits) =>
          Effect.gen(function*() {
            const position = Array.from(commits).at(-1)?.position
            if (position === undefined) return
            for (const commit of commits) replayed += commit.replayed
            const found = Lists.sorted(yield* Lists.lists)
            const wanted = Lists.sorted(world.at(position))
            if (found.join() !== wanted.join()) {
              wrong.push(`at ${position}: ${found.filter((each) => !wanted.includes(each)).join()}`)
            }
          })
        ),
        Effect.provide(Layer.succeed(Source.Source, Source.fromIterable("s", world.strands)))
      )
      expect(wrong.slice(0, 3)).toEqual([])
      expect(Lists.sorted(yield* Lists.lists)).toEqual(Lists.sorted(world.at(BigInt(world.strands.length))))
      return replayed
    }))

  it("takes enough histories of enough packages", () => {
    expect(new Set(histories.map(({ truth }) => truth)).size).toBe(9)
    expect(histories.length).toBeGreaterThan(60)
  })

  describe.each(["replay", "append"] as const)("%s", (history) => {
    it.scopedLive.each([1, 3, 7, 100, 1_000])(
      "the rows are those of the survivors after each commit, in batches of %i operations",
      (operations) =>
        Effect.gen(function*() {
          const replayed = yield* compare({ history, batch: { operations } })
          if (operations < 1_000) expect(replayed).toBeGreaterThan(history === "replay" ? 100 : 0)
        })
    )

    it.scopedLive.each(["statements", "batch"] as const)(
      "likewise where the handler works with %s",
      (kind) => compare({ history, kind, batch: { operations: 5 } })
    )
  })

  it.scopedLive("a processor that is given what was recorded has every operation, also those taken back", () =>
    kept(Effect.gen(function*() {
      yield* Follow.follow(Lists.make({ history: "recorded" }), "s", [
        Lists.strand("d", [op(0), op(1), mark(2), op(3, 1)])
      ])
      expect(Lists.sorted(yield* Lists.lists)).toEqual(["d: 0 1 3"])
    })))

  const key = Follow.keyOf(Lists.make({ history: "replay" }), "s")
  const d = (documentId: string, ...operations: ReadonlyArray<ListOperation>) => Lists.strand(documentId, operations)
  const waiting = Effect.map(
    DeadLetters.list(key),
    (letters) => letters.map(({ cause, operation, strand }) => `${strand.documentId} ${operation.index} ${cause}`)
  )
  const sourced = (strands: ReadonlyArray<Source.Unplaced>) =>
    Layer.succeed(Source.Source, Source.fromIterable("s", strands))
  const rows = Effect.map(Lists.lists, Lists.sorted)

  describe("an operation that its handler refuses", () => {
    const small = Lists.worldOf(sample(2))
    const cured = Effect.gen(function*() {
      const left = yield* DeadLetters.list(key, { limit: 10_000 })
      return Array.from(new Set<string>(left.map(({ strand }) => strand.documentId)))
    })

    it.scopedLive.each(
      (["replay", "append"] as const).flatMap((history) =>
        ([1, 7, 1_000] as const).flatMap((operations) =>
          Lists.kinds.map((kind) => [history, operations, kind] as const)
        )
      )
    )("holds up its document alone, which comes to its survivors once it is cured: %s, %i, %s", ([
      history,
      operations,
      kind
    ]) =>
      kept(Effect.gen(function*() {
        let isCured = false
        const processor = Lists.make({
          history,
          kind,
          batch: { operations },
          before: ({ documentId }, { index, input }) =>
            !isCured && index >= 3 && Number(documentId.slice(1)) % 2 === 0
              ? new Lists.Refused(input as { readonly number: number })
              : Effect.void
        })
        const { failure } = yield* Follow.follow(processor, "s", small.strands)
        expect(failure).toBeUndefined()
        const end = small.at(BigInt(small.strands.length))
        const held = yield* cured
        expect(held.length).toBeGreaterThan(2)
        expect(held.every((documentId) => Number(documentId.slice(1)) % 2 === 0)).toBe(true)
        const others = (lists: ReadonlyMap<string, ReadonlyArray<number>>) =>
          Lists.sorted(new Map(Array.from(lists).filter(([documentId]) => !held.includes(documentId))))
        expect(others(yield* Lists.lists)).toEqual(others(end))
        isCured = true
        for (const documentId of held) {
          yield* Effect.provide(DeadLetters.retry(processor, key.source, documentId), sourced(small.strands))
        }
        expect(yield* cured).toEqual([])
        expect(yield* rows).toEqual(Lists.sorted(end))
      })))
  })

  it.scopedLive.each(Lists.kinds)(
    "what fails only when it is given again parks the operation that made it necessary, and leaves the rows: %s",
    (kind) =>
      kept(Effect.gen(function*() {
        let isCured = false
        const processor = Lists.make({
          history: "replay",
          kind,
          before: (_, { input }) =>
            Effect.flatMap(Replaying, (isReplay) =>
              isReplay && !isCured && (input as { readonly number: number }).number === 1
                ? new Lists.Refused({ number: 1 })
                : Effect.void)
        })
        const strands = [d("a", op(0), op(1), op(2)), d("b", op(0)), d("a", mark(3), op(4)), d("b", op(1), op(2))]
        yield* Follow.follow(processor, "s", strands.slice(0, 2))
        yield* Follow.follow(processor, "s", strands)
        expect(yield* rows).toEqual(["a: 0 1 2", "b: 0 1 2"])
        expect(yield* waiting).toEqual(["a 3 Refused", "a 4 Queued"])
        isCured = true
        // Without its source nothing can be given again, and the letter stays.
        yield* DeadLetters.retry(processor, key.source, "a")
        expect(yield* waiting).toEqual(["a 3 HistoryLost", "a 4 Queued"])
        yield* Effect.provide(DeadLetters.retry(processor, key.source, "a"), sourced(strands))
        expect(yield* rows).toEqual(["a: 0 1 4", "b: 0 1 2"])
        expect(yield* waiting).toEqual([])
      }))
  )

  it.scopedLive.each(["replay", "append"] as const)(
    "what a policy left out stays left out, also when the others are given again, and its skip counts: %s",
    (history) =>
      kept(Effect.gen(function*() {
        const told: Array<number> = []
        const processor = Lists.make({
          history,
          batch: { operations: 1 },
          before: (_, { input, skip }) => {
            const { number } = input as { readonly number: number }
            told.push(number)
            return number === 1 || skip === 2 ? new Lists.Refused({ number }) : Effect.void
          },
          policy: { Refused: Policy.skip }
        })
        const strands = [d("a", op(0), op(1), op(2), op(3), mark(4)), d("a", op(5), op(6), op(9, 2), mark(10))]
        const { failure, incidents } = yield* Follow.follow(processor, "s", strands)
        expect(failure).toBeUndefined()
        expect(incidents.map(({ _tag }) => _tag)).toEqual(["Skipped", "Skipped"])
        expect(told.filter((number) => number === 1)).toEqual([1])
        // 9 took 7 and 8 back, which never came, and by protocol 2 the mark 4 counts again; the mark 10 undoes 9.
        const { left } = leftOf([op(0), op(1), op(2), op(3), mark(4), op(5), op(6), op(9, 2), mark(10)])
        expect(yield* rows).toEqual([`a: ${left.filter((index) => index !== 1 && index !== 9).join(" ")}`])
      }))
  )

  it.scopedLive("what cannot be given again is laid at its cause's door at once, whatever the batch holds besides", () =>
    kept(Effect.gen(function*() {
      const processor = Lists.make({
        history: "replay",
        before: (_, { input }) =>
          Effect.flatMap(
            Replaying,
            (isReplay) => isReplay ? new Lists.Refused(input as { readonly number: number }) : Effect.void
          )
      })
      const others = Array.from({ length: 200 }, (_, i) => d(`b${i}`, op(0)))
      const strands = [d("a", op(0), op(1)), ...others.slice(0, 100), d("a", mark(2)), ...others.slice(100)]
      yield* Follow.follow(processor, "s", strands.slice(0, 1))
      const { transactions } = yield* Follow.follow(processor, "s", strands)
      // The batch is tried, and once more with what it needs; then before, the cause and its verdict, and after.
      expect(transactions).toBeLessThanOrEqual(7)
      expect(yield* waiting).toEqual(["a 2 Refused"])
    })))

  it.scopedLive("every operation is counted once, whether it is given, withheld, or given again", () =>
    kept(Effect.gen(function*() {
      const processor = Lists.make({ history: "replay", batch: { operations: 3 } })
      const { commits } = yield* Follow.follow(processor, "s", [
        d("a", op(0), op(1), mark(2)),
        d("a", op(3), mark(4), mark(5)),
        d("a", op(6))
      ])
      expect(commits.map(({ operations, replayed, superseded }) => [operations, superseded, replayed])).toEqual([
        // 0, and not 1 and the mark; of the next batch nothing is left, and of the first neither; then 6.
        [1, 2, 0],
        [0, 3, 0],
        [1, 0, 0]
      ])
      expect(yield* rows).toEqual(["a: 6"])
    })))

  it.scopedLive.each(["replay", "append"] as const)(
    "an undo of a hundred operations reaches back over all pages, past what was left out: %s",
    (history) =>
      kept(Effect.gen(function*() {
        const told: Array<number> = []
        const processor = Lists.make({
          history,
          batch: { operations: 10 },
          before: (_, { input, index }) =>
            index % 7 === 3 ? new Lists.Refused(input as { readonly number: number }) : Effect.void,
          retracting: ({ indexes }) => Effect.sync(() => told.push(...indexes)),
          policy: { Refused: Policy.skip }
        })
        const pushes = Array.from({ length: 120 }, (_, i) => op(i))
        const strands = [...pushes.map((each) => d("a", each)), d("a", op(120, 100))]
        yield* Follow.follow(processor, "s", strands)
        const left = [...Array.from({ length: 20 }, (_, i) => i), 120].filter((index) => index % 7 !== 3)
        expect(yield* rows).toEqual([`a: ${left.join(" ")}`])
        const lost = Array.from({ length: 100 }, (_, i) => 119 - i).filter((index) => index % 7 !== 3)
        expect(told).toEqual(history === "append" ? lost : [])
        // What was taken in is known as such, page by page, also after all of them were read.
        const again = yield* Follow.follow(processor, "s", [...strands, ...strands])
        expect(again.commits.reduce((sum, { redelivered }) => sum + redelivered, 0)).toBe(121)
      }))
  )

  it.scopedLive("where what is left out cannot be replayed either, it is left out with all that it takes back", () =>
    kept(Effect.gen(function*() {
      const processor = Lists.make({
        history: "replay",
        before: (_, { input }) =>
          Effect.flatMap(
            Replaying,
            (isReplay) => isReplay ? new Lists.Refused(input as { readonly number: number }) : Effect.void
          ),
        policy: { Refused: Policy.skip }
      })
      const strands = [d("a", op(0), op(1)), d("a", mark(2), op(3))]
      yield* Follow.follow(processor, "s", strands.slice(0, 1))
      const { failure } = yield* Follow.follow(processor, "s", strands)
      expect(failure).toBeUndefined()
      expect(yield* rows).toEqual(["a: 0 1 3"])
    })))

  it.scopedLive.each(["replay", "append"] as const)(
    "every operation is handled once and in order, what is handled again is told to be so: %s",
    (history) =>
      kept(Effect.gen(function*() {
        const log: Array<readonly [documentId: string, index: number, isReplay: boolean, number: number]> = []
        const processor = Lists.make({
          history,
          // A fold that fails is run again with statements, which would stand in the log twice.
          kind: "statements",
          batch: { operations: 5 },
          before: ({ documentId }, { index, input }) =>
            Effect.map(Replaying, (isReplay) =>
              log.push([documentId, index, isReplay, (input as { readonly number: number }).number]))
        })
        yield* Follow.follow(processor, "s", world.strands)
        const heads = new Map<string, number>()
        const once = new Set<string>()
        for (const [documentId, index, isReplay, number] of log) {
          if (isReplay) {
            continue
          }
          expect(once.has(`${documentId} ${index} ${number}`)).toBe(false)
          once.add(`${documentId} ${index} ${number}`)
          // Protocol 1 uses an index again.
          expect(index).toBeGreaterThanOrEqual(heads.get(documentId) ?? -1)
          heads.set(documentId, index)
        }
        expect(
          log.filter(([, , isReplay]) =>
            isReplay
          ).length
        ).toBeGreaterThan(history === "replay" ? 20 : 5)
        // What comes a second time is nothing new.
        log.length = 0
        yield* Follow.follow(processor, "s", [...world.strands, ...world.strands])
        expect(log).toEqual([])
      }))
  )

  it.scopedLive.each([1, 2] as const)(
    "a document goes by the protocol %i that its creation names, whatever delivered it",
    (named) =>
      kept(Effect.gen(function*() {
        const other = named === 1 ? 2 : 1
        const creation = Test.strand({
          documentId: "a",
          documentType: Lists.documentType,
          scope: "document",
          protocol: other,
          operations: [{ type: "CREATE_DOCUMENT", input: { protocolVersions: { "base-reducer": named } } }]
        })
        const pushes = [op(0), op(1), op(2), mark(3), mark(4)]
        const strands = [creation, ...pushes.map((each) => Lists.strand("a", [each], { protocol: other }))]
        yield* Follow.follow(Lists.make({ history: "replay", batch: { operations: 1 } }), "s", strands)
        expect(yield* rows).toEqual([named === 1 ? "a: 0 1" : "a: 0"])
      }))
  )

  it.scopedLive("nothing is taken back in the scope document", () =>
    kept(Effect.gen(function*() {
      const strands = [op(0), op(1), op(2, 2)].map((each) => Lists.strand("a", [each], { scope: "document" }))
      yield* Follow.follow(Lists.make({ history: "replay", batch: { operations: 1 } }), "s", strands)
      expect(yield* rows).toEqual(["a: 0 1 2"])
    })))

  it.scopedLive("a processor that began in the middle knows nothing of what was before, and survives it", () =>
    kept(Effect.gen(function*() {
      const strands = [d("a", op(0), op(1)), d("a", op(2), op(3)), d("a", op(4, 1), mark(5)), d("a", op(6, 5))]
      for (const [i, left] of ["a: 2", "a: 6"].entries()) {
        const processor = Lists.make({
          history: "replay",
          batch: { operations: 1 },
          startFrom: Position.make(1n)
        })
        yield* Follow.follow(processor, "s", strands.slice(0, 3 + i))
        expect(yield* rows).toEqual([left])
      }
    })))

  it.scopedLive.each(["replay", "append"] as const)(
    "a processor that begins to ask what survives is put right document by document: %s",
    (history) =>
      kept(Effect.gen(function*() {
        const strands = [
          d("a", op(0), op(1), mark(2), op(3)),
          d("b", op(0), op(1)),
          d("c", op(0), mark(1)),
          d("a", mark(4)),
          d("b", mark(2)),
          d("c", op(2))
        ]
        yield* Follow.follow(Lists.make({ history: "recorded" }), "s", strands.slice(0, 3))
        expect(yield* rows).toEqual(["a: 0 1 3", "b: 0 1", "c: 0"])
        yield* Follow.follow(Lists.make({ history, batch: { operations: 2 } }), "s", strands)
        expect(yield* rows).toEqual(["a: 0", "b: 0", "c: 2"])
        expect(yield* waiting).toEqual([])
      }))
  )

  it.scopedLive("what survives of a document that was followed without asking is lost once the source is, and it waits", () =>
    kept(
      Effect.gen(function*() {
        const journal = yield* Journal.make("s")
        yield* Follow.prepare(Lists.make({ history: "recorded" }))
        const catchUp = (processor: ReturnType<typeof Lists.make>) =>
          Effect.gen(function*() {
            const { head } = yield* journal.bounds
            yield* Subscription.commits(processor).pipe(
              Stream.takeUntil(({ position }) => position >= head),
              Stream.runDrain,
              Effect.provide(Layer.succeed(Source.Source, Journal.asSource(journal)))
            )
          })
        yield* journal.append([d("a", op(0), op(1))])
        yield* catchUp(Lists.make({ history: "recorded" }))
        yield* journal.truncate({ cursors: [yield* catchUpPosition(journal)] })
        yield* journal.append([d("b", op(0)), d("a", op(2)), d("b", op(1), mark(2)), d("a", op(3))])
        yield* catchUp(Lists.make({ history: "replay", wantsState: true }))
        expect(yield* rows).toEqual(["a: 0 1", "b: 0"])
        expect(yield* waiting).toEqual(["a 2 HistoryLost", "a 3 Queued"])
      }).pipe(Effect.scoped)
    ))

  it.scopedLive("a letter that is given up leaves the document its history", () =>
    kept(Effect.gen(function*() {
      const processor = Lists.make({
        history: "replay",
        before: (_, { index, input }) =>
          index === 0 ? new Lists.Refused(input as { readonly number: number }) : Effect.void
      })
      const strands = [d("a", op(0), op(1), op(2), mark(3), op(4))]
      yield* Follow.follow(processor, "s", strands)
      const [first] = yield* DeadLetters.list(key)
      yield* DeadLetters.drop(key, first!.ordinal)
      yield* Effect.provide(DeadLetters.retry(processor, key.source, "a"), sourced(strands))
      expect(yield* rows).toEqual(["a: 1 4"])
    })))

  it.scopedLive("documents that do not go into memory together are rewritten one after the other", () =>
    kept(Effect.gen(function*() {
      const ids = ["a", "b", "c", "e"]
      const large = (strand: Source.Unplaced) => ({ ...strand, bytes: 20 * 1024 * 1024 })
      const strands = [
        ...ids.map((id) => large(d(id, op(0), op(1)))),
        ...ids.map((id) => d(id, mark(2), op(3)))
      ]
      const processor = Lists.make({ history: "replay", batch: { bytes: 1_000 * 1024 * 1024 } })
      yield* Follow.follow(processor, "s", strands.slice(0, ids.length))
      const { commits } = yield* Follow.follow(processor, "s", strands)
      expect(yield* rows).toEqual(ids.map((id) => `${id}: 0 3`))
      expect(commits.length).toBeGreaterThan(1)
    })))

  it.scopedLive("a journal beside the tables is read between the transactions, and one cut short parks the document", () =>
    kept(
      Effect.gen(function*() {
        const journal = yield* Journal.make("s")
        const processor = Lists.make({ history: "replay", batch: { operations: 2 } })
        yield* Follow.prepare(processor)
        /** Follows up to the journal's head. */
        const catchUp = Effect.gen(function*() {
          const { head } = yield* journal.bounds
          yield* Subscription.commits(processor).pipe(
            Stream.takeUntil(({ position }) => position >= head),
            Stream.runDrain,
            Effect.provide(Layer.succeed(Source.Source, Journal.asSource(journal)))
          )
          return head
        })
        yield* journal.append([d("a", op(0), op(1), op(2)), d("b", op(0))])
        yield* journal.append([d("a", op(4, 2), mark(5)), d("b", op(1))])
        yield* catchUp
        expect(yield* rows).toEqual(["a: 0 1", "b: 0 1"])
        yield* journal.truncate({ cursors: [yield* catchUpPosition(journal)] })
        yield* journal.append([d("a", mark(6)), d("b", op(2))])
        yield* catchUp
        expect(yield* rows).toEqual(["a: 0 1", "b: 0 1 2"])
        expect(yield* waiting).toEqual(["a 6 HistoryLost"])
        const [letter] = yield* DeadLetters.list(key)
        expect(letter?.reason).toMatch(/truncated/)
      }).pipe(Effect.scoped)
    ))

  const Reshuffled = DocumentModel.make("powerhouse/document-model", {
    SET_MODEL_NAME: Schema.Struct({ name: Schema.String }),
    SET_MODEL_DESCRIPTION: Schema.Struct({ description: Schema.String })
  })

  it.scopedLive.each([1, 2, 3, 1_000])(
    "a real reshuffle with two undos leaves what the real document has, in batches of %i",
    (
      operations
    ) =>
      kept(Effect.gen(function*() {
        const given: Array<string> = []
        const note = ({ operation, type }: { readonly type: string; readonly operation: Operation }) =>
          Effect.sync(() => given.push(`${type} ${operation.index}`))
        const processor = Processor.make("lists", {
          namespace: "lists",
          history: "append",
          batch: { operations },
          handler: Processor.onOperations(Reshuffled, { SET_MODEL_NAME: note, SET_MODEL_DESCRIPTION: note }, {
            retract: ({ retraction: { by, indexes } }) =>
              Effect.sync(() => {
                given.push(`${by} takes back ${indexes.join(" ")}`)
              })
          })
        }).pipe(Processor.withPolicy(Policy.standard))
        yield* Follow.prepare(processor)
        yield* Stream.runDrain(Subscription.commits(processor)).pipe(
          Effect.provide(Ndjson.layer({ name: "s", files: [reshuffle] }))
        )
        expect(given).toEqual([
          "SET_MODEL_NAME 0",
          "SET_MODEL_NAME 1",
          "SET_MODEL_NAME 2",
          "3 takes back 2 1",
          "SET_MODEL_DESCRIPTION 3",
          "SET_MODEL_NAME 4",
          "SET_MODEL_DESCRIPTION 5",
          "SET_MODEL_NAME 6",
          "7 takes back 6",
          "8 takes back 5"
        ])
      }))
  )
})

/** What the rule leaves of operations by protocol 2. */
const leftOf = (operations: ReadonlyArray<ListOperation>) => ({
  left: Either.getOrThrow(surviving(operations.map(traceOf), 2)).map(({ index }) => index)
})

const catchUpPosition = (journal: Journal.Journal["Type"]) => Effect.map(journal.bounds, ({ head }) => head)

const reshuffle = fileURLToPath(new URL("../../examples/data/g3-reshuffle.ndjson.gz", import.meta.url))

describe("a processor that replays", () => {
  const handler = Processor.onBatch(() => Effect.void)
  const Bare = Table.make("bare", Schema.Struct({ id: Schema.String }), { key: ["id"] })

  it("has to name tables that know the document of a row", () => {
    const make = (tables: ReadonlyArray<Processor.Owned>) => () =>
      Processor.make("p", { namespace: "n", history: "replay", tables, handler })
    expect(make([])).toThrow(/p replays documents and has to name its tables/)
    expect(make([Lists.Items, Bare])).toThrow(/its table bare does not name the column/)
    expect(make([Lists.Items, Lists.Lengths])).not.toThrow()
  })

  it("and one that appends has to have something that undoes", () => {
    const Model = DocumentModel.make("t", { PUSH: Schema.Struct({}) })
    const forward = Processor.onOperations(Model, { PUSH: () => Effect.void })
    const make = (each: Processor.Handler<never, never>) => () =>
      Processor.make("p", { namespace: "n", history: "append", handler: each })
    expect(make(forward as unknown as typeof handler)).toThrow(/its handler has no `retract`/)
    expect(make(Processor.merge(handler, forward as unknown as typeof handler))).toThrow(/no `retract`/)
    expect(make(handler)).not.toThrow()
  })
})
