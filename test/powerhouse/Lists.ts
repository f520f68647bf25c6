/**
 * Lists: a real reactor (`@powerhousedao/reactor`) in this process, over a PGlite in memory, with documents that are lists.
 *
 * PUSH adds a number to a list; FAIL is refused by its reducer. The packages are installed in this folder; Node itself imports
 * them, since Vite would look into them.
 */
import * as Effect from "effect/Effect"
import type * as Scope from "effect/Scope"
import type { Powerhouse } from "../../src/index.js"

/** The client of the real reactor, as far as tests need it. */
export interface Client extends Powerhouse.ReactorDispatcher.ReactorClient {
  create(document: object): Promise<Document>
  get(id: string): Promise<Document>
  execute(id: string, branch: string, actions: ReadonlyArray<object>): Promise<Document>
  getOperations(
    documentId: string,
    view: { branch: string; scopes: Array<string> },
    filter: { actionTypes?: Array<string>; timestampFrom?: string; sinceRevision?: number },
    paging: { cursor: string; limit: number }
  ): Promise<{ readonly results: ReadonlyArray<Operation>; readonly nextCursor?: string }>
}

export interface Operation {
  readonly id: string
  readonly index: number
  readonly skip: number
  readonly hash: string
  readonly error?: string
  readonly timestampUtcMs: string
  readonly action: { readonly id: string; readonly type: string; readonly input: unknown }
}

interface Document {
  readonly header: { readonly id: string }
  readonly state: { readonly global: { readonly list: ReadonlyArray<number> } }
}

interface Packages {
  readonly PGlite: new() => { readonly close: () => Promise<void> }
  readonly kysely: { readonly Kysely: new(options: { readonly dialect: object }) => object }
  readonly kyselyPglite: { readonly PGliteDialect: new(database: object) => object }
  readonly document: {
    readonly createReducer: (reduce: (state: State, action: Operation["action"]) => State) => unknown
    readonly baseCreateDocument: (
      createState: (state?: object) => object,
      state?: object
    ) => { readonly header: object }
    readonly defaultBaseState: () => object
  }
  readonly reactor: {
    readonly ReactorBuilder: new() => ReactorBuilder
    readonly ReactorClientBuilder: new() => {
      readonly withLogger: (logger: object) => unknown
      readonly withReactorBuilder: (builder: ReactorBuilder) => {
        readonly buildModule: () => Promise<Module>
      }
    }
  }
}

interface ReactorBuilder {
  readonly withLogger: (logger: object) => ReactorBuilder
  readonly withKysely: (kysely: object) => ReactorBuilder
  readonly withDocumentModelSources: (models: ReadonlyArray<object>) => ReactorBuilder
}

interface Module {
  readonly client: Client
  readonly reactor: { readonly kill: () => { readonly completed: Promise<void> } }
}

interface State {
  readonly global: { readonly list: Array<number> }
}

export const documentType = "test/list"

const silent = Object.fromEntries(
  ["verbose", "debug", "info", "warn", "error", "fatal"].map((level) => [level, () => undefined])
)

const module = new URL("packages.mjs", import.meta.url)

/** A reactor, and how a list of this id is made. */
export const make: Effect.Effect<
  { readonly client: Client; readonly create: (id: string) => Effect.Effect<void> },
  never,
  Scope.Scope
> = Effect.gen(function*() {
  const packages = yield* Effect.promise(async () => await import(/* @vite-ignore */ module.href) as Packages)
  const { PGlite, document, kysely, kyselyPglite, reactor } = packages
  const database = yield* Effect.acquireRelease(
    Effect.sync(() => new PGlite()),
    (opened) => Effect.promise(() => opened.close())
  )
  const createState = (state?: object) => ({
    ...document.defaultBaseState(),
    global: { list: [] },
    local: {},
    ...state
  })
  const model = {
    version: 1,
    documentModel: { global: { id: documentType, name: "List", specifications: [{ version: 1, modules: [] }] } },
    reducer: document.createReducer((state, { input, type }) => {
      if (type === "FAIL") throw new Error("refused")
      if (type === "PUSH") state.global.list.push((input as { readonly number: number }).number)
      return state
    }),
    actions: {},
    utils: { createState, createDocument: (state?: object) => document.baseCreateDocument(createState, state) }
  }
  const builder = new reactor.ReactorBuilder()
    .withLogger(silent)
    .withKysely(new kysely.Kysely({ dialect: new kyselyPglite.PGliteDialect(database) }))
    .withDocumentModelSources([model])
  const clients = new reactor.ReactorClientBuilder()
  clients.withLogger(silent)
  const { client } = yield* Effect.acquireRelease(
    Effect.promise(() => clients.withReactorBuilder(builder).buildModule()),
    (built) => Effect.promise(() => built.reactor.kill().completed)
  )
  return {
    client,
    create: (id) =>
      Effect.promise(async () => {
        const made = model.utils.createDocument()
        Object.assign(made.header, { id, documentType })
        await client.create(made)
      })
  }
})

/** The numbers in a list. */
export const numbers = (client: Client, id: string): Effect.Effect<ReadonlyArray<number>> =>
  Effect.promise(async () => (await client.get(id)).state.global.list)
