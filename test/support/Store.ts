/**
 * Store: the `SqlClient` of a test's database, through the very layers that users provide.
 */
import type * as SqlClient from "@effect/sql/SqlClient"
import * as Layer from "effect/Layer"
import * as Redacted from "effect/Redacted"
import * as Postgres from "../../layers/Postgres.js"
import * as Sqlite from "../../layers/Sqlite.js"
import type { Database } from "./Database.js"

/** A client of its own on `database`; a store that cannot be opened is a defect of the test. */
export const layer = (database: Database): Layer.Layer<SqlClient.SqlClient> =>
  (database.dialect === "sqlite"
    ? Sqlite.layer({ filename: database.filename })
    : Postgres.layer({ url: Redacted.make(database.url) })).pipe(Layer.orDie)
