/**
 * The relay: one reading for all, nobody held up, nothing lost or doubled, and a bound on what is in memory.
 */
import { describe, expect, it } from "@effect/vitest"
import * as Chunk from "effect/Chunk"
import * as Clock from "effect/Clock"
import type * as Context from "effect/Context"
import * as Deferred from "effect/Deferred"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import * as FastCheck from "effect/FastCheck"
import * as Fiber from "effect/Fiber"
import * as Option from "effect/Option"
import * as Ref from "effect/Ref"
import * as Scope from "effect/Scope"
import * as Stream from "effect/Stream"
import * as TestClock from "effect/TestClock"
import * as TestContext from "effect/TestContext"
import { mkdtempSync, rmSync, writeFileSync } from "node:fs"
import { tmpdir } from "node:os"
import { join } from "node:path"
import { make as position } from "../../src/domain/Position.js"
import type { Strand } from "../../src/domain/Strand.js"
import * as Batch from "../../src/ingest/Batch.js"
import * as Filter from "../../src/ingest/Filter.js"
import * as Idle from "../../src/ingest/Idle.js"
import * as Ndjson from "../../src/ingest/Ndjson.js"
import * as Relay from "../../src/ingest/Relay.js"
import * as Source from "../../src/ingest/Source.js"
import * as Eventually from "../support/Eventually.js"
import * as Feed from "../support/Feed.js"
import * as WallClock from "../support/WallClock.js"

const types = ["a", "b", "c"] as const

interface Shape {
  readonly type?: string
  readonly operations?: number
  readonly bytes?: number
}

const unplaced = ({ bytes = 10, operations = 1, type = "a" }: Shape = {}): Source.Unplaced =>
  ({
    documentId: "d",
    documentType: type,
    scope: "global",
    branch: "main",
    operations: Array.from({ length: operations }, (_, index) => ({ index, timestamp: "t" })),
    bytes
  }) as unknown as Source.Unplaced

const strand = (at: number, shape?: Shape): Strand => ({ ...unplaced(shape), position: position(BigInt(at)) })

const many = (count: number, shape?: Shape) => Array.from({ length: count }, () => unplaced(shape))

const following = (
  type: string | undefined,
  limits: Partial<Batch.Limits> = {},
  after = 0
): Relay.Following => ({
  after: position(BigInt(after)),
  filter: type === undefined ? Filter.all : { documentType: [type] },
  filterDialect: "drive",
  limits: { ...Batch.defaults, ...limits }
})

/** What a batch holds, as `position-operation`. */
const contents = ({ strands }: Batch.Batch) =>
  strands.flatMap((each) => each.operations.map(({ index }) => `${each.position}-${index}`))

const expectedOf = (strands: ReadonlyArray<Strand>, wants: (strand: Strand) => boolean) =>
  strands.filter(wants).flatMap((each) => each.operations.map(({ index }) => `${each.position}-${index}`))

const next = <E>(batches: Batch.Batches<E>) => Effect.map(batches.take, Option.getOrThrow)

/** Takes batches until it has this many operations. */
const takeSome = <E>(batches: Batch.Batches<E>, operations: number) =>
  Effect.gen(function*() {
    const seen: Array<string> = []
    while (seen.length < operations) seen.push(...contents(yield* next(batches)))
    return seen
  })

/** Takes batches for ever, and tells of each. */
const drain = <E>(batches: Batch.Batches<E>, seen: Array<string>) =>
  Effect.forever(Effect.map(next(batches), (batch) => seen.push(...contents(batch))))

/** The journal's way: pages of what is there and wanted, beside a feed. */
const paged = (feed: Feed.Feed, reads: Array<bigint> = []): Context.Tag.Service<Source.Source> => ({
  ...feed.source,
  page: (after, { bytes, filter, operations }) =>
    Effect.gen(function*() {
      reads.push(after)
      yield* Effect.yieldNow()
      const head = Option.getOrThrow(yield* feed.source.head)
      const all = yield* feed.source.strands(after).pipe(
        Stream.take(Number(head - after)),
        Stream.runCollect,
        Effect.map(Chunk.toReadonlyArray)
      )
      const strands: Array<Strand> = []
      let [count, size] = [0, 0]
      for (const each of all.filter((one) => Filter.matches(filter, one))) {
        if (count >= operations || size >= bytes) return { strands, position: strands.at(-1)!.position }
        strands.push(each)
        count += each.operations.length
        size += each.bytes
      }
      return { strands, position: head }
    })
})

/** A recorded file of so many lines, each of type `b`, that tells where it was opened. */
const ofLines = (count: number, opened: Array<bigint>) =>
  Effect.gen(function*() {
    const directory = yield* Effect.acquireRelease(
      Effect.sync(() => mkdtempSync(join(tmpdir(), "relay-test-"))),
      (made) => Effect.sync(() => rmSync(made, { recursive: true, force: true }))
    )
    const file = join(directory, "lines.ndjson")
    const line = JSON.stringify({
      driveId: "drive",
      documentId: "d",
      documentType: "b",
      scope: "global",
      branch: "main",
      operations: [],
      state: {}
    })
    writeFileSync(file, `${line}\n`.repeat(count))
    const source = yield* Ndjson.make({ name: "lines", files: [file] })
    return {
      ...source,
      strands: (after: Source.Page["position"]) =>
        Stream.suspend(() => {
          opened.push(after)
          return source.strands(after)
        })
    }
  })

