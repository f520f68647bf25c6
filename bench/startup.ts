/**
 * Start-up: from the start of the process to the first commit of a reactor with one processor, beside a bare script that
 * imports Effect and the same driver and commits one row.
 *
 *     npm run bench:startup
 *
 * Both find their tables there, as a restart does. They run in turn; what counts is the ratio within a round.
 */
import * as Effect from "effect/Effect"
import { mkdtempSync, rmSync } from "node:fs"
import { tmpdir } from "node:os"
import { join } from "node:path"
import * as PostgresServer from "../test/support/PostgresServer.js"
import * as Result from "./support/Result.js"
import * as Subject from "./support/Subject.js"

const rounds = 11

const bare: Subject.Subject = { name: "bare script", program: "subjects/start-bare.js" }
const reactor: Subject.Subject = { name: "reactor of one processor", program: "subjects/start-reactor.js" }

interface Started {
  /** Milliseconds since the process was started. */
  readonly startMillis: number
}

const measure = async (dialect: "sqlite" | "pg", target: string): Promise<{
  readonly rows: ReadonlyArray<Result.Row>
  readonly ratio: Result.Ratio
}> => {
  const taken = { bare: new Array<number>(), reactor: new Array<number>() }
  for (let round = 0; round <= rounds; round++) {
    const start = async (subject: Subject.Subject) =>
      (await Subject.run<Started>(subject, [dialect, target, `round-${round}`])).startMillis
    const millis = { bare: await start(bare), reactor: await start(reactor) }
    // The first round makes the tables and is not counted.
    if (round === 0) continue
    taken.bare.push(millis.bare)
    taken.reactor.push(millis.reactor)
  }
  const of = { dialect, metric: "first commit after", unit: "ms" }
  return {
    rows: [
      Result.row({ ...of, subject: bare.name }, taken.bare),
      Result.row({ ...of, subject: reactor.name }, taken.reactor)
    ],
    ratio: Result.ratio({ of: reactor.name, to: bare.name, dialect, metric: of.metric }, taken.reactor, taken.bare)
  }
}

const directory = mkdtempSync(join(tmpdir(), "effect-processors-bench-"))

const results = await Effect.runPromise(
  Effect.scoped(
    Effect.flatMap(
      PostgresServer.make,
      ({ url }) =>
        Effect.promise(async () => [await measure("sqlite", join(directory, "start.db")), await measure("pg", url)])
    )
  ).pipe(
    Effect.ensuring(Effect.sync(() => rmSync(directory, { recursive: true, force: true })))
  )
)

Result.publish(Result.make("startup", results.flatMap(({ rows }) => rows), results.map(({ ratio }) => ratio)))
