/**
 * Latency: how long one commit takes, of one operation and of 1,000, and how long it takes to read one row of the projected
 * table by its key; the median and the slowest but one in a hundred.
 *
 *     npm run bench:latency
 */
import * as Effect from "effect/Effect"
import * as Contest from "./support/Contest.js"
import * as Databases from "./support/Databases.js"
import * as Disk from "./support/Disk.js"
import * as Effort from "./support/Effort.js"
import * as Recorded from "./support/Recorded.js"
import * as Result from "./support/Result.js"
import * as Strands from "./support/Strands.js"
import type { Reading } from "./support/Subject.js"

const ours = { name: "ours", program: "subjects/framework-latency.js" }
const hand = { name: "by hand", program: "subjects/by-hand-latency.js" }
const powerhouse = { name: "Powerhouse, live", program: "subjects/powerhouse.js", how: "latency" }

const inCommitsOf = (how: "1" | "1000"): ReadonlyArray<Contest.Contender> => [
  { ...ours, dialect: "sqlite", how },
  { ...hand, dialect: "sqlite", how },
  { ...ours, dialect: "pg", how },
  { ...hand, dialect: "pg", how }
]

const alone: ReadonlyArray<Contest.Contender> = [
  ...inCommitsOf("1"),
  { ...powerhouse, dialect: "pglite" },
  { ...powerhouse, dialect: "pg" }
]

const notes = [
  "A commit: from before BEGIN to the answer to COMMIT, with the cursor; one after the other, without a pause.",
  "Powerhouse: one call of its manager with one operation, which is an upsert, a cursor and a state, three transactions.",
  "A read: one row of the search index by its key, through SqlClient, the bare driver, or Kysely on Knex.",
  "SQLite: WAL and synchronous=FULL. PostgreSQL: as it comes, fsync and synchronous_commit on. PGlite: not flushed at commit.",
  "Emmett has no hook around its commit and is not in this benchmark; see the throughput."
]

type Timing = "commit" | "read"

const metricOf = (timing: Timing, operations: string) => timing === "read" ? "read of a row" : `commit of ${operations}`

const quantiles = ["p50", "p99"] as const

const valuesOf = (readings: ReadonlyArray<Reading>, timing: Timing, quantile: "p50" | "p99") =>
  readings.map(({ latency }) => latency![timing][quantile])

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
    (["sqlite", "pg"] as const).flatMap((dialect) => {
      const on = entries.filter(({ contender }) => contender.dialect === dialect)
      const own = on.find(({ contender }) => contender.name === ours.name)!
      return on.filter((other) => other !== own).map((other) =>
        Result.ratio(
          { of: ours.name, to: other.contender.name, dialect, metric },
          valuesOf(own.readings, timing, quantile),
          valuesOf(other.readings, timing, quantile)
        )
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
    const singles = await Strands.repeatSingly(Recorded.path, Effort.operations(2_000), directory)
    const single = await Contest.hold(alone, singles, databases)
    const many = await Strands.repeat(Recorded.path, Effort.operations(2_000) * 50, directory)
    const bulk = await Contest.hold(inCommitsOf("1000"), many, databases)
    return { disk, told: [tell(single, ["commit", "read"], "1"), tell(bulk, ["commit"], "1,000")] }
  })
})

const { disk, told } = await Effect.runPromise(Effect.scoped(contest))
Result.publish(Result.make(
  "latency",
  told.flatMap(({ rows }) => rows),
  told.flatMap(({ ratios }) => ratios),
  [...notes, disk]
))
