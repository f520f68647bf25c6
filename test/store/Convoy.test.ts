/**
 * A convoy: commits of several processors in one transaction are what each would be by itself, whatever becomes of the
 * others.
 */
import * as SqlClient from "@effect/sql/SqlClient"
import { describe, expect, it } from "@effect/vitest"
import * as Context from "effect/Context"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import * as Fiber from "effect/Fiber"
import { identity } from "effect/Function"
import * as Layer from "effect/Layer"
import * as Logger from "effect/Logger"
import * as Schema from "effect/Schema"
import * as Scope from "effect/Scope"
import * as Stream from "effect/Stream"
import * as TestClock from "effect/TestClock"
import { Cursors, DeadLetters, Namespace, Policy, Processor, Reactor, Source, Table } from "../../src/index.js"
import type { Commit } from "../../src/index.js"
import * as Convoy from "../../src/store/Convoy.js"
import * as Errand from "../../src/store/Errand.js"
import * as Database from "../support/Database.js"
import * as Eventually from "../support/Eventually.js"
import * as Feed from "../support/Feed.js"
import * as Ledger from "../support/Ledger.js"
import * as Proxy from "../support/Proxy.js"
import * as Store from "../support/Store.js"

const silent = Logger.remove(Logger.defaultLogger)

class Refused extends Error {
  readonly _tag = "Refused"
}

type Followed = Processor.Processor<never, SqlClient.SqlClient>

const nameOf = Schema.decodeSync(Processor.ProcessorName)
const names = (count: number) => Array.from({ length: count }, (_, i) => `p${i}`)

/** All write into one table of one namespace, which is what makes a company of them. */
const namespace = "crowd"
const migrations = {
  "0001_entry": {
    up: Effect.flatMap(SqlClient.SqlClient, (sql) =>
      sql`CREATE TABLE entry (
        id INTEGER ${
        sql.literal(sql.onDialectOrElse({ sqlite: () => "", orElse: () => "GENERATED ALWAYS AS IDENTITY" }))
      }
          PRIMARY KEY,
        processor TEXT NOT NULL,
        text TEXT NOT NULL
      )`),
    down: Effect.flatMap(SqlClient.SqlClient, (sql) => sql`DROP TABLE entry`)
  }
}

const write = (processor: string, text: string) =>
  Effect.flatMap(SqlClient.SqlClient, (sql) => sql`INSERT INTO entry (processor, text) VALUES (${processor}, ${text})`)

/** A processor that does `before` with each text and then writes it down. */
const undecided = <E extends Policy.Tagged = never>(
  name: string,
  before: (text: string) => Effect.Effect<unknown, E, SqlClient.SqlClient> = () => Effect.void,
  options: Pick<Processor.Options<E, never, never>, "batch"> = {}
) =>
  Processor.make(name, {
    ...options,
    namespace,
    migrations,
    handler: Processor.onOperations(Ledger.Model, {
      PUT: ({ input }) => Effect.zipRight(before(input.text), write(name, input.text))
    })
  })

const make = (
  name: string,
  before?: (text: string) => Effect.Effect<unknown, never, SqlClient.SqlClient>,
  options?: Pick<Processor.Options<never, never, never>, "batch">
): Followed => undecided(name, before, options).pipe(Processor.withPolicy(Policy.standard))

const Entries = Table.make("entry", Schema.Struct({ processor: Schema.String, text: Schema.String }), {
  key: ["processor", "text"]
})

/** A processor that does as much through a table, so that its handler waits for nobody. */
const through = (name: string, options: Pick<Processor.Options<never, never, never>, "filter"> = {}): Followed =>
  Processor.make(name, {
    ...options,
    namespace,
    migrations,
    handler: Processor.onOperations(Ledger.Model, {
      PUT: ({ input: { text } }) => Entries.insert({ processor: name, text })
    })
  }).pipe(Processor.withPolicy(Policy.standard))

