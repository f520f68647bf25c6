/**
 * The thin resolvers of a drive's endpoint, after the behaviour of reactor-api, which is the same in its versions 4 and 5.
 * What they call is the real package's.
 */

/** `drives` is the package that the reactor is of. */
export const resolversOf = (drives, reactor, driveId) => {
  const { listeners } = reactor
  const transmitterOf = (listenerId) => listeners.getListenerState(driveId, listenerId).listener.transmitter
  return {
    system: () => ({ sync: { strands: ({ listenerId, since }) => strands(transmitterOf(listenerId), since) } }),
    registerPullResponderListener: async ({ filter, listenerId = crypto.randomUUID() }) => {
      const listener = {
        driveId,
        listenerId,
        block: false,
        filter,
        system: false,
        label: `Pullresponder #${listenerId}`,
        callInfo: { data: "", name: "PullResponder", transmitterType: "PullResponder" }
      }
      listener.transmitter = new drives.PullResponderTransmitter(listener, listeners)
      await listeners.setListener(driveId, listener)
      return { listenerId }
    },
    acknowledge: ({ listenerId, revisions }) =>
      transmitterOf(listenerId).processAcknowledge(driveId, listenerId, revisions.filter((one) => one !== null))
  }
}

/** Inputs travel as text. */
const strands = async (transmitter, since) =>
  (await transmitter.getStrands({ since })).map((strand) => ({
    ...strand,
    operations: strand.operations.map((operation) => ({ ...operation, input: JSON.stringify(operation.input) }))
  }))
