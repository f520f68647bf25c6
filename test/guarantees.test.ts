/**
 * What is promised, each as a test of the same words, on both databases.
 */
import * as SqlClient from "@effect/sql/SqlClient"
import { describe, expect, it } from "@effect/vitest"
import * as Context from "effect/Context"
import * as Deferred from "effect/Deferred"
import * as Effect from "effect/Effect"
import * as FastCheck from "effect/FastCheck"
import * as Fiber from "effect/Fiber"
import * as Layer from "effect/Layer"
import * as Logger from "effect/Logger"
import * as Schedule from "effect/Schedule"
import * as Stream from "effect/Stream"
import { execFileSync, spawn } from "node:child_process"
import { mkdtempSync, readdirSync, rmSync, statSync } from "node:fs"
import { tmpdir } from "node:os"
import { join } from "node:path"
import type * as Postgres from "../layers/Postgres.js"
import type { Operation } from "../src/domain/Operation.js"
import * as Source from "../src/ingest/Source.js"
import * as Policy from "../src/process/Policy.js"
import * as Reactor from "../src/Reactor.js"
import { Halted } from "../src/store/Commit.js"
import * as Cursors from "../src/store/Cursors.js"
import * as DeadLetters from "../src/store/DeadLetters.js"
import type { Incident } from "../src/store/Incident.js"
import * as Transaction from "../src/store/Transaction.js"
import * as Subscription from "../src/Subscription.js"
import * as Follow from "./guarantees/Follow.js"
import * as Ledger from "./guarantees/Ledger.js"
import * as Sweep from "./guarantees/Sweep.js"
import * as World from "./guarantees/World.js"
import * as Database from "./support/Database.js"
import * as PostgresServer from "./support/PostgresServer.js"
import * as Proxy from "./support/Proxy.js"
import * as Store from "./support/Store.js"

type Fresh = typeof Database.dialects[number]["fresh"]

/** What is parked and waited for is told by incidents here, and need not be logged as well. */
const silent = Logger.remove(Logger.defaultLogger)

/** A client of its own on a database. */
const storeOf = (database: Database.Database) => Layer.merge(Store.layerOf(database, Ledger.namespace), silent)

/** Runs on a client of its own on an empty database. */
const onFresh = (fresh: Fresh) => <A, E>(effect: Effect.Effect<A, E, SqlClient.SqlClient>) =>
  Effect.flatMap(fresh, (database) => Effect.provide(effect, storeOf(database)))

const letters = (key: Cursors.Key) => DeadLetters.list(key)