/** The texts of so many operations, in turns of three documents. */
const texts = (count: number) => Array.from({ length: count }, (_, i) => `text ${i}`)
const strands = (all: ReadonlyArray<string>) =>
  all.map((text, i) => {
    const { operations: [only], ...strand } = Ledger.strand(`d${i % 3}`, text)
    return { ...strand, operations: [{ ...only!, index: Math.floor(i / 3), hash: `hash of ${text}` }] }
  })

/** A reactor over processors that follow a feed, until the scope closes; and all commits that it tells of. */
const running = (
  source: Context.Tag.Service<Source.Source>,
  processors: ReadonlyArray<Followed>
) =>
  Effect.gen(function*() {
    const context = yield* Layer.build(
      Reactor.layer(...processors).pipe(Layer.provide(Layer.succeed(Source.Source, source)))
    )
    const reactor = Context.get(context, Reactor.Reactor)
    const commits: Array<Commit.Commit> = []
    yield* Effect.forkScoped(Stream.runForEach(reactor.commits, (commit) => Effect.sync(() => commits.push(commit))))
    const until = (holds: (outcomes: ReadonlyArray<Reactor.Outcome>) => boolean) =>
      Effect.gen(function*() {
        while (!holds(yield* reactor.outcomes)) yield* Effect.sleep(5)
      })
    return { reactor, commits, until }
  })

/** Whether a processor stands at this position, or has come to rest for good. */
const isAt = (position: bigint) => ({ phase, position: now }: Reactor.Outcome) =>
  phase === "halted" || (now ?? 0n) >= position

/** What each has written, by name. */
const written = (of: ReadonlyArray<string>) =>
  Effect.map(
    Namespace.query(
      namespace,
      Effect.flatMap(SqlClient.SqlClient, (sql) =>
        sql<{ readonly processor: string; readonly text: string }>`SELECT processor, text FROM entry ORDER BY id`)
    ),
    (rows) =>
      Object.fromEntries(
        of.map((name) => [
          name,
          rows.flatMap(({ processor, text }) =>
            processor === name ? [text] : []
          )
        ])
      )
  )

const each = <A>(of: ReadonlyArray<string>, value: A) => Object.fromEntries(of.map((name) => [name, value]))

