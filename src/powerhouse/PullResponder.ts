/**
 * A pull responder: follows a drive of document-drive 4 or 5 over its GraphQL endpoint, `/d/<drive>`.
 *
 *     register ──▶ strands ──▶ journal ──▶ acknowledge, each stream as far as it was committed ──▶ strands ──▶ …
 *        ▲            └ "Listener not found": the server was started anew, and begins at zero
 *        └─────────────── now and then, and when a gap stays: the server sends everything again
 *
 * The server keeps for each stream how far it was acknowledged, in memory, and sends what is above it with every answer. So
 * what the journal refuses is kept nowhere here: it is not acknowledged, and comes again. A server that has stopped to let
 * us in says so when it is registered with, and before that sends nothing.
 *
 * Version 4 does not know some fields of version 5, and refuses a question that has them: it is asked in its own words from
 * then on. It does not tell a strand's document type, for which it is asked once a document; it may call the drive itself by
 * an empty id, as servers before it did; and what was taken it counts by the last index, where version 5 counts by the next.
 */

import type * as HttpClient from "@effect/platform/HttpClient"
import * as Chunk from "effect/Chunk"
import type * as Context from "effect/Context"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Either from "effect/Either"
import * as Layer from "effect/Layer"
import * as Predicate from "effect/Predicate"
import * as Schema from "effect/Schema"
import type * as Scope from "effect/Scope"
import * as Elapsed from "../domain/Elapsed.js"
import * as Envelope from "../ingest/Envelope.js"
import type { Filter } from "../ingest/Filter.js"
import type { Unplaced } from "../ingest/Source.js"
import { Journal } from "../journal/Journal.js"
import * as DocumentPull from "./DocumentPull.js"
import * as Endpoint from "./Endpoint.js"
import * as Following from "./Following.js"
import * as Uptake from "./Uptake.js"

export interface Options extends Endpoint.Options {
  /**
   * Names the listener at the server. Choose it once for this journal, and keep it; no other journal may use it, since what
   * one has acknowledged the other would never be sent.
   */
  readonly listenerId: string
  /** Which strands are wanted; all of branch `main`, unless it is said. `driveId` is not asked for: the URL says it. */
  readonly filter?: Omit<Filter, "driveId"> | undefined
  readonly pauses?: Following.Pauses | undefined
  /**
   * How often to register anew, after which the server sends everything again and the journal drops what it has: it repairs
   * what the server believes to have been taken. Default: 1 hour.
   */
  readonly registerEvery?: Duration.DurationInput | undefined
}

/** Follows until the scope closes. */
export const follow = (
  options: Options
): Effect.Effect<Context.Tag.Service<Following.Following>, never, Journal | HttpClient.HttpClient | Scope.Scope> =>
  Effect.gen(function*() {
    const journal = yield* Journal
    const endpoint = yield* Endpoint.make(options)
    const registerMillis = Duration.toMillis(options.registerEvery ?? "1 hour")
    const remote = new Remote(endpoint, journal, options, registerMillis)
    return yield* Following.begin(endpoint.name, journal, remote.round, options.pauses)
  })

/** {@link follow} as a layer. It is built at once; whether it fares well is in the status. */
export const layer = (
  options: Options
): Layer.Layer<Following.Following, never, Journal | HttpClient.HttpClient> =>
  Layer.scoped(Following.Following, follow(options))

/** A server's word for a stream: everything below `revision` was taken. */
interface Revision {
  readonly driveId: string
  readonly documentId: string
  readonly documentType: string
  readonly scope: string
  readonly branch: string
  readonly status: "SUCCESS"
  readonly revision: number
}

/** The server side, as far as it is known here. */
class Remote {
  private isRegistered = false
  private registerAtMillis = 0
  /** Rounds in a row that met a gap, since when the server was told to send everything again because of it. */
  private gapRounds = 0
  /** Whether the server is one of version 4. */
  private isFormer = false
  /** Whether it calls the drive by an empty id. */
  private isDriveUnnamed = false
  /** What a server of version 4 has said of its documents. */
  private readonly types = new Map<string, string>()

  constructor(
    private readonly endpoint: Endpoint.Endpoint,
    private readonly journal: Context.Tag.Service<Journal>,
    private readonly options: Options,
    private readonly registerMillis: number
  ) {}

  readonly round: Effect.Effect<Following.Round, Following.RoundError> = Effect.suspend(() =>
    Effect.gen(this, function*() {
      const registrations = yield* this.register()
      const values = yield* this.pull()
      const { typed, untold } = this.isFormer ? yield* this.typed(values) : { typed: values, untold: [] }
      const { misfit, strands } = readAll(this.endpoint, typed)
      const taken = yield* Uptake.take(this.journal, strands)
      yield* this.acknowledge(revisionsOf(strands, taken.refused))
      if (misfit !== undefined) return yield* misfit
      this.gapRounds = taken.refused.some(({ refusal }) => refusal._tag === "StrandGap") ? this.gapRounds + 1 : 0
      if (this.gapRounds === gapRoundsMax) this.isRegistered = false
      return {
        ...taken,
        refused: [...taken.refused, ...untold],
        registrations,
        isMore: taken.appended > 0,
        gotOn: taken.appended > 0
      }
    })
  )

