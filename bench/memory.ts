/**
 * Memory: the largest resident set of a process that projects a stream, ours beside a loop written by hand; over a short
 * stream and one five times as long, which should be the same.
 *
 *     npm run bench:memory
 */
import * as Effect from "effect/Effect"
import * as Contest from "./support/Contest.js"
import * as Databases from "./support/Databases.js"
import * as Effort from "./support/Effort.js"
import * as Recorded from "./support/Recorded.js"
import * as Result from "./support/Result.js"
import * as Strands from "./support/Strands.js"

const ours = { name: "ours, one statement a batch", program: "subjects/framework.js", how: "many" }
const hand = { name: "by hand, one statement a batch", program: "subjects/by-hand.js", how: "many" }
const dialects = ["sqlite", "pg"] as const

const contenders = dialects.flatMap((dialect): ReadonlyArray<Contest.Contender> => [
  { ...ours, dialect },
  { ...hand, dialect }
])

const long = Effort.operations(200_000)

const notes = [
  "The largest resident set until the last commit, as the operating system counts it, Node itself included.",
  "Both parse the same file a line at a time, in batches of 1,000 operations. The PostgreSQL server is not counted.",
  "What the peers hold is in the throughput benchmark, where each reads as much as it can."
]

const megabytes = ({ readings }: Contest.Entry) => readings.map((reading) => reading.peakMegabytes)

const tell = (entries: ReadonlyArray<Contest.Entry>, operations: number) => {
  const metric = `peak memory over ${operations.toLocaleString("en")} operations`
  const entryOf = (name: string, dialect: Result.Dialect) =>
    entries.find(({ contender }) => contender.name === name && contender.dialect === dialect)!
  return {
    rows: entries.map((entry) => {
      const { dialect, name } = entry.contender
      return Result.row({ subject: name, dialect, metric, unit: "MB" }, megabytes(entry))
    }),
    ratios: dialects.map((dialect) =>
      Result.ratio(
        { of: ours.name, to: hand.name, dialect, metric },
        megabytes(entryOf(ours.name, dialect)),
        megabytes(entryOf(hand.name, dialect))
      )
    )
  }
}

const contest = Effect.gen(function*() {
  const databases = yield* Databases.open
  return yield* Effect.promise(async () => {
    const told: Array<ReturnType<typeof tell>> = []
    for (const operations of [Math.ceil(long / 5), long]) {
      const stream = await Strands.repeat(Recorded.path, operations, databases.directory)
      told.push(tell(await Contest.hold(contenders, stream, databases), operations))
    }
    return told
  })
})

const told = await Effect.runPromise(Effect.scoped(contest))
Result.publish(Result.make(
  "memory",
  told.flatMap(({ rows }) => rows),
  told.flatMap(({ ratios }) => ratios),
  notes
))
