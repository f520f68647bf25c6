/**
 * A wait: what is dealt with is told as soon as it is, what never will be is told as such, and the rest in bounded time.
 */
import type * as SqlClient from "@effect/sql/SqlClient"
import { describe, expect, it } from "@effect/vitest"
import * as Cause from "effect/Cause"
import * as Context from "effect/Context"
import * as Deferred from "effect/Deferred"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import * as Fiber from "effect/Fiber"
import * as Layer from "effect/Layer"
import * as Option from "effect/Option"
import * as Redacted from "effect/Redacted"
import type * as Scope from "effect/Scope"
import * as TestClock from "effect/TestClock"
import * as Postgres from "../../layers/Postgres.js"
import * as Sqlite from "../../layers/Sqlite.js"
import * as Test from "../../layers/Test.js"
import {
  Cursors,
  DeadLetters,
  Migrator,
  Namespace,
  Policy,
  Position,
  Processor,
  Reactor,
  Source,
  Wait
} from "../../src/index.js"
import * as Database from "../support/Database.js"
import * as Eventually from "../support/Eventually.js"
import * as Feed from "../support/Feed.js"
import * as Ledger from "../support/Ledger.js"
import * as Ordinal from "../support/Ordinal.js"
import * as Proxy from "../support/Proxy.js"
import * as Store from "../support/Store.js"

interface Put {
  readonly document?: string
  readonly index: number
  readonly skip?: number
  readonly type?: string
}

/** A strand of one operation, whose text is its document and index. */
const put = ({ document = "d", index, skip = 0, type = Ledger.Model.type }: Put) =>
  Test.strand({
    documentId: document,
    documentType: type,
    operations: [{ type: "PUT", index, skip, input: { text: `${document}${index}` } }]
  })

const at = (index: number, more: Partial<Wait.OperationPlace> = {}): Wait.OperationPlace => ({
  documentId: "d",
  scope: "global",
  branch: "main",
  index,
  ...more
})

const position = (value: number) => Position.make(BigInt(value))
const source = Source.name("feed")

/** What a wait in vain ends with. On a machine that is so busy that nobody came to look in time, it is given more. */
const late = <R>(
  wait: (options: Wait.Options) => Effect.Effect<unknown, Wait.WaitError, R>,
  hasLooked = (failure: Wait.WaitTimedOut) => failure.position !== undefined
): Effect.Effect<Wait.WaitError, unknown, R> =>
  Effect.iterate({ timeoutMillis: 25, failure: undefined as Wait.WaitError | undefined }, {
    while: ({ failure, timeoutMillis }) =>
      timeoutMillis < 5_000 && (failure === undefined || (failure._tag === "WaitTimedOut" && !hasLooked(failure))),
    body: ({ timeoutMillis }) =>
      Effect.map(Effect.flip(wait({ timeout: timeoutMillis })), (failure) => ({
        failure,
        timeoutMillis: 2 * timeoutMillis
      }))
  }).pipe(Effect.flatMap(({ failure }) => Effect.fromNullable(failure)))

class Refused extends Error {
  readonly _tag = "Refused"
}

/** Refuses the text `d1`, unless it has been put right. */
const refusing = (isRight: () => boolean = () => false) =>
  Ledger.undecided("p", (text) => text === "d1" && !isRight() ? Effect.fail(new Refused("no")) : Effect.void).pipe(
    Processor.withPolicy({ ...Policy.standard, Refused: Policy.park })
  )

const waitFor = (processor: Wait.Followed, place: Wait.Place, options?: Wait.Options) =>
  Effect.flatMap(Reactor.Reactor, (reactor) => reactor.waitFor(processor, place, options))

/** A reactor of one processor over a feed. */
const beside = <R>(processor: Processor.Processor<never, R>, feed: Feed.Feed) =>
  Layer.provide(Reactor.layer(processor), Layer.succeed(Source.Source, feed.source))

