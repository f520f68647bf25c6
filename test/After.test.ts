/**
 * A processor that goes after others: it finds what they have written of every operation up to its own, and is not held up
 * by them for longer than that takes.
 */
import { describe, expect, it } from "@effect/vitest"
import * as Cause from "effect/Cause"
import * as Context from "effect/Context"
import * as Deferred from "effect/Deferred"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import * as FastCheck from "effect/FastCheck"
import * as Layer from "effect/Layer"
import * as Logger from "effect/Logger"
import * as Schedule from "effect/Schedule"
import * as TestClock from "effect/TestClock"
import * as Test from "../layers/Test.js"
import { Health, Policy, Position, Processor, Reactor, Source } from "../src/index.js"
import type { Namespace, Strand } from "../src/index.js"
import { flaw, upTo } from "../src/vitals/Precedence.js"
import * as Board from "./support/Board.js"
import * as Database from "./support/Database.js"
import * as Eventually from "./support/Eventually.js"
import * as Ledger from "./support/Ledger.js"
import * as Store from "./support/Store.js"

const silent = Logger.remove(Logger.defaultLogger)

class Refused extends Error {
  readonly _tag = "Refused"
}

/** The position of each strand is in its text. */
const strandsOf = (documents: ReadonlyArray<string>) =>
  documents.map((documentId, i) =>
    Test.strand({
      documentId,
      documentType: Ledger.Model.type,
      from: documents.slice(0, i).filter((each) => each === documentId).length,
      operations: [{ type: "PUT", input: { text: String(i + 1) } }]
    })
  )

/** Writes the positions of the strands that it wants into its own table. */
const writing = (
  name: string,
  documentId: ReadonlyArray<string>,
  before: (text: string) => Effect.Effect<unknown, Refused> = () => Effect.void
) =>
  Ledger.undecided(name, before, { filter: { documentId } }).pipe(
    Processor.withPolicy({ ...Policy.standard, Refused: Policy.park })
  )

/** A processor that does this with the position of each operation. */
const second = (
  name: string,
  after: ReadonlyArray<Pick<Processor.Processor<unknown, unknown>, "name">>,
  at: (position: number) => Effect.Effect<unknown, never, Namespace.Namespaces>
) => Ledger.make(name, (text) => at(Number(text)), { after })

/** The positions that a processor has written. */
const written = (name: string) => Effect.map(Effect.orDie(Ledger.applied(name)), (texts) => texts.map(Number))

const settings = (concurrency: number) =>
  Layer.succeed(Reactor.Settings, { concurrency, reopenings: Schedule.recurs(0) })

