/**
 * Start-up: from the start of the process to the first commit of a reactor with one processor, beside a bare script that
 * imports Effect and the same driver and commits one row, the real Powerhouse reactor and Emmett, each with one processor.
 *
 *     npm run bench:startup
 *
 * All find their tables there, as a restart does. They run in turn; what counts is the ratio within a round.
 */
import * as Effect from "effect/Effect"
import * as Databases from "./support/Databases.js"
import * as Effort from "./support/Effort.js"
import * as Result from "./support/Result.js"
import * as Subject from "./support/Subject.js"

const rounds = Effort.roundsOr(7)

interface Contender extends Subject.Subject {
  readonly dialect: Result.Dialect
  /** What has to happen in a process before, each time. */
  readonly before?: string
}

const ours = { name: "reactor of one processor", program: "subjects/start-reactor.js" }
const others = [
  { name: "bare script", program: "subjects/start-bare.js" },
  { name: "Emmett, consumer of one projection", program: "subjects/start-emmett.js", before: "append" }
]
const powerhouse = { name: "Powerhouse, reactor of one processor", program: "subjects/start-powerhouse.js" }

const contenders: ReadonlyArray<Contender> = [
  ...[ours, ...others].map((each) => ({ ...each, dialect: "sqlite" as const })),
  { ...powerhouse, dialect: "pglite" },
  ...[ours, ...others, powerhouse].map((each) => ({ ...each, dialect: "pg" as const }))
]

const notes = [
  "From the start of the process, Node's own start and the imports included, to the answer to the first COMMIT.",
  "Powerhouse: to the return of its manager's call, when the row, its cursor and its state are stored. Its drive is told to it again at each start, in the same call.",
  "Emmett: its defaults; to the end of its consumer, which stops at the event that was appended before. On SQLite its checkpoint stays at the first event of all, so each start handles those of the rounds before again."
]

interface Started {
  /** Milliseconds since the process was started. */
  readonly startMillis: number
}

const start = async (contender: Contender, database: string, round: number) => {
  const args = [contender.dialect, database, `round-${round}`]
  if (contender.before !== undefined) await Subject.run<undefined>(contender, [...args, contender.before])
  return (await Subject.run<Started>(contender, args)).startMillis
}

const measure = async (databases: Databases.Databases) => {
  const entries: Array<{ contender: Contender; database: string; millis: Array<number> }> = []
  for (const contender of contenders) {
    entries.push({ contender, database: await databases.make(contender.dialect), millis: [] })
  }
  for (let round = 0; round <= rounds; round++) {
    for (const { contender, database, millis } of entries) {
      const taken = await start(contender, database, round)
      // The first round makes the tables and is not counted.
      if (round > 0) millis.push(taken)
    }
  }
  return entries
}

const entries = await Effect.runPromise(
  Effect.scoped(Effect.flatMap(Databases.open, (databases) => Effect.promise(() => measure(databases))))
)

const metric = "first commit after"
const rows = entries.map(({ contender: { dialect, name }, millis }) =>
  Result.row({ subject: name, dialect, metric, unit: "ms" }, millis)
)
const ratios = entries.filter(({ contender }) => contender.name !== ours.name).map(({ contender, millis }) => {
  const [own, dialect] = contender.dialect === "pglite"
    ? ["sqlite", "sqlite/pglite"] as const
    : [contender.dialect, contender.dialect]
  const mine = entries.find((entry) => entry.contender.name === ours.name && entry.contender.dialect === own)!
  return Result.ratio({ of: ours.name, to: contender.name, dialect, metric }, mine.millis, millis)
})
Result.publish(Result.make("startup", rows, ratios, notes))