describe.each(Database.dialects)("on $dialect", ({ fresh }) => {
  /** Runs `body` beside a reactor, with clients of its own for who waits elsewhere. */
  const running = <A, E>(
    processor: Processor.Processor<never, SqlClient.SqlClient>,
    body: (
      feed: Feed.Feed,
      elsewhere: (place: Wait.Place, options?: Wait.Options) => Effect.Effect<Position.Position, Wait.WaitError>
    ) => Effect.Effect<A, E, Reactor.Reactor | Namespace.Namespaces | Scope.Scope>
  ) =>
    Effect.gen(function*() {
      const database = yield* fresh
      const feed = yield* Feed.make("feed")
      const other = yield* Layer.build(Layer.fresh(Store.layerMany(database)))
      yield* body(
        feed,
        (place, options) => Effect.provide(Wait.until(processor, source, place, options), other)
      ).pipe(
        Effect.provide(
          beside(processor, feed).pipe(Layer.orDie, Layer.provideMerge(Layer.fresh(Store.layerMany(database))))
        )
      )
    })

  it.scopedLive("an operation that was set aside is named with its cause, and so is what it holds up", () =>
    running(refusing(), (feed, elsewhere) =>
      Effect.gen(function*() {
        yield* feed.push(put({ index: 0 }), put({ index: 1 }), put({ index: 2 }), put({ document: "e", index: 0 }))
        expect(yield* elsewhere(at(0))).toBeGreaterThanOrEqual(1n)
        for (const wait of [elsewhere, (place: Wait.Place) => waitFor(refusing(), place)]) {
          const own = yield* Effect.flip(wait(at(1)))
          expect(own).toMatchObject({
            _tag: "OperationParked",
            cause: "Refused",
            reason: "no",
            ordinal: Ordinal.of(1, "d"),
            isBehind: false
          })
          expect(own.message).toBe("index 1 of document d (global, main) is dead letter 1838 of p on feed: Refused: no")
          const behind = yield* Effect.flip(wait(at(2)))
          expect(behind).toMatchObject({
            _tag: "OperationParked",
            cause: "Refused",
            ordinal: Ordinal.of(1, "d"),
            isBehind: true
          })
          expect(yield* wait(at(0, { documentId: "e" }))).toBe(4n)
        }
      })))

  it.scopedLive("an operation that was set aside and put right is dealt with", () => {
    let isRight = false
    const processor = refusing(() => isRight)
    return running(processor, (feed, elsewhere) =>
      Effect.gen(function*() {
        yield* feed.push(put({ index: 0 }), put({ index: 1 }), put({ index: 2 }))
        yield* Effect.flip(elsewhere(at(2)))
        isRight = true
        yield* Namespace.within("p", DeadLetters.retry(processor, source, "d"))
        expect(yield* elsewhere(at(2))).toBe(3n)
        expect(yield* Ledger.applied("p")).toEqual(["d0", "d1", "d2"])
      }))
  })

  it.scopedLive("an operation that waits for missing ones is waited for, and the timeout says so", () =>
    running(Ledger.make("p"), (feed, elsewhere) =>
      Effect.gen(function*() {
        yield* feed.push(put({ index: 0 }), put({ index: 2 }))
        yield* elsewhere({ position: position(2) })
        const failure = yield* late((options) => elsewhere(at(2), options))
        expect(failure).toMatchObject({ _tag: "WaitTimedOut", isHeld: true, lastIndex: 0, position: 2n })
        const waiting = yield* Effect.fork(elsewhere(at(2)))
        yield* feed.push(put({ index: 1 }))
        expect(yield* Fiber.join(waiting)).toBe(3n)
      })))

  it.scopedLive("a wait that is too long says how far the processor has come", () =>
    running(Ledger.make("p"), (feed, elsewhere) =>
      Effect.gen(function*() {
        yield* feed.push(put({ index: 0 }), put({ index: 1 }))
        yield* elsewhere(at(1))
        const expected = { _tag: "WaitTimedOut", lastIndex: 1, position: 2n, failure: undefined, isHeld: false }
        const afar = yield* late((options) => elsewhere(at(7), options))
        expect(afar).toMatchObject({ ...expected, phase: undefined })
        expect(afar.message).toMatch(
          /^p on feed has not come to index 7 of document d \(global, main\) in \d+ ms: its cursor is at position 2, the stream at index 1$/
        )
        const near = yield* late((options) => waitFor(Ledger.make("p"), at(7), options))
        expect(near).toMatchObject({ ...expected, phase: "idle" })
        const unseen = yield* late((options) => elsewhere(at(0, { documentId: "unseen" }), options))
        expect(unseen).toMatchObject({ ...expected, lastIndex: undefined })
        const further = yield* late((options) => elsewhere({ position: position(3) }, options))
        expect(further).toMatchObject({ _tag: "WaitTimedOut", position: 2n })
        expect(further.message).toMatch(/^p on feed has not come to position 3 in \d+ ms: its cursor is at position 2$/)
      })))

  it.scopedLive("a subscription that has halted is named as halted", () => {
    const halting = Ledger.undecided("p").pipe(Processor.withPolicy({ ...Policy.standard, StrandGap: Policy.halt }))
    return running(halting, (feed) =>
      Effect.gen(function*() {
        yield* feed.push(put({ index: 0 }), put({ index: 2 }))
        yield* Effect.flatMap(Reactor.Reactor, ({ ended }) => ended)
        const failure = yield* late((options) => waitFor(halting, at(2), options))
        expect(failure).toMatchObject({ _tag: "WaitTimedOut", phase: "halted", lastIndex: 0 })
      }))
  })

  it.scopedLive("a processor that was never started is waited for: no namespace, no tables, no cursor", () =>
    Effect.gen(function*() {
      const database = yield* fresh
      const processor = Ledger.make("p")
      yield* Effect.gen(function*() {
        const inVain = Effect.flip(Wait.until(processor, source, at(0), { timeout: "200 millis" }))
        const never = { _tag: "WaitTimedOut", position: undefined, lastIndex: undefined }
        const failure = yield* inVain
        expect(failure).toMatchObject(never)
        expect(failure.message).toMatch(/it has no cursor, the stream at no index$/)
        yield* Namespace.within("p", Effect.void)
        expect(yield* inVain).toMatchObject(never)
        yield* Migrator.upAll([processor])
        expect(yield* inVain).toMatchObject(never)
        const waiting = yield* Effect.fork(Wait.until(processor, source, at(0)))
        const feed = yield* Feed.make("feed")
        yield* feed.push(put({ index: 0 }))
        yield* Layer.build(beside(processor, feed))
        expect(yield* Fiber.join(waiting)).toBe(1n)
      }).pipe(Effect.provide(Store.layerMany(database)))
    }))

  it.scopedLive("what the filter does not want is told: at once by the stream, by the cursor otherwise", () => {
    const picky = Ledger.make("p", undefined, {
      filter: { documentType: [Ledger.Model.type], branch: ["main"] },
      batch: { unwanted: 1 }
    })
    return running(picky, (feed, elsewhere) =>
      Effect.gen(function*() {
        const unwanted = (why: string) => ({ _tag: "OperationUnwanted", why })
        expect(yield* Effect.flip(elsewhere(at(0, { branch: "draft" })))).toMatchObject(unwanted("filter"))
        expect(yield* Effect.flip(elsewhere(at(0, { documentType: "x" })))).toMatchObject(unwanted("filter"))
        const waiting = yield* Effect.fork(Effect.flip(elsewhere(at(0, { position: position(1) }))))
        yield* feed.push(put({ index: 0, type: "test/other" }))
        const told = yield* Fiber.join(waiting)
        expect(told).toMatchObject(unwanted("passed"))
        expect(told.message).toBe("p on feed does not follow index 0 of document d (global, main) (passed)")
        expect(yield* elsewhere({ position: position(1) })).toBe(1n)
      }))
  })

  it.scopedLive("a place that no document can have spoils the wait of nobody else", () =>
    running(Ledger.make("p"), (feed) =>
      Effect.gen(function*() {
        const reactor = yield* Reactor.Reactor
        const processor = Ledger.make("p")
        const waiting = yield* Effect.fork(reactor.waitFor(processor, at(0)))
        for (const place of [at(0, { documentId: "\u0000" }), at(0, { scope: "\ud800" }), at(2 ** 31), at(-1)]) {
          const failure = yield* Effect.flip(reactor.waitFor(processor, place))
          expect(failure).toMatchObject({ _tag: "OperationUnwanted", why: "impossible" })
        }
        yield* feed.push(put({ index: 0 }))
        expect(yield* Fiber.join(waiting)).toBe(1n)
      })))

  it.scopedLive("a place of another namespace is not waited for", () =>
    Effect.gen(function*() {
      const database = yield* fresh
      yield* Effect.gen(function*() {
        yield* Namespace.within("other", Effect.void)
        const failure = yield* Effect.flip(Wait.until(Ledger.make("p"), source, at(0)))
        expect(failure).toMatchObject({ _tag: "NamespaceMismatch" })
      }).pipe(Effect.provide(Store.layer(database)))
    }))

  it.scopedLive("what was superseded or left out is dealt with", () => {
    const skipping = Ledger.undecided("p", (text) => text === "d5" ? Effect.fail(new Refused("no")) : Effect.void).pipe(
      Processor.withPolicy({ ...Policy.standard, Refused: Policy.skip })
    )
    return running(skipping, (feed, elsewhere) =>
      Effect.gen(function*() {
        yield* feed.push(put({ index: 0 }), put({ index: 4, skip: 3 }), put({ index: 5 }))
        for (const index of [2, 4, 5]) expect(yield* elsewhere(at(index))).toBeGreaterThanOrEqual(2n)
        expect(yield* Ledger.applied("p")).toEqual(["d0", "d4"])
      }))
  })

  it.scopedLive("a reactor that was fenced still tells what the new owner of its cursor does", () =>
    Effect.gen(function*() {
      const database = yield* fresh
      const feed = yield* Feed.make("feed")
      const processor = Ledger.make("p")
      const start = Effect.map(
        Layer.build(Layer.provide(Layer.fresh(beside(processor, feed)), Layer.fresh(Store.layerMany(database)))),
        (context) => Context.get(context, Reactor.Reactor)
      )
      const old = yield* start
      yield* feed.push(put({ index: 0 }))
      yield* old.waitFor(processor, at(0))
      yield* start
      const cursor = Namespace.query("p", Cursors.peek({ processor: processor.name, source }))
      yield* Eventually.until("another has claimed the cursor", Effect.map(cursor, (now) => now?.epoch === 2n)).pipe(
        Effect.provide(Store.layerMany(database))
      )
      yield* feed.push(put({ index: 1 }))
      yield* old.ended
      expect(yield* old.outcomes).toMatchObject([{ phase: "halted", failure: { _tag: "Fenced" } }])
      expect(yield* old.waitFor(processor, at(1))).toBe(2n)
    }))

  it.scopedLive("a reader who has waited sees the write, in the reactor's process and in another", () =>
    Effect.gen(function*() {
      const open = yield* Deferred.make<void>()
      const reached = yield* Deferred.make<void>()
      const gated = Ledger.make("p", () => Effect.zipRight(Deferred.succeed(reached, undefined), Deferred.await(open)))
      yield* running(gated, (feed, elsewhere) =>
        Effect.gen(function*() {
          yield* feed.push(put({ index: 0 }))
          yield* Deferred.await(reached)
          const waits = [elsewhere(at(0)), waitFor(gated, at(0)), elsewhere({ position: position(1) })]
          const waiting = yield* Effect.forEach(
            waits,
            (wait) => Effect.fork(Effect.zipRight(wait, Ledger.applied("p")))
          )
          yield* Deferred.succeed(open, undefined)
          expect(yield* Effect.forEach(waiting, Fiber.join)).toEqual([["d0"], ["d0"], ["d0"]])
        }))
    }))
})