describe.each(Database.dialects)("on $dialect", ({ dialect, fresh }) => {
  const size = { documents: 4, operations: 5 }

  describe("Once. Killed at any instant, nothing is lost and nothing applied twice", () => {
    it.scopedLive("the world of these tests has every kind of delivery in it", () =>
      onFresh(fresh)(Effect.gen(function*() {
        const world = World.make(7, size)
        const { commits } = yield* Follow.follow(World.processor(world), "world", World.strands(world))
        const sum = (count: "parked" | "queued" | "redelivered" | "released") =>
          commits.reduce((total, commit) => total + commit[count], 0)
        expect(commits.length).toBeGreaterThan(4)
        expect(sum("parked")).toBeGreaterThanOrEqual(2)
        expect(sum("queued")).toBeGreaterThanOrEqual(1)
        expect(sum("redelivered")).toBeGreaterThanOrEqual(1)
        expect(sum("released")).toBeGreaterThanOrEqual(1)
        expect(yield* Ledger.balances()).toEqual(World.balances(world))
        expect(yield* World.violations(world)).toEqual([])
      })))

    it.scopedLive.each([
      { writes: "statement", seed: 7, killsMin: 200 },
      { writes: "statement of what tables hold back", seed: 8, killsMin: 150 }
    ])("killed at each $writes", ({ killsMin, seed }) =>
      Effect.gen(function*() {
        const { kills, violations } = yield* Sweep.everyStatement({
          dialect,
          seed,
          size,
          program: "reactor",
          moments: dialect === "sqlite" ? ["before", "after"] : ["before", "sent"]
        })
        expect(violations).toEqual([])
        expect(kills).toBeGreaterThan(killsMin)
      }))

    it.scopedLive.runIf(dialect === "sqlite")(
      "killed at each message to the thread that commits",
      () =>
        Effect.gen(function*() {
          const { kills, violations } = yield* Sweep.everyStatement({
            dialect,
            seed: 8,
            size,
            program: "reactor",
            errands: true,
            moments: ["sent", "after"]
          })
          expect(violations).toEqual([])
          expect(kills).toBeGreaterThan(100)
        })
    )

    it.scopedLive("killed at each statement of four partitions, and resumed as one", () =>
      Effect.gen(function*() {
        const { kills, violations } = yield* Sweep.everyStatement({
          dialect,
          seed: 9,
          size: { documents: 6, operations: 3 },
          program: "reactor",
          partitions: 4,
          moments: dialect === "sqlite" ? ["after"] : ["sent"]
        })
        expect(violations).toEqual([])
        expect(kills).toBeGreaterThan(100)
      }))

    it.scopedLive("killed at times nobody chose, again and again", () =>
      Effect.gen(function*() {
        const { kills, violations } = yield* Sweep.anyTime({
          dialect,
          seed: 100,
          size: { documents: 12, operations: 40 },
          worlds: 4,
          kills: 10
        })
        expect(violations).toEqual([])
        expect(kills).toBeGreaterThanOrEqual(10)
      }))

    it.scopedLive.each(["cursor-after", "cursor-before"] as const)(
      "control: a loop that saves its cursor beside the transaction (%s) is found out",
      (program) =>
        Effect.gen(function*() {
          const { kills, violations } = yield* Sweep.everyStatement({
            dialect,
            seed: 7,
            size: { documents: 2, operations: 2 },
            program,
            moments: ["before"]
          })
          expect(kills).toBeGreaterThan(10)
          expect(violations.length).toBeGreaterThan(0)
        })
    )
  })

  describe("One bad operation costs one document. It is parked with its cause, its document queues behind it in order, the others flow on", () => {
    const documents = ["a", "b", "c"].map((documentId) => Ledger.history(documentId, 4))
    /** Operations 0 of all documents, then 1 of all, and so on. */
    const interleaved = documents[0]!.flatMap((_, i) => documents.map((ops) => ops[i]!))

    interface Way {
      readonly cause: string
      /** What the handler meets, as long as nobody has put it right. */
      readonly before?: Ledger.Before
      /** What is wrong with the operation itself. */
      readonly change?: (operation: Operation) => Operation
      readonly kinds: ReadonlyArray<Ledger.Kind>
    }
    const ways: { readonly [name: string]: Way } = {
      "the handler's own failure": {
        cause: "Refused",
        before: (_, { index }) => new Ledger.Refused({ index }),
        kinds: Ledger.kinds
      },
      "a constraint of the tables": {
        cause: "SqlError",
        before: ({ documentId }) =>
          Effect.flatMap(
            SqlClient.SqlClient,
            (sql) =>
              sql`INSERT INTO ledger_entry (document_id, scope, branch, n, op_index, op_skip, amount)
                VALUES (${documentId}, '', '', 0, 0, 0, -1)`
          ),
        kinds: Ledger.kinds
      },
      "a flaw": {
        cause: "MalformedOperation",
        change: (operation) => ({ ...operation, flaw: "cannot be trusted" }),
        kinds: Ledger.kinds
      },
      "an input that does not fit the model": {
        cause: "MalformedOperation",
        change: (operation) => ({ ...operation, input: { amount: "many" } }),
        kinds: ["operations", "tables"]
      },
      "an operation the model does not know": {
        cause: "UnknownOperation",
        change: (operation) => ({ ...operation, type: "SUBTRACT" as Operation["type"] }),
        kinds: ["operations", "tables"]
      }
    }
    const cases = Object.entries(ways).flatMap(([name, way]) => way.kinds.map((kind) => ({ name, kind, way })))

    it.scopedLive.each(cases)(
      "$name at every position of a batch, with a handler of $kind",
      ({ kind, way }) =>
        onFresh(fresh)(Effect.forEach(interleaved, (bad, position) =>
          Effect.gen(function*() {
            const own = (op: Ledger.Op) => ({ ...op, documentId: `${position}/${op.documentId}` })
            const isBad = (documentId: string, index: number) =>
              documentId === own(bad).documentId && index === bad.index
            let isBroken = true
            const processor = Ledger.make({
              kind,
              before: (strand, operation) =>
                isBroken && way.before !== undefined && isBad(strand.documentId, operation.index)
                  ? way.before(strand, operation)
                  : Effect.void
            })
            const strands = interleaved.map((op) =>
              Ledger.strand(
                [own(op)],
                (operation) =>
                  isBad(own(op).documentId, operation.index) ? way.change?.(operation) ?? operation : operation
              )
            )
            const key = Follow.keyOf(processor, `source-${position}`)
            const { commits, failure, incidents } = yield* Follow.follow(processor, key.source, strands)
            expect(failure).toBeUndefined()

            const applied = (op: Ledger.Op) => op.documentId !== bad.documentId || op.index < bad.index
            expect(yield* Ledger.balances(`${position}/`)).toEqual(Ledger.fold(interleaved.filter(applied).map(own)))
            const waiting = yield* letters(key)
            expect(waiting.map(({ operation, strand }) => [strand.documentId, operation.index])).toEqual(
              documents.flat().filter((op) => !applied(op)).map((op) => [own(op).documentId, op.index])
            )
            expect(waiting.map(({ cause }) => cause)).toEqual([way.cause, ...waiting.slice(1).map(() => "Queued")])
            expect(incidents.map((incident) => incident._tag)).toEqual(["Parked"])
            expect(commits.at(-1)?.position).toBe(12n)

            // What can be put right outside the operation is; what cannot is given up.
            isBroken = false
            if (way.change !== undefined) yield* DeadLetters.drop(key, waiting[0]!.ordinal)
            const rest = waiting.slice(way.change === undefined ? 0 : 1)
            const retried = yield* DeadLetters.retry(processor, key.source, own(bad).documentId)
            expect(retried).toEqual({ released: rest.length, waiting: 0, incidents: [] })
            const survivors = interleaved.filter((op) => way.change === undefined || op !== bad).map(own)
            expect(yield* Ledger.balances(`${position}/`)).toEqual(Ledger.fold(survivors))
            expect(yield* letters(key)).toEqual([])
            expect((yield* Cursors.peek(key))?.parked).toBe(0)
          })))
    )

    it.scopedLive.each(
      Ledger.kinds.flatMap((kind) => [1, 50, 100].map((percent) => ({ kind, percent })))
    )("$percent % bad, with a handler of $kind", ({ kind, percent }) =>
      onFresh(fresh)(Effect.gen(function*() {
        const histories = Array.from({ length: 50 }, (_, d) => Ledger.history(`d${d}`, 4))
        const all = histories[0]!.flatMap((_, i) => histories.map((ops) => ops[i]!))
        const isBad = (op: { readonly documentId: string; readonly index: number }) =>
          (Ledger.amountOf(op.documentId, op.index) * 7) % 100 < percent
        let isBroken = true
        const processor = Ledger.make({
          kind,
          before: ({ documentId }, { index }) =>
            isBroken && isBad({ documentId, index }) ? new Ledger.Refused({ index }) : Effect.void
        })
        const key = Follow.keyOf(processor, "many")
        const { failure } = yield* Follow.follow(processor, "many", all.map((op) => Ledger.strand([op])))
        expect(failure).toBeUndefined()
        const good = histories.map((ops) => {
          const first = ops.findIndex(isBad)
          return first < 0 ? ops : ops.slice(0, first)
        })
        expect(good.flat().length).toBeLessThan(200)
        expect(yield* Ledger.balances()).toEqual(Ledger.fold(good.flat()))
        expect(yield* letters(key)).toHaveLength(200 - good.flat().length)
        isBroken = false
        for (const ops of histories) yield* DeadLetters.retry(processor, key.source, ops[0]!.documentId)
        expect(yield* Ledger.balances()).toEqual(Ledger.fold(all))
        expect((yield* Cursors.peek(key))?.parked).toBe(0)
      })))

    it.scopedLive(
      "one in a thousand costs at most 2 log2 n + 3 transactions in a batch, and 5 where the handler tells which",
      () =>
        onFresh(fresh)(Effect.gen(function*() {
          const ops = Array.from({ length: 1_000 }, (_, d) => Ledger.history(`d${d}`, 1)).flat()
          for (const bad of [0, 500, 999]) {
            for (const kind of Ledger.kinds) {
              const own = ops.map((op) => ({ ...op, documentId: `${bad}-${kind}-${op.documentId}` }))
              const { commits, transactions } = yield* Follow.follow(
                Ledger.make({
                  kind,
                  before: ({ documentId }, { index }) =>
                    documentId === own[bad]!.documentId ? new Ledger.Refused({ index }) : Effect.void
                }),
                `${bad}-${kind}`,
                own.map((op) => Ledger.strand([op]))
              )
              expect(commits.at(-1)).toMatchObject({ position: 1_000n, waiting: 1 })
              expect(transactions).toBeLessThanOrEqual(
                /operations|tables/.test(kind) ? 5 : 2 * Math.ceil(Math.log2(1_000)) + 3
              )
            }
          }
        }))
    )

    it.scopedLive("a policy of skip leaves the operation out and goes on with its document", () =>
      onFresh(fresh)(Effect.gen(function*() {
        for (const kind of Ledger.kinds) {
          const own = interleaved.map((op) => ({ ...op, documentId: `${kind}-${op.documentId}` }))
          const bad = own[4]!
          const processor = Ledger.make({
            kind,
            before: ({ documentId }, { index }) =>
              documentId === bad.documentId && index === bad.index ? new Ledger.Refused({ index }) : Effect.void,
            policy: { Refused: Policy.skip }
          })
          const { incidents } = yield* Follow.follow(processor, kind, own.map((op) => Ledger.strand([op])))
          expect(incidents).toMatchObject([{ _tag: "Skipped", subject: { documentId: bad.documentId, index: 1 } }])
          expect(yield* Ledger.balances(kind)).toEqual(Ledger.fold(own.filter((op) => op !== bad)))
          expect(yield* letters(Follow.keyOf(processor, kind))).toEqual([])
        }
      })))

    it.scopedLive(
      "a policy of halt leaves the cursor before the operation, and what came before it applied",
      () =>
        onFresh(fresh)(Effect.gen(function*() {
          for (const kind of Ledger.kinds) {
            for (const [place] of interleaved.entries()) {
              const own = interleaved.map((op) => ({ ...op, documentId: `${kind}-${place}-${op.documentId}` }))
              const bad = own[place]!
              let isBroken = true
              const processor = Ledger.make({
                kind,
                before: ({ documentId }, { index }) =>
                  isBroken && documentId === bad.documentId && index === bad.index
                    ? new Ledger.Refused({ index })
                    : Effect.void,
                policy: { Refused: Policy.halt }
              })
              const key = Follow.keyOf(processor, `${kind}-${place}`)
              const strands = own.map((op) => Ledger.strand([op]))
              const { failure } = yield* Follow.follow(processor, key.source, strands)
              expect(failure).toBeInstanceOf(Halted)
              expect(failure).toMatchObject({ at: { documentId: bad.documentId, index: bad.index } })
              expect((yield* Cursors.peek(key))?.position).toBe(BigInt(place))
              expect(yield* Ledger.balances(`${kind}-${place}-`)).toEqual(Ledger.fold(own.slice(0, place)))
              isBroken = false
              yield* Follow.follow(processor, key.source, strands)
              expect(yield* Ledger.balances(`${kind}-${place}-`)).toEqual(Ledger.fold(own))
            }
          }
        }))
    )

    it.scopedLive("a policy of retry tries as often as its schedule says, then does what it says otherwise", () =>
      onFresh(fresh)(Effect.gen(function*() {
        for (const kind of Ledger.kinds) {
          for (
            const [name, otherwise, failures] of [
              ["mended", Policy.halt, 2],
              ["parked", Policy.park, 9],
              ["skipped", Policy.skip, 9],
              ["halted", Policy.halt, 9]
            ] as const
          ) {
            const own = interleaved.map((op) => ({ ...op, documentId: `${kind}-${name}-${op.documentId}` }))
            const bad = own[4]!
            let left: number = failures
            let alone = 0
            const processor = Ledger.make({
              kind,
              before: ({ documentId }, { index }) =>
                Effect.suspend(() => {
                  if (documentId !== bad.documentId || index !== bad.index) return Effect.void
                  if (left-- <= 0) return Effect.void
                  alone++
                  return new Ledger.Refused({ index })
                }),
              policy: { Refused: Policy.retry(Schedule.recurs(3), { otherwise }) }
            })
            const followed = yield* Follow.follow(processor, `${kind}-${name}`, own.map((op) => Ledger.strand([op])))
            const told = followed.incidents.map((incident) => incident._tag)
            const retries = told.filter((tag) => tag === "Retrying").length
            if (name === "mended") {
              expect(retries).toBeLessThanOrEqual(2)
              expect(yield* Ledger.balances(`${kind}-${name}`)).toEqual(Ledger.fold(own))
            } else {
              expect(retries).toBe(3)
              expect(alone).toBeGreaterThanOrEqual(4)
              expect(told.at(-1)).toBe({ parked: "Parked", skipped: "Skipped", halted: "Retrying" }[name])
              expect(followed.failure?._tag).toBe(name === "halted" ? "Halted" : undefined)
            }
          }
        }
      })))

    it.scopedLive("control: a handler that does not fail parks nothing", () =>
      onFresh(fresh)(Effect.gen(function*() {
        const processor = Ledger.make()
        const { commits, transactions } = yield* Follow.follow(
          processor,
          "s",
          interleaved.map((op) => Ledger.strand([op]))
        )
        expect([commits.length, transactions]).toEqual([1, 1])
        expect(yield* letters(Follow.keyOf(processor, "s"))).toEqual([])
      })))
  })

  describe("In order. A document's operations are applied in index order, each once", () => {
    /**
     * A document of several streams. A skip takes back the indexes before its own: some of those are delivered, and may
     * come before it, too late, or not at all.
     */
    const shapes = FastCheck.array(
      FastCheck.array(FastCheck.array(FastCheck.nat(3), { minLength: 1, maxLength: 8 }), {
        minLength: 1,
        maxLength: 3
      }),
      { minLength: 1, maxLength: 3 }
    )
    const script = FastCheck.record({
      documents: shapes,
      withSkips: FastCheck.boolean(),
      shuffle: FastCheck.infiniteStream(FastCheck.nat(1_000)),
      duplicates: FastCheck.array(FastCheck.nat(1_000), { maxLength: 6 }),
      missing: FastCheck.array(FastCheck.nat(1_000), { maxLength: 3 }),
      operations: FastCheck.integer({ min: 1, max: 7 }),
      kind: FastCheck.constantFrom(...Ledger.kinds)
    })
    type Script = typeof script extends FastCheck.Arbitrary<infer A> ? A : never

    const streams = [["global", "main"], ["document", "main"], ["global", "draft"]] as const

    /** Every operation that ever was, stream by stream, in order. */
    const truthOf = (run: string, { documents, withSkips }: Script): ReadonlyArray<ReadonlyArray<Ledger.Op>> =>
      documents.flatMap((document, d) =>
        document.map((skips, s) =>
          skips.map((skip, index): Ledger.Op => ({
            documentId: `${run}/${d}`,
            scope: streams[s]![0],
            branch: streams[s]![1],
            index,
            skip: withSkips ? Math.min(skip, index) : 0,
            amount: Ledger.amountOf(`${d}-${s}`, index)
          }))
        )
      )

    /** The operations in some order, some of them twice, in strands of neighbours that belong together. */
    const deliveryOf = (ops: ReadonlyArray<Ledger.Op>, { duplicates, shuffle }: Script) => {
      const pool = [...ops, ...duplicates.flatMap((n) => ops.length === 0 ? [] : [ops[n % ops.length]!])]
      const order = shuffle[Symbol.iterator]()
      const shuffled = pool
        .map((op) => ({ op, at: order.next().value as number }))
        .sort((a, b) => a.at - b.at)
        .map(({ op }) => op)
      const strands: Array<Array<Ledger.Op>> = []
      for (const op of shuffled) {
        const last = strands.at(-1)
        if (last !== undefined && streamOf(last[0]!) === streamOf(op) && (order.next().value as number) % 2 === 0) {
          last.push(op)
        } else strands.push([op])
      }
      return strands
    }

    const streamOf = (op: Ledger.Op) => `${op.documentId} ${op.scope} ${op.branch}`

    /** Index by index, as far as nothing is missing. */
    const contiguous = (ops: ReadonlyArray<Ledger.Op>): ReadonlyArray<Ledger.Op> => {
      let head = -1
      return ops.filter((op) => {
        if (op.index - (op.skip ?? 0) > head + 1) return false
        head = op.index
        return true
      })
    }

    const isSupersededIn = (ops: ReadonlyArray<Ledger.Op>, op: Ledger.Op) =>
      ops.some((later) => later.index > op.index && later.index - (later.skip ?? 0) <= op.index)

    /**
     * The rule. What is applied to a stream is a subsequence of its truth, each once, and it has in it every operation
     * that no later one took back. One that was taken back is applied if it came in time, and dropped if it came late.
     * So a stream without skips is applied exactly.
     */
    const expectInOrder = (truth: ReadonlyArray<Ledger.Op>, applied: ReadonlyArray<Ledger.Entry>) => {
      const indexes = applied.map((entry) => entry.index)
      expect(indexes).toEqual(Array.from(new Set(indexes)).sort((a, b) => a - b))
      const needed = truth.filter((op) => !isSupersededIn(truth, op)).map((op) => op.index)
      expect(indexes).toEqual(expect.arrayContaining(needed))
      for (const entry of applied) {
        const op = truth[entry.index]!
        expect([entry.skip, entry.amount]).toEqual([op.skip, op.amount])
        expect(entry.index - entry.skip).toBeLessThanOrEqual((indexes[indexes.indexOf(entry.index) - 1] ?? -1) + 1)
      }
    }

    const holds = (predicate: (run: string, script: Script) => Effect.Effect<void, unknown, SqlClient.SqlClient>) =>
      onFresh(fresh)(Effect.flatMap(Effect.runtime<SqlClient.SqlClient>(), (runtime) => {
        let runs = 0
        return Effect.promise(() =>
          FastCheck.assert(
            FastCheck.asyncProperty(script, (some) =>
              Effect.runPromise(Effect.provide(predicate(`run-${++runs}`, some), runtime))),
            { numRuns: dialect === "sqlite" ? 200 : 60 }
          )
        )
      }))

    it.scopedLive(
      "delivered shuffled, twice and late: once everything has come, nothing waits and every stream is right",
      () =>
        holds((run, some) =>
          Effect.gen(function*() {
            const truth = truthOf(run, some)
            const processor = Ledger.make({ kind: some.kind, batch: { operations: some.operations } })
            const delivery = deliveryOf(truth.flat(), some)
            const { failure } = yield* Follow.follow(processor, run, delivery.map((ops) => Ledger.strand(ops)))
            expect(failure).toBeUndefined()
            expect(yield* letters(Follow.keyOf(processor, run))).toEqual([])
            expect((yield* Cursors.peek(Follow.keyOf(processor, run)))?.parked).toBe(0)
            const entries = yield* Ledger.entries(`${run}/`)
            for (const ops of truth) {
              const applied = entries.filter((entry) => streamOf(entry) === streamOf(ops[0]!))
              expectInOrder(ops, applied)
              if (!some.withSkips) expect(applied.map((entry) => entry.index)).toEqual(ops.map((op) => op.index))
            }
            expect(yield* Ledger.balances(`${run}/`)).toEqual(Ledger.fold(entries))
          })
        )
    )

    it.scopedLive(
      "delivered in order, with repetitions: every operation is applied, those too that are taken back later",
      () =>
        holds((run, some) =>
          Effect.gen(function*() {
            const truth = truthOf(run, some)
            const delivery = truth.flatMap((ops) =>
              ops.flatMap((op, i) => i % 2 === 0 ? [[op]] : [[op], [ops[i - 1]!, op]])
            )
            const processor = Ledger.make({ kind: some.kind, batch: { operations: some.operations } })
            yield* Follow.follow(processor, run, delivery.map((ops) => Ledger.strand(ops)))
            expect(yield* Ledger.balances(`${run}/`)).toEqual(Ledger.fold(truth.flat()))
          })
        )
    )

    it.scopedLive(
      "what never comes holds exactly its documents, named, and lets them go when it comes after all",
      () =>
        holds((run, some) =>
          Effect.gen(function*() {
            const truth = truthOf(run, some)
            const all = truth.flat()
            const missing = new Set(some.missing.map((n) => all[n % all.length]!))
            const come = truth.map((ops) => ops.filter((op) => !missing.has(op)))
            const held = new Set(
              come.filter((ops) => contiguous(ops).length < ops.filter((op) => !isLost(ops, op)).length)
                .map((ops) => ops[0]!.documentId)
            )
            const delivery = deliveryOf(come.flat(), some)
            const processor = Ledger.make({ kind: some.kind, batch: { operations: some.operations } })
            const key = Follow.keyOf(processor, run)
            yield* Follow.follow(processor, run, delivery.map((ops) => Ledger.strand(ops)))
            const waiting = yield* letters(key)
            expect(new Set(waiting.map(({ strand }) => strand.documentId))).toEqual(held)
            for (const documentId of held) {
              const first = waiting.find(({ cause, strand }) =>
                strand.documentId === documentId && cause === "StrandGap"
              )
              expect(first?.reason).toMatch(/index(es)? \d+ .*missing before it/)
            }
            const before = yield* Ledger.entries(`${run}/`)
            for (const ops of come) {
              if (ops.length === 0) continue
              const applied = before.filter((entry) => streamOf(entry) === streamOf(ops[0]!)).map((entry) =>
                entry.index
              )
              const reachable = new Set(contiguous(ops).map((op) => op.index))
              expect(applied.filter((index) => !reachable.has(index))).toEqual([])
            }
            expect((yield* Cursors.peek(key))?.parked).toBe(waiting.length)

            const late = Array.from(missing, (op) => [op])
            yield* Follow.follow(processor, run, [...delivery, ...late].map((ops) => Ledger.strand(ops)))
            expect(yield* letters(key)).toEqual([])
            const entries = yield* Ledger.entries(`${run}/`)
            for (const ops of truth) {
              expectInOrder(
                ops,
                entries.filter((entry) => streamOf(entry) === streamOf(ops[0]!))
              )
            }
            expect(yield* Ledger.balances(`${run}/`)).toEqual(Ledger.fold(entries))
          })
        )
    )

    /** Whether an operation lies behind one that was reached without it: such a one needs no gap to be closed. */
    const isLost = (ops: ReadonlyArray<Ledger.Op>, op: Ledger.Op) =>
      !contiguous(ops).includes(op) && contiguous(ops).some((other) => other.index > op.index)

    it.scopedLive("control: a processor that takes operations as they come is found out", () =>
      onFresh(fresh)(Effect.gen(function*() {
        yield* Follow.prepare(Ledger.make())
        const ops = Ledger.history("naive", 3)
        const strands = [Ledger.strand([ops[1]!]), Ledger.strand([ops[0]!]), Ledger.strand([ops[2]!])]
        for (const strand of strands) yield* Ledger.apply({ ...strand, position: 1n } as never, strand.operations[0]!)
        expect(yield* Ledger.balances()).not.toEqual(Ledger.fold(ops))
      })))
  })

  describe("Fenced. A reactor that lost its subscription cannot write", () => {
    it.scopedLive(
      "a second reactor claims the subscription, the first is refused and says so, nothing is applied twice",
      () =>
        Effect.gen(function*() {
          const database = yield* fresh
          const ops = Ledger.history("fenced", 40)
          const opened = yield* Deferred.make<void>()
          const taken = yield* Deferred.make<void>()
          let applied = 0
          const strands = ops.map((op) => Ledger.strand([op]))
          const first = Ledger.make({
            batch: { operations: 4 },
            before: () =>
              ++applied < 10 ? Effect.void : Effect.zipRight(Deferred.succeed(opened, undefined), Effect.void)
          })
          // The first pauses between two commits, as a stopped process does, until the second is through.
          const slow = Layer.map(Ledger.source("s", strands), (context) => {
            const source = Context.get(context, Source.Source)
            return Context.make(Source.Source, {
              ...source,
              strands: (after) =>
                source.strands(after).pipe(
                  Stream.rechunk(1),
                  Stream.tap((strand) => strand.position === 20n ? Deferred.await(taken) : Effect.void)
                )
            })
          })
          const one = yield* Effect.fork(
            Reactor.run(first).pipe(Effect.provide(Layer.merge(slow, storeOf(database))))
          )
          yield* Deferred.await(opened)
          const second = yield* Reactor.run(Ledger.make()).pipe(
            Effect.provide(Layer.merge(Ledger.source("s", strands), storeOf(database)))
          )
          yield* Deferred.succeed(taken, undefined)
          const [fenced] = yield* Fiber.join(one)
          expect(second).toMatchObject([{ phase: "ended", position: 40n }])
          expect(fenced).toMatchObject({ phase: "halted", failure: { _tag: "Fenced", epoch: 1n, owner: 2n } })
          yield* Effect.gen(function*() {
            expect(yield* Ledger.balances()).toEqual(Ledger.fold(ops))
            expect((yield* Ledger.entries()).map((entry) => entry.index)).toEqual(ops.map((op) => op.index))
          }).pipe(Effect.provide(storeOf(database)))
        })
    )

    it.scopedLive(
      "reactors that race for one subscription apply everything once between them",
      () =>
        Effect.gen(function*() {
          const database = yield* fresh
          const race = (round: number) =>
            Effect.gen(function*() {
              const ops = ["a", "b", "c"].flatMap((d) => Ledger.history(`${round}-${d}`, 8))
              const strands = ops.map((op) => Ledger.strand([op]))
              const outcomes = yield* Effect.all(
                Array.from({ length: 3 }, () =>
                  Reactor.run(Ledger.make({ batch: { operations: 2 } })).pipe(
                    Effect.provide(Layer.merge(Ledger.source(`round-${round}`, strands), storeOf(database)))
                  )),
                { concurrency: "unbounded" }
              )
              for (const [outcome] of outcomes) {
                expect(
                  outcome?.phase === "ended" || (outcome?.failure as { readonly _tag?: string })?._tag === "Fenced"
                ).toBe(true)
              }
              expect(outcomes.some(([outcome]) => outcome?.phase === "ended")).toBe(true)
              yield* Effect.gen(function*() {
                expect(yield* Ledger.balances(`${round}-`)).toEqual(Ledger.fold(ops))
                expect(yield* DeadLetters.list(Follow.keyOf(Ledger.make(), `round-${round}`))).toEqual([])
              }).pipe(Effect.provide(storeOf(database)))
            })
          for (let round = 0; round < 8; round++) yield* race(round)
        })
    )
  })

  describe("Released. Disconnect leaves no connection, lock, timer, fiber or temp table", () => {
    it.scopedLive(
      "after hundreds of connections, ended at rest and in the middle of a commit, everything is as it was",
      () =>
        Effect.gen(function*() {
          const database = yield* fresh
          let open = 0
          let cycles = 0
          const cycle = (ending: "at rest" | "in a commit" | "while opening") =>
            Effect.gen(function*() {
              cycles++
              const inside = yield* Deferred.make<void>()
              const processor = Ledger.make({
                opened: Effect.acquireRelease(Effect.sync(() => void open++), () => Effect.sync(() => void open--)),
                before: () =>
                  ending === "in a commit"
                    ? Effect.zipRight(Deferred.succeed(inside, undefined), Effect.never)
                    : Effect.void
              })
              const live = Layer.map(
                Ledger.source(`s${cycles}`, [Ledger.strand(Ledger.history(`d${cycles}`, 2))]),
                (context) => {
                  const source = Context.get(context, Source.Source)
                  return Context.make(Source.Source, {
                    ...source,
                    strands: (after) => Stream.concat(source.strands(after), Stream.never)
                  })
                }
              )
              const fiber = yield* Effect.gen(function*() {
                const reactor = yield* Reactor.Reactor
                yield* Stream.runHead(reactor.commits)
                yield* Deferred.succeed(inside, undefined)
                return yield* Effect.never
              }).pipe(
                Effect.provide(Layer.provide(Reactor.layer(processor), Layer.merge(live, storeOf(database)))),
                Effect.fork
              )
              if (ending !== "while opening") yield* Deferred.await(inside)
              yield* Fiber.interrupt(fiber)
            })
          const endings = ["at rest", "in a commit", "while opening"] as const
          const holdings = Effect.gen(function*() {
            // What ends does so on later turns of the event loop; a bounded wait for it is no time-out of ours.
            yield* Effect.sleep("1500 millis")
            const server = yield* sessions(database)
            return {
              server,
              open,
              resources: counted(process.getActiveResourcesInfo()),
              descriptors: readdirSync("/proc/self/fd").length,
              fibers: Fiber.unsafeRoots().length
            }
          })
          for (const ending of endings) yield* cycle(ending)
          const before = yield* holdings
          for (let i = 0; i < (dialect === "sqlite" ? 300 : 150); i++) yield* cycle(endings[i % 3]!)
          expect(yield* holdings).toEqual(before)
          expect(before.open).toBe(0)
          expect(before.server).toEqual(dialect === "sqlite" ? [] : [{ sessions: 0, locks: 0, temporary: 0 }])
        })
    )

    it.scopedLive("control: one connection that is left open is seen", () =>
      Effect.gen(function*() {
        const database = yield* fresh
        yield* Effect.provide(Effect.flatMap(SqlClient.SqlClient, (sql) => sql`SELECT 1`), storeOf(database))
        const before = readdirSync("/proc/self/fd").length
        yield* Layer.build(storeOf(database))
        expect(readdirSync("/proc/self/fd").length).toBeGreaterThan(before)
      }))
  })
})

