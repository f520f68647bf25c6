/**
 * A follower that reads by itself, comes back with what it has read, and is let go of again, of a source that has no pages.
 */
import { expect, it } from "@effect/vitest"
import * as Chunk from "effect/Chunk"
import type * as Context from "effect/Context"
import * as Effect from "effect/Effect"
import * as Option from "effect/Option"
import * as Stream from "effect/Stream"
import { make as position } from "../../src/domain/Position.js"
import type { Strand } from "../../src/domain/Strand.js"
import * as Batch from "../../src/ingest/Batch.js"
import * as Filter from "../../src/ingest/Filter.js"
import { Holding } from "../../src/ingest/Holding.js"
import { Parcels } from "../../src/ingest/Parcel.js"
import * as Relay from "../../src/ingest/Relay.js"
import * as Source from "../../src/ingest/Source.js"

const strand = (at: number): Strand =>
  ({
    documentId: "d",
    documentType: "a",
    scope: "global",
    branch: "main",
    operations: [{ index: at, timestamp: "t" }],
    bytes: 10,
    position: position(BigInt(at))
  }) as unknown as Strand

const following = (operations: number): Relay.Following => ({
  after: position(0n),
  filter: Filter.all,
  filterDialect: "drive",
  limits: { ...Batch.defaults, operations }
})

/** What is there comes in one piece, and then what is added. */
const growing = (supply: { there: number }): Context.Tag.Service<Source.Source> => ({
  name: Source.name("growing"),
  strands: (after) =>
    Stream.paginateChunkEffect(Number(after), (at) =>
      Effect.gen(function*() {
        while (supply.there <= at) yield* Effect.sleep(1)
        const to = supply.there
        const chunk = Array.from({ length: to - at }, (_, i) => strand(at + 1 + i))
        return [Chunk.unsafeFromArray(chunk), Option.some(to)] as const
      })),
  head: Effect.succeedNone,
  complaints: Effect.succeed([])
})

/** One is at the head, and a slow one has come back to it with a full room: what the window had, and what it has read. */
const world = Effect.gen(function*() {
  const supply = { there: 5 }
  const relay = yield* Relay.make(growing(supply), { windowStrands: 5, patienceMillis: 20 })
  const ahead = yield* relay.follow(following(100))
  const reached = { position: 0n }
  yield* Effect.forkScoped(Effect.forever(Effect.tap(ahead.take, (batch) =>
    Effect.sync(() => {
      reached.position = Option.getOrThrow(batch).position
    }))))
  while (reached.position < 5n) yield* Effect.sleep(1)
  const slow = yield* relay.follow(following(1))
  const seen: Array<number> = []
  const next = Effect.map(slow.take, (batch) => {
    for (const { operations } of Option.getOrThrow(batch).strands) for (const { index } of operations) seen.push(index)
  })
  for (let i = 0; i < 3; i++) yield* next
  supply.there = 12
  return { next, reached, seen }
})

it.scopedLive("reads again what it has read ahead and forgotten", () =>
  Effect.gen(function*() {
    const { next, reached, seen } = yield* world
    yield* next
    while (reached.position < 12n) yield* Effect.sleep(1)
    while (seen.at(-1) !== 12) yield* next
    expect(seen).toEqual([1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12])
  }))

it.scopedLive("does not hold the others up for ever, though it was full when it came and goes no further", () =>
  Effect.gen(function*() {
    const { reached } = yield* world
    for (let tries = 0; tries < 2_000 && reached.position < 12n; tries++) yield* Effect.sleep(1)
    expect(reached.position).toBe(12n)
  }))

it("is not counted to have in its room what it has in hand, once somebody needs the room", () => {
  const [rooms, hands] = [new Holding(100), new Holding(100)]
  const parcels = new Parcels(rooms, hands)
  const one = strand(1)
  // In three rooms and the window.
  rooms.add(one, 4)
  const parcel = parcels.share({ strands: [one], operations: 1, position: one.position })
  rooms.release(one)
  parcel.take()
  // The third one leaves with it, and so does the window.
  rooms.release(one, 2)
  parcel.letGo()
  parcels.settle()
  expect([rooms.bytes, hands.bytes]).toEqual([0, 10])
  parcel.letGo()
  expect([rooms.bytes, hands.bytes]).toEqual([0, 0])
})