describe("a database that is away", () => {
  it.scopedLive("is waited out, and the timeout says that it was", () =>
    Effect.gen(function*() {
      const { url } = yield* Database.postgres
      const proxy = yield* Proxy.make(url)
      const feed = yield* Feed.make("feed")
      const processor = Ledger.make("p")
      const through = yield* Layer.build(
        Postgres.layer({ url: Redacted.make(proxy.url), connectTimeout: "1 second" })
      )
      const elsewhere = (place: Wait.Place, options?: Wait.Options) =>
        Effect.provide(Wait.until(processor, source, place, options), through)
      yield* Effect.gen(function*() {
        yield* feed.push(put({ index: 0 }))
        yield* elsewhere(at(0))
        yield* proxy.setMode("refuse")
        yield* proxy.cutAll
        const failure = yield* late((options) => elsewhere(at(1), options), (told) => told.failure !== undefined)
        expect(failure).toMatchObject({ _tag: "WaitTimedOut", failure: { _tag: "SqlError" } })
        const waiting = yield* Effect.fork(elsewhere(at(1), { timeout: "5 minutes" }))
        yield* feed.push(put({ index: 1 }))
        yield* proxy.setMode("pass")
        expect(yield* Fiber.join(waiting)).toBe(2n)
      }).pipe(Effect.provide(Layer.provide(beside(processor, feed), Postgres.layer({ url: Redacted.make(url) }))))
    }))
})