describe("a source", () => {
  it.scoped("is opened once for fifty followers, and each gets what it wants", () =>
    Effect.gen(function*() {
      const feed = yield* Feed.make("feed")
      yield* feed.push(...types.map((type) => unplaced({ type })))
      const relay = yield* Relay.make(feed.source)
      const arrivals = Array.from({ length: 50 }, () => relay.expect())
      const followers = yield* Effect.forEach(arrivals, (arrived, i) =>
        Effect.zipLeft(relay.follow(following(types[i % 3])), Effect.sync(arrived)))
      yield* feed.push(...types.map((type) =>
        unplaced({ type })
      ))
      for (const [i, batches] of followers.entries()) {
        expect(yield* takeSome(batches, 2)).toEqual([`${1 + i % 3}-0`, `${4 + i % 3}-0`])
      }
      expect(yield* feed.opened).toBe(1)
      expect(yield* relay.standing).toMatchObject({ attached: 50, laggards: 0 })
    }))

  it.scoped("is opened once for followers whose places are near, however far apart their positions are", () =>
    Effect.gen(function*() {
      const opened: Array<bigint> = []
      const source = yield* ofLines(20_000, opened)
      const relay = yield* Relay.make(source)
      const arrivals = Array.from({ length: 4 }, () => relay.expect())
      const followers = yield* Effect.forEach([19_000, 10, 1_000, 12_000], (line, i) =>
        Effect.zipLeft(
          relay.follow({ ...following("a"), after: Ndjson.positionOf({ file: 0, line, strand: 0 }) }),
          Effect.sync(arrivals[i]!)
        ))
      for (const batches of followers) yield* Effect.forkScoped(Effect.ignore(drain(batches, [])))
      yield* Eventually.until("the source has ended", Effect.map(source.head, Option.isSome))
      expect(opened).toEqual([Ndjson.positionOf({ file: 0, line: 10, strand: 0 })])
      expect(yield* relay.standing).toMatchObject({ attached: 4, laggards: 0 })
    }))

  it.scoped("is not opened before those who were announced have come, or given up, or not come for a while", () =>
    Effect.gen(function*() {
      const feed = yield* Feed.make("feed")
      const relay = yield* Relay.make(feed.source)
      const [one, two] = [relay.expect(), relay.expect()]
      yield* relay.follow(following("a"))
      one()
      yield* Eventually.settled
      expect(yield* feed.opened).toBe(0)
      two()
      two()
      yield* Eventually.settled
      expect(yield* feed.opened).toBe(1)
      const other = yield* Relay.make(feed.source)
      const [come, _never] = [other.expect(), other.expect()]
      const batches = yield* other.follow(following("a"))
      come()
      yield* feed.push(unplaced())
      yield* Eventually.settled
      expect(yield* feed.opened).toBe(1)
      yield* TestClock.adjust("2 seconds")
      expect(contents(yield* next(batches))).toEqual(["1-0"])
    }))

  it.scoped("that ends lets each follower take what it has, moves its cursor to the end, and ends", () =>
    Effect.gen(function*() {
      const relay = yield* Relay.make(Source.fromIterable("s", ["a", "a", "b", "b"].map((type) => unplaced({ type }))))
      const arrivals = [relay.expect(), relay.expect()]
      const a = yield* relay.follow(following("a"))
      const c = yield* relay.follow(following("c"))
      for (const arrived of arrivals) arrived()
      yield* Eventually.settled
      const batch = yield* next(a)
      expect([contents(batch), batch.position]).toEqual([["1-0", "2-0"], 4n])
      expect(yield* a.take).toEqual(Option.none())
      expect(yield* next(c)).toMatchObject({ strands: [], position: 4n })
      expect(yield* c.take).toEqual(Option.none())
    }))

  it.scoped("that fails fails all who got there, after what came before; who follows anew has it opened again", () =>
    Effect.gen(function*() {
      const feed = yield* Feed.make("feed")
      const cut = new Source.SourceUnavailable({ source: "feed", reason: "cut" })
      yield* feed.push(unplaced(), unplaced())
      yield* feed.fail(cut)
      const relay = yield* Relay.make(feed.source)
      const arrivals = [relay.expect(), relay.expect()]
      const scope = yield* Scope.make()
      const followers = yield* Effect.forEach(
        arrivals,
        (arrived) => Effect.zipLeft(Scope.extend(relay.follow(following("a")), scope), Effect.sync(arrived))
      )
      for (const batches of followers) {
        expect(yield* takeSome(batches, 2)).toEqual(["1-0", "2-0"])
        expect(yield* Effect.flip(batches.take)).toBe(cut)
      }
      yield* Scope.close(scope, Exit.void)
      yield* feed.fail(undefined)
      const again = yield* relay.follow(following("a", {}, 2))
      yield* feed.push(unplaced())
      expect(yield* takeSome(again, 1)).toEqual(["3-0"])
      expect(yield* feed.opened).toBe(2)
    }))

  it.scoped("that is broken at a place is so for those who come there, and not for those who are past it", () =>
    Effect.gen(function*() {
      const feed = yield* Feed.make("feed")
      const broken = new Source.MalformedSource({ source: "feed", at: "2", reason: "no strand" })
      yield* feed.push(...many(5))
      const source = {
        ...feed.source,
        strands: (after: Source.Page["position"]) =>
          after >= 2n
            ? feed.source.strands(after)
            : Stream.concat(Stream.take(feed.source.strands(after), 1 - Number(after)), Stream.fail(broken))
      }
      const relay = yield* Relay.make(source)
      const arrivals = [relay.expect(), relay.expect()]
      const behind = yield* relay.follow(following("a"))
      const past = yield* relay.follow(following("a", {}, 3))
      for (const arrived of arrivals) arrived()
      expect(yield* takeSome(behind, 1)).toEqual(["1-0"])
      expect(yield* Effect.flip(behind.take)).toBe(broken)
      expect(yield* takeSome(past, 2)).toEqual(["4-0", "5-0"])
    }))

  it.scoped("that ends before where some stand fails them, and ends for those who are not there yet", () =>
    Effect.gen(function*() {
      const relay = yield* Relay.make(Source.fromIterable("s", many(5)))
      const arrivals = [relay.expect(), relay.expect(), relay.expect()]
      const behind = yield* relay.follow(following("a", {}, 3))
      const beyond = yield* Effect.forEach([6, 7], (after) => relay.follow(following("a", {}, after)))
      for (const arrived of arrivals) arrived()
      expect(yield* takeSome(behind, 2)).toEqual(["4-0", "5-0"])
      expect(yield* behind.take).toEqual(Option.none())
      for (const batches of beyond) {
        expect(yield* Effect.flip(batches.take)).toBeInstanceOf(Source.SourceShortened)
      }
    }))
})

