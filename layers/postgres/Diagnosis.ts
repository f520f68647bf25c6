/**
 * A diagnosis: what an error of opening a session means, and what the server's operator can do about it.
 *
 *     cause ──▶ its message, or its code (an errno, an SQLSTATE) ──▶ StoreUnavailable
 */

import { StoreUnavailable } from "../../src/store/StoreUnavailable.js"
import type { Settings } from "./Settings.js"

interface Diagnosis {
  readonly reason: string
  readonly hint: string
  readonly transient: boolean
}

/** Why no session could be opened. Shows no password. */
export const unavailable = (settings: Settings, cause: unknown): StoreUnavailable =>
  new StoreUnavailable({ store: "pg", target: targetOf(settings), ...diagnose(settings, cause), cause })

/** The server and its database, as messages name them. */
export const targetOf = (settings: Settings): string => `${settings.host}:${settings.port}/${settings.database}`

const diagnose = (settings: Settings, cause: unknown): Diagnosis => {
  const code = typeof cause === "object" && cause !== null && "code" in cause ? String(cause.code) : ""
  const message = cause instanceof Error ? cause.message : String(cause)
  if (/password must be a/.test(message) || (code === "28P01" && settings.password === undefined)) {
    return {
      reason: `the server asks for a password of ${settings.username}, and none was given`,
      hint: "give one, in the url or by itself",
      transient: false
    }
  }
  if (/does not support SSL/.test(message)) {
    return {
      reason: "the server has no TLS, and this connection may not go without",
      hint: "turn TLS on there; allowUnencryptedConnectionToRemoteHost goes without, at your risk",
      transient: false
    }
  }
  if (/^(ERR_TLS|ERR_SSL|CERT_|SELF_SIGNED|DEPTH_ZERO|UNABLE_TO_)/.test(code)) {
    return {
      reason: `the server's certificate is not accepted: ${message}`,
      hint: "give the authority that signed it as ssl.ca, and the name it carries as ssl.servername",
      transient: false
    }
  }
  if (/timeout|timed out/i.test(message) || code === "ETIMEDOUT") {
    return {
      reason: `no answer within ${settings.connectMillis} ms`,
      hint: "see whether the server is up, and whether a firewall lets us reach it",
      transient: true
    }
  }
  return diagnoses.get(code) ??
    { reason: message, hint: "see the cause", transient: code.startsWith("08") || code === "" }
}

const rights = "see to the user, the password and the server's pg_hba.conf"

const diagnoses: ReadonlyMap<string, Diagnosis> = new Map([
  ["ECONNREFUSED", {
    reason: "nothing listens there",
    hint: "start the server, or correct host and port",
    transient: true
  }],
  ["ECONNRESET", { reason: "the connection was reset", hint: "see the log of the server", transient: true }],
  ["ENOENT", { reason: "there is no such socket", hint: "start the server, or correct the host", transient: true }],
  ["ENOTFOUND", { reason: "the host has no address", hint: "correct the host", transient: false }],
  ["EAI_AGAIN", { reason: "the host's address cannot be looked up", hint: "see to the name server", transient: true }],
  ["EHOSTUNREACH", { reason: "the host cannot be reached", hint: "see to the network", transient: true }],
  ["ENETUNREACH", { reason: "the network cannot be reached", hint: "see to the network", transient: true }],
  ["28P01", { reason: "the user or the password is wrong", hint: rights, transient: false }],
  ["28000", { reason: "the server does not let this user in from here", hint: rights, transient: false }],
  ["3D000", { reason: "there is no such database", hint: "create it, or correct its name", transient: false }],
  ["42501", { reason: "the user may not connect to this database", hint: "grant CONNECT on it", transient: false }],
  ["53300", {
    reason: "the server has no session left",
    hint: "lower maxConnections, or raise its limit",
    transient: true
  }],
  ["57P03", { reason: "the server is starting or stopping", hint: "wait for it", transient: true }],
  ["08P01", {
    reason: "something on the way does not understand our start-up parameters",
    hint: "connect to the server itself, or through a pooler that passes start-up parameters on",
    transient: false
  }]
])