/** Our sessions, locks and temporary tables in the server's eyes. */
const sessions = (database: Database.Database) =>
  database.dialect === "sqlite" ? Effect.succeed([]) : Effect.gen(function*() {
    const sql = yield* SqlClient.SqlClient
    return yield* sql`
      SELECT
        (SELECT count(*) FROM pg_stat_activity
          WHERE datname = current_database() AND pid <> pg_backend_pid() AND backend_type = 'client backend') AS sessions,
        (SELECT count(*) FROM pg_locks AS l JOIN pg_database AS d ON d.oid = l.database
          WHERE d.datname = current_database() AND l.pid <> pg_backend_pid()) AS locks,
        (SELECT count(*) FROM pg_class WHERE relpersistence = 't') AS temporary`
  }).pipe(Effect.provide(storeOf(database)))

const counted = (names: ReadonlyArray<string>): { readonly [name: string]: number } => {
  const counts: { [name: string]: number } = {}
  for (const name of names) counts[name] = (counts[name] ?? 0) + 1
  return counts
}

/** A batch at a time, so that an outage can be put into any of them. */
const small = { operations: 4 }
const outageOps = ["a", "b", "c"].flatMap((documentId) => Ledger.history(documentId, 8))
const outageStrands = outageOps.map((op) => Ledger.strand([op]))