describe.each(Database.dialects)("on $dialect", ({ dialect, fresh }) => {
  const inDatabase = <A, E>(work: Effect.Effect<A, E, Namespace.Namespaces | Scope.Scope>) =>
    Effect.flatMap(fresh, (database) => Effect.provide(work, Layer.merge(Store.layerMany(database), silent)))

  it.scopedLive("processors that would wait for each other commit together, each what it would by itself", () =>
    inDatabase(Effect.gen(function*() {
      const all = names(40)
      const said = texts(30)
      const feed = yield* Feed.make("feed")
      const { commits, until } = yield* running(feed.source, all.map((name) => make(name)))
      for (let i = 0; i < said.length; i += 10) {
        yield* feed.push(...strands(said).slice(i, i + 10))
        yield* until((outcomes) => outcomes.every(isAt(BigInt(i + 10))))
      }
      expect(yield* written(all)).toEqual(each(all, said))
      // Each has told of its own commits, in order and without a gap.
      for (const name of all) {
        const own = commits.filter(({ processor }) => processor === name)
        expect(own.reduce((sum, { operations }) => sum + operations, 0)).toBe(said.length)
        expect(own.map(({ sequence }) => sequence)).toEqual(own.map((_, i) => BigInt(i + 1)))
      }
      expect(Math.max(...commits.map(({ together }) => together))).toBeGreaterThan(1)
    })))

  it.scopedLive("processors that have one operation each go together by what those before them took", () =>
    inDatabase(Effect.gen(function*() {
      const all = names(300)
      const feed = yield* Feed.make("feed")
      const { commits, until } = yield* running(
        feed.source,
        all.map((name) => through(name, { filter: { documentId: [name] } }))
      )
      yield* feed.push(...all.map((name) => Ledger.strand(name, "its own")))
      yield* until((outcomes) => outcomes.every(isAt(300n)))
      expect(yield* written(all)).toEqual(each(all, ["its own"]))
      const parts = commits.filter(({ operations }) => operations > 0).map(({ together }) => together)
      // More than would all be allowed for what nobody knows.
      expect(Math.max(...parts)).toBeGreaterThan(8)
    })))

  it.scopedLive("what one of them fails at is set aside for it alone", () =>
    inDatabase(Effect.gen(function*() {
      const all = names(20)
      const said = texts(12)
      const refusing = (name: string) =>
        undecided(name, (text) => text === "text 4" ? Effect.fail(new Refused(text)) : Effect.void).pipe(
          Processor.withPolicy({ ...Policy.standard, Refused: Policy.park })
        )
      const feed = yield* Feed.make("feed")
      const { commits, until } = yield* running(
        feed.source,
        all.map((name, i) => i % 7 === 3 ? refusing(name) : make(name))
      )
      for (let i = 0; i < said.length; i += 2) {
        yield* feed.push(...strands(said).slice(i, i + 2))
        yield* until((outcomes) => outcomes.every(isAt(BigInt(i + 2))))
      }
      // Those behind it of the same document wait for it.
      const without = said.filter((_, i) => i < 4 || i % 3 !== 1)
      expect(yield* written(all)).toEqual(
        Object.fromEntries(all.map((name, i) => [name, i % 7 === 3 ? without : said]))
      )
      expect(Math.max(...commits.map(({ together }) => together))).toBeGreaterThan(1)
    })))

  // On SQLite one that hangs in a transaction of its own holds the file, and everybody waits for that.
  it.scopedLive.skipIf(dialect === "sqlite")(
    "one that hangs is waited for no longer than a moment, wherever in the line it is",
    () =>
      inDatabase(Effect.gen(function*() {
        const all = names(24)
        const hanging = new Set(["p0", "p5", "p23"])
        const said = texts(8)
        const feed = yield* Feed.make("feed")
        const { reactor, until } = yield* running(
          feed.source,
          all.map((name) => make(name, (text) => hanging.has(name) && text === "text 5" ? Effect.never : Effect.void))
        )
        yield* feed.push(...strands(said).slice(0, 4))
        yield* until((outcomes) => outcomes.every(isAt(4n)))
        yield* feed.push(...strands(said).slice(4))
        const going = all.filter((name) => !hanging.has(name))
        yield* until((outcomes) => outcomes.every((outcome) => hanging.has(outcome.processor) || isAt(8n)(outcome)))
        expect(yield* written(going)).toEqual(each(going, said))
        for (const { position, processor } of yield* reactor.outcomes) {
          if (hanging.has(processor)) expect(position).toBe(4n)
        }
      }))
  )

  it.scopedLive("one that hangs and cannot be called off is left behind", () =>
    inDatabase(Effect.gen(function*() {
      const all = names(16)
      const said = texts(4)
      const feed = yield* Feed.make("feed")
      let isOver = false
      const stubborn = Effect.uninterruptible(
        Effect.repeat(Effect.sleep("20 millis"), { until: () => isOver })
      )
      yield* Effect.addFinalizer(() => Effect.sync(() => void (isOver = true)))
      const { until } = yield* running(
        feed.source,
        all.map((name) => make(name, (text) => name === "p15" && text === "text 2" ? stubborn : Effect.void))
      )
      yield* Effect.addFinalizer(() => Effect.sync(() => void (isOver = true)))
      yield* feed.push(...strands(said).slice(0, 2))
      yield* until((outcomes) => outcomes.every(isAt(2n)))
      yield* feed.push(...strands(said).slice(2))
      const going = all.filter((name) => name !== "p15")
      yield* until((outcomes) => outcomes.every((outcome) => outcome.processor === "p15" || isAt(4n)(outcome)))
      expect(yield* written(going)).toEqual(each(going, said))
      isOver = true
      yield* until((outcomes) => outcomes.every(isAt(4n)))
      expect(yield* written(all)).toEqual(each(all, said))
    })))

  it.scopedLive("one whose cursor somebody else has claimed stops, and the others go on", () =>
    inDatabase(Effect.gen(function*() {
      const all = names(20)
      const said = texts(8)
      const feed = yield* Feed.make("feed")
      const { reactor, until } = yield* running(feed.source, all.map((name) => make(name)))
      yield* feed.push(...strands(said).slice(0, 4))
      yield* until((outcomes) => outcomes.every(isAt(4n)))
      const lost = all[11]!
      const { source } = feed
      yield* Namespace.within(namespace, Cursors.claim({ processor: nameOf(lost), source: source.name }))
      yield* feed.push(...strands(said).slice(4))
      yield* until((outcomes) => outcomes.every(isAt(8n)))
      const going = all.filter((name) => name !== lost)
      expect(yield* written(going)).toEqual(each(going, said))
      expect(yield* written([lost])).toEqual({ [lost]: said.slice(0, 4) })
      const outcome = (yield* reactor.outcomes).find(({ processor }) => processor === lost)
      expect(outcome).toMatchObject({ phase: "halted", failure: { _tag: "Fenced" } })
    })))

  it.scopedLive(
    "called off at any moment and started again, each is where it was",
    () =>
      inDatabase(Effect.gen(function*() {
        const all = names(24)
        const said = texts(400)
        const feed = yield* Feed.make("feed")
        let together = 1
        // Until they have gone together at all they are given longer and longer, however slow the machine is.
        let grace = 0
        for (let round = 0; round < 20; round++) {
          yield* feed.push(...strands(said).slice(round * 20, round * 20 + 20))
          const scope = yield* Scope.make()
          const { commits } = yield* Scope.extend(
            running(feed.source, all.map((name) => make(name, undefined, { batch: { operations: 3 } }))),
            scope
          )
          yield* Effect.sleep(grace + round * 7 % 60)
          yield* Scope.close(scope, Exit.void)
          together = Math.max(together, ...commits.map((commit) => commit.together))
          if (together === 1) grace += 50
        }
        const { reactor, until } = yield* running(feed.source, all.map((name) => make(name)))
        yield* until((outcomes) => outcomes.every(isAt(400n)))
        expect((yield* reactor.outcomes).filter(({ phase }) => phase === "halted")).toEqual([])
        expect(yield* written(all)).toEqual(each(all, said))
        expect(together).toBeGreaterThan(1)
      }))
  )

  it.scopedLive("a fiber that outlives its handler cannot write in the parts of others", () =>
    inDatabase(Effect.gen(function*() {
      const all = names(12)
      const said = texts(6)
      const feed = yield* Feed.make("feed")
      const late: Array<Fiber.Fiber<unknown, unknown>> = []
      const leaking = (name: string) =>
        make(name, (text) =>
          Effect.asVoid(Effect.tap(
            Effect.forkDaemon(Effect.delay(write(name, `${text}, too late`), "5 millis")),
            (fiber) => Effect.sync(() => late.push(fiber))
          )))
      const { until } = yield* running(feed.source, all.map(leaking))
      yield* feed.push(...strands(said).slice(0, 3))
      yield* until((outcomes) => outcomes.every(isAt(3n)))
      yield* feed.push(...strands(said).slice(3))
      yield* until((outcomes) => outcomes.every(isAt(6n)))
      const exits = yield* Effect.forEach(late, Fiber.await)
      expect(late.length).toBeGreaterThanOrEqual(all.length * said.length)
      const found = yield* written(all)
      // One that was in time, while its own handler ran, is part of what that has written.
      const intruders = Object.values(found).flat().filter((text) => text.endsWith("too late"))
      expect(intruders.length).toBeLessThanOrEqual(exits.filter(Exit.isSuccess).length)
      for (const name of all) expect(found[name]!.filter((text) => !text.endsWith("too late"))).toEqual(said)
    })))

  it.scopedLive("letters of one do not keep the others from going together", () =>
    inDatabase(Effect.gen(function*() {
      const all = names(12)
      const said = texts(6)
      const feed = yield* Feed.make("feed")
      const { until } = yield* running(feed.source, all.map((name) => make(name)))
      // The first of a document is missing, so those behind it wait.
      yield* feed.push(...strands(said).slice(1))
      yield* until((outcomes) => outcomes.every(isAt(5n)))
      const waiting = Effect.map(
        Effect.forEach(
          all,
          (name) => Namespace.query(namespace, DeadLetters.list({ processor: nameOf(name), source: feed.source.name }))
        ),
        (letters) => letters.map(({ length }) => length)
      )
      expect(yield* waiting).toEqual(all.map(() => 1))
      yield* feed.push(strands(said)[0]!)
      yield* until((outcomes) => outcomes.every(isAt(6n)))
      while ((yield* waiting).some((letters) => letters > 0)) yield* Effect.sleep(5)
      const found = yield* written(all)
      for (const name of all) expect([...found[name]!].sort()).toEqual(said)
    })))
})