describe("a slow follower", () => {
  const bounds = { operations: 5 }

  it.scoped("alone holds the source up: two batches are read ahead and no more", () =>
    Effect.gen(function*() {
      const read = yield* Ref.make(0)
      const source = {
        ...(yield* Feed.make("feed")).source,
        strands: () =>
          Stream.iterate(1, (n) => n + 1).pipe(
            Stream.rechunk(1),
            Stream.tap((n) => Ref.set(read, n)),
            Stream.map((n) => strand(n))
          )
      }
      const relay = yield* Relay.make(source)
      const batches = yield* relay.follow(following("a", bounds))
      yield* Eventually.settled
      yield* TestClock.adjust("1 minute")
      expect(yield* Ref.get(read)).toBeLessThanOrEqual(11)
      expect((yield* takeSome(batches, 20)).length).toBe(20)
    }))

  it.scoped("holds others up for the patience and no longer, falls behind, and comes back with nothing lost", () =>
    Effect.gen(function*() {
      const feed = yield* Feed.make("feed")
      const reads: Array<bigint> = []
      const relay = yield* Relay.make(paged(feed, reads))
      const slow = yield* relay.follow(following(undefined, bounds))
      const fast = yield* relay.follow(following(undefined, bounds))
      const seen: Array<string> = []
      yield* Effect.forkScoped(drain(fast, seen))
      yield* feed.push(...many(100))
      yield* Eventually.settled
      expect(seen.length).toBeLessThan(30)
      expect(yield* relay.standing).toMatchObject({ attached: 2, laggards: 0 })
      yield* TestClock.adjust("200 millis")
      yield* Eventually.settled
      expect(seen).toHaveLength(100)
      expect(yield* relay.standing).toMatchObject({ attached: 1, laggards: 1 })
      expect(yield* takeSome(slow, 100)).toEqual(seen)
      yield* Effect.forkScoped(slow.take)
      yield* Eventually.settled
      expect(yield* relay.standing).toMatchObject({ attached: 2, laggards: 0 })
    }))

  it.scoped("holds others up for no longer though the clock is set back meanwhile", () =>
    Effect.gen(function*() {
      const { on, set } = yield* WallClock.make
      const feed = yield* Feed.make("feed")
      const relay = yield* on(Relay.make(paged(feed)))
      yield* relay.follow(following(undefined, bounds))
      const fast = yield* relay.follow(following(undefined, bounds))
      const seen: Array<string> = []
      yield* Effect.forkScoped(on(drain(fast, seen)))
      yield* feed.push(...many(100))
      yield* Eventually.settled
      expect(seen.length).toBeLessThan(30)
      set(-3_600_000)
      yield* TestClock.adjust("200 millis")
      yield* Eventually.settled
      expect(seen).toHaveLength(100)
    }))

  it.scoped("is read for together where many are behind, and page by page where few are", () =>
    Effect.gen(function*() {
      const feed = yield* Feed.make("feed")
      const count = 12_000
      yield* feed.push(...many(count - 1, { type: "b" }), unplaced())
      const opens = (laggards: number) =>
        Effect.scoped(Effect.gen(function*() {
          const reads: Array<bigint> = []
          const relay = yield* Relay.make(paged(feed, reads))
          const arrived = relay.expect()
          yield* relay.follow(following("z", {}, count))
          const late = yield* Effect.forEach(Array.from({ length: laggards }), () => relay.follow(following("a")))
          arrived()
          for (const batches of late) {
            const taken = yield* Effect.fork(next(batches))
            yield* Eventually.until("it has its strand", Effect.map(Fiber.poll(taken), Option.isSome))
            expect(contents(yield* Fiber.join(taken))).toEqual([`${count}-0`])
          }
          return reads.length
        }))
      expect(yield* opens(100)).toBe(0)
      expect(yield* opens(5)).toBe(5)
    }))

  it.scoped("never holds up those who want other strands for longer than the patience", () =>
    Effect.gen(function*() {
      const feed = yield* Feed.make("feed")
      const relay = yield* Relay.make(paged(feed))
      yield* relay.follow(following("a", bounds))
      const other = yield* relay.follow(following("b", bounds))
      const seen: Array<string> = []
      yield* Effect.forkScoped(drain(other, seen))
      yield* feed.push(...many(100), unplaced({ type: "b" }))
      yield* Eventually.settled
      expect(seen).toEqual([])
      yield* TestClock.adjust("200 millis")
      yield* Eventually.settled
      expect(seen).toEqual(["101-0"])
      // It is behind already: nobody waits for it a second time.
      yield* feed.push(...many(100), unplaced({ type: "b" }))
      yield* Eventually.settled
      expect(seen).toEqual(["101-0", "202-0"])
    }))

  it.scoped("among others that are as slow is waited for", () =>
    Effect.gen(function*() {
      const feed = yield* Feed.make("feed")
      const relay = yield* Relay.make(paged(feed))
      const followers = yield* Effect.replicateEffect(relay.follow(following("a", bounds)), 3)
      yield* feed.push(...many(1_000))
      yield* Eventually.settled
      yield* TestClock.adjust("1 minute")
      expect(yield* relay.standing).toMatchObject({ attached: 3, laggards: 0 })
      for (let round = 0; round < 20; round++) {
        for (const batches of followers) expect(contents(yield* next(batches))).toHaveLength(5)
      }
      expect(yield* relay.standing).toMatchObject({ attached: 3, laggards: 0 })
    }))

  it.scoped("is waited for as long as commits wait for their turn where others would have to wait too", () =>
    Effect.gen(function*() {
      const feed = yield* Feed.make("feed")
      const relay = yield* Relay.make(paged(feed))
      let isCrowded = true
      const crowd = { ...following(undefined, bounds), isCrowded: () => isCrowded }
      const slow = yield* relay.follow(crowd)
      const fast = yield* relay.follow(crowd)
      const seen: Array<string> = []
      yield* Effect.forkScoped(drain(fast, seen))
      yield* feed.push(...many(100))
      yield* Eventually.settled
      yield* TestClock.adjust("29 seconds")
      yield* Eventually.settled
      expect(yield* relay.standing).toMatchObject({ attached: 2, laggards: 0 })
      expect(seen.length).toBeLessThan(30)
      // From then on it has the patience that everybody has.
      isCrowded = false
      yield* TestClock.adjust("199 millis")
      yield* Eventually.settled
      expect(yield* relay.standing).toMatchObject({ attached: 2, laggards: 0 })
      yield* TestClock.adjust("201 millis")
      yield* Eventually.settled
      expect(yield* relay.standing).toMatchObject({ attached: 1, laggards: 1 })
      expect(seen).toHaveLength(100)
      expect(yield* takeSome(slow, 100)).toEqual(seen)
    }))

  it.scoped("is waited for no longer than half a minute, whatever it waits for among commits that wait for their turn", () =>
    Effect.gen(function*() {
      const feed = yield* Feed.make("feed")
      const relay = yield* Relay.make(paged(feed))
      const crowd = { ...following(undefined, bounds), isCrowded: () => true }
      const stuck = yield* relay.follow(crowd)
      const seen: Array<string> = []
      yield* Effect.forkScoped(drain(yield* relay.follow(crowd), seen))
      yield* feed.push(...many(100))
      yield* Eventually.settled
      yield* TestClock.adjust("30 seconds")
      yield* Eventually.settled
      yield* TestClock.adjust("200 millis")
      yield* Eventually.settled
      expect(yield* relay.standing).toMatchObject({ attached: 1, laggards: 1 })
      expect(seen).toHaveLength(100)
      expect(yield* takeSome(stuck, 100)).toEqual(seen)
    }))

  it.scoped("is not waited for by one that could commit at once, however many wait elsewhere", () =>
    Effect.gen(function*() {
      const feed = yield* Feed.make("feed")
      const relay = yield* Relay.make(paged(feed))
      for (let i = 0; i < 3; i++) yield* relay.follow({ ...following(undefined, bounds), isCrowded: () => true })
      const elsewhere = yield* relay.follow(following(undefined, bounds))
      const seen: Array<string> = []
      yield* Effect.forkScoped(drain(elsewhere, seen))
      yield* feed.push(...many(100))
      yield* Eventually.settled
      yield* TestClock.adjust("200 millis")
      yield* Eventually.settled
      expect(seen).toHaveLength(100)
    }))

  it.scoped("that reads by itself moves its cursor behind so many unwanted strands, however far positions are apart", () =>
    Effect.gen(function*() {
      const feed = yield* Feed.make("feed")
      const source: Context.Tag.Service<Source.Source> = {
        ...feed.source,
        strands: (after) =>
          Stream.range(Number(after >> 20n) + 1, 300_000).pipe(
            Stream.map((n) => ({ ...unplaced(), position: position(BigInt(n) << 20n) })),
            Stream.rechunk(100),
            Stream.concat(Stream.never)
          ),
        distance: (from, to) => Number((to - from) >> 20n)
      }
      const relay = yield* Relay.make(source)
      const arrived = relay.expect()
      const head = yield* relay.follow({ ...following("z"), after: position(300_000n << 20n) })
      const late = yield* relay.follow(following("z", { operations: 500, unwanted: 3_000 }))
      arrived()
      yield* Effect.forkScoped(head.take)
      const batch = yield* next(late)
      expect(batch.strands).toEqual([])
      expect(Number(batch.position >> 20n)).toBeGreaterThanOrEqual(3_000)
      expect(Number(batch.position >> 20n)).toBeLessThan(4_000)
      expect(yield* relay.standing).toMatchObject({ attached: 1, laggards: 1 })
    }))

  it.scoped("that reads by itself gives its turn up after a batch, and after a while if it keeps it", () =>
    Effect.gen(function*() {
      const feed = yield* Feed.make("feed")
      yield* feed.push(...many(1_000))
      const relay = yield* Relay.make(paged(feed), { laggardsMax: 1, windowStrands: 1 })
      const head = yield* relay.follow(following("b", {}, 999))
      yield* Effect.forkScoped(head.take)
      yield* Eventually.settled
      const [one, two] = yield* Effect.replicateEffect(relay.follow(following("a", bounds)), 2)
      yield* next(one!)
      const waiting = yield* Effect.fork(next(two!))
      yield* Eventually.settled
      expect(Option.isNone(yield* Fiber.poll(waiting))).toBe(true)
      const again = yield* Effect.fork(next(one!))
      expect(contents(yield* Fiber.join(waiting))).toHaveLength(5)
      yield* Eventually.settled
      expect(Option.isNone(yield* Fiber.poll(again)), "the other has it now").toBe(true)
      yield* TestClock.adjust("200 millis")
      expect(contents(yield* Fiber.join(again))[0]).toBe("6-0")
    }))
})