describe("a lookout", () => {
  /** In memory, on the clock of the test; counts the looks. */
  const counted = <A, E>(
    body: (looks: () => number) => Effect.Effect<A, E, Namespace.Namespaces | Scope.Scope>
  ) =>
    Effect.gen(function*() {
      let looks = 0
      const namespaces = Context.get(yield* Layer.build(Layer.fresh(Sqlite.layerMemory)), Namespace.Namespaces)
      yield* Effect.provideService(body(() => looks), Namespace.Namespaces, {
        ...namespaces,
        query: (namespace) =>
          Effect.suspend(() => {
            looks++
            return namespaces.query(namespace)
          })
      })
    })

  it.scoped("looks after 5 ms, then less and less often, down to every 250 ms, and again soon for who comes anew", () =>
    counted(() =>
      Effect.gen(function*() {
        const shared = yield* Wait.lookout(Ledger.make("p"), source)
        yield* Effect.fork(shared.until(at(0), { timeout: "1 hour" }))
        const pauses: Array<number> = []
        for (let i = 0; i < 9; i++) pauses.push(yield* Eventually.nextSleep)
        expect(pauses).toEqual([5, 10, 20, 40, 80, 160, 250, 250, 250])
        yield* Effect.fork(shared.until(at(1), { timeout: "1 hour" }))
        expect(yield* Eventually.nextSleep).toBe(5)
      })
    ))

  it.scoped("looks once for many, and not at all for nobody", () =>
    counted((looks) =>
      Effect.gen(function*() {
        const shared = yield* Wait.lookout(Ledger.make("p"), source)
        yield* Eventually.settled
        yield* shared.stir
        yield* Eventually.settled
        expect(looks()).toBe(0)
        const waiting = yield* Effect.forEach(
          Array.from({ length: 1_200 }, (_, i) => i),
          (i) => Effect.fork(Effect.flip(shared.until(at(i), { timeout: "1 hour" })))
        )
        yield* Eventually.settled
        const before = looks()
        yield* Eventually.nextSleep
        expect(looks() - before, "three statements, of at most 500 places each").toBe(3)
        yield* Fiber.interruptAll(waiting)
        const after = looks()
        yield* TestClock.adjust("1 minute")
        yield* Eventually.settled
        expect(looks() - after).toBeLessThanOrEqual(1)
      })
    ))

  it.scoped("that is interrupted, or whose time is up, looks no more", () =>
    counted((looks) =>
      Effect.gen(function*() {
        const first = yield* Effect.fork(Wait.until(Ledger.make("p"), source, at(0), { timeout: "1 hour" }))
        const second = yield* Effect.fork(Effect.flip(Wait.until(Ledger.make("p"), source, at(0))))
        yield* Eventually.settled
        yield* Fiber.interrupt(first)
        yield* TestClock.adjust("5 seconds")
        expect(yield* Fiber.join(second)).toMatchObject({ _tag: "WaitTimedOut", timeoutMillis: 5_000 })
        const before = looks()
        expect(before).toBeGreaterThan(0)
        yield* TestClock.adjust("1 minute")
        yield* Eventually.settled
        expect(looks()).toBe(before)
      })
    ))

  it.scoped("of a reactor is woken by a commit, whatever the clock says", () =>
    Effect.gen(function*() {
      const feed = yield* Feed.make("feed")
      const processor = Ledger.make("p")
      yield* Effect.gen(function*() {
        const waiting = yield* Effect.fork(waitFor(processor, at(1)))
        yield* Eventually.settled
        expect(Option.isNone(yield* Fiber.poll(waiting))).toBe(true)
        yield* feed.push(put({ index: 0 }))
        yield* Eventually.settled
        expect(Option.isNone(yield* Fiber.poll(waiting))).toBe(true)
        yield* feed.push(put({ index: 1 }))
        expect(yield* Fiber.join(waiting)).toBe(2n)
      }).pipe(Effect.provide(beside(processor, feed)))
    }).pipe(Effect.provide(Sqlite.layerMemory)))

  it.scoped("of a reactor knows its own processors alone", () =>
    Effect.gen(function*() {
      const feed = yield* Feed.make("feed")
      const exit = yield* Effect.exit(waitFor(Ledger.make("q"), at(0))).pipe(
        Effect.provide(beside(Ledger.make("p"), feed))
      )
      expect(Exit.isFailure(exit) && Cause.pretty(exit.cause)).toMatch(/no processor of this reactor is named q/)
    }).pipe(Effect.provide(Sqlite.layerMemory)))
})