describe("newcomers", () => {
  const unknown = 30
  const expected = (operations: number, ...handled: ReadonlyArray<readonly [operations: number, millis: number]>) => {
    const newcomers = new Convoy.Newcomers()
    for (const some of handled) newcomers.note(...some)
    return newcomers.expectedMillis(operations)
  }
  const quick = Array.from({ length: 60 }, () => [1, 0.2] as const)

  it("are expected to take what is allowed for, as long as nobody has taken less", () => {
    expect(expected(1)).toBe(unknown)
    expect(expected(4_000)).toBe(unknown)
    expect(expected(1, [1, 500])).toBe(unknown)
  })

  it("are expected to take what others do, once many have taken less", () => {
    expect(expected(1, [1, 0.2])).toBeGreaterThan(unknown / 2)
    expect(expected(1, ...quick)).toBe(0.2)
    expect(expected(1, ...quick, [1, 10])).toBe(10)
    expect(expected(1, ...quick, [1, 10], [1, 0.2])).toBe(9)
    expect(expected(1, ...quick, [1, 500])).toBe(unknown)
  })

  it("are expected to take longer for more operations, and nothing is known of many more", () => {
    expect(expected(8, ...quick)).toBe(1.6)
    expect(expected(9, ...quick)).toBe(unknown)
    // Of which all may have been overhead.
    expect(expected(1, ...quick, [4_000, 20])).toBe(20)
    expect(expected(8_000, ...quick, [4_000, 20])).toBe(unknown)
  })
})

