/**
 * The main job: recorded strands of all three generations of Powerhouse in, three processors' tables out, exactly once.
 *
 *     npm start                                        the files of examples/data into .effect-processors/strands
 *     npm start -- --input strands.ndjson.gz           another file, or several
 *     zcat strands.ndjson.gz | npm start -- --input -  standard input
 *     npm start -- --database postgres://user@host/db  schemas of PostgreSQL instead of SQLite files
 *
 * Progress and errors go to standard error, the report to standard output. It exits with 0 when the input was read to
 * its end, with 1 when it could not be, and with 130 when it was told to stop; in every case what has been committed
 * stays, and the next run goes on from there.
 */
import * as Command from "@effect/cli/Command"
import * as HelpDoc from "@effect/cli/HelpDoc"
import * as Options from "@effect/cli/Options"
import * as ValidationError from "@effect/cli/ValidationError"
import * as NodeContext from "@effect/platform-node/NodeContext"
import * as NodeRuntime from "@effect/platform-node/NodeRuntime"
import * as Cause from "effect/Cause"
import * as Clock from "effect/Clock"
import * as Config from "effect/Config"
import * as Data from "effect/Data"
import * as Effect from "effect/Effect"
import * as Either from "effect/Either"
import * as Exit from "effect/Exit"
import * as Layer from "effect/Layer"
import * as Logger from "effect/Logger"
import * as LogLevel from "effect/LogLevel"
import * as Option from "effect/Option"
import * as Schedule from "effect/Schedule"
import * as Stream from "effect/Stream"
import { createRequire } from "node:module"
import { delimiter, dirname, join } from "node:path"
import { Cursors, Fault, Namespace, Ndjson, Pulse, Reactor } from "../src/index.js"
import type { Incident } from "../src/index.js"
import { DriveAnalytics } from "./powerhouse/DriveAnalytics.js"
import * as Input from "./powerhouse/Input.js"
import { NodeTree } from "./powerhouse/NodeTree.js"
import * as Progress from "./powerhouse/Progress.js"
import * as Report from "./powerhouse/Report.js"
import { SearchIndex } from "./powerhouse/SearchIndex.js"
import * as Target from "./powerhouse/Target.js"

// The package is found by its own name, so that it does not matter from where, or from which build folder, this runs.
const manifest = createRequire(import.meta.url).resolve("effect-processors/package.json")
const data = join(dirname(manifest), "examples", "data")

/** Read in this order. `g2-strands` tells of the same documents as `g1-strands` and would contradict it. */
const defaultFiles = [
  "g1-strands.ndjson.gz",
  "g2-backfill-30.ndjson.gz",
  "g3-operations.ndjson.gz",
  "g3-reshuffle.ndjson.gz",
  "g3-concurrent.delivered.ndjson.gz"
].map((file) => join(data, file))

const defaultDatabase = join(".effect-processors", "strands")
const defaultWords = "governance"

/** A subscription could not go on. */
class Stopped extends Data.TaggedError("Stopped")<{ readonly outcomes: ReadonlyArray<Reactor.Outcome> }> {
  override get message(): string {
    const reasons = new Map<string, Array<string>>()
    for (const outcome of this.outcomes) {
      const reason = Pulse.inWords(outcome) ?? outcome.phase
      reasons.set(reason, [...reasons.get(reason) ?? [], outcome.processor])
    }
    const lines = Array.from(reasons, ([reason, processors]) => `${processors.join(", ")} stopped: ${reason}`)
    return [...lines, "what was committed before that is kept; put it right, and run again to go on from there"].join(
      "\n"
    )
  }
}

/** For tests, which want to look at a run from near: small batches, frequent lines. */
const knobs = Config.all({
  batch: Config.option(Config.integer("EFFECT_PROCESSORS_BATCH")),
  everyMillis: Config.withDefault(Config.integer("EFFECT_PROCESSORS_PROGRESS_MILLIS"), 1_000)
})

const processorsOf = (batch: Option.Option<number>) =>
  [SearchIndex, DriveAnalytics, NodeTree].map((processor) =>
    Option.match(batch, {
      onNone: () => processor,
      onSome: (operations) => ({ ...processor, limits: { ...processor.limits, operations: Math.max(1, operations) } })
    })
  )

/** A file does not mend itself while we wait: tried again twice, and not for minutes as a live source would be. */
const settings = Layer.effect(
  Reactor.Settings,
  Effect.map(Reactor.Settings, (defaults) => ({
    ...defaults,
    reopenings: Schedule.intersect(Schedule.exponential("50 millis"), Schedule.recurs(2))
  }))
)

const run = (paths: ReadonlyArray<string>, target: Target.Target, words: string) =>
  Effect.gen(function*() {
    const { batch, everyMillis } = yield* knobs
    const input = yield* Input.open(paths)
    const processors = processorsOf(batch)
    const startedMillis = yield* Clock.currentTimeMillis
    yield* Effect.gen(function*() {
      const reactor = yield* Reactor.Reactor
      const pulses = yield* Pulse.Pulses
      const progress = yield* Progress.follow({ input, pulses: pulses.all, everyMillis })
      const files = input.files.length === 1 ? "1 file" : `${input.files.length} files`
      yield* progress.note(`Reading ${files} (${(input.bytes / 1e6).toFixed(1)} MB) into ${target.shown}`)
      yield* Effect.forkScoped(tell(reactor.incidents, progress))

      yield* reactor.ended
      yield* progress.finish
      const outcomes = yield* reactor.outcomes
      const halted = outcomes.filter(({ phase }) => phase !== "ended")
      if (halted.length > 0) return yield* new Stopped({ outcomes: halted })
      const elapsedMillis = (yield* Clock.currentTimeMillis) - startedMillis
      const report = yield* Report.make({
        outcomes,
        source: input.name,
        isResumed: yield* isResumed(outcomes),
        elapsedMillis,
        words,
        target: target.shown
      })
      yield* Effect.sync(() => process.stdout.write(report))
    }).pipe(
      Effect.provide(Layer.provide(Reactor.layer(...processors), settings)),
      Effect.provide(Ndjson.layer({ name: input.name, files: input.files })),
      Effect.provide(target.layer)
    )
  }).pipe(Effect.scoped)

