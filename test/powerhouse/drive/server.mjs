/**
 * The real document-drive 5.3.2, in memory or in a directory, and what a program does with it: create drives and documents
 * of real document models, dispatch actions, read what it has stored.
 */
import * as packages from "document-drive"
import { FilesystemStorage } from "document-drive/storage/filesystem"
import { actions as common, documentModelCreateDocument, documentModelDocumentModelModule } from "document-model"
import promises from "node:fs/promises"

// What goes wrong is what the tests look at, and not their output.
packages.logger.error = () => {}
packages.setLogLevel("error")
packages.ConsoleLogger.prototype.error = () => {}

/**
 * Makes its storage survive a kill: it writes a document over itself, and what is killed meanwhile leaves half of one.
 * Renaming is atomic. The package calls what it finds in this object.
 */
export const writeAtomically = () => {
  const { writeFile } = promises
  let written = 0
  promises.writeFile = async (path, ...rest) => {
    if (typeof path !== "string") throw new TypeError("a path is text here")
    const unfinished = `${path}.${process.pid}.${written++}.unfinished`
    await writeFile(unfinished, ...rest)
    await promises.rename(unfinished, path)
  }
}

/** A storage in memory outlives the server that is opened on it. */
export const open = async ({ directory, storage: given } = {}) => {
  const storage = given ?? (directory === undefined ? new packages.MemoryStorage() : new FilesystemStorage(directory))
  const server = new packages.ReactorBuilder([packages.driveDocumentModelModule, documentModelDocumentModelModule])
    .withStorage(storage)
    .build()
  await server.initialize()
  const processorManager = new packages.ProcessorManager(server.listeners, server)
  server.on("driveAdded", (drive) => void processorManager.registerDrive(drive.header.id))

  const done = async (result) => {
    const { error, status } = await result
    if (status !== "SUCCESS") throw error ?? new Error(`the server answered ${status}`)
  }
  return {
    storage,
    processorManager,
    /** Its processors are made soon after, as the real hosts have it. */
    createDrive: async (id) => {
      await server.addDrive({ id, slug: id, global: { name: id, icon: null } })
    },
    /** Goes on where it was cut off before. */
    createDocument: async (drive, id) => {
      const document = documentModelCreateDocument()
      document.header = { ...document.header, id, name: id, slug: id }
      if (!(await storage.exists(id))) await server.addDocument(document)
      if ((await storage.getChildren(drive)).includes(id)) return
      await done(
        server.addDriveAction(drive, packages.addFile({ id, name: id, documentType: document.header.documentType }))
      )
    },
    execute: (document, ...actions) => done(server.addActions(document, actions)),
    setName: (text) => documentModelDocumentModelModule.actions.setModelName({ name: text }),
    undo: () => common.undo(1, "global"),
    /** The document as the server has it. */
    read: (id) => server.getDocument(id),
    /** What it would deliver of a drive and its documents. */
    stored: async (drive) => {
      const all = []
      for (const documentId of [drive, ...(await storage.getChildren(drive))]) {
        const { header, operations } = await storage.get(documentId)
        for (const operation of operations.global ?? []) {
          all.push({ documentId, documentType: header.documentType, scope: "global", branch: "main", operation })
        }
      }
      return all
    }
  }
}
