/**
 * Our processors inside the real Powerhouse reactor: its processor manager runs them as it runs its own, and what it does
 * not deliver they read from its store.
 *
 * It needs the packages of `test/powerhouse`, which `npm test` installs. In a project of your own, write
 * `import { ReactorBuilder } from "@powerhousedao/reactor"` for what is imported from there.
 */
import { SqlClient } from "@effect/sql"
import { Effect, Layer, Logger, LogLevel, ManagedRuntime, Schema } from "effect"
import * as Sqlite from "../../layers/Sqlite.js"
import { DocumentModel, Namespace, Policy, Powerhouse, Processor, Source, Wait } from "../../src/index.js"

/** What this program uses of a host of the real reactor: `module` is what `await builder.buildModule()` returns. */
interface Host {
  readonly module: Powerhouse.Contract.ReactorModule & {
    readonly processorManager: {
      readonly registerFactory: (name: string, factory: Powerhouse.Contract.ProcessorFactory) => Promise<void>
    }
  }
  readonly createDrive: (id: string) => Promise<string>
  readonly createDocument: (id: string) => Promise<string>
  readonly addToDrive: (drive: string, document: string) => Promise<void>
  readonly execute: (document: string, ...actions: ReadonlyArray<object>) => Promise<void>
  readonly setName: (text: string) => object
  readonly setDescription: (text: string) => object
  readonly close: () => Promise<void>
}

const { open } = await import(new URL("../../../test/powerhouse/reactor.mjs", import.meta.url).href) as {
  readonly open: () => Promise<Host>
}

// The documents are document models themselves; these are two of their operations.
const Model = DocumentModel.make("powerhouse/document-model", {
  SET_MODEL_NAME: Schema.Struct({ name: Schema.String }),
  SET_MODEL_DESCRIPTION: Schema.Struct({ description: Schema.String })
})

const Models = Processor.make("models", {
  namespace: "models",
  filter: { documentType: [Model.type], scope: ["global"] },
  migrations: {
    "0001_models": {
      up: Effect.flatMap(
        SqlClient.SqlClient,
        (sql) => sql`CREATE TABLE models (id TEXT PRIMARY KEY, name TEXT NOT NULL, edits INTEGER NOT NULL)`
      ),
      down: Effect.flatMap(SqlClient.SqlClient, (sql) => sql`DROP TABLE models`)
    }
  },
  handler: Effect.gen(function*() {
    const sql = yield* SqlClient.SqlClient
    return Processor.onOperations(Model, {
      SET_MODEL_NAME: ({ input, strand }) =>
        sql`
          INSERT INTO models ${sql.insert({ id: strand.documentId, name: input.name, edits: 1 })}
          ON CONFLICT (id) DO UPDATE SET name = excluded.name, edits = models.edits + 1`
    })
  })
}).pipe(Processor.withPolicy(Policy.standard))

// A database with a namespace for each processor and drive, and a scope over it, with which the processors end.
const runtime = ManagedRuntime.make(
  Layer.scope.pipe(Layer.provideMerge(Sqlite.layerMemory), Layer.merge(Logger.minimumLogLevel(LogLevel.Warning)))
)

const host = await open()
const factory = Powerhouse.processorFactory(runtime, [Models], { archive: Powerhouse.ReactorArchive.make(host.module) })
await host.module.processorManager.registerFactory("ours", factory)

await host.createDrive("home")
const documents = await Promise.all(["invoice", "receipt", "budget"].map((id) => host.createDocument(id)))
for (const document of documents) await host.addToDrive("home", document)

/** Waits until the processor has dealt with an operation of a document, by its index. */
const dealtWith = (documentId: string, index: number) =>
  Wait.until(Powerhouse.perDrive(Models, "home"), Source.name(Powerhouse.sourceName("home")), {
    documentId,
    scope: "global",
    branch: "main",
    index
  }, { timeout: "15 seconds" })

const show = Namespace.query(
  "models_home",
  Effect.flatMap(
    SqlClient.SqlClient,
    (sql) => sql<{ id: string; name: string; edits: number }>`SELECT * FROM models ORDER BY id`
  )
)

const print = async () => {
  for (const { edits, id, name } of await runtime.runPromise(show)) console.log(`${id}: "${name}", set ${edits} times`)
}

// Written at once, which is when the reactor's own delivery loses operations.
await Promise.all(documents.map(async (document) => {
  for (let i = 1; i <= 10; i++) {
    await host.execute(document, host.setName(`${document} ${i}`), host.setDescription(`of ${document}`))
  }
}))
await factory.stir()
for (const document of documents) await runtime.runPromise(dealtWith(document, 19))
await print()

// Registered again, as a host does that loads a package anew: the reactor's own processors would get it all once more.
await host.module.processorManager.registerFactory("ours", factory)
await host.execute("invoice", host.setName("invoice, at last"))
await factory.stir()
await runtime.runPromise(dealtWith("invoice", 20))
await print()

await runtime.dispose()
await host.close()

/* It prints:

budget: "budget 10", set 10 times
invoice: "invoice 10", set 10 times
receipt: "receipt 10", set 10 times
budget: "budget 10", set 10 times
invoice: "invoice, at last", set 11 times
receipt: "receipt 10", set 10 times

*/
