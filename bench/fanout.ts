/**
 * Fan-out: many processors on one journal in one reactor, each with its own filter. What an idle one holds, how long after
 * its append an operation is committed by all who want it, what others cost that do not want it, and how many operations a
 * second go to a thousand processors, beside the processor manager of the real Powerhouse reactor and, where all of them want
 * all operations, beside a loop by hand that writes the same rows: no more than that goes into the database.
 *
 *     npm run bench:fanout
 *     BENCH_PROCESSORS=1000 BENCH_ROUNDS=1 npm run bench:fanout     a quick look
 */
import * as Effect from "effect/Effect"
import * as Databases from "./support/Databases.js"
import * as Disk from "./support/Disk.js"
import * as Effort from "./support/Effort.js"
import type { Quantiles } from "./support/Quantiles.js"
import * as Result from "./support/Result.js"
import * as Subject from "./support/Subject.js"

const rounds = Effort.roundsOr(3)
const processors = Effort.processors(10_000)
/** Of a crowd, as the real reactor is compared: a tenth. */
const crowd = Math.ceil(processors / 10)
const operations = Effort.operations(2_000)
const burstOperations = 20 * operations
/** Where all want all: more than one batch for each. */
const commonOperations = 2 * operations
/** Long enough for the cursors of idle processors to be moved meanwhile, again and again. */
const longBurstOperations = 4 * burstOperations

const ours = { name: "ours", program: "subjects/fanout.js" }
const byHand = { name: "by hand", program: "subjects/fanout-by-hand.js" }
const powerhouse = { name: "Powerhouse", program: "subjects/fanout-powerhouse.js" }

interface Held {
  readonly rss: number
  readonly compactRss: number
  readonly openSeconds: number
}

interface Arrived {
  readonly firstSeconds: number
  readonly latency: Quantiles
  readonly caughtUpSeconds: number
}

interface Worked {
  readonly operations: number
  readonly seconds: number
  readonly cpuSeconds: number
}

type Dialect = "sqlite" | "pg"

const dialects: ReadonlyArray<Dialect> = ["sqlite", "pg"]

const many = (count: number) => count.toLocaleString("en")

