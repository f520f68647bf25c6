/**
 * The PostgreSQL store: what cannot be reached says so in bounded time, and no session is used that is not known to be
 * idle.
 */
import { PgClient } from "@effect/sql-pg/PgClient"
import * as SqlClient from "@effect/sql/SqlClient"
import { SqlError } from "@effect/sql/SqlError"
import { describe, expect, it } from "@effect/vitest"
import * as Cause from "effect/Cause"
import * as Chunk from "effect/Chunk"
import * as ConfigProvider from "effect/ConfigProvider"
import * as Context from "effect/Context"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import * as Fiber from "effect/Fiber"
import * as Layer from "effect/Layer"
import * as Option from "effect/Option"
import * as Redacted from "effect/Redacted"
import * as Scope from "effect/Scope"
import * as Stream from "effect/Stream"
import { execFileSync, spawnSync } from "node:child_process"
import { once } from "node:events"
import * as Fs from "node:fs"
import * as Net from "node:net"
import * as Os from "node:os"
import * as Path from "node:path"
import * as Tls from "node:tls"
import { inspect } from "node:util"
import pg from "pg"
import * as EvenRows from "../../layers/EvenRows.js"
import * as Postgres from "../../layers/Postgres.js"
import type { StoreUnavailable } from "../../src/store/StoreUnavailable.js"
import * as Database from "../support/Database.js"
import * as Proxy from "../support/Proxy.js"

const optionsOf = (url: string, more: Partial<Postgres.Options> = {}): Postgres.Options => ({
  url: Redacted.make(url),
  ...more
})

const open = (options: Postgres.Options): Effect.Effect<SqlClient.SqlClient, never, Scope.Scope> =>
  Effect.map(Effect.orDie(Layer.build(Postgres.layer(options))), Context.get(SqlClient.SqlClient))

const fresh = (more?: Partial<Postgres.Options>): Effect.Effect<SqlClient.SqlClient, never, Scope.Scope> =>
  Effect.flatMap(Database.postgres, ({ url }) => open(optionsOf(url, more)))

const refusal = (options: Postgres.Options) => Effect.flip(Effect.scoped(Layer.build(Postgres.layer(options))))

const unavailable = (options: Postgres.Options): Effect.Effect<StoreUnavailable> =>
  Effect.flatMap(
    Effect.orDie(refusal(options)),
    (error) => error._tag === "StoreUnavailable" ? Effect.succeed(error) : Effect.die(error)
  )

const changed = (url: string, change: (url: URL) => void): string => {
  const copy = new URL(url)
  change(copy)
  return copy.href
}

const processId = (sql: SqlClient.SqlClient) =>
  Effect.map(sql<{ readonly pid: number }>`SELECT pg_backend_pid() AS pid`, (rows) => rows[0]?.pid)

/** Our sessions in the server's eyes, asked through a session that is not one of them. */
const sessions = (url: string) =>
  Effect.acquireUseRelease(
    Effect.promise(async () => {
      const client = new pg.Client({ connectionString: url, application_name: "observer" })
      await client.connect()
      return client
    }),
    (client) =>
      Effect.promise(async () => {
        const result = await client.query<{ readonly pid: number }>(
          "SELECT pid FROM pg_stat_activity WHERE datname = current_database() AND application_name <> 'observer'"
        )
        return result.rows
      }),
    (client) => Effect.promise(() => client.end())
  )

/** Waits, for at most two seconds, until the server has noticed. */
const eventually = <A, E, R>(effect: Effect.Effect<A, E, R>, is: (value: A) => boolean): Effect.Effect<void, E, R> =>
  Effect.gen(function*() {
    let value = yield* effect
    for (let time = 0; time < 100 && !is(value); time++) {
      yield* Effect.sleep(20)
      value = yield* effect
    }
    expect(value).toSatisfy(is)
  })

const defectOf = <A, E>(exit: Exit.Exit<A, E>): unknown =>
  Exit.isFailure(exit) ? Option.getOrUndefined(Cause.dieOption(exit.cause)) : undefined

