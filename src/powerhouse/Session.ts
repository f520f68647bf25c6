/**
 * A session: a processor of a drive from its opening until it halts or is closed.
 *
 *     strands ─▶ in the drive? ─▶ anything missing before it? ─▶ inbox ─▶ subscription, in a Reactor of its own ─▶ settled
 *                    ▲                     ▲                       ▲
 *                 archive               archive                  sweep of the archive
 *
 * Invariant: what is put returns when it is committed, or fails; after a failure nothing is taken any more.
 */

import * as Cause from "effect/Cause"
import * as Context from "effect/Context"
import * as Data from "effect/Data"
import * as Effect from "effect/Effect"
import * as Either from "effect/Either"
import * as Layer from "effect/Layer"
import type * as Scope from "effect/Scope"
import * as Stream from "effect/Stream"
import type { Operation } from "../domain/Operation.js"
import * as Position from "../domain/Position.js"
import type { DriveId } from "../domain/Strand.js"
import * as Envelope from "../ingest/Envelope.js"
import * as Filter from "../ingest/Filter.js"
import * as Source from "../ingest/Source.js"
import type { Unplaced } from "../ingest/Source.js"
import * as Fault from "../process/Fault.js"
import type { Processor } from "../process/Processor.js"
import * as Reactor from "../Reactor.js"
import { patience } from "../store/Commit.js"
import { Namespaces } from "../store/Namespaces.js"
import type { Archive, ArchiveUnavailable, Found, Missing } from "./Archive.js"
import { Headway } from "./Headway.js"
import * as Inbox from "./Inbox.js"
import { Membership } from "./Membership.js"
import { Sweep } from "./Sweep.js"

/** The processor cannot go on. It starts again, from its cursor, with the next delivery. */
export class ProcessorStopped extends Data.TaggedError("ProcessorStopped")<{
  readonly drive: string
  readonly processor: string
  readonly cause: unknown
}> {
  override get message(): string {
    return `${this.processor} of drive ${this.drive} has stopped: ${Fault.describe(this.cause)}`
  }
}

/** The reactor has disconnected the processor, or its scope has closed; nothing is taken any more. */
export class Disconnected extends Data.TaggedError("Disconnected")<{
  readonly drive: string
  readonly processor: string
}> {
  override get message(): string {
    return `${this.processor} of drive ${this.drive} is disconnected`
  }
}

/** Which processor of which drive, and how it is fed. */
export interface Post<R> {
  readonly processor: Processor<never, R>
  readonly drive: DriveId
  /** Where to read what the reactor does not deliver. */
  readonly archive: Archive | undefined
  /** Whether the processor is given only what belongs to the drive. Needs an archive. */
  readonly isolated: boolean
  /** How often the archive is compared with what was delivered. */
  readonly sweepMillis: number
  /** How long the reactor may take from giving an operation its ordinal to committing it. */
  readonly graceMillis: number
}

export interface Session {
  readonly reactor: Context.Tag.Service<Reactor.Reactor>
  /** Set once nothing is taken any more. */
  readonly failure: () => ProcessorStopped | Disconnected | undefined
  /** Takes what was delivered. */
  readonly take: (delivery: Delivery) => Effect.Effect<void, ProcessorStopped | Disconnected>
  /** Sweeps now. */
  readonly stir: Effect.Effect<void>
}

/** What one call of the reactor delivers. */
export interface Delivery {
  readonly strands: ReadonlyArray<Unplaced>
  /** The places of the operations in the archive, where they are told. */
  readonly ordinals: ReadonlyArray<{ readonly documentId: string; readonly ordinal: number }>
  /**
   * Whether the reactor has read them from its index, to catch up or to try again. That does not keep whether a document
   * refused an operation, so they are read from the archive once more.
   */
  readonly isBare: boolean
}

/** Names the cursor of a processor: its source is the drive. */
export const sourceName = (drive: string): string => `powerhouse/${drive}`

/**
 * Opens the processor, tables included. It ends with the scope. It is not divided: what is delivered counts as taken once the
 * cursor has passed it, and that of one partition says nothing of the others.
 */
