/**
 * Memory: the largest resident set of a process that projects a stream. Ours beside a loop written by hand, over a short
 * stream and one five times as long, which should be the same; and the real Powerhouse reactor and Emmett, over as much of
 * the short stream as each can read in the time that is given.
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
const oursTable = { name: "ours, a table operation a row", program: "subjects/framework.js", how: "table" }
const hand = { name: "by hand, one statement a batch", program: "subjects/by-hand.js", how: "many" }
const emmett = {
  name: "Emmett, batches of 1,000 without rest",
  how: "tuned",
  mayStopEarly: true,
  prefilled: true
} as const
const live = { name: "Powerhouse, live", program: "subjects/powerhouse.js", how: "live", mayStopEarly: true } as const

const whole = (["sqlite", "pg"] as const).flatMap((dialect): ReadonlyArray<Contest.Contender> => [
  { ...ours, dialect },
  { ...oursTable, dialect },
  { ...hand, dialect }
])

const peers: ReadonlyArray<Contest.Contender> = [
  { ...emmett, program: "subjects/emmett-sqlite.js", dialect: "sqlite" },
  { ...live, dialect: "pglite" },
  { ...emmett, program: "subjects/emmett-postgresql.js", dialect: "pg" },
  { ...live, dialect: "pg" }
]

const long = Effort.operations(200_000)
const short = Math.ceil(long / 5)

const notes = [
  "The largest resident set until the last commit, as the operating system counts it, Node itself included.",
  "Ours and by hand parse the same file a line at a time, in batches of 1,000 operations. The PostgreSQL server is not counted; PGlite is, for it runs in the process.",
  `The peers: as much of the short stream as each can read in about ${Effort.seconds} s ("operations read"), ours beside them over all of it. What is not read cannot fill memory, so their figures are the least that they need.`,
  "Powerhouse is handed its operations as they are read from the file. Emmett reads them from its own store, and the file once before, a line at a time, for their types."
]

const megabytes = ({ readings }: Contest.Entry) => readings.map((reading) => reading.peakMegabytes)

const metricOf = (operations: number) => `peak memory over ${operations.toLocaleString("en")} operations`
const metricOfPeers = `peak memory over up to ${short.toLocaleString("en")} operations`

const rowOf = (entry: Contest.Entry, metric: string) =>
  Result.row({ subject: entry.contender.name, dialect: entry.contender.dialect, metric, unit: "MB" }, megabytes(entry))

const ratioOf = (of: Contest.Entry, to: Contest.Entry, metric: string) => {
  const dialect = to.contender.dialect === "pglite" ? "sqlite/pglite" : to.contender.dialect
  return Result.ratio({ of: of.contender.name, to: to.contender.name, dialect, metric }, megabytes(of), megabytes(to))
}

/** The entry that competes with this one, on SQLite where the other has PGlite. */
const beside = (entries: ReadonlyArray<Contest.Entry>, name: string, { contender }: Contest.Entry) => {
  const dialect = contender.dialect === "pglite" ? "sqlite" : contender.dialect
  return entries.find((entry) => entry.contender.name === name && entry.contender.dialect === dialect)!
}

const tellWhole = (entries: ReadonlyArray<Contest.Entry>, metric: string) => ({
  rows: entries.map((entry) => rowOf(entry, metric)),
  ratios: entries.filter(({ contender }) => contender.name === hand.name).flatMap((to) =>
    [ours, oursTable].map(({ name }) => ratioOf(beside(entries, name, to), to, metric))
  )
})

const tellPeers = (entries: ReadonlyArray<Contest.Entry>, all: ReadonlyArray<Contest.Entry>) => ({
  rows: entries.flatMap((entry) => {
    const { dialect, name: subject } = entry.contender
    const read = { subject, dialect, metric: "operations read", unit: "operations" }
    return [rowOf(entry, metricOfPeers), Result.row(read, [entry.file.operations])]
  }),
  ratios: entries.map((to) => ratioOf(beside(all, oursTable.name, to), to, metricOfPeers))
})

const contest = Effect.gen(function*() {
  const databases = yield* Databases.open
  return yield* Effect.promise(async () => {
    const beginning = await Strands.repeat(Recorded.path, short, databases.directory)
    const entries = await Contest.hold([...whole, ...peers], beginning, databases)
    const [over, beginnings] = [entries.slice(0, whole.length), entries.slice(whole.length)]
    const stream = await Strands.repeat(Recorded.path, long, databases.directory)
    const all = await Contest.hold(whole, stream, databases)
    return [tellWhole(over, metricOf(short)), tellWhole(all, metricOf(long)), tellPeers(beginnings, over)]
  })
})

const told = await Effect.runPromise(Effect.scoped(contest))
Result.publish(Result.make(
  "memory",
  told.flatMap(({ rows }) => rows),
  told.flatMap(({ ratios }) => ratios),
  notes
))