describe("a server that cannot be used", () => {
  it.scopedLive("because nothing listens there is a transient StoreUnavailable", () =>
    Effect.gen(function*() {
      const error = yield* unavailable({ host: "127.0.0.1", port: 1, username: "u", database: "d" })
      expect(error).toMatchObject({
        store: "pg",
        target: "127.0.0.1:1/d",
        reason: "nothing listens there",
        transient: true
      })
      expect(error.message).toContain("127.0.0.1:1/d")
    }))

  it.scopedLive("because the host does not exist is a StoreUnavailable", () =>
    Effect.gen(function*() {
      const error = yield* unavailable({ host: "no-such-host.invalid", username: "u" })
      expect(error.reason).toMatch(/address/)
    }))

  it.scopedLive("because the password is wrong, or missing, is a StoreUnavailable that shows neither", () =>
    Effect.gen(function*() {
      const { url } = yield* Database.postgres
      const wrong = yield* unavailable(optionsOf(changed(url, (to) => to.password = "c4nary-secret")))
      const missing = yield* unavailable(optionsOf(changed(url, (to) => to.password = "")))
      expect(wrong).toMatchObject({ reason: "the user or the password is wrong", transient: false })
      expect(missing.reason).toMatch(/none was given/)
      for (const error of [wrong, missing]) {
        const printed = [
          error.message,
          String(error),
          JSON.stringify(error),
          inspect(error, { depth: 20, showHidden: true })
        ]
        expect(printed.join("\n")).not.toMatch(/c4nary-secret/)
      }
    }))

  it.scopedLive("because the database does not exist is a StoreUnavailable", () =>
    Effect.gen(function*() {
      const { url } = yield* Database.postgres
      const error = yield* unavailable(optionsOf(changed(url, (to) => to.pathname = "/nowhere")))
      expect(error).toMatchObject({ reason: "there is no such database", transient: false })
    }))

  it.scopedLive("because nobody answers is a transient StoreUnavailable after connectTimeout", () =>
    Effect.gen(function*() {
      const proxy = yield* Proxy.make((yield* Database.postgres).url)
      yield* proxy.setMode("blackhole")
      const [took, error] = yield* Effect.timed(unavailable(optionsOf(proxy.url, { connectTimeout: "300 millis" })))
      expect(error).toMatchObject({ reason: "no answer within 300 ms", transient: true })
      expect(Duration.toMillis(took)).toBeLessThan(2_000)
    }))

  it.scopedLive("because something on the way took a time-out away is a StoreUnavailable", () =>
    Effect.gen(function*() {
      const { url } = yield* Database.postgres
      const sql = yield* open(optionsOf(url))
      yield* sql`CREATE FUNCTION relax() RETURNS event_trigger LANGUAGE plpgsql AS
        $$ BEGIN PERFORM set_config('statement_timeout', '0', false); END $$`
      yield* sql`CREATE EVENT TRIGGER relax ON login EXECUTE FUNCTION relax()`
      const error = yield* unavailable(optionsOf(url))
      expect(error).toMatchObject({ reason: expect.stringMatching(/statement_timeout of 30000 ms/), transient: false })
    }))
})

describe("options that cannot be", () => {
  const base: Postgres.Options = { host: "127.0.0.1", port: 1, username: "u" }
  const secret = (rest: string) => Redacted.make(`postgresql://u:c4nary-secret@${rest}`)
  const cases: ReadonlyArray<readonly [title: string, options: Postgres.Options, says: RegExp]> = [
    ["no host", { username: "u" }, /host is missing: .*PGHOST or DATABASE_URL/],
    ["no user", { host: "127.0.0.1" }, /username is missing: .*PGUSER or DATABASE_URL/],
    ["a pool of one", { ...base, maxConnections: 1 }, /maxConnections/],
    ["an endless pool", { ...base, maxConnections: 1001 }, /maxConnections/],
    ["no port", { ...base, port: 0 }, /port/],
    ["statements without a bound", { ...base, statementTimeout: 0 }, /statementTimeout/],
    ["locks without a bound", { ...base, lockTimeout: Duration.infinity }, /lockTimeout/],
    ["a watchdog faster than the server", { ...base, statementTimeout: 1_000, socketTimeout: 1_000 }, /socketTimeout/],
    ["what is not a URL", { url: Redacted.make("c4nary-secret") }, /not a URL/],
    ["another protocol", { url: Redacted.make("mysql://u:c4nary-secret@h/d") }, /postgresql/],
    ["a broken escape", { url: secret("h/%zz") }, /percent-encoded/],
    ["an unknown parameter", { url: secret("h/d?options=-cfsync=off") }, /parameter options/],
    ["sslmode=disable", { url: secret("h/d?sslmode=disable") }, /sslmode=disable/],
    ["sslmode=prefer", { url: secret("h/d?sslmode=prefer") }, /sslmode=prefer/],
    ["sslmode=no-verify", { url: secret("h/d?sslmode=no-verify") }, /sslmode=no-verify/],
    ["TLS and none", { ...base, ssl: {}, allowUnencryptedConnectionToRemoteHost: true }, /contradicts/],
    ["TLS on a unix socket", { ...base, host: "/tmp", ssl: {} }, /unix socket/]
  ]
  for (const [title, options, says] of cases) {
    it.scopedLive(`are refused before anything is sent: ${title}`, () =>
      Effect.gen(function*() {
        const error = yield* refusal(options)
        expect(error._tag).toBe("ConfigError")
        const printed = [JSON.stringify(error), inspect(error, { depth: 20 })].join()
        expect(printed).toMatch(says)
        expect(printed).not.toMatch(/c4nary/)
      }))
  }
})

