/**
 * pruning: a process that reads a file with a thread from the first byte, and leaves the stream open.
 *
 *     node pruning.mjs strands.ndjson
 *
 * It prints how many threads there were and how many strands it was supplied, and has to end by itself.
 */
import * as Effect from "effect/Effect"
import * as Scope from "effect/Scope"
import * as Stream from "effect/Stream"
import * as Position from "../../src/domain/Position.js"
import * as Ndjson from "../../src/ingest/Ndjson.js"
import * as Pruner from "../../src/ingest/Pruner.js"

const [file = ""] = process.argv.slice(2)
let threads = 0
process.on("worker", () => void threads++)

const program = Effect.gen(function*() {
  const source = yield* Ndjson.make({ name: "child", files: [file, file] })
  const scope = yield* Scope.make()
  const pull = yield* Scope.extend(Stream.toPull(source.strands(Position.origin)), scope)
  let strands = 0
  // The first file and the beginning of the second one are one read each: the thread rests, with a file to go.
  while (strands < 222) strands += (yield* pull).length
  process.stdout.write(`${threads} ${threads === 1 ? "thread" : "threads"}, ${strands} strands\n`)
})

void Effect.runPromise(
  Effect.provideService(program, Pruner.Limits, { ...Pruner.defaults, threadsMax: 1, isAtOnce: true })
)
