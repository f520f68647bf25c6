/**
 * Real: the real packages behind real endpoints, as tests ask for them; each ends with its scope.
 */
import * as Effect from "effect/Effect"
import type * as Scope from "effect/Scope"
import type * as Pglite from "../../../layers/Pglite.js"
import * as HttpProxy from "../../support/HttpProxy.js"

/** A GraphQL endpoint on loopback. */
export interface Endpoint {
  readonly url: string
  readonly port: number
  /** The bodies it was sent, in order. */
  readonly requests: ReadonlyArray<{
    readonly query: string
    readonly variables: { readonly [name: string]: unknown }
    readonly operationName?: string
  }>
  readonly close: () => Promise<void>
}

export interface ServeOptions {
  readonly port?: number
  /** Requests without it are refused. */
  readonly token?: string
  /** Without the fields of the newest schema. */
  readonly older?: boolean
}

/** A reactor 6.2.2 in this process. */
export interface Reactor {
  readonly createDrive: (name: string) => Promise<string>
  readonly createDocument: (driveId: string) => Promise<string>
  readonly write: (documentId: string, texts: ReadonlyArray<string>) => Promise<unknown>
  readonly undo: (documentId: string) => Promise<unknown>
  /** Adds the file twice: the second operation is recorded as refused by the document's reducer. */
  readonly addTwice: (driveId: string, id: string) => Promise<unknown>
  /** The ordinals that the reactor's own delivery brings to a processor of this name, growing as they are brought. */
  readonly deliver: (name: string) => Promise<ReadonlyArray<number>>
  readonly remove: (documentId: string) => Promise<unknown>
  /** The outbox of a channel: how many operations it holds. */
  readonly outboxSize: (channelId: string) => number
  /** Takes entries out of a channel's outbox, as a server does that is started anew. */
  readonly forget: (channelId: string) => void
  /** Forgets a channel altogether. */
  readonly drop: (channelId: string) => Promise<void>
  readonly close: () => Promise<void>
}

/** A PGlite. */
export interface Memory extends Pglite.Pglite {
  readonly exec: (text: string) => Promise<unknown>
}

interface Module {
  readonly open: (database: unknown, options?: { readonly concurrency?: number }) => Promise<Reactor>
  readonly serve: (reactor: Reactor, options?: ServeOptions) => Promise<Endpoint>
  readonly connect: (
    database: unknown,
    url: string,
    driveId: string
  ) => Promise<{ readonly close: () => Promise<void> }>
  readonly memory: () => Memory
}

const real = await import(new URL("./Reactor.mjs", import.meta.url).href) as Module

/** A reactor over a database: the URL of a PostgreSQL server, or one of {@link memory}. */
export const reactor = (
  database: unknown,
  options: { readonly concurrency?: number } = {}
): Effect.Effect<Reactor, never, Scope.Scope> =>
  Effect.acquireRelease(
    Effect.promise(() => real.open(database, options)),
    (opened) => Effect.promise(() => opened.close())
  )

/** Its sync endpoint. */
export const serve = (
  opened: Reactor,
  options: ServeOptions = {}
): Effect.Effect<Endpoint, never, Scope.Scope> =>
  Effect.acquireRelease(
    Effect.promise(() => real.serve(opened, options)),
    (endpoint) => Effect.promise(() => endpoint.close())
  )

/** A reactor of the real packages that follows the drive through its own client. */
export const connect = (database: unknown, url: string, driveId: string): Effect.Effect<object, never, Scope.Scope> =>
  Effect.acquireRelease(
    Effect.promise(() => real.connect(database, url, driveId)),
    (connected) => Effect.promise(() => connected.close())
  )

/** A PGlite in memory. */
export const memory = (): Memory => real.memory()