describe("memory", () => {
  it.scoped("is bounded whatever is slow: no more than the bound and a strand for each", () =>
    Effect.gen(function*() {
      const feed = yield* Feed.make("feed")
      const bytesMax = 20_000
      let most = 0
      const relay = yield* Relay.make(paged(feed), {
        bytesMax,
        tell: ({ bytes }) => {
          most = Math.max(most, bytes)
        }
      })
      const slow = yield* Effect.forEach(types, (type) => relay.follow(following(type, { operations: 100 })))
      const fast = yield* relay.follow(following("z"))
      const seen: Array<string> = []
      yield* Effect.forkScoped(drain(fast, seen))
      yield* Effect.forEach(slow, (batches) => Effect.forkScoped(next(batches)))
      for (let round = 0; round < 15; round++) {
        yield* feed.push(
          ...types.flatMap((type) => many(20, { type, bytes: 500 })),
          ...many(1, { type: "z", bytes: 500 })
        )
        yield* Eventually.settled
        yield* TestClock.adjust("250 millis")
      }
      yield* Eventually.settled
      expect(seen).toHaveLength(15)
      expect(most).toBeGreaterThan(bytesMax / 4)
      expect(most).toBeLessThanOrEqual(bytesMax + 4 * 500)
      for (const [i, batches] of slow.entries()) {
        const rest = yield* takeSome(batches, 250)
        expect(new Set(rest).size).toBe(rest.length)
        expect(rest.every((each) => Number(each.split("-")[0]) % 61 > i * 20)).toBe(true)
      }
    }))

  it.scoped("holds a strand that several want once, until the last of them has committed it", () =>
    Effect.gen(function*() {
      const feed = yield* Feed.make("feed")
      const relay = yield* Relay.make(feed.source, { windowStrands: 0 })
      const bytes = Effect.map(relay.standing, (standing) => standing.bytes)
      const [first, second] = yield* Effect.forEach([1, 2], () => relay.follow(following("a")))
      yield* feed.push(...many(3))
      yield* Eventually.settled
      expect(yield* bytes, "waits for both").toBe(30)
      yield* next(first!)
      expect(yield* bytes, "waits for one, and is committed by the other").toBe(60)
      yield* Effect.forkScoped(first!.take)
      yield* Eventually.settled
      expect(yield* bytes, "waits for one").toBe(30)
      yield* next(second!)
      expect(yield* bytes, "is committed by the last").toBe(30)
      yield* Effect.forkScoped(second!.take)
      yield* Eventually.settled
      expect(yield* bytes).toBe(0)
    }))

  it.scoped("holds one list of strands for all who take the same, and others for whoever takes more, less or something else", () =>
    Effect.gen(function*() {
      const feed = yield* Feed.make("feed")
      const relay = yield* Relay.make(feed.source, { windowStrands: 0 })
      const follow = (limits?: Partial<Batch.Limits>, type?: string) => relay.follow(following(type, limits))
      const alike = yield* Effect.forEach([1, 2, 3], () => follow())
      const fewer = yield* follow({ operations: 3 })
      const inBytes = yield* follow({ bytes: 25 })
      const choosy = yield* follow({}, "a")
      yield* feed.push(...many(3), ...many(1, { type: "b" }), ...many(1))
      yield* Eventually.settled
      const [first, second, third] = yield* Effect.forEach(alike, next)
      expect(contents(first!)).toEqual(["1-0", "2-0", "3-0", "4-0", "5-0"])
      expect(second!.strands).toBe(first!.strands)
      expect(third!.strands).toBe(first!.strands)
      expect(contents(yield* next(fewer))).toEqual(["1-0", "2-0", "3-0"])
      expect(contents(yield* next(inBytes))).toEqual(["1-0", "2-0", "3-0"])
      expect(contents(yield* next(choosy))).toEqual(["1-0", "2-0", "3-0", "5-0"])
      // A piece of a strand is nobody else's.
      const halves = yield* Effect.forEach([1, 2], () => relay.follow(following(undefined, { operations: 1 }, 5)))
      yield* feed.push(...many(1, { operations: 2 }))
      yield* Eventually.settled
      for (const half of ["6-0", "6-1"]) {
        expect((yield* Effect.forEach(halves, next)).map(contents)).toEqual([[half], [half]])
      }
      for (const each of [...alike, fewer, inBytes, choosy, ...halves]) {
        yield* Effect.forkScoped(Effect.forever(Effect.zipRight(each.take, Effect.yieldNow())))
      }
      yield* Eventually.settled
      expect((yield* relay.standing).bytes, "all is let go of").toBe(0)
    }))

  it.scoped("keeps in the window what somebody may come back for, and lets go of it once all have committed it", () =>
    Effect.gen(function*() {
      const feed = yield* Feed.make("feed")
      const relay = yield* Relay.make(feed.source)
      const bytes = Effect.map(relay.standing, (standing) => standing.bytes)
      const [first, second] = yield* Effect.forEach([1, 2], () => relay.follow(following("a", { operations: 3 })))
      yield* feed.push(...many(3))
      yield* Eventually.settled
      yield* next(first!)
      yield* Effect.forkScoped(first!.take)
      yield* next(second!)
      yield* feed.push(...many(1, { type: "b" }))
      yield* Eventually.settled
      expect(yield* bytes, "the second commits them, and the window has them and the last").toBe(70)
      yield* Effect.forkScoped(second!.take)
      yield* Eventually.settled
      yield* feed.push(...many(1, { type: "b" }))
      yield* Eventually.settled
      expect(yield* bytes, "the last in the window").toBe(10)
    }))

  it.scoped("is let go of when followers leave, whatever they were doing, and the source with the scope", () =>
    Effect.gen(function*() {
      let open = 0
      const feed = yield* Feed.make("feed")
      const held = {
        ...feed.source,
        strands: (after: Source.Page["position"]) =>
          Stream.ensuring(
            Stream.concat(Stream.fromEffect(Effect.sync(() => open++)).pipe(Stream.drain), feed.source.strands(after)),
            Effect.sync(() => open--)
          )
      }
      const all = yield* Scope.make()
      const relay = yield* Scope.extend(Relay.make(held, { windowStrands: 1, laggardsMax: 1 }), all)
      yield* feed.push(...many(100, { operations: 3 }))
      const scope = yield* Scope.make()
      const follow = (type: string, after = 0) =>
        Scope.extend(relay.follow(following(type, { operations: 2 }, after)), scope)
      const first = yield* follow("a", 50)
      yield* next(first)
      const slow = yield* follow("a")
      yield* next(slow)
      const waiting = yield* Effect.fork(Effect.scoped(Effect.flatMap(relay.follow(following("a")), next)))
      yield* Eventually.settled
      expect(open).toBeGreaterThan(0)
      yield* Fiber.interrupt(waiting)
      yield* Scope.close(scope, Exit.void)
      const standing = yield* relay.standing
      expect(standing).toMatchObject({ attached: 0, laggards: 0 })
      expect(standing.bytes, "but for the window").toBeLessThanOrEqual(10)
      yield* Scope.close(all, Exit.void)
      expect(open).toBe(0)
    }))
})

