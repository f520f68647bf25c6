/**
 * The current reactor, 6.2.2, and its sync endpoint. Store, collections, channels, outboxes and cursors are the real
 * packages'; only the thin resolvers are written here, after the behaviour of reactor-api 6.2.2, which does not install.
 */
import { randomUUID } from "node:crypto"
import { document as model, kysely, kyselyPglite, pg, PGlite, reactor as packages } from "../packages.mjs"
import * as drives from "@powerhousedao/shared/document-drive"
import * as Schema from "./Schema.mjs"
import * as Server from "./Server.mjs"

export { packages }

/** A database in memory. */
export const memory = () => new PGlite()

/** The document model of document models, as the packages have it. */
const modelModule = {
  version: 1,
  reducer: model.documentModelReducer,
  actions: model.documentModelActions,
  documentModel: { ...model.defaultBaseState(), global: model.documentModelGlobalState, local: {} },
  utils: {
    fileExtension: model.documentModelFileExtension,
    createState: model.createState,
    createDocument: (state) => model.baseCreateDocument(model.createState, state, model.documentModelDocumentType),
    isStateOfType: model.isDocumentModelState,
    isDocumentOfType: model.isDocumentModelDocument
  }
}
const models = [drives.driveDocumentModelModule, modelModule]

/** What one envelope, and one answer, hold at most. */
const envelopeMax = 25
const pageMax = 100

const silent = Object.fromEntries(["verbose", "debug", "info", "warn", "error"].map((name) => [name, () => {}]))
silent.child = () => silent

const dialectOf = (database) =>
  database instanceof PGlite
    ? { dialect: new kyselyPglite.PGliteDialect(database), close: async () => {} }
    : (() => {
      const pool = new pg.Pool({ connectionString: database, max: 20 })
      // A database that is dropped under it is the end of the test.
      pool.on("error", () => {})
      return { dialect: new kysely.PostgresDialect({ pool }), close: () => pool.end() }
    })()

/** A reactor over a database: the URL of a PostgreSQL server, or a PGlite. `concurrency` jobs run at once. */
export const open = async (database, { concurrency = 1 } = {}) => {
  const { close, dialect } = dialectOf(database)
  const builder = new packages.ReactorBuilder()
    .withLogger(silent)
    .withKysely(new kysely.Kysely({ dialect }))
    .withExecutorConfig({ maxConcurrency: concurrency })
    .withDocumentModelSources(models)
    .withChannelScheme(packages.ChannelScheme.SWITCHBOARD)
  const module = await new packages.ReactorClientBuilder().withLogger(silent).withReactorBuilder(builder).buildModule()
  const { client, reactorModule } = module
  const sync = reactorModule.syncModule.syncManager
  return {
    client,
    reactorModule,
    sync,
    resolvers: resolversOf(client, sync),
    createDrive: async (name) => (await client.create(drives.driveCreateDocument({ global: { name, icon: null } }))).header.id,
    /** A document that belongs to the drive's collection. */
    createDocument: async (driveId) =>
      (await client.create(modelModule.utils.createDocument(), driveId)).header.id,
    /** One job, whose operations are committed together. */
    write: (documentId, texts) =>
      client.execute(documentId, "main", texts.map((text, i) => i % 2 === 0 ? setName(text) : setDescription(text))),
    addTwice: (driveId, id) =>
      client.execute(driveId, "main", [1, 2].map((i) =>
        drives.addFile({ id, name: `${id} ${i}`, documentType: "test/file", parentFolder: null })
      )),
    outboxSize: (channelId) =>
      sync.getById(channelId).channel.outbox.items.reduce((size, { operations }) => size + operations.length, 0),
    forget: (channelId) => {
      const { outbox } = sync.getById(channelId).channel
      outbox.remove(...outbox.items)
    },
    /** A job that holds a NOOP with skip: it takes the last operation back. */
    undo: (documentId) => client.execute(documentId, "main", [model.undo(1, "global")]),
    /** Every operation that the reactor's own delivery brings to a processor of this name, as it is brought. */
    deliver: async (name) => {
      const delivered = []
      await reactorModule.processorManager.registerFactory(name, () => [{
        filter: { branch: ["main"] },
        processor: {
          onOperations: async (operations) => {
            delivered.push(...operations.map(({ context }) => context.ordinal))
          },
          onDisconnect: async () => {}
        }
      }])
      return delivered
    },
    remove: (documentId) => client.deleteDocument(documentId),
    /** Forgets a channel altogether. */
    drop: (channelId) => sync.remove(channelId),
    close: async () => {
      sync.shutdown()
      await reactorModule.reactor.kill().completed
      await quiet(reactorModule)
      await close()
    }
  }
}

