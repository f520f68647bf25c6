/**
 * The real packages, as programs outside this folder reach them: they are installed here and nowhere else.
 */
import { PGlite } from "@electric-sql/pglite"
import { AtomicNodeFs } from "@powerhousedao/pglite-fs"
import knex from "knex"
import knexPglite from "knex-pglite"
import pg from "pg"

// The reactor is written for Node 24, which has this.
Error.isError ??= (value) => value instanceof Error

export * as document from "@powerhousedao/shared/document-model"
export * as processors from "@powerhousedao/shared/processors"
export * as reactor from "@powerhousedao/reactor"
export * as kysely from "kysely"
export * as kyselyKnex from "kysely-knex"
export * as kyselyPglite from "kysely-pglite-dialect"
export { AtomicNodeFs, knex, knexPglite, pg, PGlite }
