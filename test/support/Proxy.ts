/**
 * Proxy: a way to a PostgreSQL server on which things go wrong when a test says so.
 *
 *     client ──▶ pump ──▶ server         pass       as it comes, after `latency`, at most at `rate`
 *     client ◀── pump ◀── server         refuse     a new connection is reset; those that are open live on
 *                                        blackhole  nothing passes, not even the end of a connection
 *
 * What a black hole holds back arrives when the mode is `pass` again, as TCP would send it again after a partition: the
 * COMMIT of a process believed dead may still come true.
 *
 * It runs on the sockets' own time, so it works the same under a `TestClock`.
 */
import * as Deferred from "effect/Deferred"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import type * as Scope from "effect/Scope"
import { once } from "node:events"
import { connect, createServer } from "node:net"
import type { AddressInfo, Server, Socket } from "node:net"
import { setTimeout } from "node:timers/promises"
import * as PostgresFrames from "./PostgresFrames.js"

export type Mode = "pass" | "refuse" | "blackhole"

export interface Proxy {
  readonly host: string
  readonly port: number
  /** The URL given to `make`, by way of the proxy. */
  readonly url: string
  readonly setMode: (mode: Mode) => Effect.Effect<void>
  /** How long every chunk waits, in each direction; zero at first. */
  readonly setLatency: (latency: Duration.DurationInput) => Effect.Effect<void>
  /** How many bytes a second pass on each connection in each direction; `Infinity` at first. */
  readonly setRate: (bytesPerSecond: number) => Effect.Effect<void>
  /** How many connections are open. */
  readonly connections: Effect.Effect<number>
  /** Resets every open connection on both sides. */
  readonly cutAll: Effect.Effect<void>
  /**
   * Resets the next connection that asks for COMMIT, before the server hears of it: the client cannot know, and nothing
   * is committed. Once only. The effect it yields waits until that has happened.
   */
  readonly cutBeforeCommit: Effect.Effect<Effect.Effect<void>>
  /**
   * Resets the next connection that is told that its COMMIT succeeded, before the client hears of it: the client cannot
   * know, and everything is committed. Once only. The effect it yields waits until that has happened.
   */
  readonly cutAfterCommit: Effect.Effect<Effect.Effect<void>>
  /**
   * Turns into a black hole when a connection asks for COMMIT, with that COMMIT in it. Once only. The effect it yields waits
   * until that has happened.
   */
  readonly holdCommit: Effect.Effect<Effect.Effect<void>>
}

const host = "127.0.0.1"

/** Opens a proxy to the server of a `postgresql://` URL; it ends with the scope, and its connections with it. */
export const make = (url: string): Effect.Effect<Proxy, never, Scope.Scope> =>
  Effect.gen(function*() {
    const { hostname, port: targetPort } = new URL(url)
    const line: Line = {
      target: { host: hostname, port: Number(targetPort || 5432) },
      links: new Set(),
      held: [],
      mode: "pass",
      latencyMillis: 0,
      bytesPerSecond: Infinity,
      trap: undefined
    }
    const port = yield* listen(line)
    const proxied = new URL(url)
    proxied.hostname = host
    proxied.port = String(port)
    return {
      host,
      port,
      url: proxied.href,
      setMode: (mode) => Effect.sync(() => switchTo(line, mode)),
      setLatency: (latency) =>
        Effect.sync(() => {
          line.latencyMillis = Duration.toMillis(latency)
        }),
      setRate: (bytesPerSecond) =>
        Effect.sync(() => {
          line.bytesPerSecond = bytesPerSecond
        }),
      connections: Effect.sync(() => line.links.size),
      cutAll: Effect.sync(() => line.links.forEach(cut)),
      cutBeforeCommit: arm(line, "client", PostgresFrames.asksForCommit, "cut"),
      cutAfterCommit: arm(line, "server", PostgresFrames.confirmsCommit, "cut"),
      holdCommit: arm(line, "client", PostgresFrames.asksForCommit, "hold")
    }
  })

type Side = "client" | "server"

/** One proxied connection: the socket towards each side. */
type Link = { readonly [side in Side]: Socket }

