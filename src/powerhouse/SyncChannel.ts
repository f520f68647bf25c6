/**
 * A sync channel: follows a drive of the current reactor over its GraphQL endpoint, `/graphql/r`.
 *
 *     touch ──▶ poll, acknowledging what is committed ──▶ verdicts ──▶ journal ─┬─ taken ─▶ poll ──▶ …
 *       ▲                                                                      └─ a gap ─▶ documentOperations ─▶ journal
 *       ├── "Channel not found": the server was started anew
 *       └── now and then, and after an answer was lost: look through all documents for what the channel left out
 *
 * The server keeps an outbox for each channel, in memory, and one number of ours both hides operations from the next answer
 * and evicts them: the highest ordinal that we say we have. Ordinals are not in order across an answer, so what a lost
 * answer held may lie below the number of an answer that arrived, and the server never sends it again. It also sends
 * nothing again after a restart unless something was acknowledged before. Three rules keep every operation in spite of it:
 *
 * - both numbers are those of what the journal has committed, never of what has only arrived;
 * - after an answer that may have been lost, or is not in the journal, the next question says that we have nothing;
 * - now and then, at the start and whenever an answer was lost or the channel made anew, each document's end at the
 *   reactor is compared with its end in the journal, and what is missing is asked for by document.
 *
 * A document that is deleted leaves its drive first, and what happens to it then is sent to nobody: the drive's own
 * `REMOVE_RELATIONSHIP` is the last that is told of it. The `OperationStore` has its `DELETE_DOCUMENT`.
 *
 * A stream that the journal refuses, and that the reactor's store cannot complete, is told in the status and left behind:
 * its operations are acknowledged so that others are not held up by it, stay in the reactor's store, and are asked for again
 * by document at each look.
 */

import type * as HttpClient from "@effect/platform/HttpClient"
import type * as Context from "effect/Context"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Either from "effect/Either"
import * as Layer from "effect/Layer"
import * as Schema from "effect/Schema"
import type * as Scope from "effect/Scope"
import * as Elapsed from "../domain/Elapsed.js"
import { Index } from "../domain/Operation.js"
import { Branch, DriveId } from "../domain/Strand.js"
import type { Stream } from "../domain/Strand.js"
import * as Envelope from "../ingest/Envelope.js"
import type { Unplaced } from "../ingest/Source.js"
import { Journal, JournalUnavailable } from "../journal/Journal.js"
import type { Head } from "../journal/Journal.js"
import * as DocumentPull from "./DocumentPull.js"
import * as Endpoint from "./Endpoint.js"
import * as Following from "./Following.js"
import * as Uptake from "./Uptake.js"
import * as Verdicts from "./Verdicts.js"

export interface Options extends Endpoint.Options {
  /**
   * Names the channel at the server. Choose it once for this journal, and keep it; no other journal may use it, since what
   * one has acknowledged the other would never be sent.
   */
  readonly channelId: string
  /** The drive that is followed, by its id. */
  readonly driveId: string
  /** Default: `main`. */
  readonly branch?: string | undefined
  /** Only these documents; all, unless it is said. */
  readonly documentId?: ReadonlyArray<string> | undefined
  /** Only these scopes; all, unless it is said. */
  readonly scope?: ReadonlyArray<string> | undefined
  readonly pauses?: Following.Pauses | undefined
  /** How often to look through all documents for what the channel left out. Default: 15 minutes. */
  readonly lookEvery?: Duration.DurationInput | undefined
}

/**
 * Follows until the scope closes. Throws a `ParseError` when the drive's id or the branch is empty, too long or
 * not clean text.
 */
export const follow = (
  options: Options
): Effect.Effect<Context.Tag.Service<Following.Following>, never, Journal | HttpClient.HttpClient | Scope.Scope> =>
  Effect.gen(function*() {
    const journal = yield* Journal
    const endpoint = yield* Endpoint.make(options)
    const remote = new Remote(endpoint, journal, {
      channelId: options.channelId,
      driveId: decodeDriveId(options.driveId),
      branch: decodeBranch(options.branch ?? "main"),
      documentId: options.documentId ?? [],
      scope: options.scope ?? [],
      lookMillis: Duration.toMillis(options.lookEvery ?? "15 minutes")
    })
    return yield* Following.begin(endpoint.name, journal, remote.round, options.pauses)
  })

