/** What compiles, and the types it has: inferred exactly, neither wider nor narrower. */
import * as SqlClient from "@effect/sql/SqlClient"
import type { SqlError } from "@effect/sql/SqlError"
import * as Effect from "effect/Effect"
import * as Layer from "effect/Layer"
import * as Match from "effect/Match"
import * as Schedule from "effect/Schedule"
import * as Stream from "effect/Stream"
import type { Generated, InsertResult } from "kysely"
import * as Test from "../../layers/Test.js"
import {
  DeadLetters,
  Failure,
  Health,
  Policy,
  Position,
  Processor,
  Pulse,
  Query,
  Reactor,
  Source,
  Subscription,
  Wait
} from "../../src/index.js"
import type { Commit, Incident, Namespace, Retraction } from "../../src/index.js"
import { BadInput, RateLimited, Todo, Translator, Undecided } from "./Undecided.js"

type Equals<A, B> = (<T>() => T extends A ? 1 : 2) extends (<T>() => T extends B ? 1 : 2) ? true : false
const check = <_ extends true>(): void => {}

type Engine = SqlError | Failure.MalformedOperation | Failure.StrandGap | Failure.HistoryRewritten

// A processor fails with what its handler fails with, and with what the engine raises; it needs what its handler needs.
check<
  Equals<
    Processor.Failure<typeof Undecided>,
    Engine | Failure.UnknownOperation | RateLimited | BadInput
  >
>()
check<Equals<Processor.Services<typeof Undecided>, Translator | SqlClient.SqlClient>>()

// The standard policy leaves exactly the user's own failures.
const Standard = Undecided.pipe(Processor.withPolicy(Policy.standard))
check<Equals<Processor.Failure<typeof Standard>, RateLimited | BadInput>>()

// A policy's function sees its own failure, and takes its tag out.
const Decided = Standard.pipe(Processor.withPolicy({
  RateLimited: (e) => {
    check<Equals<typeof e, RateLimited>>()
    return Policy.retry(Schedule.spaced(e.retryAfterMillis), { otherwise: Policy.halt })
  },
  BadInput: Policy.park
}))
check<Equals<Processor.Failure<typeof Decided>, never>>()
check<Equals<typeof Decided, Processor.Processor<never, Translator | SqlClient.SqlClient>>>()

// The same in one step, and a lasting failure judged by what it holds.
const AtOnce = Undecided.pipe(Processor.withPolicy({
  ...Policy.standard,
  MalformedOperation: (e) => e.index === 0 ? Policy.halt : Policy.skip,
  RateLimited: (e) => Policy.retry(Schedule.spaced(e.retryAfterMillis), { otherwise: Policy.halt }),
  BadInput: (e) => e.why === "" ? Policy.skip : Policy.park
}))
check<Equals<Processor.Failure<typeof AtOnce>, never>>()

// A later policy may decide a standard failure again.
const Again = Standard.pipe(Processor.withPolicy({ StrandGap: (e) => e.expected === 0 ? Policy.skip : Policy.park }))
check<Equals<Processor.Failure<typeof Again>, RateLimited | BadInput>>()

// The standard policy fits a processor that cannot fail in all its ways.
const ByBatch = Processor.make("by-batch", {
  namespace: "todos",
  handler: Processor.onBatch((strands) => {
    check<Equals<typeof strands, ReadonlyArray<Retraction.Told>>>()
    return Effect.log(strands.length)
  })
})
check<Equals<Processor.Failure<typeof ByBatch>, Engine>>()
check<Equals<Processor.Services<typeof ByBatch>, SqlClient.SqlClient>>()
const ByBatchDecided = ByBatch.pipe(Processor.withPolicy(Policy.standard))
check<Equals<Processor.Failure<typeof ByBatchDecided>, never>>()

// One that copes with rewritten history can fail at that, and with what its `retract` fails with.
const Appending = Processor.make("appending", {
  namespace: "todos",
  history: "append",
  handler: Processor.onOperations(Todo, { ADD: () => Effect.void }, {
    retract: ({ retraction, strand }) => {
      check<Equals<typeof retraction, Retraction.Retraction>>()
      return Effect.flatMap(
        Translator,
        (translator) => Effect.zipRight(translator.translate(strand.documentId), new BadInput({ why: "" }))
      )
    }
  })
})
check<
  Equals<
    Processor.Failure<typeof Appending>,
    Engine | Failure.HistoryLost | Failure.UnknownOperation | RateLimited | BadInput
  >