describe("a seat", () => {
  type Handled = readonly [operations: number, millis: number, end?: Effect.Effect<void, Refused>]

  /** Whether a commit of so many operations would go with others, by a seat that has handled some before. */
  const goes = (operations: number, handled: ReadonlyArray<Handled>) =>
    Effect.gen(function*() {
      const gone: Array<"together" | "alone"> = []
      const note = (how: "together" | "alone") => Effect.sync(() => void gone.push(how))
      const seat = new Convoy.Seat({
        newcomers: new Convoy.Newcomers(),
        isCrowded: () => false,
        join: () => note("together"),
        single: () => note("alone")
      })
      for (const [count, millis, end = Effect.void] of handled) {
        const handling = yield* Effect.fork(seat.timed(count, Effect.zipRight(Effect.sleep(millis), end)))
        yield* Eventually.settled
        yield* TestClock.adjust(millis)
        yield* Fiber.await(handling)
      }
      const part = { operations } as unknown as Convoy.Part<never, never>
      yield* seat.join(part, Effect.void, identity)
      return gone[0]
    })

  const refused = Effect.fail(new Refused("refused"))

  it.effect.each<[string, "together" | "alone", number, ReadonlyArray<Handled>]>([
    ["of which nothing is known", "together", 4_000, []],
    ["of which nothing is known, and that has only its cursor to move,", "together", 0, []],
    ["that was slow, and has only its cursor to move,", "together", 0, [[4_000, 300]]],
    ["that was slow", "alone", 4_000, [[4_000, 300]]],
    ["that was fast", "together", 4_000, [[4_000, 200]]],
    ["with one operation that took a moment, before many", "together", 1_000, [[1, 5]]],
    ["with one operation that took long by itself", "alone", 1_000, [[1, 300]]],
    ["that was slow with many, and had one since", "alone", 4_000, [[4_000, 300], [1, 1]]],
    ["that was slow with many, and less so with one since", "alone", 4_000, [[4_000, 900], [1, 31]]],
    ["that was slow with many, and fast with as many since", "together", 4_000, [[4_000, 300], [2_000, 100]]],
    ["that was fast with many, and slow with one since", "alone", 4_000, [[4_000, 10], [1, 300]]],
    ["that was slow to fail", "alone", 1_000, [[1_000, 300, refused]]],
    ["that was called off after long", "alone", 1_000, [[1_000, 300, Effect.interrupt]]],
    ["that was slow, and quick to fail since", "alone", 4_000, [[4_000, 300], [4_000, 1, refused]]]
  ])(
    "%s goes %s",
    ([, how, operations, handled]) => Effect.map(goes(operations, handled), (gone) => expect(gone).toBe(how))
  )
})