/** Whether there were commits before those of this run. */
const isResumed = (outcomes: ReadonlyArray<Reactor.Outcome>) =>
  Effect.map(
    Effect.forEach(outcomes, (outcome) =>
      Effect.map(
        Namespace.query(outcome.namespace, Cursors.peek(outcome)),
        (cursor) => cursor !== undefined && cursor.sequence > BigInt(outcome.totals.commits)
      )),
    (earlier) => earlier.includes(true)
  )

/** Says why nothing moves, each reason once. What is parked is told by the report. */
const tell = (incidents: Stream.Stream<Incident.Incident>, progress: Progress.Progress): Effect.Effect<void> =>
  Effect.suspend(() => {
    const told = new Set<string>()
    return Stream.runForEach(incidents, (incident) => {
      if (incident._tag !== "Waiting" && incident._tag !== "Reopening") return Effect.void
      const line = `${incident._tag === "Waiting" ? "waiting for the database" : "trying again"}: ${
        Fault.describe(incident.failure)
      }`
      if (told.has(line)) return Effect.void
      told.add(line)
      return progress.note(line)
    })
  })

const options = {
  input: Options.text("input").pipe(
    Options.withAlias("i"),
    Options.withDescription(
      "NDJSON to read, plain or gzip, or - for standard input. May be repeated; files are read in the order given. " +
        `Otherwise EFFECT_PROCESSORS_INPUT (several with ${delimiter} between them), otherwise examples/data.`
    ),
    Options.repeated
  ),
  database: Options.text("database").pipe(
    Options.withAlias("d"),
    Options.withDescription(
      "Where to write: a directory, with an SQLite file for each namespace, or a postgres:// URL, with a schema for each. " +
        `Otherwise EFFECT_PROCESSORS_DATABASE, otherwise ${defaultDatabase} under the current directory.`
    ),
    Options.mapEffect((address) =>
      Either.mapLeft(
        Target.make(address),
        ({ message }) => ValidationError.invalidValue(HelpDoc.p(`'--database' is not understood: ${message}`))
      )
    ),
    Options.optional
  ),
  search: Options.text("search").pipe(
    Options.withAlias("s"),
    Options.withDescription(`Words to look for in the search index afterwards; ${defaultWords} when left out.`),
    Options.withDefault(defaultWords)
  )
}

const fromEnvironment = (name: string) => Config.option(Config.nonEmptyString(name))

const command = Command.make("effect-processors", options, ({ database, input, search }) =>
  Effect.gen(function*() {
    // The command line takes a repeated option whose value is missing for one that was not given.
    if (process.argv.filter((word) => /^(-i|--input)(=|$)/.test(word)).length > input.length) {
      return yield* new Input.InputUnreadable({ path: "--input", reason: "a path, or -, has to follow it" })
    }
    const givenInput = Option.map(yield* fromEnvironment("EFFECT_PROCESSORS_INPUT"), (text) => text.split(delimiter))
    const givenDatabase = yield* fromEnvironment("EFFECT_PROCESSORS_DATABASE")
    yield* run(
      input.length > 0 ? input : Option.getOrElse(givenInput, () => defaultFiles),
      Option.isSome(database)
        ? database.value
        : yield* Target.make(Option.getOrElse(givenDatabase, () => defaultDatabase)),
      search
    )
  })).pipe(
    Command.withDescription("Projects recorded Powerhouse strands into tables: a search index, analytics, a node tree.")
  )

/** One message for whatever ended the program early; the command line has printed its own by then. */
const explain = (cause: Cause.Cause<unknown>): Effect.Effect<void> =>
  Effect.sync(() => {
    if (Cause.isInterruptedOnly(cause)) {
      process.stderr.write("stopped; what has been committed is kept, run again to go on from there\n")
      return
    }
    const failure = Cause.squash(cause)
    if (ValidationError.isValidationError(failure)) {
      process.stderr.write("effect-processors --help tells what can be given\n")
      return
    }
    process.stderr.write(`effect-processors: ${Fault.describe(failure)}\n`)
  })

const { version } = createRequire(import.meta.url)("effect-processors/package.json") as { readonly version: string }

// The engine logs each operation it sets aside; the report says it once, by cause. `--log-level` brings the log back.
Command.run(command, { name: "effect-processors", version })(process.argv).pipe(
  Effect.onError(explain),
  Effect.provide([
    NodeContext.layer,
    Logger.replace(Logger.defaultLogger, Logger.withConsoleError(Logger.logfmtLogger))
  ]),
  Logger.withMinimumLogLevel(LogLevel.None),
  NodeRuntime.runMain({
    disableErrorReporting: true,
    disablePrettyLogger: true,
    teardown: (exit, onExit) => onExit(Exit.isSuccess(exit) ? 0 : Cause.isInterruptedOnly(exit.cause) ? 130 : 1)
  })
)