/** The first message from `side` that matches is withheld, and its connection is cut or held. */
interface Trap {
  readonly act: "cut" | "hold"
  readonly side: Side
  readonly matches: (message: PostgresFrames.Message) => boolean
  readonly sprung: Deferred.Deferred<void>
}

/** What all connections of a proxy share. */
interface Line {
  readonly target: { readonly host: string; readonly port: number }
  readonly links: Set<Link>
  /** Wakes the pumps that wait for the end of a black hole. */
  held: Array<() => void>
  mode: Mode
  latencyMillis: number
  bytesPerSecond: number
  trap: Trap | undefined
}

const listen = (line: Line): Effect.Effect<number, never, Scope.Scope> =>
  Effect.map(
    Effect.acquireRelease(
      Effect.promise(async () => {
        const server = createServer({ allowHalfOpen: true, noDelay: true }, (client) => accept(line, client))
        server.listen(0, host)
        await once(server, "listening")
        return server
      }),
      (server) => close(line, server)
    ),
    (server) => (server.address() as AddressInfo).port
  )

const close = (line: Line, server: Server): Effect.Effect<void> =>
  Effect.promise(async () => {
    const closed = once(server, "close")
    server.close()
    line.links.forEach(cut)
    await closed
  })

const accept = (line: Line, client: Socket): void => {
  if (line.mode === "refuse") {
    client.resetAndDestroy()
    return
  }
  const server = connect({ ...line.target, allowHalfOpen: true, noDelay: true })
  const link: Link = { client, server }
  line.links.add(link)
  for (const socket of [client, server]) {
    socket.on("error", () => undefined)
    socket.once("close", () => client.destroyed && server.destroyed && line.links.delete(link))
  }
  void pump(line, link, "client", "server", PostgresFrames.fromClient())
  void pump(line, link, "server", "client", PostgresFrames.fromServer())
}

/** Carries one direction, a chunk at a time, until its sender ends (the receiver is told) or breaks (it is reset). */
const pump = async (line: Line, link: Link, side: Side, to: Side, read: PostgresFrames.Reader): Promise<void> => {
  const receiver = link[to]
  try {
    for await (const chunk of link[side].iterator({ destroyOnReturn: false }) as AsyncIterable<Buffer>) {
      await delay(line, chunk.length)
      await openness(line)
      const sprung = springs(line, side, read(chunk))
      if (sprung === "cut") return cut(link)
      if (sprung === "hold") switchTo(line, "blackhole")
      await openness(line)
      if (!receiver.write(chunk)) await once(receiver, "drain")
    }
    await openness(line)
    receiver.end()
  } catch {
    await openness(line)
    receiver.resetAndDestroy()
  }
}

const delay = async (line: Line, bytes: number): Promise<void> => {
  const millis = line.latencyMillis + (bytes / line.bytesPerSecond) * 1000
  if (millis > 0) await setTimeout(millis)
}

const openness = async (line: Line): Promise<void> => {
  while (line.mode === "blackhole") {
    await new Promise<void>((resolve) => line.held.push(resolve))
  }
}

const switchTo = (line: Line, mode: Mode): void => {
  line.mode = mode
  line.held.splice(0).forEach((wake) => wake())
}

const arm = (
  line: Line,
  side: Side,
  matches: Trap["matches"],
  act: Trap["act"]
): Effect.Effect<Effect.Effect<void>> =>
  Effect.map(Deferred.make<void>(), (sprung) => {
    line.trap = { side, matches, act, sprung }
    return Deferred.await(sprung)
  })

const springs = (
  line: Line,
  side: Side,
  messages: ReadonlyArray<PostgresFrames.Message>
): Trap["act"] | undefined => {
  const trap = line.trap
  if (trap === undefined || trap.side !== side || !messages.some(trap.matches)) return undefined
  line.trap = undefined
  Deferred.unsafeDone(trap.sprung, Effect.void)
  return trap.act
}

const cut = ({ client, server }: Link): void => {
  client.resetAndDestroy()
  server.resetAndDestroy()
}
