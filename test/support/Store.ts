/**
 * Store: the `SqlClient` of a test's database, through the very layers that users provide.
 */
import type * as SqlClient from "@effect/sql/SqlClient"
import * as Layer from "effect/Layer"
import * as Redacted from "effect/Redacted"
import { dirname, join } from "node:path"
import * as Postgres from "../../layers/Postgres.js"
import * as Sqlite from "../../layers/Sqlite.js"
import { Namespace } from "../../src/index.js"
import type { Database, PostgresDatabase, SqliteDatabase } from "./Database.js"

/**
 * A client of its own on `database`, all of which is one namespace; a store that cannot be opened is a defect of the test.
 */
export const layer = (database: Database): Layer.Layer<SqlClient.SqlClient | Namespace.Namespaces> =>
  Layer.orDie(
    database.dialect === "sqlite"
      ? Sqlite.layer({ filename: database.filename })
      : Layer.provideMerge(Namespace.layerSingle, Postgres.layer({ url: Redacted.make(database.url) }))
  )

/** The client of `namespace` as a reactor has it: in the file that was given for it, or in its schema. */
export const layerOf = (
  database: Database,
  namespace: string,
  options: Partial<Postgres.Options> = {}
): Layer.Layer<SqlClient.SqlClient | Namespace.Namespaces> =>
  Layer.orDie(Layer.provideMerge(
    Namespace.layer(namespace),
    database.dialect === "sqlite"
      ? Sqlite.layer({ filename: database.filename })
      : Postgres.layer({ url: Redacted.make(database.url), ...options })
  ))

/** Many namespaces: a file for each beside `database`, or a schema in it. */
export const layerMany = (
  database: Database,
  options: Partial<Sqlite.DirectoryOptions & Postgres.Options> = {}
): Layer.Layer<Namespace.Namespaces> =>
  Layer.orDie(
    database.dialect === "sqlite"
      ? Sqlite.layerDirectory({ ...options, directory: directoryOf(database) })
      : Postgres.layer({ ...options, url: Redacted.make(database.url) })
  )

/** Schemas of one PostgreSQL database, and the database itself. */
export const layerPool = (
  database: PostgresDatabase,
  options: Partial<Postgres.Options> = {}
): Layer.Layer<SqlClient.SqlClient | Namespace.Namespaces> =>
  Layer.orDie(Postgres.layer({ ...options, url: Redacted.make(database.url) }))

/** Where the files of {@link layerMany} are. */
export const directoryOf = (database: SqliteDatabase): string => join(dirname(database.filename), "namespaces")