describe.each(Database.dialects)("on $dialect", ({ dialect, fresh }) => {
  it.scopedLive(
    "finds what they have written of every operation up to its own, whatever they want and however slow",
    () =>
      Effect.gen(function*() {
        const scripts = FastCheck.sample(
          FastCheck.record({
            documents: FastCheck.array(FastCheck.constantFrom("a", "b", "c", "d", "e"), {
              minLength: 5,
              maxLength: 30
            }),
            wanted: FastCheck.subarray(["a", "b", "c", "d", "e"], { minLength: 1 }),
            pauses: FastCheck.array(FastCheck.nat(3), { minLength: 30, maxLength: 30 }),
            partitions: FastCheck.tuple(FastCheck.integer({ min: 1, max: 3 }), FastCheck.integer({ min: 1, max: 3 })),
            operations: FastCheck.integer({ min: 1, max: 7 }),
            concurrency: FastCheck.integer({ min: 1, max: 3 })
          }),
          { numRuns: dialect === "sqlite" ? 20 : 8, seed: 3 }
        )
        for (const { concurrency, documents, operations, partitions, pauses, wanted } of scripts) {
          const database = yield* fresh
          const missing: Array<string> = []
          const slow = (text: string) => Effect.sleep(pauses[Number(text) - 1]!)
          const a = {
            ...writing("a", wanted, slow),
            partitions: partitions[0],
            limits: { operations, unwantedMillis: 3_600_000 }
          }
          const b = {
            ...second("b", [a], (position) =>
              Effect.map(written("a"), (found) => {
                for (const [i, documentId] of documents.slice(0, position).entries()) {
                  if (wanted.includes(documentId) && !found.includes(i + 1)) missing.push(`${i + 1} at ${position}`)
                }
              })),
            partitions: partitions[1],
            limits: { operations: 8 - operations, unwantedMillis: 3_600_000 }
          }
          const outcomes = yield* Reactor.run(b, a).pipe(
            Effect.provide(Layer.mergeAll(
              Source.layerIterable("s", strandsOf(documents)),
              Store.layerMany(database),
              settings(concurrency),
              silent
            ))
          )
          expect(outcomes.map(({ phase, position }) => [phase, position])).toEqual(
            outcomes.map(() => ["ended", BigInt(documents.length)])
          )
          expect(missing).toEqual([])
        }
      })
  )

  it.scopedLive("control: a processor that does not say so runs ahead, and is found out", () =>
    Effect.gen(function*() {
      const database = yield* fresh
      const missing: Array<number> = []
      const a = writing("a", ["a"], () => Effect.sleep(20))
      const b = second("b", [], (position) =>
        Effect.map(written("a"), (found) => {
          if (!found.includes(position)) missing.push(position)
        }))
      yield* Reactor.run(a, b).pipe(
        Effect.provide(Layer.mergeAll(
          Source.layerIterable("s", strandsOf(Array.from({ length: 10 }, () => "a"))),
          Store.layerMany(database),
          silent
        ))
      )
      expect(missing).not.toEqual([])
    }))

  it.scopedLive("goes on past what they have set aside", () =>
    Effect.gen(function*() {
      const database = yield* fresh
      const a = writing("a", ["a"], (text) => text === "2" ? Effect.fail(new Refused("no")) : Effect.void)
      const b = second("b", [a], () => Effect.void)
      yield* Effect.gen(function*() {
        const outcomes = yield* Reactor.run(a, b)
        expect(outcomes.map(({ phase, waiting }) => [phase, waiting])).toEqual([["ended", 2], ["ended", 0]])
        expect([yield* written("a"), yield* written("b")]).toEqual([[1], [1, 2, 3, 4]])
      }).pipe(
        Effect.provide(Layer.mergeAll(
          Source.layerIterable("s", strandsOf(["a", "a", "b", "a"])),
          Store.layerMany(database),
          silent
        ))
      )
    }))

  it.scopedLive("comes as far as one that has halted, and waits there; who goes after it waits as well", () =>
    Effect.gen(function*() {
      const database = yield* fresh
      const a = Ledger.undecided("a", (text) => text === "3" ? Effect.fail(new Refused("no")) : Effect.void).pipe(
        Processor.withPolicy({ ...Policy.standard, Refused: Policy.halt })
      )
      const b = second("b", [a], () => Effect.void)
      const c = second("c", [b], () => Effect.void)
      yield* Effect.gen(function*() {
        const outcomes = yield* Reactor.run(c, b, a)
        expect(outcomes.map(({ phase }) => phase)).toEqual(["held", "held", "halted"])
        expect(outcomes.map(({ failure }) => failure)).toMatchObject([
          { before: "b", at: 2n, isForGood: true },
          { before: "a", at: 2n, isForGood: true },
          { _tag: "Halted" }
        ])
        for (const name of ["a", "b", "c"]) expect(yield* written(name)).toEqual([1, 2])
      }).pipe(
        Effect.provide(Layer.mergeAll(
          Source.layerIterable("s", strandsOf(["a", "b", "c", "d", "e"])),
          Store.layerMany(database),
          silent
        ))
      )
    }))

  it.scopedLive("is not stuck any more once the one that had halted goes on", () =>
    Effect.gen(function*() {
      const database = yield* fresh
      const on = Board.switches()
      on.before = (_, { index }) => index === 1 ? Effect.fail(new Board.Refused({ text: "no" })) : Effect.void
      const a = Board.make("a", on, { policy: { Refused: Policy.halt } })
      const b = Processor.make("b", {
        namespace: "b",
        after: [a],
        batch: { operations: 1 },
        handler: Processor.onBatch(() => Effect.sleep(20))
      }).pipe(Processor.withPolicy(Policy.standard))
      yield* Effect.gen(function*() {
        const reactor = yield* Reactor.Reactor
        const phases = Effect.map(reactor.outcomes, (outcomes) => outcomes.map(({ phase }) => phase))
        yield* reactor.ended
        expect(yield* phases).toEqual(["halted", "held"])
        on.before = () => Effect.void
        yield* reactor.rebuild(a)
        yield* reactor.waitFor(a, { position: Position.make(3n) })
        yield* reactor.ended
        expect(yield* phases).toEqual(["ended", "ended"])
      }).pipe(
        Effect.provide(Reactor.layer(a, b)),
        Effect.provide(Layer.mergeAll(
          Source.layerIterable("s", ["milk", "rum", "tea"].map((text, i) => Board.strand("board", i, text))),
          Store.layerMany(database),
          silent
        ))
      )
    }))

  it.scopedLive("waits for one that is rebuilt in place, from the moment that its tables are empty", () =>
    Effect.gen(function*() {
      const database = yield* fresh
      const isOpening = yield* Deferred.make<void>()
      const goOn = { first: yield* Deferred.make<void>(), second: yield* Deferred.make<void>() }
      let gate: Effect.Effect<unknown> = Effect.void
      const board = Board.make("a")
      const a = { ...board, handler: Effect.zipRight(Effect.suspend(() => gate), board.handler) }
      const found: Array<number> = []
      const b = Processor.make("b", {
        namespace: "b",
        after: [a],
        batch: { operations: 1 },
        handler: Processor.onBatch(() =>
          Effect.flatMap(Effect.orDie(Board.rows("a")), (rows) => {
            found.push(rows.length)
            return found.length === 1 ? Deferred.await(goOn.second) : Effect.void
          })
        )
      }).pipe(Processor.withPolicy(Policy.standard))
      yield* Effect.gen(function*() {
        const reactor = yield* Reactor.Reactor
        yield* reactor.waitFor(a, { position: Position.make(3n) })
        yield* Effect.repeat(Effect.void, { until: () => found.length === 1, schedule: Schedule.spaced(5) })
        gate = Effect.zipRight(Deferred.succeed(isOpening, undefined), Deferred.await(goOn.first))
        yield* reactor.rebuild(a, { how: "in place" })
        yield* Deferred.await(isOpening)
        yield* Deferred.succeed(goOn.second, undefined)
        yield* reactor.waitFor(b, { position: Position.make(1n) })
        yield* Effect.repeat(reactor.outcomes, {
          until: (outcomes) => outcomes.some(({ phase }) => phase === "held" || phase === "ended"),
          schedule: Schedule.spaced(5)
        })
        yield* Deferred.succeed(goOn.first, undefined)
        yield* reactor.ended
        expect(found.slice(1).filter((rows) => rows === 0)).toEqual([])
        expect((yield* reactor.outcomes).map(({ phase }) => phase)).toEqual(["ended", "ended"])
      }).pipe(
        Effect.provide(Reactor.layer(a, b)),
        Effect.provide(Layer.mergeAll(
          Source.layerIterable("s", ["milk", "tea", "rum"].map((text) => Board.strand(text, 0, text))),
          Store.layerMany(database),
          silent
        ))
      )
    }))

  it.scopedLive("that is ahead of them when it comes to go after them waits until they have come as far", () =>
    Effect.gen(function*() {
      const database = yield* fresh
      const a = Ledger.make("a", () => Effect.sleep(5))
      const documents = ["a", "b", "c", "d", "e", "f"]
      const isBroken = { now: true }
      const read: Array<ReadonlyArray<number>> = []
      const b = (after: ReadonlyArray<typeof a>, count: number) => {
        return Reactor.run(
          ...after,
          Ledger.undecided("b", (text) =>
            text === "2" && isBroken.now
              ? Effect.fail(new Refused("no"))
              : Effect.map(written("a"), (found) => read.push(found)).pipe(Effect.when(() => after.length > 0)), {
            after
          })
            .pipe(Processor.withPolicy({ ...Policy.standard, Refused: Policy.park }))
        ).pipe(
          Effect.provide(Layer.mergeAll(
            Source.layerIterable("s", strandsOf(documents).slice(0, count)),
            Layer.fresh(Store.layerMany(database)),
            silent
          ))
        )
      }
      yield* b([], 4)
      isBroken.now = false
      const outcomes = yield* b([a], 6)
      expect(outcomes.map(({ phase, position }) => [phase, position])).toEqual([["ended", 6n], ["ended", 6n]])
      for (const found of read) expect(found.length).toBeGreaterThanOrEqual(5)
    }))
})

