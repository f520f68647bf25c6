/**
 * What every test process does first: it agrees to end when the run that started it is gone. Left to itself it would stay
 * behind after a kill, reporting in vain that it cannot report, and with it what its tests hold, such as a server.
 */
const endWhenAlone = (): void => {
  if (!process.connected) process.exit(1)
}

process.once("disconnect", endWhenAlone)
process.prependListener("uncaughtException", endWhenAlone)
process.prependListener("unhandledRejection", endWhenAlone)