describe("TLS", () => {
  /** An address of this machine that does not look like one. */
  const remote = (url: string) => changed(url, (to) => to.hostname = "0.0.0.0")

  it.scopedLive("is not left out for a host that is not this machine", () =>
    Effect.gen(function*() {
      const { url } = yield* Database.postgres
      const error = yield* unavailable(optionsOf(remote(url)))
      expect(error).toMatchObject({ reason: expect.stringMatching(/has no TLS/), transient: false })
    }))

  it.scopedLive("is not left out when it is asked for, not even on this machine", () =>
    Effect.gen(function*() {
      const { url } = yield* Database.postgres
      expect((yield* unavailable(optionsOf(url, { ssl: {} }))).reason).toMatch(/has no TLS/)
      for (const sslmode of ["require", "verify-ca", "verify-full"]) {
        expect((yield* unavailable(optionsOf(`${url}?sslmode=${sslmode}`))).reason).toMatch(/has no TLS/)
      }
    }))

  it.scopedLive("is left out for a remote host that is allowed by name, and for this machine", () =>
    Effect.gen(function*() {
      const { url } = yield* Database.postgres
      yield* open(optionsOf(remote(url), { allowUnencryptedConnectionToRemoteHost: true }))
      for (const host of ["127.0.0.1", "localhost"]) yield* open(optionsOf(url, { host }))
    }))

  /** A server with a certificate for db.internal, in front of the one at `url`. */
  const encrypted = (url: string) =>
    Effect.gen(function*() {
      const directory = yield* Effect.acquireRelease(
        Effect.sync(() => Fs.mkdtempSync(Path.join(Os.tmpdir(), "effect-processors-tls-"))),
        (made) => Effect.sync(() => Fs.rmSync(made, { recursive: true }))
      )
      const [key, cert] = [Path.join(directory, "key.pem"), Path.join(directory, "cert.pem")]
      const request = "req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 2 -subj /CN=db.internal"
      const names = ["-addext", "subjectAltName=DNS:db.internal", "-keyout", key, "-out", cert]
      execFileSync("openssl", [...request.split(" "), ...names], { stdio: "ignore" })
      const pem = { key: Fs.readFileSync(key, "utf8"), cert: Fs.readFileSync(cert, "utf8") }
      const target = { host: "127.0.0.1", port: Number(new URL(url).port) }
      const sockets = new Set<Net.Socket>()
      const server = yield* Effect.acquireRelease(
        Effect.promise(async () => {
          const listening = Net.createServer((socket) => {
            sockets.add(socket.on("error", () => undefined))
            socket.once("data", () => {
              socket.write("S")
              const secure = new Tls.TLSSocket(socket, { isServer: true, ...pem })
              const upstream = Net.connect(target)
              secure.on("error", () => upstream.destroy())
              secure.on("close", () => upstream.destroy())
              upstream.on("error", () => secure.destroy())
              secure.pipe(upstream).pipe(secure)
            })
          }).listen(0, "127.0.0.1")
          await once(listening, "listening")
          return listening
        }),
        (listening) => Effect.sync(() => void listening.close())
      )
      yield* Effect.addFinalizer(() => Effect.sync(() => sockets.forEach((socket) => socket.destroy())))
      return { url: changed(url, (to) => to.port = String((server.address() as Net.AddressInfo).port)), ca: pem.cert }
    })

  it.scopedLive.skipIf(spawnSync("openssl", ["version"]).status !== 0)(
    "is verified: authority and name, by IP and by name",
    () =>
      Effect.gen(function*() {
        const { ca, url } = yield* encrypted((yield* Database.postgres).url)
        const rejected = /certificate is not accepted/
        for (const host of ["127.0.0.1", "localhost"]) {
          expect((yield* unavailable(optionsOf(url, { host, ssl: {} }))).reason).toMatch(rejected)
          expect((yield* unavailable(optionsOf(url, { host, ssl: { ca } }))).reason).toMatch(rejected)
          expect((yield* unavailable(optionsOf(url, { host, ssl: { ca, servername: "db.other" } }))).reason).toMatch(
            rejected
          )
          const sql = yield* open(optionsOf(url, { host, ssl: { ca, servername: "db.internal" } }))
          expect(yield* sql`SELECT 1 AS one`).toEqual([{ one: 1 }])
        }
      })
  )

  it.scopedLive.skipIf(spawnSync("openssl", ["version"]).status !== 0)(
    "does not hide silence from the watchdog",
    () =>
      Effect.gen(function*() {
        const proxy = yield* Proxy.make((yield* Database.postgres).url)
        const { ca, url } = yield* encrypted(proxy.url)
        const ssl = { ca, servername: "db.internal" }
        const sql = yield* open(optionsOf(url, { ssl, statementTimeout: 400, socketTimeout: 500 }))
        yield* proxy.setMode("blackhole")
        const [took, error] = yield* Effect.timed(Effect.flip(sql`SELECT 1`))
        expect(error).toBeInstanceOf(SqlError)
        expect(Duration.toMillis(took)).toBeLessThan(2_000)
      })
  )
})

