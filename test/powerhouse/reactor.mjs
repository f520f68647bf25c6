/**
 * The real reactor 6.2.2, and what a program does with it: create drives and documents of
 * real document models, dispatch actions, read what the reactor has stored.
 */
import * as drives from "@powerhousedao/shared/document-drive"
import { ConsoleLogger } from "document-model"
import { document as model, kysely, pg, reactor as packages } from "./packages.mjs"

const documentModel = {
  documentModel: {
    ...drives.driveDocumentModelModule.documentModel,
    global: model.documentModelGlobalState
  },
  reducer: model.documentModelReducer,
  actions: model.documentModelActions,
  utils: { fileExtension: model.documentModelFileExtension }
}

/** A document model that is yet to be written. */
const emptyModel = () => {
  const document = model.baseCreateDocument((state) => ({
    ...model.defaultBaseState(),
    global: { ...model.defaultGlobalState(), ...state?.global },
    local: { ...model.defaultLocalState(), ...state?.local }
  }))
  document.header = { ...document.header, documentType: model.documentModelDocumentType }
  return document
}

/** The models by type, as whoever folds states wants them. */
export const modules = {
  [model.documentModelDocumentType]: { ...documentModel, utils: { ...documentModel.utils, createDocument: emptyModel } },
  [drives.driveDocumentModelModule.documentModel.global.id]: drives.driveDocumentModelModule
}

/** Failures are what these tests look at; nothing of them is printed. */
class Silence extends ConsoleLogger {
  level = "error"
  child = () => new Silence()
  error = (...said) => Silence.said.push(said.map(String).join(" "))
  static said = []
}

/** What the reactor would have logged as errors. */
export const said = Silence.said

/** A reactor in memory, or on a PostgreSQL. */
export const open = async (url) => {
  const pool = url === undefined ? undefined : new pg.Pool({ connectionString: url, max: 12 })
  // A server that ends while a connection is idle.
  pool?.on("error", () => {})
  const builder = new packages.ReactorBuilder()
    .withLogger(new Silence(["reactor"]))
    .withDocumentModelSources([drives.driveDocumentModelModule, documentModel])
  if (pool !== undefined) {
    builder.withKysely(new kysely.Kysely({ dialect: new kysely.PostgresDialect({ pool }) }))
  }
  const built = await builder.buildModule()
  const { eventBus, operationIndex, operationStore, processorManager, reactor, readModelCoordinator } = built
  const jobs = new packages.JobAwaiter(eventBus, (id) => reactor.getJobStatus(id))

  const done = async (info) => {
    const ended = await jobs.waitForJob((await info).id)
    if (ended.status === packages.JobStatus.FAILED) throw new Error(ended.error?.message ?? "the job failed")
    return ended
  }
  const create = async (document, id, name) => {
    document.header = { ...document.header, id, name, slug: id }
    await done(reactor.create(document))
    return id
  }
  const readAll = async () => {
    const all = []
    let page = await operationIndex.getSinceOrdinal(0)
    for (;;) {
      all.push(...page.results)
      if (page.next === undefined) return all
      page = await page.next()
    }
  }
  return {
    module: built,
    operationIndex,
    operationStore,
    processorManager,
    reactor,
    said,
    createDrive: (id, name = id) => create(drives.driveCreateDocument(), id, name),
    createDocument: (id, name = id) =>
create(emptyModel(), id, name),
    addToDrive: (drive, document) => done(reactor.addRelationship(drive, document, "child")),
    removeFromDrive: (drive, document) => done(reactor.removeRelationship(drive, document, "child")),
    /** One job: these actions on one document. */
    execute: (document, ...actions) => done(reactor.execute(document, "main", actions)),
    addFile: (id) => drives.addFile({ id, name: id, documentType: "test/file", parentFolder: null }),
    setName: (text) => model.documentModelActions.setModelName({ name: text }),
    setDescription: (text) => model.documentModelActions.setModelDescription({ description: text }),
    deleteDocument: (document) => done(reactor.deleteDocument(document)),
    refused: () => model.documentModelActions.deleteModule({ id: "there is no such module" }),
    undo: () => model.actions.undo(),
    /** The document as the reactor has it. */
    read: (id) => reactor.get(id, { branch: "main" }),
    /** Everything that the reactor has stored, by ordinal, with the errors that the index does not keep. */
    stored: async () => {
      const all = await readAll()
      const streams = new Map(all.map(({ context }) => [`${context.documentId} ${context.scope}`, context]))
      const errors = new Map()
      for (const { branch, documentId, scope } of streams.values()) {
        const { results } = await operationStore.getSince(documentId, scope, branch, -1)
        for (const { error, index } of results) errors.set(`${documentId} ${scope} ${index}`, error)
      }
      return all.map(({ context, operation }) => ({
        context,
        operation: { ...operation, error: errors.get(`${context.documentId} ${context.scope} ${operation.index}`) }
      }))
    },
    documentType: model.documentModelDocumentType,
    close: async () => {
      jobs.shutdown()
      const { completed } = reactor.kill()
      await completed
      await readModelCoordinator.drain()
      await pool?.end()
    }
  }
}
