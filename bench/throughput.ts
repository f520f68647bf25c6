/**
 * Throughput: operations per second of one processor, ours beside a loop written by hand, the real Powerhouse reactor and
 * Emmett.
 *
 *     npm run bench:throughput                       recorded strands, repeated to 400,000 operations
 *     npm run bench:throughput -- strands.ndjson.gz  a file of your own
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

const ours = { program: "subjects/framework.js" }
const hand = { program: "subjects/by-hand.js" }
const powerhouse = { program: "subjects/powerhouse.js", mayStopEarly: true } as const
const emmettPg = { program: "subjects/emmett-postgresql.js", mayStopEarly: true, prefilled: true } as const
const emmettSqlite = { program: "subjects/emmett-sqlite.js", mayStopEarly: true, prefilled: true } as const

const oursTable = { ...ours, name: "ours, a table operation a row", how: "table" }
const oursTableMany = { ...ours, name: "ours, a table operation a batch", how: "tableMany" }
const oursMany = { ...ours, name: "ours, one statement a batch", how: "many" }
const handMany = { ...hand, name: "by hand, one statement a batch", how: "many" }
const oursOne = { ...ours, name: "ours, one statement a row", how: "one" }
const handOne = { ...hand, name: "by hand, one statement a row", how: "one" }
const loopOne = { name: "by hand in Effect, one statement a row", program: "subjects/effect-loop.js", how: "one" }
const live = { ...powerhouse, name: "Powerhouse, live", how: "live" }
const pages = { ...powerhouse, name: "Powerhouse, pages of 500", how: "pages" }
const relaxed = { name: "Emmett, its defaults", how: "default" }
const tuned = { name: "Emmett, batches of 1,000 without rest", how: "tuned" }

const backfill = { program: "subjects/journal-ours.js", prefilled: true } as const
const backfillByHand = { program: "subjects/journal-by-hand.js", prefilled: true } as const
const many = "one statement a batch"
const one = "one statement a row"
const from1 = { ...backfill, name: `ours, from a journal, ${many}`, how: "1 many" }
const from4 = { ...backfill, name: `ours, from a journal, 4 partitions, ${many}`, how: "4 many" }
const hand1 = { ...backfillByHand, name: `by hand, from a journal, ${many}`, how: "1 many" }
const hand4 = { ...backfillByHand, name: `by hand, from a journal, 4 writers, ${many}`, how: "4 many" }
const from1One = { ...backfill, name: `ours, from a journal, ${one}`, how: "1 one" }
const from4One = { ...backfill, name: `ours, from a journal, 4 partitions, ${one}`, how: "4 one" }
const hand1One = { ...backfillByHand, name: `by hand, from a journal, ${one}`, how: "1 one" }
const hand4One = { ...backfillByHand, name: `by hand, from a journal, 4 writers, ${one}`, how: "4 one" }

const contenders: ReadonlyArray<Contest.Contender> = [
  { ...oursTable, dialect: "sqlite" },
  { ...oursTableMany, dialect: "sqlite" },
  { ...oursMany, dialect: "sqlite" },
  { ...handMany, dialect: "sqlite" },
  { ...oursOne, dialect: "sqlite" },
  { ...handOne, dialect: "sqlite" },
  { ...loopOne, dialect: "sqlite" },
  { ...emmettSqlite, ...relaxed, dialect: "sqlite" },
  { ...emmettSqlite, ...tuned, dialect: "sqlite" },
  ...[from1, from4, hand1].map((contender) => ({ ...contender, dialect: "sqlite" as const })),
  { ...live, dialect: "pglite" },
  { ...pages, dialect: "pglite" },
  { ...oursTable, dialect: "pg" },
  { ...oursTableMany, dialect: "pg" },
  { ...oursMany, dialect: "pg" },
  { ...handMany, dialect: "pg" },
  { ...oursOne, dialect: "pg", mayStopEarly: true },
  { ...handOne, dialect: "pg", mayStopEarly: true },
  { ...loopOne, dialect: "pg", mayStopEarly: true },
  { ...emmettPg, ...relaxed, dialect: "pg" },
  { ...emmettPg, ...tuned, dialect: "pg" },
  ...[from1, from4, hand1, hand4, from1One, from4One, hand1One, hand4One]
    .map((contender) => ({ ...contender, dialect: "pg" as const })),
  { ...live, dialect: "pg" },
  { ...pages, dialect: "pg" }
]

const notes = [
  "Every run: a fresh process, a fresh database, the table compared with the operations folded in memory.",
  `A subject that is too slow for the whole stream reads its beginning, as much as it can in about ${Effort.seconds} s.`,
  "SQLite: WAL and synchronous=FULL for all. Emmett's driver has both; its connection is checked for them.",
  "PostgreSQL: one server for all, as it comes: fsync and synchronous_commit on.",
  "PGlite: Powerhouse's embedded store on its own AtomicNodeFs, which writes snapshots now and then: less durable than ours.",
  "Ours and by hand: batches of 1,000, the cursor in the batch's transaction, parsing the file included.",
  "From a journal: appended before, into the same database. By hand, one loop reads the journal's table, and parses it once for all writers.",
  "Powerhouse 6.2.2: each row a transaction of its own; its cursor, an ordinal, is upserted after each call in another, and the manager's state in a third. Parsing, migrations and registration are not counted; it is handed operations as the file is read, so that its memory is its own.",
  "Emmett 0.42: a checkpoint after each event, all events of a batch in one transaction. Appending is not counted; its events leave out the state that ours parses."
]

const speed = (reading: Reading) => reading.operations / reading.seconds

const rowsOf = ({ contender, file, readings }: Contest.Entry) => {
  const of = { subject: contender.name, dialect: contender.dialect }
  return [
    Result.row({ ...of, metric: "throughput", unit: "operations/s" }, readings.map(speed)),
    Result.row({ ...of, metric: "operations read", unit: "operations" }, [file.operations]),
    Result.row({ ...of, metric: "peak memory", unit: "MB" }, readings.map((reading) => reading.peakMegabytes)),
    Result.row({ ...of, metric: "commits", unit: "transactions" }, readings.map((reading) => reading.commits))
  ]
}

const ratiosOf = (entries: ReadonlyArray<Contest.Entry>) => {
  const ratio = (
    dialect: Result.Ratio["dialect"],
    of: { readonly name: string },
    to: { readonly name: string }
  ): Result.Ratio => {
    const [ofDialect, toDialect = ofDialect] = dialect.split("/")
    const speeds = (name: string, on: string | undefined) =>
      entries.find(({ contender }) => contender.name === name && contender.dialect === on)!.readings.map(speed)
    const pair = { of: of.name, to: to.name, dialect, metric: "throughput" }
    return Result.ratio(pair, speeds(of.name, ofDialect), speeds(to.name, toDialect))
  }
  const all = (dialect: "sqlite" | "pg", powerhouseOn: Result.Ratio["dialect"]) => [
    ratio(dialect, oursTable, handOne),
    ratio(dialect, oursTable, handMany),
    ratio(dialect, oursTableMany, handOne),
    ratio(dialect, oursTableMany, handMany),
    ratio(dialect, oursMany, handMany),
    ratio(dialect, oursOne, handOne),
    ratio(dialect, oursOne, loopOne),
    ratio(dialect, from1, hand1),
    ratio(dialect, from4, hand1),
    ratio(dialect, from4, from1),
    ...(dialect === "sqlite" ? [] : [
      ratio(dialect, from4, hand4),
      ratio(dialect, from1One, hand1One),
      ratio(dialect, from4One, hand1One),
      ratio(dialect, from4One, hand4One),
      ratio(dialect, from4One, from1One)
    ]),
    ...[relaxed, tuned].flatMap((to) => [ratio(dialect, oursTable, to), ratio(dialect, oursOne, to)]),
    ...[live, pages].flatMap((to) => [ratio(powerhouseOn, oursTable, to), ratio(powerhouseOn, oursOne, to)])
  ]
  return [...all("sqlite", "sqlite/pglite"), ...all("pg", "pg")]
}

const contest = Effect.gen(function*() {
  const databases = yield* Databases.open
  return yield* Effect.promise(async () => {
    const given = process.argv[2]
    const stream = given === undefined
      ? await Strands.repeat(Recorded.path, Effort.operations(400_000), databases.directory)
      : await Strands.first(given, Number.MAX_SAFE_INTEGER, databases.directory)
    const disk = Disk.note(databases.directory)
    return { disk, entries: await Contest.hold(contenders, stream, databases) }
  })
})

const { disk, entries } = await Effect.runPromise(Effect.scoped(contest))
Result.publish(Result.make("throughput", entries.flatMap(rowsOf), ratiosOf(entries), [...notes, disk]))
