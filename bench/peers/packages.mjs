/**
 * The peers, as programs outside this folder reach them: they are installed here and nowhere else.
 */
export { sql } from "@event-driven-io/dumbo"
export {
  getPostgreSQLEventStore,
  postgreSQLEventStoreConsumer,
  postgreSQLRawSQLProjection
} from "@event-driven-io/emmett-postgresql"
export { getSQLiteEventStore, sqliteConnection, sqliteProjection } from "@event-driven-io/emmett-sqlite"