/** {@link follow} as a layer. It is built at once; whether it fares well is in the status. */
export const layer = (
  options: Options
): Layer.Layer<Following.Following, never, Journal | HttpClient.HttpClient> =>
  Layer.scoped(Following.Following, follow(options))

const decodeDriveId = Schema.decodeSync(DriveId)
const decodeBranch = Schema.decodeSync(Branch)

interface Settings {
  readonly channelId: string
  readonly driveId: DriveId
  readonly branch: Branch
  readonly documentId: ReadonlyArray<string>
  readonly scope: ReadonlyArray<string>
  readonly lookMillis: number
}

/** What a look through documents, or a repair, has brought. */
interface Counts {
  appended: number
  known: number
}

/** The server side, as far as it is known here. */
class Remote {
  private isTouched = false
  /** Everything up to this ordinal that was ever sent to us is in the journal, or left behind. */
  private committed = 0
  /** When all documents were last looked through; when it was begun, before the first time. */
  private lookedMillis: number | undefined
  private isLookDue = true
  private readonly vocabulary: DocumentPull.Vocabulary = { hasDecisions: true }
  private leftBehind: ReadonlyArray<Uptake.Refused> = []

  constructor(
    private readonly endpoint: Endpoint.Endpoint,
    private readonly journal: Context.Tag.Service<Journal>,
    private readonly settings: Settings
  ) {}

  readonly round: Effect.Effect<Following.Round, Following.RoundError> = Effect.suspend(() =>
    Effect.gen(this, function*() {
      const registrations = yield* this.touch()
      const answer = yield* this.poll()
      const { misfit, parts } = partsOf(this.endpoint, this.settings, answer.envelopes)
      const taken = yield* Uptake.take(this.journal, yield* this.confirm(parts.flatMap(({ strands }) => strands)))
      const counts: Counts = { appended: taken.appended, known: taken.known }
      for (const refused of taken.refused) yield* this.repair(refused, counts)
      if (misfit !== undefined) return yield* misfit
      const before = this.committed
      this.committed = parts.reduce((highest, { ordinal }) => Math.max(highest, ordinal), before)
      yield* this.look(!answer.hasMore && counts.appended === 0, counts)
      return {
        ...counts,
        registrations,
        isMore: answer.hasMore || counts.appended > 0,
        gotOn: counts.appended > 0 || this.committed > before,
        refused: this.leftBehind
      }
    }).pipe(Effect.tapError((failure) => Effect.sync(() => this.doubt(failure))))
  )

  /** The server may have sent what never came, or is not in the journal. */
  private doubt(failure: Following.RoundError): void {
    if (failure._tag === "QuestionRejected" && failure.reasons.some((reason) => reason.includes("Channel not found"))) {
      this.isTouched = false
    }
    this.committed = 0
    this.isLookDue = true
  }

  /** Makes the channel where there is none, and says how often. */
  private touch(): Effect.Effect<number, Endpoint.AskError> {
    if (this.isTouched) return Effect.succeed(0)
    const { branch, channelId, documentId, driveId, scope } = this.settings
    return Effect.flatMap(
      this.endpoint.ask({
        ...questions.touch,
        variables: {
          input: {
            id: channelId,
            name: channelId,
            collectionId: `drive.${branch}.${driveId}`,
            filter: { documentId, scope, branch },
            sinceTimestampUtcMs: "0"
          }
        }
      }),
      ({ touchChannel }) => {
        if (!touchChannel.success) {
          return new Endpoint.QuestionRejected({ endpoint: this.endpoint.name, reasons: ["the channel was not made"] })
        }
        this.isTouched = true
        this.committed = 0
        this.isLookDue = true
        return Effect.succeed(1)
      }
    )
  }

  private poll(): Effect.Effect<typeof Poll.Type["pollSyncEnvelopes"], Endpoint.AskError> {
    const variables = {
      channelId: this.settings.channelId,
      outboxAck: this.committed,
      outboxLatest: this.committed
    }
    return Effect.map(
      DocumentPull.ask(this.endpoint, this.vocabulary, (hasDecisions) => ({
        operationName: undefined,
        query: pollQuery(hasDecisions),
        variables,
        answer: Poll
      })),
      ({ pollSyncEnvelopes }) => pollSyncEnvelopes
    )
  }