describe("who goes after whom", () => {
  const of = (name: string, ...after: ReadonlyArray<string>) => ({ name, after }) as Parameters<typeof flaw>[0][number]

  it.each([
    ["nothing", [of("a"), of("b", "a"), of("c", "a", "b")], undefined],
    ["one that is not there", [of("b", "a")], "b goes after a, which is not in this reactor"],
    ["itself", [of("a", "a")], "a goes after a: none can begin"],
    [
      "a circle",
      [of("a", "c"), of("b", "a"), of("c", "b")],
      "a goes after c goes after b goes after a: none can begin"
    ],
    [
      "a circle behind others",
      [of("x", "a"), of("a", "b"), of("b", "a")],
      "a goes after b goes after a: none can begin"
    ]
  ])("may have in it %s", (_, processors, expected) => {
    expect(flaw(processors)).toBe(expected)
  })

  it.effect("is looked at when a reactor starts, before anything is migrated", () =>
    Effect.gen(function*() {
      const a = Ledger.make("a")
      const b = second("b", [a], () => Effect.void)
      const exit = yield* Effect.exit(Reactor.run(b))
      expect(Exit.isFailure(exit) && Cause.pretty(exit.cause)).toMatch(/b goes after a, which is not in this reactor/)
      expect(yield* Effect.flip(Ledger.applied("b"))).toMatchObject({ _tag: "NamespaceMissing" })
    }).pipe(Effect.provide(Test.layer([]))))
})