export const open = <R>(
  post: Post<R>
): Effect.Effect<Session, Reactor.StartError, R | Namespaces | Scope.Scope> =>
  Effect.gen(function*() {
    const { archive, drive } = post
    const processor = { ...post.processor, partitions: 1 }
    const who = { drive, processor: processor.name }
    const past = archive === undefined ? undefined : pastOf(drive, archive)
    const inbox = yield* Inbox.make<ProcessorStopped | Disconnected>(sourceName(drive), past)
    const stop = (cause: unknown) => inbox.fail(new ProcessorStopped({ ...who, cause }))
    yield* Effect.addFinalizer(() => inbox.fail(new Disconnected(who)))
    const reactor = yield* startReactor(processor, inbox.source)
    yield* Effect.forkScoped(
      Stream.runForEach(reactor.commits, ({ position }) => inbox.settled(position))
    )
    yield* reactor.ended.pipe(
      Effect.zipRight(reactor.outcomes),
      Effect.flatMap(([outcome]) => stop(outcome?.failure)),
      Effect.forkScoped
    )
    const wanted = Filter.compile(processor.filter, processor.filterDialect)
    const isWanted = (strand: Unplaced) =>
      strand.operations.length > 0 && wanted({ ...strand, position: Position.origin })
    const wantedOf = (strands: ReadonlyArray<Unplaced>) =>
      strands.map((strand) => strand.driveId === undefined ? { ...strand, driveId: drive } : strand).filter(isWanted)
    const put = (strands: ReadonlyArray<Unplaced>) => inbox.put(wantedOf(strands))
    if (archive === undefined) {
      return { reactor, failure: inbox.failure, take: ({ strands }) => put(strands), stir: Effect.void }
    }

    const namespaces = yield* Namespaces
    const headway = new Headway(processor.namespace, { processor: processor.name, source: inbox.source.name })
    const membership = post.isolated ? new Membership(archive, drive) : undefined
    const news = yield* Effect.makeLatch(false)
    let sweep: Sweep<ProcessorStopped | Disconnected> | undefined
    yield* Effect.flatMap(inbox.opened, (mark) => {
      const errand = { archive, drive, isolated: post.isolated, graceMillis: post.graceMillis, mark: inbox.mark }
      const each = new Sweep({ ...errand, put: (found) => Effect.flatMap(decodeFound(found), put) }, mark)
      sweep = each
      const run = Effect.suspend(() => {
        news.unsafeClose()
        membership?.forget()
        return each.run
      })
      return Effect.forever(Effect.zipRight(patiently(run), Effect.timeoutOption(news.await, post.sweepMillis)))
    }).pipe(
      // Without sweeps it would miss what it is not given, and nobody would know.
      Effect.catchAllCause((cause) => stop(Cause.squash(cause))),
      Effect.forkScoped
    )
    const take = ({ isBare, ordinals, strands: delivered }: Delivery) =>
      Effect.gen(function*() {
        const own = yield* belonging(delivered, membership)
        const strands = wantedOf(own)
        const read = isBare ? yield* reread(archive, strands) : strands
        const whole = yield* Effect.provideService(mended(archive, headway, read), Namespaces, namespaces)
        // What was read again counts as found once a sweep has found it.
        const documents = new Set<string>(isBare ? [] : own.map((strand) => strand.documentId))
        sweep?.delivered(ordinals.flatMap(({ documentId, ordinal }) => documents.has(documentId) ? [ordinal] : []))
        yield* put(whole)
      })
    return { reactor, failure: inbox.failure, take, stir: news.open }
  })

/** Tries again for as long as the archive cannot be read. */
const patiently = <E extends { readonly _tag: string }>(
  run: Effect.Effect<void, E | ArchiveUnavailable>
): Effect.Effect<void, E> =>
  run.pipe(
    Effect.tapError((failure) => isAway(failure) ? complain(failure) : Effect.void),
    Effect.retry({ schedule: patience, while: isAway })
  ) as Effect.Effect<void, E>

const isAway = (failure: { readonly _tag: string }): failure is ArchiveUnavailable =>
  failure._tag === "ArchiveUnavailable"

/** What belongs to the drive. What that cannot be told of now is in the archive, and the next sweep tells. */
const belonging = (strands: ReadonlyArray<Unplaced>, membership: Membership | undefined) =>
  membership === undefined ? Effect.succeed(strands) : Effect.catchAll(
    membership.of(strands),
    (failure) => Effect.as(complain(failure), [])
  )

