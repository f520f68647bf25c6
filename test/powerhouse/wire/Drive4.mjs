/**
 * A drive of document-drive 4.0.6, and its endpoint. Storage, listeners, sync units and the pull-responder transmitter, on
 * both sides, are the real package's; only the thin resolvers are written here, after the behaviour of reactor-api 4.0.6.
 */
import * as drives from "../drive/node_modules/document-drive-4/dist/index.js"
import {
  documentModelDocumentModelModule as model,
  setModelDescription,
  setModelName
} from "../drive/node_modules/document-model-4/dist/index.js"
import * as PullEndpoint from "./PullEndpoint.mjs"
import * as Schema from "./Schema.mjs"
import * as Server from "./Server.mjs"

drives.setLogLevel("error")

export const memory = () => new drives.MemoryStorage()

const documentType = "powerhouse/document-model"

/** A drive server over a storage, which outlives it. */
export const open = async (storage) => {
  const reactor = new drives.ReactorBuilder([drives.driveDocumentModelModule, model]).withStorage(storage).build()
  await reactor.initialize()
  const done = (result) => {
    if (result.status !== "SUCCESS") throw result.error ?? new Error(result.status)
  }
  const driveOf = new Map()
  return {
    reactor,
    createDrive: async (id) => {
      await reactor.addDrive({ id, slug: id, global: { name: id, icon: null }, local: {} })
      return id
    },
    createDocument: async (driveId, id) => {
      const { state } = await reactor.getDrive(driveId)
      const file = { id, name: id, documentType, parentFolder: null }
      done(await reactor.addDriveAction(driveId, drives.generateAddNodeAction(state.global, file, ["global"])))
      driveOf.set(id, driveId)
      return id
    },
    write: async (id, texts) => {
      for (const [i, text] of texts.entries()) {
        const action = i % 2 === 0 ? setModelName({ name: text }) : setModelDescription({ description: text })
        done(await reactor.addAction(driveOf.get(id), id, action))
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
    /** How far the server believes that a listener has come, by document. */
    taken: async (driveId, listenerId) => {
      const { syncUnits } = reactor.listeners.getListenerState(driveId, listenerId)
      const units = await reactor.getSynchronizationUnits(driveId)
      return Object.fromEntries(
        units.map(({ documentId, syncId }) => [documentId, syncUnits.get(syncId)?.listenerRev])
      )
    }
  }
}

/** The endpoint `/d/<drive>` of a drive. */
export const serve = ({ reactor }, driveId, options = {}) =>
  Server.start({ schema: Schema.formerDrive, resolvers: resolversOf(reactor, driveId), ...options })

const resolversOf = (reactor, driveId) => ({
  ...PullEndpoint.resolversOf(drives, reactor, driveId),
  document: async ({ id }) => {
    const { header } = await (id === driveId ? reactor.getDrive(id) : reactor.getDocument(driveId, id))
    return header
  }
})
