/**
 * A drive of document-drive 5.3.2, and its endpoint. Storage, listeners, sync units and the pull-responder transmitter, on
 * both sides, are the real package's; only the thin resolvers are written here, after the behaviour of reactor-api 5.3.2.
 */
import {
  documentModelDocumentModelModule as model,
  setModelDescription,
  setModelName
} from "../drive/node_modules/document-model/dist/src/index.js"
import * as drives from "../drive/node_modules/document-drive/dist/index.js"
import * as PullEndpoint from "./PullEndpoint.mjs"
import * as Schema from "./Schema.mjs"
import * as Server from "./Server.mjs"

drives.setLogLevel("error")
drives.setErrorHandler(() => {})

export const memory = () => new drives.MemoryStorage()

/**
 * A drive server over a storage, which outlives it. Nobody takes anything back: the input of the NOOP that this leaves is
 * undefined, and the real resolver then refuses to answer for the whole drive.
 */
export const open = async (storage) => {
  const reactor = new drives.ReactorBuilder([drives.driveDocumentModelModule, model]).withStorage(storage).build()
  await reactor.initialize()
  const done = (result) => {
    if (result.status !== "SUCCESS") throw result.error ?? new Error(result.status)
  }
  return {
    reactor,
    createDrive: async (id) => {
      await reactor.addDrive({ id, slug: id, global: { name: id, icon: null }, local: {} })
      return id
    },
    createDocument: async (driveId, id) => {
      await reactor.addDocument(documentOf(id))
      done(await reactor.addDriveAction(
        driveId,
        drives.addFile({ id, name: id, documentType: "powerhouse/document-model", parentFolder: null })
      ))
      return id
    },
    write: async (id, texts) => {
      for (const [i, text] of texts.entries()) {
        const action = i % 2 === 0 ? setModelName({ name: text }) : setModelDescription({ description: text })
        done(await reactor.addAction(id, action))
      }
    },
    /** What the real client pulls as a listener of its own: all there is, JSON inputs read. */
    all: async (driveId, url) => {
      const filter = { documentId: ["*"], documentType: ["*"], branch: ["*"], scope: ["*"] }
      const client = drives.PullResponderTransmitter
      const listenerId = await client.registerPullResponder(driveId, url, filter)
      return client.pullStrands(driveId, url, listenerId)
    },
    /** Makes the server forget a listener, as a restart does. */
    forget: (driveId, listenerId) => reactor.listeners.removeListener(driveId, listenerId),
    /** Makes the server believe that all was taken. */
    pretend: (driveId, listenerId, documentId, revision) =>
      reactor.listeners.updateListenerRevision(
        listenerId,
        driveId,
        { documentId, scope: "global", branch: "main" },
        revision
      )
  }
}

/** The endpoint `/d/<drive>` of a drive. */
export const serve = ({ reactor }, driveId, options = {}) =>
  Server.start({ schema: Schema.drive, resolvers: PullEndpoint.resolversOf(drives, reactor, driveId), ...options })

const documentOf = (id) => {
  const document = model.utils.createDocument()
  return { ...document, header: { ...document.header, id } }
}