  private heads(streams: ReadonlyArray<Stream>): Effect.Effect<ReadonlyArray<Head>, JournalUnavailable> {
    return Effect.mapError(
      this.journal.heads(streams.map(Uptake.streamOf)),
      (cause) => new JournalUnavailable({ journal: this.journal.name, outcome: "nothing", cause })
    )
  }

  /** Adds what the channel does not tell: whether the document's own reducer refused an operation. */
  private confirm(
    strands: ReadonlyArray<Unplaced>
  ): Effect.Effect<ReadonlyArray<Unplaced>, Following.RoundError> {
    return Effect.gen(this, function*() {
      const streams = Verdicts.streamsOf(strands)
      const suspects = Verdicts.suspects(streams, yield* this.heads(streams))
      const found = yield* Effect.forEach(
        suspects,
        (suspect) => Verdicts.ask(this.endpoint, this.vocabulary, suspect),
        { concurrency: asksAtOnce }
      )
      return Verdicts.apply(strands, found)
    })
  }

  /** Asks for what is missing of a stream. One that is left behind already waits for the next look. */
  private repair(refused: Uptake.Refused, counts: Counts): Effect.Effect<void, Following.RoundError> {
    if (this.leftBehind.some((one) => Uptake.isSame(one, refused))) return Effect.void
    return refused.refusal._tag === "StrandGap"
      ? this.pull(refused, refused.refusal.expected, refused.index, counts, refused)
      : Effect.sync(() => this.leave(refused))
  }

  /** Brings a stream into the journal, from an index at least through another one, or leaves it behind. */
  private pull(
    stream: Stream & Pick<Unplaced, "documentType">,
    fromIndex: number,
    throughIndex: number,
    counts: Counts,
    refused?: Uptake.Refused
  ): Effect.Effect<void, Following.RoundError> {
    const { endpoint, settings: { driveId }, vocabulary } = this
    const found = Uptake.streamOf(stream)
    const takeIn = (strands: ReadonlyArray<Unplaced>) =>
      Effect.map(
        Uptake.take(this.journal, strands.map((strand) => ({ ...strand, driveId }))),
        ({ appended, known, refused: [stop] }) => {
          counts.appended += appended
          counts.known += known
          this.settle(found)
          if (stop !== undefined) this.leave(stop)
          return stop === undefined
        }
      )
    return DocumentPull.operations(endpoint, vocabulary, stream, fromIndex, takeIn).pipe(
      Effect.map((last) => {
        // The reactor knows no more of the stream than the journal does, and still it sent something that follows a gap.
        if (refused !== undefined && last < throughIndex) this.leave(refused)
      }),
      // It may have been deleted, or be none of ours to read.
      Effect.catchTag(
        "QuestionRejected",
        (refusal) =>
          Effect.sync(() => this.leave({ ...found, documentType: stream.documentType, index: fromIndex, refusal }))
      )
    )
  }

  private leave(refused: Uptake.Refused): void {
    this.settle(refused)
    this.leftBehind = [...this.leftBehind, refused]
  }

  private settle(stream: Stream): void {
    this.leftBehind = this.leftBehind.filter((one) => !Uptake.isSame(one, stream))
  }

  /**
   * Compares each stream's end at the reactor with its end in the journal, when it is time to, and asks for the rest. A busy
   * channel brings most of it by itself, and is waited for as long again.
   */
  private look(isQuiet: boolean, counts: Counts): Effect.Effect<void, Following.RoundError> {
    return Effect.flatMap(Elapsed.millis, (now) => {
      const { branch, driveId, lookMillis } = this.settings
      this.lookedMillis ??= now
      const isDue = isQuiet
        ? this.isLookDue || now >= this.lookedMillis + lookMillis
        : now >= this.lookedMillis + 2 * lookMillis
      if (!isDue) return Effect.void
      return Effect.gen(this, function*() {
        yield* this.compare(yield* DocumentPull.drive(this.endpoint, driveId, branch), counts)
        yield* DocumentPull.documents(
          this.endpoint,
          driveId,
          branch,
          (standings) => this.compare(standings, counts)
        )
        this.isLookDue = false
        this.lookedMillis = now
      })
    })
  }