describe("cursors of idle followers", () => {
  it.scoped("are moved together once their time has come, and learn by themselves of a refusal", () =>
    Effect.gen(function*() {
      const feed = yield* Feed.make("feed")
      const told: Array<ReadonlyArray<readonly [string, bigint]>> = []
      const mover: Relay.Mover<string> = {
        move: (moves) =>
          Effect.sync(() => {
            told.push(moves.map(({ cursor, position: to }) => [cursor, to] as const))
            for (const { cursor, settle } of moves) settle(cursor === "refused" ? "refused" : "moved")
          })
      }
      const relay = yield* Relay.make(feed.source)
      const idle = (cursor: string, limits: Partial<Batch.Limits> = {}) =>
        relay.follow({ ...following("z", limits), movable: { mover, cursor } })
      const names = ["one", "two", "refused"]
      const fibers = yield* Effect.forEach(
        names,
        (name) => Effect.flatMap(idle(name), (batches) => Effect.fork(batches.take))
      )
      const soon = yield* idle("soon", { unwanted: 2 })
      yield* Effect.fork(soon.take)
      yield* Eventually.settled
      yield* feed.push(unplaced())
      yield* Eventually.settled
      expect(told).toEqual([])
      yield* feed.push(unplaced())
      yield* Eventually.settled
      expect(told).toEqual([[["soon", 2n]]])
      yield* TestClock.adjust("5 seconds")
      yield* Eventually.settled
      expect(told.slice(1)).toEqual([names.map((name) => [name, 2n])])
      expect(Option.isNone(yield* Fiber.poll(fibers[0]!))).toBe(true)
      expect(Option.getOrThrow(yield* Fiber.join(fibers[2]!))).toMatchObject({ strands: [], position: 2n })
      yield* TestClock.adjust("1 minute")
      expect(told).toHaveLength(2)
    }))

  /** A mover that tells when it has begun, and ends when it may. */
  const held = Effect.gen(function*() {
    const entered = yield* Deferred.make<void>()
    const goOn = yield* Deferred.make<void>()
    const mover: Relay.Mover<string> = {
      move: (moves) =>
        Effect.gen(function*() {
          yield* Deferred.succeed(entered, undefined)
          yield* Deferred.await(goOn)
          for (const { settle } of moves) settle("moved")
        })
    }
    return { entered, goOn, mover }
  })

  it.scoped("move to the end of a source that goes on, and ends, while they are being moved", () =>
    Effect.gen(function*() {
      const feed = yield* Feed.make("feed")
      const { entered, goOn, mover } = yield* held
      const ofTwo = { ...feed.source, strands: () => Stream.take(feed.source.strands(position(0n)), 2) }
      const relay = yield* Relay.make(ofTwo)
      const batches = yield* relay.follow({ ...following("a", { unwanted: 1 }), movable: { mover, cursor: "p" } })
      const taken = yield* Effect.fork(next(batches))
      yield* Eventually.settled
      yield* feed.push(unplaced({ type: "b" }))
      yield* Deferred.await(entered)
      yield* feed.push(unplaced({ type: "b" }))
      yield* Eventually.settled
      yield* Deferred.succeed(goOn, undefined)
      expect(yield* Fiber.join(taken)).toMatchObject({ strands: [], position: 2n })
      expect(Option.isNone(yield* batches.take)).toBe(true)
    }))

  it.scoped.each(["moved", "failed"] as const)(
    "are moved again in their time where the source went on, or nothing was moved: %s",
    (outcome) =>
      Effect.gen(function*() {
        const feed = yield* Feed.make("feed")
        const told: Array<bigint> = []
        const goOn = yield* Deferred.make<void>()
        const mover: Relay.Mover<string> = {
          move: (moves) =>
            Effect.gen(function*() {
              told.push(...moves.map(({ position: to }) => to))
              if (told.length === 1) yield* Deferred.await(goOn)
              for (const { settle } of moves) settle(told.length === 1 ? outcome : "moved")
            })
        }
        const relay = yield* Relay.make(feed.source)
        const batches = yield* relay.follow({ ...following("a"), movable: { mover, cursor: "p" } })
        yield* Effect.fork(batches.take)
        yield* Eventually.settled
        yield* feed.push(unplaced({ type: "b" }))
        yield* Eventually.settled
        yield* TestClock.adjust("5 seconds")
        yield* Eventually.settled
        if (outcome === "moved") yield* feed.push(unplaced({ type: "b" }))
        yield* Eventually.settled
        yield* Deferred.succeed(goOn, undefined)
        yield* Eventually.settled
        expect(told).toEqual([1n])
        yield* TestClock.adjust("5 seconds")
        yield* Eventually.settled
        expect(told).toEqual(outcome === "moved" ? [1n, 2n] : [1n, 1n])
      })
  )

  it.scoped("are not moved while a batch is at work, and no batch is taken while they are", () =>
    Effect.gen(function*() {
      const feed = yield* Feed.make("feed")
      const { entered, goOn, mover } = yield* held
      const relay = yield* Relay.make(feed.source)
      const batches = yield* relay.follow({
        ...following("a", { unwanted: 1 }),
        movable: { mover, cursor: "p" }
      })
      yield* feed.push(unplaced())
      expect(contents(yield* next(batches))).toEqual(["1-0"])
      yield* feed.push(unplaced({ type: "b" }))
      yield* Eventually.settled
      expect(yield* Deferred.isDone(entered), "its batch is at work").toBe(false)
      const taken = yield* Effect.fork(next(batches))
      yield* Deferred.await(entered)
      yield* feed.push(unplaced())
      yield* Eventually.settled
      expect(Option.isNone(yield* Fiber.poll(taken)), "its cursor is being moved").toBe(true)
      yield* Deferred.succeed(goOn, undefined)
      expect(contents(yield* Fiber.join(taken))).toEqual(["3-0"])
    }))

  it.scoped("are moved so many a second and no more, however much is read, and all of them in their turn", () =>
    Effect.gen(function*() {
      const feed = yield* Feed.make("feed")
      const count = 2_000
      const moved = new Map<number, Array<bigint>>(Array.from({ length: count }, (_, i) => [i, []]))
      const told = { moves: 0 }
      const mover: Relay.Mover<number> = {
        move: (some) =>
          Effect.sync(() => {
            told.moves += some.length
            for (const { cursor, position: to, settle } of some) {
              moved.get(cursor)!.push(to)
              settle("moved")
            }
          })
      }
      const relay = yield* Relay.make(feed.source)
      const fibers = yield* Effect.forEach(Array.from(moved.keys()), (cursor) =>
        Effect.flatMap(
          relay.follow({ ...following(cursor === 7 ? "a" : "z", { unwanted: 1 }), movable: { mover, cursor } }),
          (batches) => Effect.fork(Effect.forever(batches.take))
        ))
      yield* Eventually.settled
      const before = yield* Clock.currentTimeMillis
      const allowed = (now: number) => Idle.movesMax + (now - before) * Idle.movesPerSecond / 1_000
      for (let read = 1; told.moves < 2 * count; read++) {
        // The one who wants it forgets that it was due.
        yield* feed.push(unplaced({ type: read % 3 === 0 ? "a" : "b" }))
        yield* Eventually.settled
        expect(told.moves).toBeLessThanOrEqual(allowed(yield* Clock.currentTimeMillis))
        yield* Eventually.nextSleep
      }
      for (const [cursor, positions] of moved) {
        expect(positions, `cursor ${cursor}`).toEqual(positions.toSorted((a, b) => Number(a - b)))
        if (cursor !== 7) expect([1, 2, 3]).toContain(positions.length)
      }
      for (const fiber of fibers) expect(Option.isNone(yield* Fiber.poll(fiber))).toBe(true)
    }))
})