const setName = (name) => model.setModelName({ name })
const setDescription = (description) => model.setModelDescription({ description })

/** Waits until its read models have done what they have begun. */
const quiet = async ({ readModelCoordinator }) => {
  for (let tries = 0; tries < 200 && readModelCoordinator.getChainDepth() > 0; tries++) {
    await new Promise((resolve) => setTimeout(resolve, 10))
  }
}

/** The endpoint of a reactor. */
export const serve = (opened, { older = false, ...options } = {}) =>
  Server.start({ schema: older ? Schema.olderReactor : Schema.reactor, resolvers: opened.resolvers, ...options })

const resolversOf = (client, sync) => ({
  touchChannel: ({ input }) => touch(sync, input),
  pollSyncEnvelopes: (args) => poll(sync, args),
  document: async ({ identifier, view }) => {
    const document = await client.get(identifier, { branch: view?.branch ?? undefined })
    const children = await client.getOutgoingRelationships(identifier, "child")
    return { document: documentOf(document), childIds: children.results.map(({ header }) => header.id) }
  },
  findDocuments: async ({ paging, search, view }) => {
    const page = await client.find(
      { type: search.type ?? undefined, parentId: search.parentId ?? undefined },
      { branch: view?.branch ?? undefined },
      pagingOf(paging, 10)
    )
    return pageOf(page, page.results.map(documentOf))
  },
  documentOperations: async ({ filter, paging }) => {
    const page = await client.getOperations(
      filter.documentId,
      { branch: filter.branch ?? undefined, scopes: filter.scopes ?? undefined },
      filter.sinceRevision === undefined ? undefined : { sinceRevision: filter.sinceRevision },
      pagingOf(paging, 100)
    )
    return pageOf(page, page.results)
  }
})

const pagingOf = (paging, limitUnlessGiven) =>
  paging?.cursor || paging?.limit
    ? { cursor: paging.cursor ?? "", limit: paging.limit ?? limitUnlessGiven }
    : undefined

const pageOf = (page, items) => ({
  items,
  totalCount: items.length,
  hasNextPage: page.nextCursor !== undefined,
  hasPreviousPage: Boolean(page.options.cursor),
  cursor: page.nextCursor ?? null
})

const documentOf = ({ header }) => ({
  id: header.id,
  slug: header.slug,
  name: header.name,
  documentType: header.documentType,
  revisionsList: Object.entries(header.revision).map(([scope, revision]) => ({ scope, revision }))
})

const remoteOf = (sync, id) => {
  try {
    return sync.getById(id)
  } catch {
    return undefined
  }
}

const touch = async (sync, { collectionId, filter, id, name, sinceTimestampUtcMs }) => {
  const known = remoteOf(sync, id)
  if (known !== undefined) return { success: true, ackOrdinal: known.channel.inbox.ackOrdinal }
  const collection = packages.DriveCollectionId.fromKey(collectionId)
  await sync.add(name, collection, { type: "polling", parameters: {} }, filter, { sinceTimestampUtcMs }, id)
  return { success: true, ackOrdinal: 0 }
}

const ordinalOf = ({ context }) => context.ordinal

/**
 * Drops what was sent whole and is acknowledged, then sends what is left, entry after entry in the order of their first
 * ordinals. Of an entry is left what was never sent, or was sent and lies above `outboxLatest`.
 */