describe("a session", () => {
  it.scopedLive("has the bounds it was opened with", () =>
    Effect.gen(function*() {
      const bounds = { statementTimeout: 11_000, lockTimeout: 12_000, idleInTransactionTimeout: 13_000 }
      const sql = yield* fresh({ ...bounds, applicationName: "named" })
      const read = (name: string) =>
        Effect.map(sql<{ readonly value: string }>`SELECT current_setting(${name}) AS value`, (rows) => rows[0]?.value)
      expect(yield* read("statement_timeout")).toBe("11s")
      expect(yield* read("lock_timeout")).toBe("12s")
      expect(yield* read("idle_in_transaction_session_timeout")).toBe("13s")
      expect(yield* read("application_name")).toBe("named")
      expect(yield* read("tcp_user_timeout")).toBe("16000")
    }))

  it.scopedLive("that was left inside a transaction, or a failed one, never reaches the pool again", () =>
    Effect.gen(function*() {
      const sql = yield* fresh({ maxConnections: 2 })
      yield* sql`CREATE TABLE t (a int)`
      const leave = (text: string) =>
        Effect.scoped(Effect.gen(function*() {
          const connection = yield* sql.reserve
          const rows = yield* connection.execute("SELECT pg_backend_pid() AS pid", [], undefined)
          yield* Effect.exit(connection.executeRaw(text, []))
          return rows[0].pid as number
        }))
      const left = new Set<number>()
      for (let time = 0; time < 5; time++) {
        left.add(yield* leave("BEGIN; INSERT INTO t VALUES (1)"))
        left.add(yield* leave("BEGIN; INSERT INTO t VALUES (1); SELECT 1 / 0"))
        yield* Effect.exit(sql`BEGIN`)
      }
      expect(left.size).toBe(10)
      expect(left).not.toContain(yield* processId(sql))
      expect(yield* sql`SELECT * FROM t`).toEqual([])
    }))

  it.scopedLive("that is idle is used again, after a failed statement too", () =>
    Effect.gen(function*() {
      const sql = yield* fresh()
      const first = yield* processId(sql)
      expect(yield* Effect.flip(sql`SELECT 1 / 0`)).toMatchObject({ cause: { code: "22012" } })
      yield* Effect.exit(sql`SELEC`)
      expect(yield* processId(sql)).toBe(first)
    }))

  it.scopedLive("serves nobody who kept it after giving it back", () =>
    Effect.gen(function*() {
      const sql = yield* fresh()
      const connection = yield* Effect.scoped(sql.reserve)
      const error = yield* Effect.flip(connection.executeRaw("SELECT 1", []))
      expect(inspect(error)).toMatch(/after it had been given back/)
    }))

  it.scopedLive("that the server ended is replaced", () =>
    Effect.gen(function*() {
      const { url } = yield* Database.postgres
      const sql = yield* open(optionsOf(url))
      const other = yield* open(optionsOf(url))
      const pid = yield* processId(sql)
      yield* other`SELECT pg_terminate_backend(${pid})`
      yield* Effect.sleep(50)
      expect(yield* processId(sql)).not.toBe(pid)
    }))

  it.scopedLive("survives a statement that took too long, which the server cancelled", () =>
    Effect.gen(function*() {
      const sql = yield* fresh({ statementTimeout: "100 millis" })
      const pid = yield* processId(sql)
      expect(yield* Effect.flip(sql`SELECT pg_sleep(5)`)).toMatchObject({ cause: { code: "57014" } })
      expect(yield* processId(sql)).toBe(pid)
    }))
})