/** A world for the property: strands that arrive over time, and followers that are slow, fail and come again. */
const world = FastCheck.record({
  strands: FastCheck.array(
    FastCheck.record({
      type: FastCheck.constantFrom(...types),
      operations: FastCheck.integer({ min: 0, max: 7 }),
      bytes: FastCheck.integer({ min: 1, max: 120 })
    }),
    { minLength: 30, maxLength: 150 }
  ),
  bursts: FastCheck.array(FastCheck.integer({ min: 1, max: 30 }), { minLength: 1, maxLength: 8 }),
  followers: FastCheck.array(
    FastCheck.record({
      type: FastCheck.option(FastCheck.constantFrom(...types), { nil: undefined }),
      after: FastCheck.integer({ min: 0, max: 25 }),
      operations: FastCheck.integer({ min: 1, max: 6 }),
      bytes: FastCheck.integer({ min: 1, max: 200 }),
      unwanted: FastCheck.integer({ min: 1, max: 20 }),
      /** Milliseconds for each batch in turn; every third that is above 40 leaves and follows again. */
      pauses: FastCheck.array(FastCheck.integer({ min: 0, max: 60 }), { minLength: 1, maxLength: 6 }),
      comesAfter: FastCheck.integer({ min: 0, max: 50 }),
      odd: FastCheck.boolean()
    }),
    { minLength: 1, maxLength: 8 }
  ),
  options: FastCheck.record({
    bytesMax: FastCheck.integer({ min: 1, max: 4_000 }),
    laggardsMax: FastCheck.integer({ min: 1, max: 3 }),
    patienceMillis: FastCheck.integer({ min: 1, max: 50 }),
    windowStrands: FastCheck.integer({ min: 0, max: 20 })
  }),
  isPaged: FastCheck.boolean(),
  isMoved: FastCheck.boolean(),
  /** After how many bursts the source fails, and is mended with the next one. */
  failsAfter: FastCheck.integer({ min: 0, max: 10 })
})

