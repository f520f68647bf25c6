/**
 * A reactor dispatcher: delivers messages to documents of a Powerhouse reactor of this process (`@powerhousedao/reactor` 6).
 *
 *     message ─▶ which of its actions has the document? ─▶ execute the others as one job ─▶ wait for the job
 *
 * The reactor applies an action as often as it is given it, whatever its id, and keeps its jobs in memory. So the document's
 * operations are looked through for the actions' ids first, and a message counts as delivered when its job is done, not
 * when it is taken. An action that is recorded as one the document's reducer refused is delivered.
 *
 *     ReactorDispatcher.layer(module.client)      the client that a reactor gives to processors, or one of your own
 */

import * as DateTime from "effect/DateTime"
import * as Effect from "effect/Effect"
import * as Fiber from "effect/Fiber"
import * as FiberMap from "effect/FiberMap"
import * as Layer from "effect/Layer"
import * as Option from "effect/Option"
import { Dispatcher, MessageRefused, ReceiverUnavailable } from "../process/Dispatcher.js"
import type { Message, Outbound } from "../process/Dispatcher.js"

/** An `IReactorClient`, as far as it is used here. */
export interface ReactorClient {
  executeAsync(documentId: string, branch: string, actions: Array<ReactorAction>): Promise<ReactorJob>
  waitForJob(job: ReactorJob): Promise<ReactorJob>
  getOperations(
    documentId: string,
    view: { branch: string; scopes: Array<string> },
    filter: { actionTypes: Array<string>; timestampFrom: string },
    paging: { cursor: string; limit: number }
  ): Promise<OperationPage>
}

export interface ReactorAction {
  id: string
  type: string
  /** ISO 8601, in spite of its name. */
  timestampUtcMs: string
  input: unknown
  scope: string
}

export interface ReactorJob {
  readonly id: string
  /** `FAILED`, or how far it has come. */
  readonly status: string
  readonly error?: { readonly name: string; readonly message: string } | undefined
}

export interface OperationPage {
  readonly results: ReadonlyArray<{ readonly action: { readonly id: string } }>
  readonly nextCursor?: string | undefined
}

/** The client stays the caller's, who closes it. */
export const layer = (client: ReactorClient): Layer.Layer<Dispatcher> =>
  Layer.scoped(
    Dispatcher,
    Effect.map(FiberMap.make<string, void, MessageRefused | ReceiverUnavailable>(), (deliveries) => ({
      // One that is not waited for any longer goes on, as its job does; the message that comes again joins it.
      deliver: (message) =>
        Effect.suspend(() =>
          Option.match(FiberMap.unsafeGet(deliveries, message.id), {
            onNone: () => FiberMap.run(deliveries, message.id, deliver(client, message)),
            onSome: Effect.succeed
          })
        ).pipe(Effect.flatMap(Fiber.join))
    }))
  )

const deliver = (
  client: ReactorClient,
  message: Message
): Effect.Effect<void, MessageRefused | ReceiverUnavailable> =>
  Effect.gen(function*() {
    const missing = yield* missingOf(client, message)
    if (missing.length === 0) return
    const { branch, documentId, scope } = message
    const timestampUtcMs = timestampOf(message)
    const actions = missing.map(({ id, input, type }) => ({ id, type, input, scope, timestampUtcMs }))
    const taken = yield* asked(() => client.executeAsync(documentId, branch, actions))
    const done = yield* asked(() => client.waitForJob(taken))
    if (done.status === "FAILED") return yield* failed(done)
  })

/**
 * When it was sent, and whatever the clocks say not before what it was sent for: where the same operation has sent it before,
 * from a database that was put back since, it is found from the operation's time on.
 */
const timestampOf = ({ cause, sentAtMillis }: Message): string =>
  DateTime.formatIso(DateTime.max(DateTime.unsafeMake(sentAtMillis), DateTime.unsafeMake(cause.timestamp)))

const pageMax = 500

/** The actions that the document does not have, in order. */
const missingOf = (
  client: ReactorClient,
  { actions, branch, cause, documentId, scope }: Message
): Effect.Effect<ReadonlyArray<Outbound>, ReceiverUnavailable> =>
  Effect.gen(function*() {
    const missing = new Map(actions.map((action) => [action.id, action]))
    const actionTypes = Array.from(new Set(actions.map(({ type }) => type)))
    const filter = { actionTypes, timestampFrom: cause.timestamp }
    for (let cursor: string | undefined = "0"; cursor !== undefined && missing.size > 0;) {
      const paging: { cursor: string; limit: number } = { cursor, limit: pageMax }
      const page: OperationPage = yield* asked(() =>
        client.getOperations(documentId, { branch, scopes: [scope] }, filter, paging)
      ).pipe(Effect.catchIf(isNotFound, () => Effect.succeed({ results: [] })))
      for (const { action } of page.results) missing.delete(action.id)
      cursor = page.nextCursor
    }
    return [...missing.values()]
  })

/** What becomes of an action for a document that is not there is for its job to say. */
const isNotFound = ({ reason }: ReceiverUnavailable): boolean => /not found/i.test(reason)

const asked = <A>(question: () => Promise<A>): Effect.Effect<A, ReceiverUnavailable> =>
  Effect.tryPromise({
    try: question,
    catch: (cause) => new ReceiverUnavailable({ reason: cause instanceof Error ? cause.message : String(cause), cause })
  })

const failed = ({ error }: ReactorJob): MessageRefused | ReceiverUnavailable => {
  const { message = "the reactor does not say why", name = "Error" } = error ?? {}
  const reason = name === "Error" ? message : `${name}: ${message}`
  return lasting.has(name)
    ? new MessageRefused({ reason, cause: error })
    : new ReceiverUnavailable({ reason, cause: error })
}

/** The failures of jobs that are the same however often they are tried. */
const lasting: ReadonlySet<string> = new Set([
  "AuthEnforcementDisabledError",
  "AuthTimestampNotMonotonicError",
  "AuthorizationDeniedError",
  "DocumentDeletedError",
  "DocumentNotFoundError",
  "InvalidModuleError",
  "InvalidOperationTimestampError",
  "InvalidSignatureError",
  "ModuleNotFoundError"
])