const startReactor = <R>(processor: Processor<never, R>, source: Context.Tag.Service<Source.Source>) =>
  Effect.map(
    Layer.build(Layer.provide(
      // What the handler needs is what the processor says, whatever R is; the compiler cannot take SqlClient out of it here.
      Reactor.layer(processor) as Layer.Layer<
        Reactor.Reactor,
        Reactor.StartError,
        R | Source.Source | Namespaces
      >,
      Layer.succeed(Source.Source, source)
    )),
    (context) => Context.get(context, Reactor.Reactor)
  )

const pastOf = (drive: DriveId, archive: Archive): Inbox.Past => {
  const unavailable = (cause: ArchiveUnavailable) =>
    new Source.SourceUnavailable({ source: sourceName(drive), reason: cause.message, cause })
  return {
    head: Effect.mapError(archive.head, unavailable),
    document: (documentId) =>
      archive.document(drive, documentId).pipe(
        Stream.mapError(unavailable),
        Stream.mapEffect(decodeFound),
        Stream.mapConcat((strands) =>
          strands.map((strand) => strand.driveId === undefined ? { ...strand, driveId: drive } : strand)
        )
      )
  }
}

const complain = (failure: ArchiveUnavailable) => Effect.logWarning(failure.message)

/** The strands, and before each what is missing there, as far as the archive has it. */
const mended = (
  archive: Archive,
  headway: Headway,
  delivered: ReadonlyArray<Unplaced>
): Effect.Effect<ReadonlyArray<Unplaced>, never, Namespaces> =>
  Effect.gen(function*() {
    const strands = delivered.flatMap(unbroken)
    const missing = yield* headway.missing(strands)
    if (missing.every((each) => each === undefined)) return strands
    const found = yield* Effect.forEach(strands, (strand, i) =>
      Effect.map(lookUp(archive, missing[i]), (before) => [...before, strand]))
    return found.flat()
  }).pipe(
    // What is missing is noticed again by the processor itself, and by the next sweep.
    Effect.catchAll((failure) =>
      Effect.as(Effect.logWarning(Fault.describe(failure)), delivered)
    )
  )

/** A strand in pieces, none of which misses an operation between others. */
const unbroken = (strand: Unplaced): ReadonlyArray<Unplaced> => {
  const pieces: Array<Array<Operation>> = []
  let last = Infinity
  for (const operation of strand.operations) {
    if (operation.index - operation.skip > last + 1 || pieces.length === 0) pieces.push([])
    pieces.at(-1)!.push(operation)
    last = operation.index
  }
  return pieces.length === 1 ? [strand] : pieces.map((operations) => ({ ...strand, operations }))
}

/** The strands as the archive has them. What it does not tell now, the next sweep will. */
const reread = (archive: Archive, strands: ReadonlyArray<Unplaced>): Effect.Effect<ReadonlyArray<Unplaced>> =>
  Effect.forEach(strands, ({ branch, documentId, documentType, operations, scope }) =>
    lookUp(archive, {
      documentId,
      documentType,
      scope,
      branch,
      from: operations[0]?.index ?? 0,
      to: operations.at(-1)?.index ?? 0
    })).pipe(
      Effect.map((found) => found.flat()),
      Effect.catchAll((failure) => Effect.as(complain(failure), []))
    )

const lookUp = (archive: Archive, missing: Missing | undefined) =>
  missing === undefined ? Effect.succeed([]) : Effect.flatMap(
    Stream.runCollect(archive.between(missing)),
    (pages) => decodeFound(Array.from(pages).flat())
  )

/** What the archive holds and nobody can read is told, and left there: it would be no more readable when delivered. */
const decodeFound = (found: ReadonlyArray<Found>): Effect.Effect<ReadonlyArray<Unplaced>> => {
  const { flaw, strands } = readable(found.map(({ envelope }) => envelope))
  return flaw === undefined
    ? Effect.succeed(strands)
    : Effect.as(Effect.logError(`the archive holds what is no operation: ${flaw.message}`), strands)
}

/** What can be read of a delivery, and the first thing that cannot. */
export const readable = (
  value: unknown
): { readonly strands: ReadonlyArray<Unplaced>; readonly flaw: Envelope.MalformedEnvelope | undefined } => {
  const whole = Envelope.decode(value)
  if (Either.isRight(whole)) return { strands: whole.right, flaw: undefined }
  if (!Array.isArray(value)) return { strands: [], flaw: whole.left }
  return {
    strands: value.flatMap((each: unknown) => Either.getOrElse(Envelope.decode(each), () => [])),
    flaw: whole.left
  }
}