  /** Registers where it is due, and says how often. */
  private register(): Effect.Effect<number, Endpoint.AskError> {
    return Effect.flatMap(Elapsed.millis, (now) => {
      if (this.isRegistered && now < this.registerAtMillis) return Effect.succeed(0)
      const { filter = {}, listenerId } = this.options
      return Effect.map(
        this.endpoint.ask({
          ...questions.register,
          variables: {
            filter: {
              documentId: filter.documentId ?? ["*"],
              documentType: filter.documentType ?? ["*"],
              branch: filter.branch ?? ["main"],
              scope: filter.scope ?? ["*"]
            },
            listenerId
          }
        }),
        () => {
          this.isRegistered = true
          this.registerAtMillis = now + this.registerMillis
          return 1
        }
      )
    })
  }

  /** What the server has that was not acknowledged. */
  private pull(): Effect.Effect<ReadonlyArray<unknown>, Endpoint.AskError> {
    const { listenerId } = this.options
    const asked = Effect.suspend(() =>
      this.endpoint.ask({ ...(this.isFormer ? questions.formerStrands : questions.strands), variables: { listenerId } })
    )
    return asked.pipe(
      Effect.catchIf((failure) => !this.isFormer && isNewerField(failure), () => {
        this.isFormer = true
        return asked
      }),
      Effect.tapErrorTag("QuestionRejected", ({ reasons }) =>
        Effect.sync(() => {
          if (reasons.some((reason) => reason.includes("Listener not found"))) this.isRegistered = false
        })),
      Effect.map(({ system }) => system?.sync?.strands ?? [])
    )
  }

  /** Strands of version 4 with the types of their documents, and those of documents of which it does not say. */
  private typed(
    values: ReadonlyArray<unknown>
  ): Effect.Effect<
    { readonly typed: ReadonlyArray<unknown>; readonly untold: ReadonlyArray<Uptake.Refused> },
    Endpoint.AskError
  > {
    return Effect.gen(this, function*() {
      if (this.types.size > typesMax) this.types.clear()
      if (values.some((value) => Predicate.hasProperty(value, "documentId") && value.documentId === "")) {
        this.isDriveUnnamed = true
      }
      const refusals = new Map<string, Endpoint.QuestionRejected>()
      const unknown = new Set(values.flatMap((value) => {
        const id = documentIdOf(value)
        return id === undefined || this.types.has(id) ? [] : [id]
      }))
      yield* Effect.forEach(unknown, (id) =>
        this.endpoint.ask(DocumentPull.questionOf(questions.type, { id })).pipe(
          Effect.map(({ documentType }) => void this.types.set(id, documentType)),
          Effect.catchTag("QuestionRejected", (refusal) => Effect.sync(() => void refusals.set(id, refusal)))
        ), { concurrency: asksAtOnce, discard: true })
      const typed: Array<unknown> = []
      const untold: Array<Uptake.Refused> = []
      for (const value of values) {
        const id = documentIdOf(value)
        const refusal = id === undefined ? undefined : refusals.get(id)
        const documentType = id === undefined ? undefined : this.types.get(id) ?? untoldType
        const whole = Predicate.isRecord(value) ? { ...value, documentType } : value
        if (refusal === undefined) typed.push(whole)
        else {
          const [strand] = Either.getOrElse(Envelope.decode(whole), () => [])
          const [first] = strand?.operations ?? []
          if (strand !== undefined && first !== undefined) {
            const { documentType: type } = strand
            untold.push({ ...Uptake.streamOf(strand), documentType: type, index: first.index, refusal })
          }
        }
      }
      return { typed, untold }
    })
  }

  private acknowledge(revisions: ReadonlyArray<Revision>): Effect.Effect<void, Endpoint.AskError> {
    return Effect.forEach(
      Chunk.chunksOf(Chunk.unsafeFromArray(revisions), revisionsMax),
      (some) =>
        this.endpoint.ask({
          ...questions.acknowledge,
          variables: {
            listenerId: this.options.listenerId,
            revisions: this.isFormer
              ? Array.from(some, (revision) => formerRevision(revision, this.isDriveUnnamed))
              : Chunk.toReadonlyArray(some)
          }
        }),
      { discard: true }
    )
  }
}

/** Types of documents that are remembered. */
const typesMax = 100_000

/** Documents that are asked about at the same time. */
const asksAtOnce = 4

/** Stands where a server does not say what a document is. */
const untoldType = "?"

/** Whether a question was refused for a field that version 4 does not have. */
const isNewerField = (failure: Endpoint.AskError): boolean =>
  failure._tag === "QuestionRejected" &&
  failure.reasons.some((reason) => /documentType|actionId|timestampUtcMs/.test(reason))