>()
check<Equals<Processor.Services<typeof Appending>, Translator | SqlClient.SqlClient>>()
const Appended = Appending.pipe(Processor.withPolicy(Policy.standard))
check<Equals<Processor.Failure<typeof Appended>, RateLimited | BadInput>>()

// The Stream form: its failures and services are the processor's.
const ByStream = Processor.make("by-stream", {
  namespace: "todos",
  handler: Processor.onStrands((strands) => {
    check<Equals<typeof strands, Stream.Stream<Retraction.Told>>>()
    return Stream.mapEffect(
      strands,
      (strand) => Effect.flatMap(Translator, (translator) => translator.translate(strand.documentId))
    )
  })
})
check<Equals<Processor.Failure<typeof ByStream>, Engine | RateLimited>>()
check<Equals<Processor.Services<typeof ByStream>, Translator | SqlClient.SqlClient>>()

// A handler built in a scope: the Scope is the subscription's, not the user's to provide.
const Scoped = Processor.make("scoped", {
  namespace: "todos",
  handler: Effect.as(
    Effect.addFinalizer(() => Effect.log("disconnected")),
    Processor.onOperations(Todo, { COMPLETE: () => Effect.void })
  )
})
check<Equals<Processor.Services<typeof Scoped>, SqlClient.SqlClient>>()

// What each operation's function is given.
Processor.onOperations(Todo, {
  ADD: ({ input, operation, strand, type }) => {
    check<Equals<typeof input, { readonly id: string; readonly title: string }>>()
    check<Equals<typeof type, "ADD">>()
    return Effect.log(operation.index, strand.documentId)
  }
})

// Two models in one processor.
const Merged = Processor.merge(
  Processor.onOperations(Todo, { ADD: () => Effect.fail(new BadInput({ why: "" })) }),
  Processor.onBatch(() => Effect.fail(new RateLimited({ retryAfterMillis: 1 })))
)
check<
  Equals<
    typeof Merged,
    Processor.Handler<BadInput | RateLimited | Failure.MalformedOperation | Failure.UnknownOperation, never>
  >
>()

// Typed queries: rows, or what a write affected.
interface Tables {
  readonly todos: { readonly id: string; readonly title: string; readonly done: Generated<number> }
}
export const queries = Effect.gen(function*() {
  const query = yield* Query.kysely<Tables>()
  const titles = query((db) => db.selectFrom("todos").select(["title", "done"]))
  check<
    Equals<
      typeof titles,
      Effect.Effect<ReadonlyArray<{ title: string; done: number }>, SqlError, SqlClient.SqlClient>
    >
  >()
  const inserted = query((db) => db.insertInto("todos").values({ id: "1", title: "Read" }))
  check<Equals<typeof inserted, Effect.Effect<InsertResult, SqlError, SqlClient.SqlClient>>>()
  const returned = query((db) => db.updateTable("todos").set({ done: 1 }).returning("id"))
  check<Equals<typeof returned, Effect.Effect<ReadonlyArray<{ id: string }>, SqlError, SqlClient.SqlClient>>>()
  const streamed = query.stream((db) => db.selectFrom("todos").select("id"))
  check<Equals<typeof streamed, Stream.Stream<{ id: string }, SqlError, SqlClient.SqlClient>>>()
})

// Reactors: the services of all processors, and the namespaces in place of the client of one.
const reactor = Reactor.layer(Decided, ByBatchDecided)
check<Equals<Layer.Layer.Success<typeof reactor>, Reactor.Reactor | Pulse.Pulses>>()
check<Equals<Layer.Layer.Context<typeof reactor>, Translator | Namespace.Namespaces | Source.Source>>()
const outcomes = Reactor.run(ByBatchDecided)
check<Equals<Effect.Effect.Success<typeof outcomes>, ReadonlyArray<Reactor.Outcome>>>()
check<Equals<Effect.Effect.Context<typeof outcomes>, Namespace.Namespaces | Source.Source>>()
check<Equals<Effect.Effect.Error<typeof outcomes>, Layer.Layer.Error<typeof reactor>>>()