/** A strand as the real client of a pull responder has it. */
export interface PulledStrand {
  readonly driveId: string
  readonly documentId: string
  readonly documentType: string
  readonly scope: string
  readonly branch: string
  readonly operations: ReadonlyArray<{
    readonly index: number
    readonly skip: number
    readonly type: string
    readonly hash: string
    readonly input: unknown
  }>
}

/** A server of document-drive 5.3.2 in this process. */
export interface Drive {
  readonly createDrive: (id: string) => Promise<string>
  readonly createDocument: (driveId: string, id: string) => Promise<string>
  readonly write: (documentId: string, texts: ReadonlyArray<string>) => Promise<void>
  /** What the real client pulls as a listener of its own. */
  readonly all: (driveId: string, url: string) => Promise<ReadonlyArray<PulledStrand>>
  readonly forget: (driveId: string, listenerId: string) => Promise<boolean>
  readonly pretend: (driveId: string, listenerId: string, documentId: string, revision: number) => Promise<void>
}

/** Writes to one document after another, and as much, as this seed will have it: so many rounds, each time from the beginning. */
export const writing =
  (seed: number) => (drive: Pick<Drive, "write">, documents: ReadonlyArray<string>, rounds: number) => {
    const random = HttpProxy.chances(seed)
    return Effect.forEach(Array.from({ length: rounds }, (_, round) => round), (round) =>
      Effect.zipRight(
        Effect.promise(() =>
          drive.write(
            documents[Math.floor(random() * documents.length)]!,
            Array.from({ length: 1 + Math.floor(random() * 4) }, (_, i) => `${round} ${i}`)
          )
        ),
        Effect.sleep(5)
      ))
  }

interface DriveModule {
  readonly memory: () => object
  readonly open: (storage: object) => Promise<Drive>
  readonly serve: (drive: Drive, driveId: string, options?: ServeOptions) => Promise<Endpoint>
}

/** Loaded when it is first asked for: most tests do without. */
const drives = Effect.promise(() => import(new URL("./Drive.mjs", import.meta.url).href) as Promise<DriveModule>)

/** A storage that outlives its server. */
export const storage: Effect.Effect<object> = Effect.map(drives, ({ memory: make }) => make())

export const drive = (over: object): Effect.Effect<Drive> =>
  Effect.flatMap(drives, ({ open }) => Effect.promise(() => open(over)))

/** The endpoint of one drive. */
export const serveDrive = (
  opened: Drive,
  driveId: string,
  options: ServeOptions = {}
): Effect.Effect<Endpoint, never, Scope.Scope> =>
  Effect.flatMap(drives, (module) =>
    Effect.acquireRelease(
      Effect.promise(() => module.serve(opened, driveId, options)),
      (endpoint) => Effect.promise(() => endpoint.close())
    ))

/** A server of document-drive 4.0.6 in this process. */
export interface FormerDrive extends Omit<Drive, "pretend"> {
  /** How far the server believes that a listener has come, by document. */
  readonly taken: (
    driveId: string,
    listenerId: string
  ) => Promise<{ readonly [documentId: string]: number | undefined }>
}

interface FormerModule {
  readonly memory: () => object
  readonly open: (storage: object) => Promise<FormerDrive>
  readonly serve: (drive: FormerDrive, driveId: string, options?: ServeOptions) => Promise<Endpoint>
}

const formers = Effect.promise(() => import(new URL("./Drive4.mjs", import.meta.url).href) as Promise<FormerModule>)

/** Over a storage of its own. */
export const formerDrive: Effect.Effect<FormerDrive> = Effect.flatMap(
  formers,
  ({ memory: make, open }) => Effect.promise(() => open(make()))
)

/** The endpoint of one drive of it. */
export const serveFormerDrive = (
  opened: FormerDrive,
  driveId: string
): Effect.Effect<Endpoint, never, Scope.Scope> =>
  Effect.flatMap(formers, (module) =>
    Effect.acquireRelease(
      Effect.promise(() => module.serve(opened, driveId)),
      (endpoint) => Effect.promise(() => endpoint.close())
    ))