describe("an interruption", () => {
  it.scopedLive("of statements disturbs no statement of others", () =>
    Effect.gen(function*() {
      const sql = yield* fresh({ maxConnections: 4 })
      const victim = sql`SELECT pg_sleep(0.002)`
      const interrupted = Effect.flatMap(Effect.fork(sql`SELECT pg_sleep(0.01)`), (fiber) =>
        Effect.zipRight(Effect.sleep(3), Fiber.interrupt(fiber)))
      const storm = yield* Effect.fork(Effect.forever(Effect.all([interrupted, interrupted], { concurrency: 2 })))
      const exits = yield* Effect.all(
        Array.from({ length: 400 }, () =>
          Effect.exit(victim)),
        { concurrency: 4 }
      )
      yield* Fiber.interrupt(storm)
      expect(exits.filter(Exit.isFailure)).toEqual([])
    }))

  it.scopedLive("of those who wait for a session leaves every session to the others", () =>
    Effect.gen(function*() {
      const sql = yield* fresh({ maxConnections: 2, connectTimeout: "1 second" })
      const wait = Effect.scoped(Effect.zipRight(sql.reserve, Effect.never))
      for (let time = 0; time < 5; time++) {
        const waiting = yield* Effect.scoped(Effect.gen(function*() {
          yield* Effect.zipRight(sql.reserve, sql.reserve)
          const fibers = yield* Effect.forEach(Array.from({ length: 20 }), () => Effect.forkDaemon(wait))
          yield* Effect.sleep(10)
          const [took] = yield* Effect.timed(Effect.forEach(fibers.slice(10), Fiber.interrupt))
          expect(Duration.toMillis(took)).toBeLessThan(100)
          return fibers.slice(0, 10)
        }))
        // These are interrupted in the very turn in which two of them are handed a session.
        yield* Effect.yieldNow()
        yield* Fiber.interruptAll(waiting)
      }
      yield* Effect.scoped(Effect.zipRight(sql.reserve, sql.reserve))
    }))

  it.scopedLive("while the pool is used up is not needed: the wait ends with connectTimeout", () =>
    Effect.gen(function*() {
      const sql = yield* fresh({ maxConnections: 2, connectTimeout: "200 millis" })
      yield* Effect.scoped(Effect.gen(function*() {
        yield* sql.reserve
        yield* sql.reserve
        const [took, error] = yield* Effect.timed(Effect.flip(sql`SELECT 1`))
        expect(error).toBeInstanceOf(SqlError)
        expect(Duration.toMillis(took)).toBeLessThan(1_000)
      }))
      expect(yield* sql`SELECT 1 AS one`).toEqual([{ one: 1 }])
    }))
})