// Why a subscription is not working: told by its tag without a cast, and narrower once its phase is known.
type Ending =
  | "CommitUnknown"
  | "CursorConflict"
  | "Fenced"
  | "Halted"
  | "MalformedSource"
  | "NoSuchStart"
  | "RolledBack"
  | "SourceShortened"
  | "SourceTruncated"
  | "SourceUnavailable"
  | "SqlError"
  | "SuppliedOnce"
check<
  Equals<
    NonNullable<Reactor.Outcome["failure"]>["_tag"],
    Ending | "Behind" | "Defect" | "Paced" | "Retrying" | "Waiting"
  >
>()
export const why = (outcome: Reactor.Outcome): string => {
  switch (outcome.phase) {
    case "halted": {
      check<Equals<typeof outcome.failure, Subscription.SubscriptionError | Failure.Defect>>()
      return Match.value(outcome.failure).pipe(
        Match.tag("Halted", ({ at, fault }) => `${fault} ${at?.documentId}`),
        Match.tag("Fenced", ({ owner }) => `it is ${owner}'s`),
        Match.tag("SourceShortened", ({ after, reason }) => `${after} ${reason}`),
        Match.orElse((rest) => {
          check<Equals<typeof rest["_tag"], Exclude<Ending, "Fenced" | "Halted" | "SourceShortened"> | "Defect">>()
          return rest.message
        })
      )
    }
    case "reopening": {
      check<Equals<typeof outcome.failure, Subscription.SubscriptionError>>()
      return outcome.failure.message
    }
    case "held": {
      check<Equals<typeof outcome.failure["_tag"], "Behind" | "Paced">>()
      return outcome.failure.message
    }
    case "retrying": {
      check<Equals<typeof outcome.failure, Incident.Retrying>>()
      return `${outcome.failure.subject.documentId} ${outcome.failure.attempt}`
    }
    case "waiting": {
      check<Equals<typeof outcome.failure, Incident.Waiting>>()
      return outcome.failure.fault
    }
    default: {
      check<Equals<typeof outcome.failure, undefined>>()
      return outcome.phase
    }
  }
}

// Processors of a list whose length is not known.
const many: ReadonlyArray<typeof ByBatchDecided> = [ByBatchDecided]
Reactor.layer(...many)

const commits = Subscription.commits(Decided)
check<
  Equals<
    typeof commits,
    Stream.Stream<Commit.Commit, Subscription.SubscriptionError, Translator | SqlClient.SqlClient | Source.Source>
  >
>()

const retried = DeadLetters.retry(Decided, Source.name("home"), "todo-1")
check<Equals<Effect.Effect.Context<typeof retried>, Translator | SqlClient.SqlClient>>()

// Waiting needs nothing of the handler: neither its services nor that its failures are decided.
const waited = Wait.until(Undecided, Source.name("home"), {
  documentId: "todo-1",
  scope: "global",
  branch: "main",
  index: 0
})
check<Equals<typeof waited, Effect.Effect<Position.Position, Wait.WaitError, Namespace.Namespaces>>>()
const waitedBeside = Effect.flatMap(Reactor.Reactor, ({ waitFor }) => waitFor(Decided, { position: Position.origin }))
check<Equals<typeof waitedBeside, Effect.Effect<Position.Position, Wait.WaitError, Reactor.Reactor>>>()

// Code that is generic in a processor's services.
export const observe = <R>(processor: Processor.Processor<never, R>) =>
  Reactor.run(processor).pipe(Effect.provide(Test.layer([])))

// Everything provided: nothing is left to ask for.
const everything: Layer.Layer<Health.Health | Reactor.Reactor | Pulse.Pulses, unknown> = Health.layer().pipe(
  Layer.provideMerge(Reactor.layer(ByBatchDecided)),
  Layer.provide(Test.layer([]))
)
export { everything }
