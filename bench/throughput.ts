/**
 * Throughput: operations per second of one processor, ours beside a loop written by hand.
 *
 *     npm run bench:throughput                       recorded strands, repeated to 40,000 operations
 *     npm run bench:throughput -- strands.ndjson.gz  a file of your own
 *
 * Subjects run in turn, each in a fresh process on a fresh file; what counts is the ratio within a round.
 */
import { mkdtempSync, rmSync } from "node:fs"
import { tmpdir } from "node:os"
import { join } from "node:path"
import { fileURLToPath } from "node:url"
import * as Result from "./support/Result.js"
import * as Strands from "./support/Strands.js"
import * as Subject from "./support/Subject.js"

const rounds = 5
const operationsAtLeast = 40_000

interface Contender extends Subject.Subject {
  readonly how: "many" | "one"
}

const contenders: ReadonlyArray<Contender> = [
  { name: "ours, one statement a batch", program: "subjects/framework.js", how: "many" },
  { name: "by hand, one statement a batch", program: "subjects/by-hand.js", how: "many" },
  { name: "ours, one statement a row", program: "subjects/framework.js", how: "one" },
  { name: "by hand, one statement a row", program: "subjects/by-hand.js", how: "one" }
]

const directory = mkdtempSync(join(tmpdir(), "effect-processors-bench-"))
const recorded = fileURLToPath(new URL("../../examples/data/g1-strands.ndjson.gz", import.meta.url))
const input = process.argv[2] ?? await Strands.repeat(recorded, operationsAtLeast, directory)

const readings = new Map<Contender, Array<Subject.Reading>>(contenders.map((each) => [each, []]))
for (let round = 0; round <= rounds; round++) {
  for (const contender of contenders) {
    const database = join(directory, `round-${round}.db`)
    const reading = Subject.run(contender, [input, database, contender.how])
    for (const end of ["", "-wal", "-shm"]) rmSync(database + end, { force: true })
    // The first round warms the disk cache and is not counted.
    if (round > 0) readings.get(contender)!.push(reading)
  }
}
rmSync(directory, { recursive: true, force: true })

const speed = (reading: Subject.Reading) => reading.operations / reading.seconds
const rows = contenders.flatMap((contender) => {
  const taken = readings.get(contender)!
  const of = { subject: contender.name, dialect: "sqlite" as const }
  return [
    Result.row({ ...of, metric: "throughput", unit: "operations/s" }, taken.map(speed)),
    Result.row({ ...of, metric: "peak memory", unit: "MB" }, taken.map((reading) => reading.peakMegabytes)),
    Result.row({ ...of, metric: "commits", unit: "transactions" }, taken.map((reading) => reading.commits))
  ]
})
const ratio = (of: Contender, to: Contender): Result.Ratio => ({
  of: of.name,
  to: to.name,
  dialect: "sqlite",
  metric: "throughput",
  value: Result.median(
    readings.get(of)!.map((reading, round) => speed(reading) / speed(readings.get(to)![round]!))
  )
})
const [oursMany, handMany, oursOne, handOne] = contenders as [Contender, Contender, Contender, Contender]
Result.publish(Result.make("throughput", rows, [
  ratio(oursMany, handMany),
  ratio(oursOne, handOne),
  ratio(oursMany, handOne)
]))
