/**
 * The tail: whoever waits at the end of a log is given what this process appends, and it is what the database would give.
 */
import type * as SqlClient from "@effect/sql/SqlClient"
import { describe, expect, it } from "@effect/vitest"
import * as Context from "effect/Context"
import * as Effect from "effect/Effect"
import * as Queue from "effect/Queue"
import * as Stream from "effect/Stream"
import * as TestClock from "effect/TestClock"
import { Filter, Journal, Position, Source, Transaction } from "../../src/index.js"
import * as Admission from "../../src/journal/Admission.js"
import * as Group from "../../src/journal/Group.js"
import * as Log from "../../src/journal/Log.js"
import { bytesMax, operationsMax, Tail } from "../../src/journal/Tail.js"
import * as Database from "../support/Database.js"
import * as Spans from "../support/Spans.js"
import { flat, open, strand } from "./Home.js"

type Append = ReadonlyArray<Source.Unplaced>

const at = (position: number) => Position.make(BigInt(position))
const everything: Log.Limits = { operations: 100_000, bytes: 64 * 1024 * 1024, positions: 100_000 }

/** Commits appends as one group. */
const commit = (log: Log.Log, appends: ReadonlyArray<Append>) =>
  Effect.flatMap(
    Effect.forEach(appends, Admission.prepare),
    (prepared) => Transaction.run(Group.write(log, prepared))
  )

const constraintsOf = (filter: Filter.Filter) => Filter.constraints(filter)

describe.each(Database.dialects)("on $dialect", ({ fresh }) => {
  /** In a journal of its own, with a tail that knows nothing yet. */
  const inLog = <E>(body: (log: Log.Log, tail: Tail) => Effect.Effect<void, E, SqlClient.SqlClient>) =>
    Effect.gen(function*() {
      const context = yield* open(yield* fresh)
      const opened = Log.open(Source.name("home"))
      yield* Effect.provide(Effect.flatMap(opened, (log) => body(log, new Tail())), context)
    })

  it.scopedLive("from wherever in it, it gives what the database gives, or nothing where that is more than a page", () =>
    inLog((log, tail) =>
      Effect.gen(function*() {
        tail.add(yield* commit(log, [[strand("a", 0, 3), strand("b", 0, 1, { driveId: "drive" })]]))
        // Of one that brings nothing new there is nothing to keep, and nothing is lost for it.
        tail.add(yield* commit(log, [[strand("a", 0, 3)]]))
        tail.add(
          yield* commit(log, [[strand("a", 1, 4)], [strand("c", 5, 1)], [strand("c", 0, 2, { branch: "other" })]])
        )
        tail.add(yield* commit(log, [[strand("d", 0, 600)]]))
        const { head } = yield* Log.bounds(log)
        const filters = [{}, { documentId: ["a", "d"] }, { driveId: ["drive"] }, { branch: ["*"] }, {
          scope: ["none"]
        }]
        let bounded = 0
        for (const filter of filters) {
          const constraints = constraintsOf(filter)
          for (let after = 0; after < Number(head); after = after < 12 ? after + 1 : after + 97) {
            const found = yield* Log.read(log, at(after), constraints, everything)
            expect(tail.page(at(after), constraints, everything)).toEqual(found)
            for (const limits of [{ ...everything, operations: 2 }, { ...everything, bytes: 300 }]) {
              const page = yield* Log.read(log, at(after), constraints, limits)
              const known = tail.page(at(after), constraints, limits)
              if (known === undefined) bounded++
              else expect(known).toEqual(page)
            }
          }
          expect(tail.page(head, constraints, everything)).toBeUndefined()
        }
        expect(bounded).toBeGreaterThan(0)
      })
    ))

  it.scopedLive("it knows nothing that lies before what somebody else has appended", () =>
    inLog((log, tail) =>
      Effect.gen(function*() {
        tail.add(yield* commit(log, [[strand("a", 0, 1)]]))
        yield* commit(log, [[strand("b", 0, 1)]])
        expect(tail.page(at(1), [], everything)).toBeUndefined()
        tail.add(yield* commit(log, [[strand("a", 1, 1)]]))
        expect(tail.page(at(0), [], everything)).toBeUndefined()
        expect(tail.page(at(1), [], everything)).toBeUndefined()
        expect(tail.page(at(2), [], everything)).toEqual(yield* Log.read(log, at(2), [], everything))
      })
    ))

  it.scopedLive("is bounded, by operations and by bytes", () =>
    inLog((log, tail) =>
      Effect.gen(function*() {
        for (let from = 0; from < 1_200; from += 300) tail.add(yield* commit(log, [[strand("a", from, 300)]]))
        expect(tail.page(at(299), [], everything)).toBeUndefined()
        expect(tail.page(at(300), [], everything)?.strands).toHaveLength(3)
        tail.add(yield* commit(log, [[strand("a", 1_200, operationsMax + 1)]]))
        expect(tail.page(at(1_200), [], everything)).toBeUndefined()
        const large = { operations: [{ type: "PUT", input: { text: "x".repeat(bytesMax / 4) } }] }
        for (const document of ["b", "c", "d", "e"]) tail.add(yield* commit(log, [[strand(document, 0, 1, large)]]))
        const { head } = yield* Log.bounds(log)
        expect(tail.page(at(Number(head) - 4), [], everything)).toBeUndefined()
        expect(tail.page(at(Number(head) - 1), [], everything)?.strands).toHaveLength(1)
      })
    ))

  it.scoped("a reader that waits is given what this client appends without a statement, and asks for what another does", () =>
    Effect.gen(function*() {
      const database = yield* fresh
      // Nobody looks by himself while the clock stands still.
      const here = Context.get(yield* open(database, { deaf: true }), Journal.Journal)
      const there = Context.get(yield* open(database), Journal.Journal)
      const { names, tracer } = Spans.recording()
      const asked = () => names.filter((name) => name === "sql.execute").length
      yield* here.append([strand("a", 0, 1)])
      const read = yield* Queue.unbounded<Journal.Page>()
      yield* here.pages(Position.origin).pipe(
        Stream.runForEach((page) => Queue.offer(read, page)),
        Effect.withTracer(tracer),
        Effect.forkScoped
      )
      const pages = [yield* Queue.take(read)]
      expect(asked()).toBe(1)
      for (let i = 1; i < 4; i++) {
        yield* here.append([strand("a", i, 1)])
        pages.push(yield* Queue.take(read))
      }
      expect(asked()).toBe(1)
      yield* there.append([strand("a", 4, 1)])
      yield* TestClock.adjust("1 second")
      pages.push(yield* Queue.take(read))
      expect(asked()).toBe(2)
      expect(flat(pages.flatMap(({ strands }) => strands))).toEqual(flat([strand("a", 0, 5)]))
      expect(pages.map(({ head, position }) => [position, head])).toEqual(
        [1n, 2n, 3n, 4n, 5n].map((each) => [each, each])
      )
    }))
})
