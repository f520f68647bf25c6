/**
 * Latency: how long one commit takes, of one operation and of 1,000, how long it takes to read one row of the projected
 * table by its key, and how long after the begin of its append an operation is committed, and its row can be read; the median
 * and the slowest but one in a hundred, of processes that have run for a while.
 *
 *     npm run bench:latency
 */
import * as Effect from "effect/Effect"
import * as Visibility from "./subjects/visibility.js"
import * as Contest from "./support/Contest.js"
import * as Databases from "./support/Databases.js"
import * as Disk from "./support/Disk.js"
import * as Effort from "./support/Effort.js"
import * as Recorded from "./support/Recorded.js"
import * as Result from "./support/Result.js"
import * as Strands from "./support/Strands.js"
import type { Reading, Timing } from "./support/Subject.js"

const ours = { name: "ours", program: "subjects/framework-latency.js" }
const oursTable = { ...ours, name: "ours, a table operation a row" }
const hand = { name: "by hand", program: "subjects/by-hand-latency.js" }
const powerhouse = { name: "Powerhouse, live", program: "subjects/powerhouse.js", how: "latency" }

const inCommitsOf = (how: "1" | "1000"): ReadonlyArray<Contest.Contender> =>
  (["sqlite", "pg"] as const).flatMap((dialect) => [
    { ...ours, dialect, how },
    { ...oursTable, dialect, how: `${how} table` },
    { ...hand, dialect, how }
  ])

const alone: ReadonlyArray<Contest.Contender> = [
  ...inCommitsOf("1"),
  { ...powerhouse, dialect: "pglite" },
  { ...powerhouse, dialect: "pg" }
]

const inOne = { program: "subjects/framework-visibility.js" }
const emmett = { name: "Emmett, its defaults", program: "subjects/emmett-visibility.js", how: "default" }
const handed = { name: powerhouse.name, program: "subjects/powerhouse-visibility.js", how: "live" }

const appending: ReadonlyArray<Contest.Contender> = [
  ...(["sqlite", "pg"] as const).flatMap((dialect) => [
    { ...inOne, name: ours.name, dialect, how: "many" },
    { ...inOne, name: oursTable.name, dialect, how: "table" },
    { name: hand.name, program: "subjects/by-hand-visibility.js", dialect, how: "one" },
    { ...emmett, dialect }
  ]),
  { ...handed, dialect: "pglite" },
  { ...handed, dialect: "pg" }
]

const notes = [
  `A commit: from before BEGIN to the answer to COMMIT, with the cursor; one after the other, without a pause. Of commits of 1 operation the last ${Effort.countedCommits} are counted, those before warm up.`,
  "Powerhouse: one call of its manager with one operation, which is an upsert, a cursor and a state, three transactions.",
  "A read: one row of the search index by its key, through SqlClient, the bare driver, or Kysely on Knex.",
  "SQLite: WAL and synchronous=FULL. PostgreSQL: as it comes, fsync and synchronous_commit on. PGlite: not flushed at commit.",
  `Appends: ${Visibility.warmUps} warm up, then ${Visibility.counted} are measured to the row and ${Visibility.counted} to the commit, an operation each, one every 25 ms.`,
  "Append to row: until its row is found by a reader that looks without rest in the same process, on a connection of its own. Append to commit: nobody looks.",
  "Appends, ours: from before Journal.append, with a reactor that follows the journal in the same process and database, to the row, or to its telling of the commit. By hand: a commit into a log and one of the row, without a wait in between.",
  "Emmett has no hook around its commit and is only in append to row: appendToStream, with a running consumer. It has no wake-up: it rests up to a second between two looks that find less than a full batch, whatever its pullingFrequencyInMs.",
  "Appends, Powerhouse: from the call of its manager, to the row, or to its return; that its reactor stores the operation before is not in it. On PGlite the reader shares the one connection."
]

const metricOf = (timing: Timing, operations: string) =>
  ({
    read: "read of a row",
    commit: `commit of ${operations}`,
    append: "append to row",
    appendToCommit: "append to commit"
  })[timing]

const quantiles = ["p50", "p99"] as const

const valuesOf = (readings: ReadonlyArray<Reading>, timing: Timing, quantile: "p50" | "p99") =>
  readings.map(({ latency }) => latency![timing]![quantile])

const tell = (entries: ReadonlyArray<Contest.Entry>, timings: ReadonlyArray<Timing>, operations: string) => {
  const each = <A>(make: (timing: Timing, quantile: "p50" | "p99", metric: string) => ReadonlyArray<A>) =>
    timings.flatMap((timing) =>
      quantiles.flatMap((quantile) => make(timing, quantile, `${metricOf(timing, operations)}, ${quantile}`))
    )
  const rows = each((timing, quantile, metric) =>
    entries.map(({ contender: { dialect, name }, readings }) =>
      Result.row({ subject: name, dialect, metric, unit: "ms" }, valuesOf(readings, timing, quantile))
    )
  )
  const ratios = each((timing, quantile, metric) =>
    entries.filter(({ contender }) => contender.name !== ours.name).map((to) => {
      const [dialect, beside] = to.contender.dialect === "pglite"
        ? ["sqlite/pglite", "sqlite"] as const
        : [to.contender.dialect, to.contender.dialect]
      const own = entries.find(({ contender }) => contender.name === ours.name && contender.dialect === beside)!
      return Result.ratio(
        { of: ours.name, to: to.contender.name, dialect, metric },
        valuesOf(own.readings, timing, quantile),
        valuesOf(to.readings, timing, quantile)
      )
    })
  )
  return { rows, ratios }
}

const contest = Effect.gen(function*() {
  const databases = yield* Databases.open
  return yield* Effect.promise(async () => {
    const { directory } = databases
    const disk = Disk.note(directory)
    const singles = await Strands.repeatSingly(Recorded.path, Effort.operations(3_000), directory)
    const single = await Contest.hold(alone, singles, databases)
    const many = await Strands.repeat(Recorded.path, Effort.operations(1_000) * 100, directory)
    const bulk = await Contest.hold(inCommitsOf("1000"), many, databases)
    const apart = await Strands.repeatApart(Recorded.path, Visibility.appends, directory)
    const appended = await Contest.hold(appending, apart, databases, Effort.rounds, true)
    const committing = appended.filter(({ contender }) => contender.program !== emmett.program)
    const told = [
      tell(single, ["commit", "read"], "1"),
      tell(bulk, ["commit"], "1,000"),
      tell(appended, ["append"], "1"),
      tell(committing, ["appendToCommit"], "1")
    ]
    return { disk, told }
  })
})

const { disk, told } = await Effect.runPromise(Effect.scoped(contest))
Result.publish(Result.make(
  "latency",
  told.flatMap(({ rows }) => rows),
  told.flatMap(({ ratios }) => ratios),
  [...notes, disk]
))
