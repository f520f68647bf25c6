/**
 * What is promised of a journal, each as a test of the same words.
 */
import * as SqlClient from "@effect/sql/SqlClient"
import type { SqlError } from "@effect/sql/SqlError"
import { describe, expect, it } from "@effect/vitest"
import * as Context from "effect/Context"
import * as Effect from "effect/Effect"
import * as Fiber from "effect/Fiber"
import * as Schedule from "effect/Schedule"
import type * as Scope from "effect/Scope"
import * as Stream from "effect/Stream"
import { spawn } from "node:child_process"
import { Fault, Journal, Position, Transaction } from "../../src/index.js"
import type { Source, Strand } from "../../src/index.js"
import { all, flat, open, strand } from "../journal/Home.js"
import * as Bundle from "../support/Bundle.js"
import * as Database from "../support/Database.js"
import { appendsOf, script } from "./appender.js"
import type { Order } from "./appender.js"

const program = Bundle.make(new URL("appender.ts", import.meta.url))

interface Ended {
  /** Whether it was killed before it came to its end. */
  readonly isKilled: boolean
  readonly lines: ReadonlyArray<string>
}

const run = (file: string, order: Order): Effect.Effect<Ended> =>
  Effect.async((resume) => {
    const child = spawn(process.execPath, [file, JSON.stringify(order)], { stdio: ["ignore", "pipe", "pipe"] })
    let out = ""
    let err = ""
    child.stdout.on("data", (text) => out += String(text))
    child.stderr.on("data", (text) => err += String(text))
    child.once("close", (code, signal) => {
      const ended = { isKilled: signal === "SIGKILL", lines: out.split("\n").slice(0, -1) }
      resume(ended.isKilled || code === 0 ? Effect.succeed(ended) : Effect.dieMessage(`${code ?? signal}: ${err}`))
    })
    return Effect.sync(() => void child.kill("SIGKILL"))
  })

const targetOf = (database: Database.Database): string =>
  database.dialect === "sqlite" ? database.filename : database.url

const journalOf = (context: Context.Context<Journal.Journal>) => Context.get(context, Journal.Journal)

/** What is stored under the index that it should be, per document. */
const indexes = (strands: Iterable<Source.Unplaced>): ReadonlyMap<string, ReadonlyArray<number>> => {
  const found = new Map<string, Array<number>>()
  for (const { documentId, operations } of strands) {
    found.set(documentId, [...found.get(documentId) ?? [], ...operations.map(({ index }) => index)])
  }
  return found
}

const upTo = (count: number) => Array.from({ length: count }, (_, i) => i)

/**
 * Makes every COMMIT of a transaction that inserted into `table` take its time, and one in ten fail: what a deferred
 * trigger raises, COMMIT fails with.
 */
const slowCommits = (table: string): Effect.Effect<void, SqlError, SqlClient.SqlClient> =>
  Effect.gen(function*() {
    const sql = yield* SqlClient.SqlClient
    yield* sql`
      CREATE FUNCTION slow_commit() RETURNS trigger LANGUAGE plpgsql AS $$
        BEGIN
          PERFORM pg_sleep(random() * 0.012);
          IF random() < 0.1 THEN RAISE EXCEPTION 'not this time' USING ERRCODE = '40001'; END IF;
          RETURN NULL;
        END $$`
    yield* sql`
      CREATE CONSTRAINT TRIGGER slow AFTER INSERT ON ${sql(table)} DEFERRABLE INITIALLY DEFERRED
      FOR EACH ROW EXECUTE FUNCTION slow_commit()`
  })