/** Runs `happen` once, while the operation at `place` of the source is being applied. */
const during = (place: number, happen: Effect.Effect<unknown>): Ledger.Before => {
  let left = 1
  const op = outageOps[place]!
  return ({ documentId }, { index }) =>
    Effect.suspend(() => documentId === op.documentId && index === op.index && left-- > 0 ? happen : Effect.void)
}

/** Follows the source through whatever happens, and tells what it told. */
const outlive = (processor: ReturnType<typeof Ledger.make>) =>
  Effect.gen(function*() {
    const told: Array<Incident> = []
    const outcomes = yield* Effect.gen(function*() {
      const reactor = yield* Reactor.Reactor
      yield* Effect.fork(Stream.runForEach(reactor.incidents, (incident) => Effect.sync(() => told.push(incident))))
      yield* reactor.ended
      return yield* reactor.outcomes
    }).pipe(Effect.provide(Reactor.layer(processor)), Effect.provide(Ledger.source("s", outageStrands)))
    return { outcomes, told }
  })

/** Nothing waits, nothing is missing, nothing came twice; and there was an outage at all. */
const expectOutlived = (
  { outcomes, told }: { readonly outcomes: ReadonlyArray<Reactor.Outcome>; readonly told: ReadonlyArray<Incident> }
) =>
  Effect.gen(function*() {
    expect(outcomes).toMatchObject([{ phase: "ended", waiting: 0, position: BigInt(outageOps.length) }])
    expect(told.filter((incident) => incident._tag === "Waiting" || incident._tag === "Reopening")).not.toEqual([])
    expect(told.filter((incident) => incident._tag === "Parked" || incident._tag === "Halted")).toEqual([])
    expect(yield* DeadLetters.list(Follow.keyOf(Ledger.make(), "s"))).toEqual([])
    expect(yield* Ledger.balances()).toEqual(Ledger.fold(outageOps))
    expect((yield* Ledger.entries()).length).toBe(outageOps.length)
  })