describe("a black hole", () => {
  it.scopedLive("ends a statement after socketTimeout, and the next one works when it is over", () =>
    Effect.gen(function*() {
      const proxy = yield* Proxy.make((yield* Database.postgres).url)
      const sql = yield* open(optionsOf(proxy.url, { statementTimeout: 400, socketTimeout: 500 }))
      yield* proxy.setMode("blackhole")
      const [took, error] = yield* Effect.timed(Effect.flip(sql`SELECT 1`))
      expect(error).toMatchObject({ _tag: "SqlError", cause: { code: "ETIMEDOUT" } })
      expect(Duration.toMillis(took)).toBeGreaterThan(400)
      expect(Duration.toMillis(took)).toBeLessThan(1_500)
      yield* proxy.setMode("pass")
      expect(yield* sql`SELECT 1 AS one`).toEqual([{ one: 1 }])
    }))

  it.scopedLive("does not keep the layer from closing, nor does it leave a socket", () =>
    Effect.gen(function*() {
      const proxy = yield* Proxy.make((yield* Database.postgres).url)
      const scope = yield* Scope.make()
      const sql = yield* Scope.extend(open(optionsOf(proxy.url)), scope)
      yield* Effect.all([sql`SELECT 1`, sql`SELECT 2`, sql`SELECT 3`], { concurrency: 3 })
      const before = openSockets()
      yield* proxy.setMode("blackhole")
      const [took] = yield* Effect.timed(Scope.close(scope, Exit.void))
      expect(Duration.toMillis(took)).toBeLessThan(2_000)
      yield* eventually(Effect.sync(openSockets), (now) => now <= before - 3)
    }))

  it.scopedLive("is not mistaken for a session that has nothing to do", () =>
    Effect.gen(function*() {
      const sql = yield* fresh({ statementTimeout: 100, socketTimeout: 150 })
      yield* Effect.scoped(Effect.gen(function*() {
        const connection = yield* sql.reserve
        yield* connection.executeRaw("BEGIN", [])
        yield* Effect.sleep(400)
        yield* connection.executeRaw("COMMIT", [])
      }))
    }))
})

const openSockets = (): number =>
  process.getActiveResourcesInfo().filter((name) => name === "TCPSocketWrap" || name === "TCPWRAP").length

describe("the layer", () => {
  it.scopedLive("leaves no session behind when its scope closes", () =>
    Effect.gen(function*() {
      const { url } = yield* Database.postgres
      for (let time = 0; time < 5; time++) {
        yield* Effect.scoped(Effect.gen(function*() {
          const sql = yield* open(optionsOf(url))
          yield* Effect.all(Array.from({ length: 10 }, () => sql`SELECT pg_sleep(0.01)`), { concurrency: 10 })
          expect((yield* sessions(url)).length).toBeGreaterThan(1)
        }))
        yield* eventually(sessions(url), (rows) => rows.length === 0)
      }
    }))

  it.scopedLive("never has more sessions than maxConnections", () =>
    Effect.gen(function*() {
      const { url } = yield* Database.postgres
      const sql = yield* open(optionsOf(url, { maxConnections: 3 }))
      yield* Effect.all(Array.from({ length: 60 }, () => sql`SELECT pg_sleep(0.005)`), { concurrency: 60 })
      expect((yield* sessions(url)).length).toBe(3)
    }))

  it.scopedLive("takes its options from the ConfigProvider, as a URL or in parts", () =>
    Effect.gen(function*() {
      const { url } = yield* Database.postgres
      const { hostname, password, pathname, port, username } = new URL(url)
      const parts = {
        PGHOST: hostname,
        PGPORT: port,
        PGUSER: username,
        PGPASSWORD: password,
        PGDATABASE: pathname.slice(1)
      }
      for (const values of [{ DATABASE_URL: url }, parts]) {
        const rows = yield* Effect.flatMap(SqlClient.SqlClient, (sql) => sql`SELECT current_database() AS name`).pipe(
          Effect.provide(Postgres.layerConfig()),
          Effect.withConfigProvider(ConfigProvider.fromMap(new Map(Object.entries(values))))
        )
        expect(rows).toEqual([{ name: pathname.slice(1) }])
      }
      const none = yield* Effect.flip(Layer.build(Postgres.layerConfig())).pipe(
        Effect.withConfigProvider(ConfigProvider.fromMap(new Map()))
      )
      expect(none._tag).toBe("ConfigError")
    }))

  it.scopedLive("shows no password when its client is printed", () =>
    Effect.gen(function*() {
      const { url } = yield* Database.postgres
      const context = yield* Layer.build(Postgres.layer(optionsOf(url)))
      const client = Context.get(context, PgClient)
      expect(inspect(client, { depth: 10 }) + JSON.stringify(client.config)).not.toContain(new URL(url).password)
    }))
})