const poll = (sync, { channelId, outboxAck, outboxLatest }) => {
  const remote = remoteOf(sync, channelId)
  if (remote === undefined) throw new Server.GraphQLError(`Channel not found: ${channelId}`)
  const { deadLetter, inbox, outbox } = remote.channel
  const acknowledged = outbox.items.filter((entry) =>
    outboxAck > 0 && (entry.emittedCount ?? 0) >= entry.operations.length &&
    Math.max(0, ...entry.operations.map(ordinalOf)) <= outboxAck
  )
  acknowledged.forEach((entry) => entry.executed())
  if (acknowledged.length > 0) outbox.remove(...acknowledged)

  const envelopes = []
  let left = pageMax
  let hasMore = false
  let highest = outboxLatest
  for (const entry of outbox.items.sort((a, b) => ordinalOf(a.operations[0]) - ordinalOf(b.operations[0]))) {
    entry.deliveredCount ??= 0
    entry.emittedCount ??= 0
    if (left > 0) {
      while (
        entry.deliveredCount < entry.emittedCount && ordinalOf(entry.operations[entry.deliveredCount]) <= outboxLatest
      ) entry.deliveredCount++
    }
    const rest = entry.operations.slice(entry.deliveredCount)
    if (rest.length > left || left === 0) hasMore = true
    const sent = rest.slice(0, left)
    const isWhole = rest.length <= Math.min(envelopeMax, left)
    for (let from = 0, part = 0; from < sent.length; from += envelopeMax, part++) {
      const operations = sent.slice(from, from + envelopeMax)
      highest = Math.max(highest, ...operations.map(ordinalOf))
      envelopes.push({
        type: "OPERATIONS",
        channelMeta: { id: channelId },
        operations: operations.map(wireOf),
        key: isWhole ? entry.jobId : `${entry.jobId}__p${part}`,
        dependsOn: part === 0 ? someOrNull(entry.jobDependencies.filter(Boolean)) : [`${entry.jobId}__p${part - 1}`]
      })
    }
    left -= sent.length
    entry.emittedCount = Math.max(entry.emittedCount, entry.deliveredCount + sent.length)
    if (left === 0 && hasMore) break
  }
  const cursor = { remoteName: remote.meta.name, cursorOrdinal: highest, lastSyncedAtUtcMs: String(Date.now()) }
  return {
    envelopes: envelopes.map((envelope) => ({ ...envelope, cursor })),
    ackOrdinal: inbox.ackOrdinal,
    deadLetters: deadLetter.items.map((entry) => ({
      documentId: entry.documentId,
      error: entry.error?.message ?? "Unknown error",
      errorType: packages.syncOperationErrorType(entry.error),
      jobId: entry.jobId,
      branch: entry.branch,
      scopes: entry.scopes,
      operationCount: entry.operations.length
    })),
    hasMore
  }
}

const someOrNull = (list) => list.length === 0 ? null : list

/** Signatures travel as text. */
const wireOf = ({ context, operation }) => {
  const signer = operation.action.context?.signer
  return {
    context,
    operation: signer?.signatures === undefined ? operation : {
      ...operation,
      action: {
        ...operation.action,
        context: {
          signer: { ...signer, signatures: signer.signatures.map((signature) => signature.join(", ")) }
        }
      }
    }
  }
}

/** The reactor's own client of such an endpoint, as its other reactors are. */
export const connect = async (database, url, driveId, { name = randomUUID(), pollIntervalMs = 20 } = {}) => {
  const { close, dialect } = dialectOf(database)
  const module = await new packages.ReactorBuilder()
    .withLogger(silent)
    .withKysely(new kysely.Kysely({ dialect }))
    .withDocumentModelSources(models)
    .withChannelScheme(packages.ChannelScheme.CONNECT)
    .buildModule()
  await module.syncModule.syncManager.add(
    name,
    packages.DriveCollectionId.forDrive(driveId),
    { type: "gql", parameters: { url, pollIntervalMs, retryBaseDelayMs: 20, retryMaxDelayMs: 200 } },
    { documentId: [], scope: [], branch: "main" }
  )
  return {
    module,
    close: async () => {
      module.syncModule.syncManager.shutdown()
      await module.reactor.kill().completed
      await quiet(module)
      await close()
    }
  }
}