describe("None missed while many producers commit at once", () => {
  const processes = 4
  const writersEach = 4
  const appends = 20

  describe.each(Database.dialects)("on $dialect", ({ dialect, fresh }) => {
    it.scopedLive(
      "sixteen writers in four processes, slow commits and rollbacks: every reader reads all, once, in order",
      () =>
        Effect.gen(function*() {
          const file = yield* program
          const database = yield* fresh
          const context = yield* open(database)
          const journal = journalOf(context)
          if (dialect === "pg") yield* Effect.provide(slowCommits("processor_journal_strand"), context)

          const isLast = ({ documentId }: Strand.Strand) => documentId === "last"
          const follow = (reader: Journal.Journal["Type"], after: Position.Position) =>
            reader.strands(after).pipe(Stream.takeUntil(isLast))
          const gather = <E>(strands: Stream.Stream<Strand.Strand, E>) =>
            Effect.fork(Effect.map(Stream.runCollect(strands), (read) => Array.from(read)))
          /** Reads three strands, then begins anew where it stands, as a subscription that fails again and again. */
          const haltingly = (after: Position.Position): Stream.Stream<Strand.Strand, Source.SourceError> =>
            Stream.suspend(() => {
              let at = after
              const some = journal.strands(after).pipe(
                Stream.take(3),
                Stream.tap(({ position }) => Effect.sync(() => at = position))
              )
              return Stream.concat(some, Stream.suspend(() => haltingly(at)))
            })
          const readers = [
            yield* gather(follow(journal, Position.origin)),
            yield* gather(follow(journalOf(yield* open(database)), Position.origin)),
            yield* gather(follow(journalOf(yield* open(database, { deaf: true })), Position.origin)),
            yield* gather(haltingly(Position.origin).pipe(Stream.takeUntil(isLast)))
          ]
          yield* Effect.forEach(upTo(processes), (p) =>
            run(file, {
              dialect,
              target: targetOf(database),
              killAt: 0,
              moment: "before",
              work: { kind: "race", writers: upTo(writersEach).map((w) => p * writersEach + w), appends }
            }), { concurrency: "unbounded" })
          yield* journal.append([strand("last", 0, 1)])

          const stored = yield* all(journal)
          const truth = upTo(processes * writersEach).flatMap((writer) => appendsOf(writer, appends).flat())
          for (const [documentId, found] of indexes(stored)) {
            if (documentId === "last") continue
            const wanted = indexes(truth).get(documentId)!
            expect([documentId, found]).toEqual([documentId, upTo(Math.max(...wanted) + 1)])
          }
          expect(indexes(stored).size).toBe(processes * writersEach + 1)
          // The writers were at it side by side, or nothing would be shown.
          const turns = stored.filter(({ documentId }, i) => documentId !== stored[i - 1]?.documentId).length
          expect(turns).toBeGreaterThan(processes * writersEach * 4)
          for (const reader of readers) expect(yield* Fiber.join(reader)).toEqual(stored)
        })
    )
  })

  it.scopedLive(
    "control: on 'pg' a reader of `position > cursor` over a plain serial misses some",
    () =>
      Effect.gen(function*() {
        const context = yield* open(yield* Database.postgres)
        yield* Effect.gen(function*() {
          const sql = yield* SqlClient.SqlClient
          yield* sql`CREATE TABLE naive (position BIGSERIAL PRIMARY KEY, writer INTEGER NOT NULL)`
          yield* slowCommits("naive")
          const write = (writer: number) =>
            Transaction.run(sql`INSERT INTO naive (writer) VALUES (${writer})`).pipe(
              Effect.retry({
                while: (failure) => Fault.classify(failure) === "conflict",
                schedule: Schedule.recurs(50)
              })
            )
          const read: Array<number> = []
          const look = Effect.map(
            Effect.suspend(() =>
              sql<{ readonly position: number }>`
              SELECT position FROM naive WHERE position > ${read.at(-1) ?? 0} ORDER BY position LIMIT 100`
            ),
            (rows) => read.push(...rows.map(({ position }) => position))
          )
          const reader = yield* Effect.fork(Effect.forever(look))
          yield* Effect.forEach(upTo(8), (writer) => Effect.repeatN(write(writer), 29), { concurrency: "unbounded" })
          yield* Fiber.interrupt(reader)
          yield* look
          const stored = yield* sql<{ readonly position: number }>`SELECT position FROM naive ORDER BY position`
          expect(stored).toHaveLength(240)
          expect(read.length).toBeLessThan(stored.length)
        }).pipe(Effect.provide(context))
      })
  )

  it.scopedLive("on 'pg' whoever appends waits for an append that is open, and nobody reads past it", () =>
    Effect.gen(function*() {
      const database = yield* Database.postgres
      const context = yield* open(database)
      const [first, second] = [journalOf(context), journalOf(yield* open(database))]
      yield* first.append([strand("a", 0, 1)])
      // An append stands in its COMMIT for as long as this lock is held.
      const sql = Context.get(context, SqlClient.SqlClient)
      yield* sql`
        CREATE FUNCTION hold() RETURNS trigger LANGUAGE plpgsql AS $$
          BEGIN PERFORM pg_advisory_xact_lock_shared(7); RETURN NULL; END $$`
      yield* sql`
        CREATE CONSTRAINT TRIGGER held AFTER INSERT ON processor_journal_strand DEFERRABLE INITIALLY DEFERRED
        FOR EACH ROW WHEN (NEW.document_id = 'b') EXECUTE FUNCTION hold()`
      const session = yield* sql.reserve
      yield* session.execute("SELECT pg_advisory_lock(7)", [], undefined)
      const waits = (n: number) =>
        sql<{ readonly n: number }>`SELECT count(*) AS n FROM pg_locks WHERE NOT granted`.pipe(
          Effect.repeat({ until: ([row]) => row!.n >= n, schedule: Schedule.spaced("5 millis") })
        )
      const slow = yield* Effect.fork(first.append([strand("b", 0, 1)]))
      yield* waits(1)
      const behind = yield* Effect.fork(second.append([strand("c", 0, 1)]))
      yield* waits(2)
      expect(yield* second.page(Position.origin)).toMatchObject({ position: 1n, head: 1n })
      yield* session.execute("SELECT pg_advisory_unlock(7)", [], undefined)
      expect([(yield* Fiber.join(slow)).position, (yield* Fiber.join(behind)).position]).toEqual([2n, 3n])
      expect(flat(yield* all(second)).map(({ documentId }) => documentId)).toEqual(["a", "b", "c"])
    }))
})