const measure = async (databases: Databases.Databases) => {
  const rows: Array<Result.Row> = []
  const ratios: Array<Result.Ratio> = []
  const fresh = async <A>(dialect: Result.Dialect, run: (database: string) => Promise<A>) => {
    const database = await databases.make(dialect)
    const found = await run(database)
    await databases.remove(dialect, database)
    return found
  }
  const our = <A>(dialect: Dialect, ...order: ReadonlyArray<string | number>) =>
    fresh(dialect, (database) => Subject.run<A>(ours, [dialect, database, ...order.map(String)]))
  const hand = (dialect: Dialect, ...order: ReadonlyArray<number>) =>
    fresh(dialect, (database) => Subject.run<Worked>(byHand, [dialect, database, ...order.map(String)]))
  const their = (dialect: "pglite" | "pg", matching: number) =>
    fresh(
      dialect,
      (database) => Subject.run<Worked>(powerhouse, [database, ...[crowd, matching, Effort.seconds].map(String)])
    )
  const inRounds = async <A>(run: () => Promise<A>): Promise<ReadonlyArray<A>> => {
    const found: Array<A> = []
    for (let round = 0; round < rounds; round++) found.push(await run())
    return found
  }
  const speeds = (runs: ReadonlyArray<Worked>) => runs.map((run) => run.operations / run.seconds)
  const row = (subject: string, dialect: Result.Dialect, metric: string, unit: string, values: ReadonlyArray<number>) =>
    rows.push(Result.row({ subject, dialect, metric, unit }, values))

  for (const dialect of dialects) {
    const few = Math.ceil(processors / 100)
    const held = await inRounds(async () =>
      [
        await our<Held>(dialect, "idle", few),
        await our<Held>(dialect, "idle", processors)
      ] as const
    )
    const each = (of: "rss" | "compactRss") =>
      held.map(([some, all]) => (all[of] - some[of]) / (processors - few) / 1_024)
    const memory = "resident memory of an idle processor"
    row(`${many(processors)} processors`, dialect, memory, "KB", each("rss"))
    row(`${many(processors)} processors, heap moved together`, dialect, memory, "KB", each("compactRss"))
    row(`${many(processors)} processors`, dialect, "start to all idle", "s", held.map(([, all]) => all.openSeconds))

    const arrived = await inRounds(() => our<Arrived>(dialect, "arriving", processors, operations))
    const firsts = "append of 1,000 operations to the first commit of all"
    row(`${many(processors)} processors`, dialect, firsts, "s", arrived.map((run) => run.firstSeconds))
    const who = `${many(processors)} processors, 100 operations a second`
    row(who, dialect, "append to commit, p50", "ms", arrived.map(({ latency }) => latency.p50))
    row(who, dialect, "append to commit, p99", "ms", arrived.map(({ latency }) => latency.p99))
    row(who, dialect, "last commit to all cursors at the head", "s", arrived.map((run) => run.caughtUpSeconds))

    const pairs = await inRounds(async () =>
      [
        await our<Worked>(dialect, "burst", crowd, 1, longBurstOperations),
        await our<Worked>(dialect, "burst", 10 * crowd, 1, longBurstOperations)
      ] as const
    )
    const cost = (which: 0 | 1) => pairs.map((pair) => pair[which].cpuSeconds / longBurstOperations * 1e6)
    const cpu = "processor time an operation that one wants"
    const [some, more] = [`${many(crowd)} processors`, `${many(10 * crowd)} processors`]
    row(some, dialect, cpu, "µs", cost(0))
    row(more, dialect, cpu, "µs", cost(1))
    ratios.push(Result.ratio({ of: more, to: some, dialect, metric: cpu }, cost(1), cost(0)))

    const other = dialect === "sqlite" ? "pglite" : "pg"
    const on = dialect === "sqlite" ? "sqlite/pglite" : dialect
    for (const matching of [1, crowd]) {
      const metric = `operations, ${many(matching)} of ${many(crowd)} processors want them`
      const runs = await inRounds(async () => ({
        own: await our<Worked>(dialect, "burst", crowd, matching, matching === 1 ? burstOperations : commonOperations),
        real: await their(other, matching),
        hand: matching === 1 ? undefined : await hand(dialect, crowd, commonOperations)
      }))
      const [own, real] = [speeds(runs.map((run) => run.own)), speeds(runs.map((run) => run.real))]
      row(ours.name, dialect, metric, "operations/s", own)
      row(powerhouse.name, other, metric, "operations/s", real)
      ratios.push(Result.ratio({ of: ours.name, to: powerhouse.name, dialect: on, metric }, own, real))
      const loop = speeds(runs.flatMap((run) => run.hand ?? []))
      if (loop.length === 0) continue
      row(byHand.name, dialect, metric, "operations/s", loop)
      ratios.push(Result.ratio({ of: ours.name, to: byHand.name, dialect, metric }, own, loop))
      ratios.push(Result.ratio({ of: byHand.name, to: powerhouse.name, dialect: on, metric }, loop, real))
    }
  }
  return Result.make("fanout", rows, ratios, [
    "Each run is a process with a fresh database; the journal's and the processors' are two files on SQLite, one database on PostgreSQL.",
    `Resident memory: of a process with ${
      many(processors)
    } processors less one with a hundredth of them, after garbage collection, by the number of processors between. Each has been through one move of its cursor. Moved together: after a collection that closes the gaps between what lives, which none does by itself.`,
    `Processor time an operation: of our process, everything from the first operation read to the last commit, collecting garbage and moving the cursors of those that want none included; ${
      many(longBurstOperations)
    } operations.`,
    "Append to commit: from when an append is due, whether or not it is late, to when the reactor tells of the commit, once for each processor that wants the operation: ten of 10,000, over 1,000 document types. Each processor has had one before.",
    "Operations: those of ours are in the journal before the clock starts, and every one is in the tables when it stops. Powerhouse is handed one operation at a time, as its reactor does; it is given about " +
    `${Effort.seconds} s.`,
    "By hand: the same rows in batches of 4,000, as large as ours become, a statement each and on SQLite eight, with a cursor row for each processor in the same transaction, on PostgreSQL over 8 connections; it reads, checks and remembers nothing. All write 2 columns under a text key.",
    "Powerhouse 6.2.2 gives each processor its operations and then writes the place of each processor, wanted or not. PGlite: a snapshot every tenth of a second, so a commit does not wait for the disk.",
    Disk.note(databases.directory)
  ])
}

Result.publish(
  await Effect.runPromise(
    Effect.scoped(Effect.flatMap(Databases.open, (databases) => Effect.promise(() => measure(databases))))
  )
)