/** Outside the transaction that a handler is in, which is inherited by everything it starts. */
const outside = Effect.mapInputContext((context: Context.Context<never>) =>
  Context.omit(SqlClient.TransactionConnection)(context as Context.Context<SqlClient.TransactionConnection>)
)

/** Later, whatever becomes of who asks for it now. */
const later = (millis: number, happen: Effect.Effect<unknown>) =>
  Effect.forkDaemon(outside(Effect.delay(happen, millis)))

const direct = (database: Database.PostgresDatabase) => Effect.provide(storeOf(database))

const through = (url: string, options: Partial<Postgres.Options> = {}) =>
  Effect.provide(Layer.merge(Store.layerOf({ dialect: "pg", url }, Ledger.namespace, options), silent))

describe("An outage parks nothing. A lost database is waited out and work resumes by itself", () => {
  describe("on 'pg'", () => {
    const outages: { readonly [name: string]: (proxy: Proxy.Proxy) => Effect.Effect<unknown> } = {
      "every connection is cut": (proxy) => proxy.cutAll,
      "the server refuses for a while": (proxy) =>
        Effect.all([proxy.setMode("refuse"), proxy.cutAll, later(700, proxy.setMode("pass"))]),
      "the network is a black hole for a while": (proxy) =>
        Effect.all([proxy.setMode("blackhole"), later(2_500, proxy.setMode("pass"))])
    }
    it.scopedLive.each(Object.entries(outages))(
      "%s, in the first commit, one in the middle and the last",
      ([, happen]) =>
        Effect.forEach([0, 13, 23], (place) =>
          Effect.scoped(Effect.gen(function*() {
            const database = yield* Database.postgres
            const proxy = yield* Proxy.make(database.url)
            const processor = Ledger.make({ batch: small, before: during(place, happen(proxy)) })
            yield* direct(database)(Follow.prepare(processor))
            const outlived = yield* outlive(processor).pipe(through(proxy.url, {
              statementTimeout: "500 millis",
              socketTimeout: "1 second",
              connectTimeout: "1 second",
              idleInTransactionTimeout: "1 second"
            }))
            yield* direct(database)(expectOutlived(outlived))
          })), { concurrency: 3 })
    )

    it.scopedLive(
      "control: a handler that hides what failed has its operation parked, and that is found out",
      () =>
        Effect.gen(function*() {
          const database = yield* Database.postgres
          const proxy = yield* Proxy.make(database.url)
          const cut = during(13, proxy.cutAll)
          const hiding = Ledger.make({
            batch: small,
            before: (strand, operation) =>
              Effect.zipRight(
                cut(strand, operation),
                Effect.mapError(
                  Effect.flatMap(SqlClient.SqlClient, (sql) => sql`SELECT 1`),
                  () => new Ledger.Refused({ index: operation.index })
                )
              )
          })
          yield* direct(database)(Follow.prepare(hiding))
          yield* outlive(hiding).pipe(through(proxy.url))
          const parked = yield* direct(database)(DeadLetters.list(Follow.keyOf(hiding, "s")))
          expect(parked[0]?.cause).toBe("Refused")
        })
    )

    it.scopedLive("the server crashes and starts again, twice", () =>
      Effect.gen(function*() {
        const server = yield* PostgresServer.make
        const database = { dialect: "pg", url: server.url } as const
        const crash = Effect.zipRight(server.stop, later(300, Effect.orDie(server.start)))
        const one = during(5, crash)
        const two = during(17, crash)
        const outlived = yield* outlive(Ledger.make({
          batch: small,
          before: (strand, operation) => Effect.zipRight(one(strand, operation), two(strand, operation))
        })).pipe(direct(database))
        yield* direct(database)(expectOutlived(outlived))
      }))

    it.scopedLive("the server ends our sessions, and cancels a statement", () =>
      Effect.gen(function*() {
        const database = yield* Database.postgres
        const others = (what: "pg_terminate_backend" | "pg_cancel_backend") =>
          outside(
            direct(database)(Effect.flatMap(SqlClient.SqlClient, (sql) =>
              sql`SELECT ${sql.literal(what)}(pid) FROM pg_stat_activity
                  WHERE datname = current_database() AND pid <> pg_backend_pid()`)).pipe(Effect.orDie)
          )
        const asleep = Effect.gen(function*() {
          yield* later(300, others("pg_cancel_backend"))
          const sql = yield* SqlClient.SqlClient
          yield* sql`SELECT pg_sleep(60)`
        })
        const ended = during(9, others("pg_terminate_backend"))
        let left = 1
        const outlived = yield* outlive(Ledger.make({
          batch: small,
          before: (strand, operation) =>
            Effect.zipRight(
              ended(strand, operation),
              Effect.suspend(() =>
                strand.documentId === "c" && operation.index === 3 && left-- > 0 ? asleep : Effect.void
              )
            )
        })).pipe(direct(database))
        yield* direct(database)(expectOutlived(outlived))
        expect(outlived.told.filter((incident) => incident._tag === "Waiting").length).toBeGreaterThanOrEqual(2)
      }))
  })

  describe("on 'sqlite'", () => {
    /** Another process that takes the write lock, and gives it back when told. */
    const lockedElsewhere = (filename: string, millis: number): Effect.Effect<void> =>
      Effect.async((resume) => {
        const program = `
          const db = new (require("better-sqlite3"))(process.argv[1], { timeout: 5000 })
          db.exec("BEGIN IMMEDIATE")
          console.log("locked")
          setTimeout(() => { db.exec("COMMIT"); db.close() }, Number(process.argv[2]))`
        const child = spawn(process.execPath, ["-e", program, filename, String(millis)], {
          stdio: ["ignore", "pipe", "inherit"]
        })
        child.stdout.once("data", () => resume(Effect.void))
      })

    it.scopedLive("another process holds the write lock for a while", () =>
      Effect.gen(function*() {
        const database = yield* Database.sqlite
        const places = [4, 12, 20].map((place) => {
          let left = 1
          return (seen: number) =>
            Effect.suspend(() => seen >= place && left-- > 0 ? lockedElsewhere(database.filename, 600) : Effect.void)
        })
        let read = 0
        const strands = Ledger.source("s", outageStrands)
        const source = Layer.map(strands, (context) => {
          const whole = Context.get(context, Source.Source)
          return Context.make(Source.Source, {
            ...whole,
            // Between two commits: inside one the lock is ours.
            strands: (after) =>
              whole.strands(after).pipe(
                Stream.rechunk(4),
                Stream.tap(() => Effect.forEach(places, (place) => place(++read)))
              )
          })
        })
        const told: Array<Incident> = []
        const processor = Ledger.make({ batch: small })
        yield* Effect.gen(function*() {
          yield* Follow.prepare(processor)
          yield* Stream.runDrain(
            Subscription.commits(processor, { report: (incident) => Effect.sync(() => told.push(incident)) })
          ).pipe(Effect.provide(source))
          const outcomes = [{ phase: "ended", waiting: 0, position: 24n }] as unknown as ReadonlyArray<Reactor.Outcome>
          yield* expectOutlived({ outcomes, told })
        }).pipe(Effect.provide(storeOf(database)))
        expect(told.every((incident) => incident._tag === "Waiting" && incident.fault === "infrastructure")).toBe(true)
      }))

    it.scopedLive.each([5, 13, 23])(
      "the database may not grow, then it may again (operation %s)",
      (place) =>
        Effect.gen(function*() {
          const database = yield* Database.sqlite
          yield* Effect.gen(function*() {
            const sql = yield* SqlClient.SqlClient
            const pages = (most: number) => Effect.orDie(sql.unsafe(`PRAGMA max_page_count = ${most}`))
            yield* sql`CREATE TABLE ballast (b BLOB)`
            const [{ page_count }] = (yield* sql`PRAGMA page_count`) as unknown as readonly [
              { readonly page_count: number }
            ]
            const fill = sql`INSERT INTO ballast VALUES (zeroblob(20000))`
            const full = Effect.zipRight(pages(page_count), later(500, pages(1_000_000)))
            const before = during(place, full)
            const outlived = yield* outlive(Ledger.make({
              batch: small,
              before: (strand, operation) => Effect.zipRight(before(strand, operation), fill)
            }))
            yield* expectOutlived(outlived)
            expect(outlived.told.some((incident) =>
              incident._tag === "Waiting" && /SQLITE_FULL/.test(String(
                (incident.failure as { readonly cause?: { readonly code?: string } }).cause?.code
              ))
            )).toBe(true)
          }).pipe(Effect.provide(storeOf(database)))
        })
    )

    it.scopedLive.skipIf(!canMount())("the disk is full, then there is room again", () =>
      Effect.gen(function*() {
        const directory = yield* smallDisk
        yield* Effect.gen(function*() {
          const ballast = join(directory, "ballast")
          const fill = Effect.sync(() =>
            void execFileSync("sh", ["-c", `cat /dev/zero > "$0" 2> /dev/null || true`, ballast])
          )
          const room = Effect.sync(() => rmSync(ballast))
          const outlived = yield* outlive(Ledger.make({
            batch: small,
            before: during(9, Effect.zipRight(fill, later(600, room)))
          }))
          yield* expectOutlived(outlived)
        }).pipe(Effect.provide(storeOf({ dialect: "sqlite", filename: join(directory, "test.db") })))
      }))
  })
})