/** RELAY_RUNS=1000 for a campaign. */
const numRuns = Number(process.env["RELAY_RUNS"] ?? 10)

type World = typeof world extends FastCheck.Arbitrary<infer A> ? A : never

const cut = new Source.SourceUnavailable({ source: "feed", reason: "cut" })

/** Follows from its cursor, and again from there whenever it leaves or the source fails, until it has all that it wants. */
const live = (relay: Relay.Relay, { odd, ...plan }: World["followers"][number], isMoved: boolean, total: number) =>
  Effect.gen(function*() {
    const seen: Array<string> = []
    const wants = (each: Strand) =>
      Number(each.position) > plan.after && (plan.type === undefined || each.documentType === plan.type) &&
      (!odd || each.position % 2n === 1n)
    const cursor = { at: BigInt(plan.after) }
    const isMovedToTheEnd = yield* Deferred.make<void>()
    const mover: Relay.Mover<typeof cursor> = {
      move: (moves) =>
        Effect.gen(function*() {
          yield* Effect.sleep(1)
          for (const { cursor: own, position: to, settle } of moves) {
            expect(to > own.at).toBe(true)
            own.at = to
            settle("moved")
            if (own.at >= total) yield* Deferred.succeed(isMovedToTheEnd, undefined)
          }
        })
    }
    let batchCount = 0
    let departures = 0
    yield* Effect.sleep(plan.comesAfter)
    const stay = Effect.scoped(Effect.gen(function*() {
      const batches = yield* relay.follow({
        ...following(plan.type, {
          operations: plan.operations,
          bytes: plan.bytes,
          unwanted: plan.unwanted,
          unwantedMillis: 20
        }, Number(cursor.at)),
        ...(odd ? { alsoWanted: (each: Strand) => each.position % 2n === 1n } : {}),
        ...(isMoved ? { movable: { mover, cursor } } : {})
      })
      while (cursor.at < total) {
        const batch = yield* next(batches)
        const pause = plan.pauses[batchCount++ % plan.pauses.length]!
        if (pause > 0) yield* Effect.sleep(pause)
        // It fails before its commit: what it took comes again. A piece of a strand cannot be told from the whole.
        if (pause > 40 && batchCount % 3 === 0 && departures++ < 5) return
        expect(batch.operations).toBeLessThanOrEqual(plan.operations)
        expect(batch.position >= cursor.at).toBe(true)
        for (const each of contents(batch)) if (!seen.includes(each)) seen.push(each)
        if (batch.position > cursor.at) cursor.at = batch.position
      }
    }))
    while (cursor.at < total) {
      yield* Effect.raceFirst(Effect.catchAll(stay, () => Effect.sleep(3)), Deferred.await(isMovedToTheEnd))
    }
    return { seen, wants }
  })