  private compare(
    standings: ReadonlyArray<DocumentPull.Standing>,
    counts: Counts
  ): Effect.Effect<void, Following.RoundError> {
    return Effect.gen(this, function*() {
      const wanted = standings.filter(({ documentId, scope }) =>
        isWanted(this.settings.documentId, documentId) && isWanted(this.settings.scope, scope)
      )
      const heads = yield* this.heads(wanted)
      for (const [i, standing] of wanted.entries()) {
        const from = heads[i]!.index + 1
        if (from < standing.next) yield* this.pull(standing, from, standing.next - 1, counts)
      }
    })
  }
}

/** Streams that are asked about at the same time. */
const asksAtOnce = 4

const isWanted = (values: ReadonlyArray<string>, value: string): boolean =>
  values.length === 0 || values.includes(value)

/** One operation as it came, ready for the journal. */
interface Part {
  readonly ordinal: number
  readonly strands: ReadonlyArray<Unplaced>
}

/**
 * The operations of an answer in the order of their ordinals, in which the reactor has stored them: what an envelope depends
 * on has lower ones. And the first that cannot be read, which fails the round once the others are in the journal.
 */
const partsOf = (
  endpoint: Endpoint.Endpoint,
  { driveId }: Settings,
  envelopes: ReadonlyArray<typeof SyncEnvelope.Type>
): { readonly parts: ReadonlyArray<Part>; readonly misfit: Endpoint.MalformedAnswer | undefined } => {
  const parts: Array<Part> = []
  let misfit: Endpoint.MalformedAnswer | undefined
  for (const [e, { operations, type }] of envelopes.entries()) {
    if (type.toLowerCase() !== "operations") continue
    for (const [o, item] of (operations ?? []).entries()) {
      const part = Either.flatMap(
        ordinalOf(item),
        (ordinal) =>
          Either.map(Envelope.decode([item], JSON.stringify(item).length), (strands): Part => ({
            ordinal,
            strands: strands.map((strand) => ({ ...strand, driveId }))
          }))
      )
      if (Either.isRight(part)) {
        parts.push(part.right)
      } else {
        misfit ??= new Endpoint.MalformedAnswer({
          endpoint: endpoint.name,
          at: `envelopes[${e}].operations[${o}]`,
          reason: part.left.message
        })
      }
    }
  }
  return { parts: parts.sort((a, b) => a.ordinal - b.ordinal), misfit }
}

const ordinalOf = (item: unknown): Either.Either<number, Error> =>
  Either.mapBoth(decodePlaced(item), {
    onLeft: () => new Error("context.ordinal is not a whole number from 0 to 2147483647"),
    onRight: ({ context }) => context.ordinal
  })

const SyncEnvelope = Schema.Struct({
  type: Schema.String,
  operations: Schema.optional(Schema.NullOr(Schema.Array(Schema.Unknown)))
})

const Poll = Schema.Struct({
  pollSyncEnvelopes: Schema.Struct({ envelopes: Schema.Array(SyncEnvelope), hasMore: Schema.Boolean })
})

const Placed = Schema.Struct({ context: Schema.Struct({ ordinal: Index }) })
const decodePlaced = Schema.decodeUnknownEither(Placed)

/** The questions as the reactor's own client asks them. */
const pollQuery = (hasDecisions: boolean) =>
  `query PollSyncEnvelopes($channelId: String!, $outboxAck: Int!, $outboxLatest: Int!) {
    pollSyncEnvelopes(channelId: $channelId, outboxAck: $outboxAck, outboxLatest: $outboxLatest) {
      envelopes {
        type
        channelMeta { id }
        operations {
          operation {
            index timestampUtcMs hash skip error ${hasDecisions ? "deniedReason" : ""} id
            action {
              id type timestampUtcMs input scope
              context { signer { user { address networkId chainId } app { name key } signatures } }
            }
          }
          context { documentId documentType scope branch ordinal }
        }
        cursor { remoteName cursorOrdinal lastSyncedAtUtcMs }
        key
        dependsOn
      }
      ackOrdinal
      deadLetters { documentId error ${hasDecisions ? "errorType" : ""} jobId branch scopes operationCount }
      hasMore
    }
  }`

const questions = {
  touch: {
    query: `mutation TouchChannel($input: TouchChannelInput!) {
      touchChannel(input: $input) { success ackOrdinal }
    }`,
    answer: Schema.Struct({ touchChannel: Schema.Struct({ success: Schema.Boolean }) })
  }
} as const