function canMount(): boolean {
  if (process.platform !== "linux" || process.getuid?.() !== 0) return false
  const directory = mkdtempSync(join(tmpdir(), "effect-processors-disk-"))
  try {
    execFileSync("mount", ["-t", "tmpfs", "-o", "size=1m", "tmpfs", directory], { stdio: "ignore" })
    execFileSync("umount", [directory])
    return true
  } catch {
    return false
  } finally {
    rmSync(directory, { recursive: true })
  }
}

const smallDisk = Effect.acquireRelease(
  Effect.sync(() => {
    const directory = mkdtempSync(join(tmpdir(), "effect-processors-disk-"))
    execFileSync("mount", ["-t", "tmpfs", "-o", "size=1m", "tmpfs", directory])
    return directory
  }),
  (directory) =>
    Effect.sync(() => {
      execFileSync("umount", ["-l", directory])
      rmSync(directory, { recursive: true })
    })
)

describe("An unknown COMMIT is resolved, never guessed", () => {
  /** Cuts one COMMIT of the source and tells what the client saw, and how often the operation was handled. */
  const cut = (which: "cutBeforeCommit" | "cutAfterCommit", place: number) =>
    Effect.gen(function*() {
      const database = yield* Database.postgres
      const proxy = yield* Proxy.make(database.url)
      const op = outageOps[place]!
      let handled = 0
      const armed = during(place, proxy[which])
      const processor = Ledger.make({
        batch: small,
        before: (strand, operation) =>
          Effect.zipRight(
            Effect.sync(() => {
              if (strand.documentId === op.documentId && operation.index === op.index) handled++
            }),
            armed(strand, operation)
          )
      })
      yield* direct(database)(Follow.prepare(processor))
      const outlived = yield* outlive(processor).pipe(through(proxy.url))
      yield* direct(database)(expectOutlived(outlived))
      const unknown = outlived.told.filter((incident) => incident._tag === "Waiting" && incident.fault === "unknown")
      // Resolved where it happened: whoever guesses finds its cursor elsewhere and has to open again.
      expect(outlived.told.filter((incident) => incident._tag === "Reopening")).toEqual([])
      return { handled, seen: unknown.map(({ failure }) => (failure as Error).message) }
    })

  it.scopedLive(
    "on 'pg': cut just before and just after COMMIT, the client sees the same, and both end exactly once",
    () =>
      Effect.gen(function*() {
        for (const place of [0, 7, 12, 23]) {
          const before = yield* Effect.scoped(cut("cutBeforeCommit", place))
          const after = yield* Effect.scoped(cut("cutAfterCommit", place))
          expect(before.seen).toHaveLength(1)
          expect(after.seen).toEqual(before.seen)
          // Not committed: handled again. Committed: known to be, and not handled again.
          expect([before.handled, after.handled]).toEqual([2, 1])
        }
      })
  )

  for (const which of ["cutBeforeCommit", "cutAfterCommit"] as const) {
    it.scopedLive(`on 'pg': the COMMIT of a claim (${which})`, () =>
      Effect.gen(function*() {
        const database = yield* Database.postgres
        const proxy = yield* Proxy.make(database.url)
        let left = 1
        const happened: Array<Effect.Effect<void>> = []
        const processor = Ledger.make({
          batch: small,
          // A handler is built before the cursor is claimed.
          opened: Effect.suspend(() =>
            left-- > 0 ? Effect.map(proxy[which], (sprung) => happened.push(sprung)) : Effect.void
          )
        })
        const outlived = yield* outlive(processor).pipe(through(proxy.url))
        yield* Effect.all(happened)
        yield* direct(database)(expectOutlived(outlived))
        expect(outlived.told.map((incident) => (incident.failure as Error).message)).toEqual([
          expect.stringMatching(/outcome of COMMIT is not known/)
        ])
      }))

    it.scopedLive(`on 'pg': the COMMIT of a migration (${which})`, () =>
      Effect.gen(function*() {
        const database = yield* Database.postgres
        const proxy = yield* Proxy.make(database.url)
        const happened = yield* proxy[which]
        yield* Follow.prepare(Ledger.make()).pipe(through(proxy.url))
        yield* happened
        yield* direct(database)(Effect.gen(function*() {
          expect(yield* Ledger.balances()).toEqual([])
          yield* Follow.prepare(Ledger.make())
        }))
      }))
  }

  it.scopedLive.each(
    [
      ["it was not, so again", "cutAfterCommit", 2],
      ["it was, so go on", "cutBeforeCommit", 0]
    ] as const
  )("on 'pg', control: a loop that guesses (%s) is found out", ([, which, applied]) =>
    Effect.gen(function*() {
      const database = yield* Database.postgres
      const proxy = yield* Proxy.make(database.url)
      yield* direct(database)(Follow.prepare(Ledger.make()))
      yield* proxy[which]
      const strand = { ...outageStrands[0]!, position: 1n } as Parameters<typeof Ledger.apply>[0]
      const once = Transaction.run(Ledger.apply(strand, strand.operations[0]!))
      yield* Effect.catchTag(once, "CommitUnknown", () => applied === 2 ? once : Effect.void).pipe(through(proxy.url))
      expect(yield* direct(database)(Ledger.entries())).toHaveLength(applied)
    }))

  it.scopedLive(
    "on 'pg': a COMMIT held back in a black hole comes true after the client has given it up",
    () =>
      Effect.gen(function*() {
        const database = yield* Database.postgres
        const proxy = yield* Proxy.make(database.url)
        const processor = Ledger.make({
          batch: small,
          before: during(
            3,
            Effect.flatMap(proxy.holdCommit, (held) =>
              later(0, Effect.zipRight(held, later(2_500, proxy.setMode("pass")))))
          )
        })
        yield* direct(database)(Follow.prepare(processor))
        const outlived = yield* outlive(processor).pipe(through(proxy.url, {
          statementTimeout: "500 millis",
          socketTimeout: "1 second",
          connectTimeout: "1 second"
        }))
        expect(outlived.told).toContainEqual(expect.objectContaining({ _tag: "Waiting", fault: "unknown" }))
        yield* direct(database)(expectOutlived(outlived))
      })
  )

  it.scopedLive.skipIf(!canLimit())("on 'sqlite': a COMMIT that fails to be written", () =>
    Effect.gen(function*() {
      const database = yield* Database.sqlite
      const limit = (bytes: number | "unlimited") =>
        Effect.sync(() => void execFileSync("prlimit", ["--pid", String(process.pid), `--fsize=${bytes}:unlimited`]))
      let handled = 0
      const size = Effect.sync(() => statSync(`${database.filename}-wal`).size)
      const before = during(
        9,
        Effect.zipRight(Effect.flatMap(size, (now) => limit(now + 100)), later(400, limit("unlimited")))
      )
      yield* Effect.gen(function*() {
        const outlived = yield* outlive(Ledger.make({
          batch: small,
          before: (strand, operation) => Effect.zipRight(Effect.sync(() => void handled++), before(strand, operation))
        }))
        yield* expectOutlived(outlived)
        expect(outlived.told.some((incident) => incident._tag === "Waiting" && incident.fault === "unknown")).toBe(true)
        expect(handled).toBeGreaterThan(outageOps.length)
      }).pipe(Effect.provide(storeOf(database)))
    }))
})

/** Whether the size of this process's files can be limited for a while, so that writing beyond it is an I/O error. */
function canLimit(): boolean {
  try {
    execFileSync("prlimit", ["--pid", String(process.pid), "--fsize"], { stdio: "ignore" })
    return process.platform === "linux"
  } catch {
    return false
  }
}
