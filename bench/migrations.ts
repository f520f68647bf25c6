/**
 * Migrations: what the first start of many namespaces costs, schemas of one PostgreSQL and files of one directory, and a
 * restart with nothing to do; ours, a loop by hand on the same driver, and namespaces as Powerhouse starts them.
 *
 *     npm run bench:migrations
 */
import * as Effect from "effect/Effect"
import * as Databases from "./support/Databases.js"
import * as Disk from "./support/Disk.js"
import * as Effort from "./support/Effort.js"
import * as Result from "./support/Result.js"
import * as Subject from "./support/Subject.js"

const largest = Effort.operations(1_000)
const sizes = [Math.ceil(largest / 10), Math.ceil(largest * 3 / 10)]

interface Contender extends Subject.Subject {
  readonly dialect: Result.Dialect
  readonly size: number
}

interface Entry {
  readonly contender: Contender
  /** Milliseconds a namespace, a value a round. */
  readonly first: Array<number>
  readonly again: Array<number>
}

const ours = { name: "ours", program: "subjects/migrate-ours.js" }
const hand = { name: "by hand", program: "subjects/migrate-by-hand.js" }
const powerhouse = { name: "Powerhouse", program: "subjects/migrate-powerhouse.js" }

const inSize = (size: number): ReadonlyArray<Contender> => [
  { ...ours, dialect: "pg", size },
  { ...hand, dialect: "pg", size },
  { ...powerhouse, dialect: "pg", size },
  { ...ours, dialect: "sqlite", size },
  { ...hand, dialect: "sqlite", size },
  { ...powerhouse, dialect: "pglite", size }
]

/** Ours alone, so that one sees whether a namespace costs more among many. */
const many: ReadonlyArray<Contender> = (["pg", "sqlite"] as const).map((dialect) => ({
  ...ours,
  dialect,
  size: largest
}))

const notes = [
  "Each start is a process; from opening the database to the last answer, imports not included. A first start has a fresh database.",
  "Ours checks on each start whose place it is, the order and the checksums; a migration and its record are one transaction.",
  "By hand: a look whether the migration is recorded, or one transaction that makes and records it. No lock, no checksum.",
  "Powerhouse 6.2.2: createNamespace and an up of CREATE … IF NOT EXISTS, three statements, each a transaction of its own, on the first start as on each other, for nothing records what was done. Opening its store is not counted.",
  "SQLite: a file a namespace, WAL and synchronous=FULL. PGlite: schemas of one database in the process, not flushed at commit; so it is in no ratio.",
  "Emmett has no namespaces: it makes the tables of its one store, and projections bring statements of their own. It is not here.",
  `${largest.toLocaleString("en")} namespaces: a first start once, restarts as often as the others.`
]

const start = async (contender: Contender, database: string, which: "first" | "again") => {
  const { millis } = await Subject.run<{ readonly millis: number }>(contender, [
    database,
    String(contender.size),
    which
  ])
  return millis / contender.size
}

const measure = async (databases: Databases.Databases): Promise<ReadonlyArray<Entry>> => {
  const entries = [...sizes.flatMap(inSize), ...many].map((contender): Entry => ({ contender, first: [], again: [] }))
  const kept = new Map<Entry, string>()
  for (let round = 0; round < Effort.rounds; round++) {
    for (const entry of entries) {
      const { again, contender, first } = entry
      const database = kept.get(entry) ?? await databases.make(contender.dialect)
      if (!kept.has(entry)) first.push(await start(contender, database, "first"))
      again.push(await start(contender, database, "again"))
      if (contender.size === largest) kept.set(entry, database)
      else await databases.remove(contender.dialect, database)
    }
  }
  return entries
}

const metrics = [["first", "first start"], ["again", "restart with nothing to do"]] as const

const rowsOf = ({ contender, ...values }: Entry) =>
  metrics.map(([which, title]) => {
    const metric = `${title}, ${contender.size.toLocaleString("en")} namespaces`
    return Result.row(
      { subject: contender.name, dialect: contender.dialect, metric, unit: "ms a namespace" },
      values[which]
    )
  })

const ratiosOf = (entries: ReadonlyArray<Entry>) =>
  entries.filter(({ contender }) => contender.name !== ours.name && contender.dialect !== "pglite").flatMap((to) => {
    const { dialect, name, size } = to.contender
    const of = entries.find(({ contender: own }) =>
      own.name === ours.name && own.dialect === dialect && own.size === size
    )!
    return metrics.map(([which, title]) => {
      const metric = `${title}, ${size.toLocaleString("en")} namespaces`
      return Result.ratio({ of: ours.name, to: name, dialect, metric }, of[which], to[which])
    })
  })

const { disk, entries } = await Effect.runPromise(Effect.scoped(
  Effect.flatMap(
    Databases.open,
    (databases) =>
      Effect.promise(async () => ({ disk: Disk.note(databases.directory), entries: await measure(databases) }))
  )
))
Result.publish(Result.make("migrations", entries.flatMap(rowsOf), ratiosOf(entries), [...notes, disk]))
