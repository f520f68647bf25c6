/**
 * What is outgoing: the messages that one try of a commit has taken in, written to the outbox in its transaction.
 *
 *     send ─┬─ the handler only repeats what it did ──▶ nothing
 *           ├─ in a savepoint of the handler's own ──▶ written at once, and taken back with it
 *           └─ otherwise ──▶ kept, and written together when the handler has ended
 *
 * Its statements go past whatever holds the handler's own statements back.
 */

import * as SqlClient from "@effect/sql/SqlClient"
import type { SqlError } from "@effect/sql/SqlError"
import * as Clock from "effect/Clock"
import * as Context from "effect/Context"
import * as Effect from "effect/Effect"
import * as Either from "effect/Either"
import { TreeFormatter } from "effect/ParseResult"
import { isClean, receivedMax } from "../domain/Name.js"
import { once } from "../domain/Once.js"
import { inputFlaw } from "../domain/Operation.js"
import type { Attempt } from "../process/Attempt.js"
import { actionsMax, Dispatch, lengthMax, MalformedAction } from "../process/Dispatch.js"
import type { Action, Draft, Handling } from "../process/Dispatch.js"
import type { Message, Outbound } from "../process/Dispatcher.js"
import { Replaying } from "../process/Replaying.js"
import type { Cursor } from "./Cursors.js"
import * as Outbox from "./Outbox.js"

type Named = Context.Tag.Service<Handling>

export class Outgoing {
  /** Messages taken in so far; a few of them may be in the outbox from before. */
  messages = 0
  private readonly kept: Array<Outbox.Fresh> = []
  /** How many messages each operation has sent, by the id that its first one has. */
  private readonly counts = new Map<string, number>()
  private stamp: bigint | undefined
  private isClosed = false

  constructor(private readonly held: Cursor, private readonly attempt: Attempt) {}

  /** Runs a handler whose messages come here. */
  around<A, E, R>(handler: Effect.Effect<A, E, R>): Effect.Effect<A, E, Exclude<R, Dispatch>> {
    const handled = once(handler)
    return Effect.contextWithEffect((context: Context.Context<Exclude<R, Dispatch>>) => {
      const own = context as Context.Context<SqlClient.SqlClient>
      return Effect.provideService(handled, Dispatch, { send: (draft, cause) => this.send(own, draft, cause) })
    })
  }

  /** Writes what was kept. From now on nothing is taken in. */
  readonly close: Effect.Effect<void, SqlError, SqlClient.SqlClient> = Effect.suspend(() => {
    this.isClosed = true
    return Outbox.write(this.kept)
  })

  /** `own` is the transaction as the handler was given it. */
  private send(own: Context.Context<SqlClient.SqlClient>, draft: Draft, named: Named | undefined) {
    return Effect.contextWithEffect(
      (context: Context.Context<never>): Effect.Effect<void, MalformedAction | SqlError> => {
        if (Context.get(context, Replaying)) return Effect.void
        const cause = named ?? this.current()
        if (cause === undefined) return Effect.dieMessage("a message was sent for no operation: name one, by because")
        if (this.isClosed) return Effect.dieMessage("a fiber that outlived its handler sent a message")
        const isNested = depthOf(context) > depthOf(own)
        return Effect.flatMap(this.taken(own, draft, cause), (message) => {
          if (isNested) return Effect.provide(Outbox.write([message]), own)
          this.kept.push(message)
          return Effect.void
        })
      }
    )
  }

  private current(): Named | undefined {
    const { current: operation, stream } = this.attempt
    return operation === undefined || stream === undefined ? undefined : { operation, stream }
  }

  private taken(own: Context.Context<SqlClient.SqlClient>, draft: Draft, { operation, stream }: Named) {
    return Effect.gen(this, function*() {
      const { processor, source } = this.held
      const cause = {
        documentId: stream.documentId,
        scope: stream.scope,
        branch: stream.branch,
        index: operation.index,
        skip: operation.skip,
        hash: operation.hash,
        timestamp: operation.timestamp
      }
      const encoded = encode(draft)
      if (Either.isLeft(encoded)) return yield* encoded.left
      if (this.messages === Outbox.placesMax) return yield* tooMany(draft)
      this.stamp ??= yield* Effect.provide(Outbox.stamp, own)
      const ordinal = Outbox.ordinalOf(this.stamp, this.messages++)
      const first = Outbox.idOf({ processor, source, cause, nth: 0 })
      const nth = this.counts.get(first) ?? 0
      const id = nth === 0 ? first : Outbox.idOf({ processor, source, cause, nth })
      this.counts.set(first, nth + 1)
      return {
        id,
        processor,
        source,
        ordinal,
        cause,
        nth,
        documentId: draft.documentId,
        scope: draft.scope ?? "global",
        branch: draft.branch ?? "main",
        actions: encoded.right.map((action, place) => ({ ...action, id: Outbox.actionIdOf(id, place) })),
        sentAtMillis: yield* Clock.currentTimeMillis
      }
    })
  }
}

const tooMany = ({ documentId }: Draft) =>
  new MalformedAction({
    documentId,
    type: undefined,
    reason: `${Outbox.placesMax} messages were sent in one commit, and there may be no more`
  })

/** How many transactions of the handler's own are open around it. */
const depthOf = (context: Context.Context<never>): number => {
  const transaction = Context.getOption(context, SqlClient.TransactionConnection)
  return transaction._tag === "None" ? 0 : transaction.value[1]
}

type Encoded = Omit<Outbound, "id">

const encode = (draft: Draft): Either.Either<ReadonlyArray<Encoded>, MalformedAction> => {
  const malformed = (reason: string) =>
    Either.left(new MalformedAction({ documentId: draft.documentId, type: undefined, reason }))
  for (const [what, name] of Object.entries(namesOf(draft))) {
    if (!isName(name)) {
      return malformed(`its ${what} is not text of 1 to ${receivedMax} characters without control characters`)
    }
  }
  const count = draft.actions.length
  if (count < 1 || count > actionsMax) return malformed(`it has ${count} actions, and may have 1 to ${actionsMax}`)
  return Either.flatMap(
    Either.all(draft.actions.map((action) => encodeAction(draft, action))),
    (actions) =>
      JSON.stringify(actions).length > lengthMax
        ? malformed(`its actions are longer than ${lengthMax} characters`)
        : Either.right(actions)
  )
}

const namesOf = ({ branch = "main", documentId, scope = "global" }: Draft): Pick<
  Message,
  "documentId" | "branch" | "scope"
> => ({ documentId, branch, scope })

const isName = (text: unknown): boolean =>
  typeof text === "string" && text.length >= 1 && text.length <= receivedMax && isClean(text)

const encodeAction = (
  { documentId }: Draft,
  { input, model, type }: Action
): Either.Either<Encoded, MalformedAction> => {
  const malformed = (reason: string, cause?: unknown) =>
    Either.left(new MalformedAction({ documentId, type, reason, cause }))
  if (!isName(type)) return malformed("its type is no clean text")
  const encoded = model === undefined ? Either.right(input) : model.encode(type, input)
  if (encoded === undefined) return malformed(`the model ${model?.type} has no such operation`)
  if (Either.isLeft(encoded)) {
    return malformed(
      `the input does not fit the model: ${TreeFormatter.formatErrorSync(encoded.left)}`,
      encoded.left
    )
  }
  const flaw = inputFlaw(encoded.right)
  return flaw === undefined ? Either.right({ type, input: encoded.right }) : malformed(`the input ${flaw}`)
}
