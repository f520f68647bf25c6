/**
 * What is promised of what processors send, each as a test of the same words, on both databases.
 */
import { describe, expect, it } from "@effect/vitest"
import * as Effect from "effect/Effect"
import * as Layer from "effect/Layer"
import * as Logger from "effect/Logger"
import * as Schedule from "effect/Schedule"
import { mkdtempSync, rmSync } from "node:fs"
import { tmpdir } from "node:os"
import { join } from "node:path"
import * as NamespaceName from "../../src/domain/Namespace.js"
import { Namespace, Outbox, Reactor } from "../../src/index.js"
import * as Bundle from "../support/Bundle.js"
import * as Database from "../support/Database.js"
import * as Senders from "../support/Senders.js"
import * as Store from "../support/Store.js"
import * as Post from "./Post.js"
import * as Sweep from "./Sweep.js"

const silent = Logger.remove(Logger.defaultLogger)

const namespace = NamespaceName.make(Senders.namespace)

/** Follows the orders to their end in this process, until all is delivered. */
const resume = (order: Pick<Post.Order, "program" | "received">) =>
  Effect.gen(function*() {
    yield* Effect.flatMap(Reactor.Reactor, ({ ended }) => ended)
    yield* Namespace.query(Senders.namespace, Outbox.summary).pipe(
      Effect.filterOrFail(({ undelivered }) => undelivered === 0, () => "not yet"),
      Effect.retry({ schedule: Schedule.spaced("5 millis"), while: (failure) => failure === "not yet" }),
      Effect.timeout("5 minutes")
    )
  }).pipe(Effect.provide(Layer.provideMerge(Reactor.layer(Post.processor(order)), Post.layer(order))))

/** Kills a program at its first statement, at its second, …, each with a database and a receiver of its own. */
const everyStatement = (
  dialect: Database.Database["dialect"],
  program: Post.Program,
  moments: ReadonlyArray<Post.Order["moment"]>
) =>
  Effect.gen(function*() {
    const file = yield* Bundle.make(new URL("poster.ts", import.meta.url))
    const folder = yield* Effect.acquireRelease(
      Effect.sync(() => mkdtempSync(join(tmpdir(), "effect-processors-post-"))),
      (path) => Effect.sync(() => rmSync(path, { recursive: true, force: true }))
    )
    const violations: Array<string> = []
    let kills = 0
    let repeated = 0
    for (const moment of moments) {
      let last = Number.POSITIVE_INFINITY
      let next = 1
      const work = Effect.scoped(Effect.gen(function*() {
        const empty = yield* Sweep.lane(dialect, namespace)
        while (next <= last) {
          const killAt = next++
          yield* Effect.scoped(Effect.gen(function*() {
            const database = yield* empty
            const received = join(folder, `${moment}-${killAt}`)
            const order: Post.Order = { dialect, target: Sweep.targetOf(database), received, program, killAt, moment }
            const statements = yield* Sweep.run(file, order)
            if (statements === undefined) kills++
            else last = Math.min(last, killAt)
            yield* Effect.provide(
              Effect.zipRight(Sweep.quiet, resume(order)),
              Layer.merge(Store.layerOf(database, namespace), silent)
            )
            const lines = Post.receivedIn(received)
            if (new Set(lines.map(({ id }) => id)).size < lines.length) repeated++
            violations.push(...Post.violations(lines).map((what) => `killed ${moment} statement ${killAt}: ${what}`))
          }))
        }
      }))
      yield* Effect.all(Array.from({ length: Sweep.lanes }, () => work), { concurrency: Sweep.lanes, discard: true })
    }
    return { kills, repeated, violations }
  }).pipe(Effect.orDie)

describe.each(Database.dialects)("on $dialect", ({ dialect }) => {
  describe("Sent. What a committed operation has sent arrives at least once, under its key and in order for its document; what is not committed is never sent", () => {
    it("the orders of these tests have what is refused, and more than one message for each document", () => {
      const lines = Post.expected
      expect(lines).toHaveLength(10)
      expect(Post.violations(lines)).toEqual([])
      expect(Post.violations(lines.slice(1))).not.toEqual([])
      expect(Post.violations(lines.toReversed())).not.toEqual([])
      expect(Post.violations([...lines, { id: "x", documentId: "a" }])).not.toEqual([])
      expect(Post.violations([...lines, ...lines.toReversed()])).toEqual([])
    })

    it.scopedLive("killed at each statement, of commits and of deliveries", () =>
      Effect.gen(function*() {
        const { kills, repeated, violations } = yield* everyStatement(
          dialect,
          "outbox",
          dialect === "sqlite" ? ["before", "after"] : ["before", "sent"]
        )
        expect(violations).toEqual([])
        expect(kills).toBeGreaterThan(200)
        // Some of the kills were between an answer and its mark.
        expect(repeated).toBeGreaterThan(0)
      }), 480_000)

    it.scopedLive("control: a handler that sends by itself is found out", () =>
      Effect.gen(function*() {
        const { violations } = yield* everyStatement(dialect, "direct", ["before"])
        expect(violations.some((what) => what.endsWith("is not committed"))).toBe(true)
      }))
  })
})