describe("a statement", () => {
  it.scopedLive("with rows that lack a column is refused, with the column's name", () =>
    Effect.gen(function*() {
      const sql = yield* fresh()
      yield* sql`CREATE TABLE t (a int, b int)`
      for (const client of [sql, sql.withoutTransforms(), sql.safe]) {
        const defect = defectOf(yield* Effect.exit(client`INSERT INTO t ${client.insert([{ a: 1 }, { a: 2, b: 3 }])}`))
        expect(defect).toBeInstanceOf(EvenRows.UnevenRows)
        expect(defect).toMatchObject({ column: "b", message: expect.stringContaining("\"b\"") })
        const update = client`UPDATE t SET a = d.a FROM ${client.updateValues([{ a: 1, b: 1 }, { a: 2 }], "d")}`
        expect(defectOf(yield* Effect.exit(update))).toBeInstanceOf(EvenRows.UnevenRows)
      }
      expect(yield* sql`INSERT INTO t ${sql.insert([{ a: 1, b: 2 }, { b: 4, a: 3 }])} RETURNING a, b`).toEqual([
        { a: 1, b: 2 },
        { a: 3, b: 4 }
      ])
      expect(sql.onDialectOrElse({ pg: () => "pg", orElse: () => "other" })).toBe("pg")
    }))

  it.scopedLive("with more parameters than the protocol can count fails as one that is too complex", () =>
    Effect.gen(function*() {
      const sql = yield* fresh()
      const error = yield* Effect.flip(sql`SELECT 1 WHERE 1 IN ${sql.in(Array.from({ length: 65_536 }, () => 1))}`)
      expect(error).toMatchObject({ cause: { code: "54000" } })
    }))

  it.scopedLive("rounds no integer", () =>
    Effect.gen(function*() {
      const sql = yield* fresh()
      const read =
        sql`SELECT count(*) AS n, 9007199254740993 AS large, ARRAY[1, 9007199254740993] AS list, 1.5::float8 AS real`
      const large = 9_007_199_254_740_993n
      expect(yield* read).toEqual([{ n: 1, large, list: [1, large], real: 1.5 }])
      expect(yield* read.values).toEqual([[1, large, [1, large], 1.5]])
      expect(yield* Effect.provideService(read, SqlClient.SafeIntegers, true)).toEqual([
        { n: 1n, large, list: [1n, large], real: 1.5 }
      ])
      expect(yield* read).toEqual([{ n: 1, large, list: [1, large], real: 1.5 }])
    }))

  it.scopedLive("streams in bounded pieces, and its consumer may use the same transaction", () =>
    Effect.gen(function*() {
      const sql = yield* fresh({ maxConnections: 2 })
      yield* sql`CREATE TABLE t (a int)`
      const numbers = (upTo: number) => sql<{ readonly n: number }>`SELECT n FROM generate_series(1, ${upTo}) AS n`
      const outside = yield* Stream.runCollect(numbers(1_000).stream)
      expect(Chunk.toReadonlyArray(outside).map((row) => row.n)).toEqual(Array.from({ length: 1_000 }, (_, i) => i + 1))
      yield* sql.withTransaction(Stream.runForEach(numbers(300).stream, ({ n }) => sql`INSERT INTO t VALUES (${n})`))
      expect(yield* sql`SELECT count(*) AS n FROM t`).toEqual([{ n: 300 }])
      yield* Stream.runDrain(Stream.take(numbers(10_000).stream, 3))
      expect(yield* Effect.flip(Stream.runDrain(sql`SELECT * FROM nowhere`.stream))).toMatchObject({
        cause: { code: "42P01" }
      })
      yield* Effect.scoped(Effect.zipRight(sql.reserve, sql.reserve))
    }))
})

describe("a listener", () => {
  it.scopedLive("hears what is notified, and fails when its session is lost", () =>
    Effect.gen(function*() {
      const { url } = yield* Database.postgres
      const client = Context.get(yield* Layer.build(Postgres.layer(optionsOf(url))), PgClient)
      const heard: Array<string> = []
      const listener = yield* Effect.fork(
        Stream.runForEach(client.listen("news"), (text) => Effect.sync(() => heard.push(text)))
      )
      yield* eventually(
        Effect.zipRight(client.notify("news", "it's"), Effect.sync(() => heard)),
        (all) => all.length > 0
      )
      expect(heard[0]).toBe("it's")
      yield* client`SELECT pg_terminate_backend(pid) FROM pg_stat_activity
        WHERE pid <> pg_backend_pid() AND datname = current_database()`
      expect(yield* Effect.flip(Fiber.join(listener))).toBeInstanceOf(SqlError)
      const stopped = yield* Effect.fork(Stream.runDrain(client.listen("news")))
      yield* Effect.sleep(50)
      yield* Fiber.interrupt(stopped)
    }))
})