/** Of which document a strand of version 4 is. */
const documentIdOf = (value: unknown): string | undefined => {
  if (!Predicate.isRecord(value)) return undefined
  const { documentId, driveId } = value
  const id = documentId === "" ? driveId : documentId
  return typeof id === "string" && id !== "" ? id : undefined
}

/** In the words of version 4. */
const formerRevision = (
  { branch, documentId, driveId, revision, scope, status }: Revision,
  isDriveUnnamed: boolean
) => ({
  driveId,
  documentId: isDriveUnnamed && documentId === driveId ? "" : documentId,
  scope,
  branch,
  status,
  revision: revision - 1
})

/** The server takes longer lists as well; its own client sends no more. */
const revisionsMax = 100

/** A gap that this many rounds have met is not one of answers that overtook each other. Told once, until it is gone. */
const gapRoundsMax = 3

/** What can be read, and the first strand that cannot: it fails the round, once the others are in the journal. */
const readAll = (
  endpoint: Endpoint.Endpoint,
  values: ReadonlyArray<unknown>
): { readonly strands: ReadonlyArray<Unplaced>; readonly misfit: Endpoint.MalformedAnswer | undefined } => {
  const [misfits, strands] = Array.from(
    values,
    (value, i) =>
      Either.mapLeft(
        Envelope.decode(value, sizeOf(value)),
        ({ field, reason }) =>
          new Endpoint.MalformedAnswer({ endpoint: endpoint.name, at: `strands[${i}].${field}`, reason })
      )
  ).reduce<readonly [Array<Endpoint.MalformedAnswer>, Array<Unplaced>]>(([bad, good], read) => {
    if (Either.isLeft(read)) bad.push(read.left)
    else good.push(...read.right)
    return [bad, good]
  }, [[], []])
  return { strands, misfit: misfits[0] }
}

const sizeOf = (value: unknown): number => JSON.stringify(value).length

/** How far each stream of an answer is in the journal. Where not even its first operation is, nothing is said. */
const revisionsOf = (
  strands: ReadonlyArray<Unplaced>,
  refused: ReadonlyArray<Uptake.Refused>
): ReadonlyArray<Revision> => {
  const revisions = new Map<string, Revision>()
  for (const strand of strands) {
    const stop = refused.find((one) => Uptake.isSame(one, strand))
    const taken = strand.operations.filter(({ index }) => stop === undefined || index < stop.index)
    if (taken.length === 0 && strand.operations.length > 0) continue
    const key = JSON.stringify([strand.documentId, strand.scope, strand.branch])
    const revision = taken.reduce(
      (highest, { index }) => Math.max(highest, index + 1),
      revisions.get(key)?.revision ?? 0
    )
    revisions.set(key, {
      driveId: strand.driveId ?? "",
      documentId: strand.documentId,
      documentType: strand.documentType,
      scope: strand.scope,
      branch: strand.branch,
      status: "SUCCESS",
      revision
    })
  }
  return Array.from(revisions.values())
}

const Strands = Schema.Struct({
  system: Schema.NullishOr(
    Schema.Struct({ sync: Schema.NullishOr(Schema.Struct({ strands: Schema.Array(Schema.Unknown) })) })
  )
})

/** The questions as the server's own client asks them. */
const questions = {
  register: {
    operationName: "registerPullResponderListener",
    query: `mutation registerPullResponderListener($filter: InputListenerFilter! $listenerId: String) {
      registerPullResponderListener(filter: $filter listenerId: $listenerId) { listenerId }
    }`,
    answer: Schema.Struct({ registerPullResponderListener: Schema.Struct({ listenerId: Schema.String }) })
  },
  strands: {
    operationName: "strands",
    query: `query strands($listenerId: ID!) {
      system { sync { strands(listenerId: $listenerId) {
        driveId documentId documentType scope branch
        operations {
          id actionId timestampUtcMs skip type input hash index
          context { signer { user { address networkId chainId } app { name key } signatures } }
        }
      } } }
    }`,
    answer: Strands
  },
  formerStrands: {
    operationName: "strands",
    query: `query strands($listenerId: ID!) {
      system { sync { strands(listenerId: $listenerId) {
        driveId documentId scope branch
        operations {
          id timestamp skip type input hash index
          context { signer { user { address networkId chainId } app { name key } signatures } }
        }
      } } }
    }`,
    answer: Strands
  },
  /** What a document is. */
  type: {
    operationName: "type",
    query: (name: string) => `query type($id: String!) { ${name}: document(id: $id) { documentType } }`,
    answer: Schema.Struct({ documentType: Schema.String })
  },
  acknowledge: {
    operationName: "acknowledge",
    query: `mutation acknowledge($listenerId: String! $revisions: [ListenerRevisionInput]) {
      acknowledge(listenerId: $listenerId, revisions: $revisions)
    }`,
    answer: Schema.Struct({ acknowledge: Schema.NullOr(Schema.Boolean) })
  }
} as const