it.scoped("one that is held up is named in health, with whom it waits for", () =>
  Effect.gen(function*() {
    const stuck = Ledger.undecided("a", (text) => text === "2" ? Effect.fail(new Refused("no")) : Effect.void).pipe(
      Processor.withPolicy({
        ...Policy.standard,
        Refused: Policy.retry(Schedule.spaced("1 hour"), { otherwise: Policy.halt })
      })
    )
    const b = second("b", [stuck], () => Effect.void)
    const context = yield* Layer.build(
      Health.layer().pipe(
        Layer.provideMerge(Reactor.layer(b, { ...stuck, limits: { operations: 1 } })),
        Layer.provide(Layer.merge(Source.layerIterable("s", strandsOf(["a", "b", "c"])), silent))
      )
    )
    const { outcomes } = Context.get(context, Reactor.Reactor)
    const held = Effect.map(outcomes, ([of]) => of?.phase === "held" && of.position === 1n)
    yield* Eventually.until("it is held", held)
    const complaints = Effect.map(Context.get(context, Health.Health).check, (report) =>
      report.complaints.filter((text) => text.startsWith("b ")))
    expect(yield* complaints).toEqual([])
    yield* TestClock.adjust("61 seconds")
    expect(yield* complaints).toEqual([
      expect.stringMatching(/^b on s has been held up for \d+ ms: a goes before it and has come to position 1$/)
    ])
  }).pipe(Effect.provide(Test.layer([]))))

describe("what of a batch is up to a position", () => {
  const at = (position: number) => Position.make(BigInt(position))
  const batch = (positions: ReadonlyArray<number>, to: number) => ({
    strands: positions.map((position) => ({ position: at(position), operations: [{}] }) as unknown as Strand.Strand),
    operations: positions.length,
    position: at(to)
  })

  it("goes, and the rest stays, each strand in one of them and in order", () => {
    FastCheck.assert(FastCheck.property(
      FastCheck.array(FastCheck.integer({ min: 1, max: 4 }), { minLength: 1, maxLength: 8 }),
      FastCheck.nat(40),
      FastCheck.boolean(),
      (steps, upon, isPiece) => {
        const positions = steps.map((_, i) => steps.slice(0, i + 1).reduce((a, b) => a + b, 0))
        const to = isPiece ? positions.at(-2) ?? 0 : positions.at(-1)! + 2
        const whole = batch(positions, to)
        const released = upTo(whole, at(upon))
        const goes = released?.first ?? batch([], 0)
        const stays = released === undefined ? whole : released.rest ?? batch([], to)
        expect([...goes.strands, ...stays.strands]).toEqual(whole.strands)
        expect(goes.operations + stays.operations).toBe(whole.operations)
        expect(goes.strands.every((strand) => strand.position <= upon)).toBe(true)
        expect(stays.strands.every((strand) => strand.position > upon)).toBe(true)
        expect(released === undefined).toBe(goes.strands.length === 0)
        expect(stays.position).toBe(at(to))
        const beyond = stays.strands[0]?.position ?? Infinity
        expect(goes.position <= upon && goes.position <= to && goes.position < beyond).toBe(true)
      }
    ))
  })

  it("is nothing of a batch without strands before the position is reached", () => {
    expect(upTo(batch([], 5), at(4))).toBeUndefined()
    expect(upTo(batch([], 5), at(5))?.rest).toBeUndefined()
  })
})
