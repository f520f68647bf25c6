/**
 * The contents page: what the framework offers, in the order of the flow.
 */
export * as DocumentModel from "./domain/DocumentModel.js"
export * as History from "./domain/History.js"
export * as Operation from "./domain/Operation.js"
export * as Partition from "./domain/Partition.js"
export * as Position from "./domain/Position.js"
export * as Retraction from "./domain/Retraction.js"
export * as Slice from "./domain/Slice.js"
export * as Strand from "./domain/Strand.js"

export * as Batch from "./ingest/Batch.js"
export * as Envelope from "./ingest/Envelope.js"
export * as Filter from "./ingest/Filter.js"
export * as Ndjson from "./ingest/Ndjson.js"
export * as Source from "./ingest/Source.js"
export * as Wakeups from "./ingest/Wakeups.js"

export * as Column from "./table/Column.js"
export * as Definition from "./table/Definition.js"
export * as Table from "./table/Table.js"

export * as Failure from "./process/Failure.js"
export * as Fault from "./process/Fault.js"
export * as KyselyMigration from "./process/KyselyMigration.js"
export * as Migration from "./process/Migration.js"
export * as MigrationDirectory from "./process/MigrationDirectory.js"
export * as Permit from "./process/Permit.js"
export * as Policy from "./process/Policy.js"
export * as Processor from "./process/Processor.js"
export * as Query from "./process/Query.js"
export * as Replaying from "./process/Replaying.js"

export * as Catalogue from "./store/Catalogue.js"
export * as Commit from "./store/Commit.js"
export * as Cursors from "./store/Cursors.js"
export * as DeadLetters from "./store/DeadLetters.js"
export * as Drift from "./store/Drift.js"
export * as Incident from "./store/Incident.js"
export * as Ledger from "./store/Ledger.js"
export * as Manifest from "./store/Manifest.js"
export * as Migrations from "./store/Migrations.js"
export * as Migrator from "./store/Migrator.js"
export * as Namespace from "./store/Namespaces.js"
export * as Rows from "./store/Rows.js"
export * as StoreUnavailable from "./store/StoreUnavailable.js"
export * as Transaction from "./store/Transaction.js"

export * as Draft from "./schema/Draft.js"
export * as Introspection from "./schema/Introspection.js"
export * as Typings from "./schema/Typings.js"

export * as Journal from "./journal/Journal.js"

export * as Health from "./vitals/Health.js"
export * as Metrics from "./vitals/Metrics.js"
export * as Pulse from "./vitals/Pulse.js"
export * as Wait from "./vitals/Wait.js"

export * as Reactor from "./Reactor.js"
export * as Subscription from "./Subscription.js"

export * as Powerhouse from "./powerhouse/Powerhouse.js"