/** Runs on a clock that goes on by itself whenever nothing else does, and dies where nobody waits for it any more. */
const hastened = <A, E>(effect: Effect.Effect<A, E>): Effect.Effect<A, E> =>
  Effect.gen(function*() {
    const fiber = yield* Effect.fork(effect)
    for (let moves = 0; moves < 5_000; moves++) {
      if (Option.isSome(yield* Fiber.poll(fiber))) return yield* Fiber.join(fiber)
      yield* Effect.repeatN(Eventually.turn, 3)
      const now = yield* Clock.currentTimeMillis
      const later = Array.from(yield* TestClock.sleeps()).filter((instant) => instant > now)
      if (later.length > 0) yield* TestClock.setTime(Math.min(...later))
    }
    return yield* Effect.dieMessage("it does not come to an end")
  }).pipe(Effect.provide(TestContext.TestContext))

describe("whatever is slow, fails, comes and goes", () => {
  it.effect("every follower is given exactly what it wants, in order", () =>
    Effect.promise(() =>
      FastCheck.assert(
        FastCheck.asyncProperty(world, (given) =>
          Effect.runPromise(
            Effect.scoped(Effect.gen(function*() {
              const feed = yield* Feed.make("feed")
              let most = 0
              const relay = yield* Relay.make(given.isPaged ? paged(feed) : feed.source, {
                ...given.options,
                tell: ({ bytes }) => {
                  most = Math.max(most, bytes)
                }
              })
              const total = given.strands.length
              let at = 25
              yield* feed.push(...given.strands.slice(0, at).map(unplaced))
              const fibers = yield* Effect.forEach(given.followers, (plan) =>
                Effect.fork(live(relay, plan, given.isMoved, total)))
              for (let burst = 0; at < total; burst++) {
                const some = given.strands.slice(at, at += given.bursts[burst % given.bursts.length]!)
                yield* feed.push(...some.map(unplaced))
                yield* feed.fail(burst === given.failsAfter && at < total ? cut : undefined)
                yield* Effect.sleep(10)
              }
              yield* feed.fail(undefined)
              const strands = given.strands.map((shape, i) =>
                strand(i + 1, shape)
              )
              for (const fiber of fibers) {
                const { seen, wants } = yield* Fiber.join(fiber)
                expect(seen).toEqual(expectedOf(strands, wants))
              }
              expect(most).toBeLessThanOrEqual(given.options.bytesMax + (2 + given.followers.length) * 120)
            })).pipe(hastened)
          )),
        { numRuns, endOnFailure: true }
      )
    ), 240_000 + 5_000 * numRuns)
})
