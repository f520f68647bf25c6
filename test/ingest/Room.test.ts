/**
 * A room: what it holds while batches get smaller, and what is taken from it as others have taken it.
 */
import { describe, expect, it } from "@effect/vitest"
import { Position } from "../../src/index.js"
import type { Strand } from "../../src/index.js"
import * as Batch from "../../src/ingest/Batch.js"
import { Holding } from "../../src/ingest/Holding.js"
import { Parcels } from "../../src/ingest/Parcel.js"
import { Room } from "../../src/ingest/Room.js"

const strands = Array.from({ length: 300 }, (_, i) =>
  ({
    position: Position.make(BigInt(i + 1)),
    operations: [{ index: i, timestamp: "t" }],
    bytes: 10
  }) as unknown as Strand.Strand)

/** A room in which so many strands of an operation wait. */
const filled = (waiting: number, operations: number) => {
  const limits = { ...Batch.defaults, operations }
  const room = new Room(Position.origin, limits)
  for (const strand of strands.slice(0, waiting)) room.put(strand, true)
  return { room, limits }
}

/** What somebody holds who has taken so many of the first strands. */
const taken = (count: number) =>
  new Parcels(new Holding(1_000_000), new Holding(1_000_000)).keep(strands.slice(0, count), count)

describe("a room", () => {
  it("is not full for batches that have got smaller, since who waits for it would go elsewhere", () => {
    const { limits, room } = filled(199, 100)
    expect(room.isFull).toBe(false)
    limits.operations = 1
    expect([room.isFull, room.fillsBatch]).toEqual([false, true])
    room.put(strands[199]!, true)
    expect(room.isFull).toBe(true)
    expect(room.take().operations).toBe(1)
    expect(room.isFull).toBe(false)
  })

  it.each([
    ["half a batch", 150, 50, 50],
    ["less than half a batch", 150, 49, undefined],
    ["all that there is", 20, 20, 20],
    ["more than a batch", 150, 101, undefined],
    ["more than there is", 150, 151, undefined]
  ])("is left by what somebody holds where that is %s, or not", (_, waiting, held, left) => {
    const { room } = filled(waiting, 100)
    const batch = room.takeAs(taken(held))
    expect(batch?.operations).toBe(left)
    expect(room.operations).toBe(waiting - (left ?? 0))
    if (batch === undefined) return
    expect(batch.position).toBe(strands[held - 1]!.position)
    expect(room.first).toBe(waiting === held ? undefined : strands[held])
    expect(room.passed).toBe(Position.origin)
  })

  it("is not left by strands that are not its first ones", () => {
    const { room } = filled(100, 100)
    room.take()
    for (const strand of strands.slice(100, 200)) room.put(strand, true)
    expect(room.takeAs(taken(100))).toBeUndefined()
  })
})