describe("on 'pg', where nobody takes an errand", () => {
  it.scopedLive("large commits through tables go together, and not alone for the sake of being offered", () =>
    Effect.flatMap(Database.postgres, (database) =>
      Effect.gen(function*() {
        const all = names(20)
        const said = texts(30)
        const feed = yield* Feed.make("feed")
        const { commits, until } = yield* running(feed.source, all.map((name) => through(name)))
        for (let i = 0; i < said.length; i += 3) {
          yield* feed.push(...strands(said).slice(i, i + 3))
          yield* until((outcomes) => outcomes.every(isAt(BigInt(i + 3))))
        }
        expect(yield* written(all)).toEqual(each(all, said))
        // Each has been offered once, early; what comes late goes with the others.
        const late = commits.filter(({ position }) => position > 15n)
        expect(Math.max(...late.map(({ together }) => together))).toBeGreaterThan(1)
      }).pipe(Effect.provide(Layer.mergeAll(
        Store.layerMany(database),
        silent,
        Layer.succeed(Errand.Limits, { operations: 1, calm: 1, factor: 4_096, calmMax: 4_096 })
      )))))
})

describe("on 'pg', COMMIT of a convoy that is not answered", () => {
  it.scopedLive.each(["cutBeforeCommit", "cutAfterCommit"] as const)(
    "is looked up by each of them (%s)",
    (which) =>
      Effect.gen(function*() {
        const database = yield* Database.postgres
        const proxy = yield* Proxy.make(database.url)
        const all = names(30)
        const said = texts(60)
        yield* Effect.gen(function*() {
          const feed = yield* Feed.make("feed")
          const { commits, until } = yield* running(feed.source, all.map((name) => make(name)))
          for (let i = 0; i < said.length; i += 5) {
            const happened = yield* proxy[which]
            yield* feed.push(...strands(said).slice(i, i + 5))
            yield* until((outcomes) => outcomes.every(isAt(BigInt(i + 5))))
            yield* happened
          }
          expect(yield* written(all)).toEqual(each(all, said))
          expect(Math.max(...commits.map(({ together }) => together))).toBeGreaterThan(1)
        }).pipe(Effect.provide(Layer.merge(Store.layerMany({ dialect: "pg", url: proxy.url }), silent)))
      })
  )
})