describe("Once. An appender that is killed at any instant has stored each append whole or not at all", () => {
  const wanted = script.flat(2)

  /** What is wrong with what a killed appender has left, held against what it was told. */
  const violations = (stored: ReadonlyArray<Strand.Strand>, lines: ReadonlyArray<string>): ReadonlyArray<string> => {
    const found: Array<string> = []
    const there = indexes(stored)
    for (const [documentId, indices] of there) {
      if (indices.some((index, i) => index !== i)) found.push(`${documentId} has ${indices.join(",")}`)
    }
    for (const [r, round] of script.entries()) {
      for (const [i, strands] of round.entries()) {
        const has = strands.map(({ documentId, operations }) =>
          (there.get(documentId)?.length ?? 0) > operations.at(-1)!.index
        )
        // What comes first of the third round is redelivered.
        if (new Set(r === 2 ? has.slice(1) : has).size > 1) found.push(`half of append ${r} ${i} is there`)
        if (lines.includes(`${r} ${i}`) && has.includes(false)) found.push(`append ${r} ${i} was answered and is lost`)
      }
    }
    return found
  }

  const sweep = (dialect: Database.Database["dialect"], fresh: Effect.Effect<Database.Database, never, Scope.Scope>) =>
    Effect.gen(function*() {
      const file = yield* program
      const moments = dialect === "sqlite" ? ["before", "after"] as const : ["before", "sent"] as const
      const wrong: Array<string> = []
      let kills = 0
      for (const moment of moments) {
        let next = 1
        let last = Number.POSITIVE_INFINITY
        const lane = Effect.gen(function*() {
          while (next <= last) {
            const killAt = next++
            yield* Effect.scoped(Effect.gen(function*() {
              const database = yield* fresh
              // What creates the tables is killed in the tests of migrations.
              yield* Effect.scoped(open(database))
              const order = { dialect, target: targetOf(database), killAt, moment, work: { kind: "script" } } as const
              const ended = yield* run(file, order)
              if (ended.isKilled) kills++
              else last = Math.min(last, killAt)
              const journal = journalOf(yield* open(database))
              // On PostgreSQL, whoever appends waits until the server has ended what the killed one had begun.
              yield* journal.append([strand("after", 0, 1)])
              const left = (yield* all(journal)).filter(({ documentId }) => documentId !== "after")
              const found = [...violations(left, ended.lines)]
              yield* Effect.forEach(wanted, (each) => journal.append([each]))
              const whole = indexes(yield* all(journal))
              const expected = new Map([["a", 8], ["b", 2], ["c", 42], ["d", 1], ["after", 1]])
              for (const [documentId, count] of expected) {
                if (JSON.stringify(whole.get(documentId)) !== JSON.stringify(upTo(count))) {
                  found.push(`${documentId} is not whole in the end`)
                }
              }
              wrong.push(...found.map((what) => `killed ${moment} statement ${killAt}: ${what}`))
            }))
          }
        })
        yield* Effect.all([lane, lane, lane, lane], { concurrency: "unbounded" })
      }
      return { kills, wrong }
    })

  it.scopedLive.each(Database.dialects)("on $dialect", ({ dialect, fresh }) =>
    Effect.gen(function*() {
      const { kills, wrong } = yield* sweep(dialect, fresh)
      expect(wrong).toEqual([])
      expect(kills).toBeGreaterThan(40)
    }))

  it("control: half an append, and one that was answered and is not there, are found out", () => {
    const stored = [strand("a", 0, 2)].map((each) => ({ ...each, position: Position.make(2n) }))
    expect(violations(stored, [])).toEqual(["half of append 0 0 is there"])
    expect(violations([], ["0 0"])).toEqual(["append 0 0 was answered and is lost"])
    expect(violations([...stored, ...stored], [])).toContain("a has 0,1,0,1")
  })
})
