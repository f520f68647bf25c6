/**
 * A node tree: the folders and files of each drive, and what the drive says of itself, one row each.
 *
 *     drive ─┬─ folder ─┬─ file        drive_node.parent_id points at the folder; NULL at the top
 *            └─ file    └─ folder …
 *
 * The handlers do what the drive's own reducer does (document-drive, `reducers/node.ts`), in all three generations: a
 * name that its siblings already have becomes "name (copy) n", deleting a folder deletes what is below it.
 *
 * A drive's operations build on each other. One that takes others back (`skip`, UNDO, a loaded state) cannot be undone
 * from the rows that are left, so it fails as `TakenBack` and is parked: the drive's tree stays as it was before it,
 * and the dead letter says so.
 */
import * as SqlClient from "@effect/sql/SqlClient"
import type { SqlError } from "@effect/sql/SqlError"
import * as Data from "effect/Data"
import * as Effect from "effect/Effect"
import * as Schema from "effect/Schema"
import { DocumentModel, Policy, Processor } from "../../src/index.js"
import type { Migration, Operation } from "../../src/index.js"

const Text = Schema.String
/** Left out, `null` or text: what GraphQL calls a nullable input. */
const Maybe = Schema.optional(Schema.NullOr(Schema.String))
const Texts = Schema.Array(Schema.String)

/** Only document-drive 4 sends them: which streams a file is synchronised by. */
const SynchronizationUnits = Schema.Array(Schema.Struct({ syncId: Text, scope: Text, branch: Text }))

const Listener = Schema.Struct({
  listenerId: Text,
  label: Maybe,
  block: Schema.Boolean,
  system: Schema.Boolean,
  filter: Schema.Struct({
    documentType: Texts,
    documentId: Schema.optional(Schema.NullOr(Texts)),
    scope: Schema.optional(Schema.NullOr(Texts)),
    branch: Schema.optional(Schema.NullOr(Texts))
  }),
  callInfo: Schema.optional(Schema.NullOr(Schema.Struct({ transmitterType: Maybe, name: Maybe, data: Maybe })))
})

const Trigger = Schema.Struct({
  id: Text,
  type: Schema.Literal("PullResponder"),
  data: Schema.optional(Schema.NullOr(Schema.Struct({ listenerId: Text, url: Text, interval: Text })))
})

/**
 * The operations of a drive in document-drive 4 and 5 and reactor 6, and those of any document that concern its tree.
 */
export const Drive = DocumentModel.make("powerhouse/document-drive", {
  ADD_FOLDER: Schema.Struct({ id: Text, name: Text, parentFolder: Maybe }),
  ADD_FILE: Schema.Struct({
    id: Text,
    name: Text,
    documentType: Text,
    parentFolder: Maybe,
    synchronizationUnits: Schema.optional(SynchronizationUnits),
    document: Schema.optional(Schema.Unknown)
  }),
  UPDATE_FILE: Schema.Struct({ id: Text, name: Maybe, documentType: Maybe, parentFolder: Maybe }),
  UPDATE_NODE: Schema.Struct({ id: Text, name: Maybe, parentFolder: Maybe }),
  DELETE_NODE: Schema.Struct({ id: Text }),
  MOVE_NODE: Schema.Struct({ srcFolder: Text, targetParentFolder: Maybe }),
  COPY_NODE: Schema.Struct({
    srcId: Text,
    targetId: Text,
    targetName: Maybe,
    targetParentFolder: Maybe,
    synchronizationUnits: Schema.optional(Schema.NullOr(SynchronizationUnits))
  }),
  SET_DRIVE_NAME: Schema.Struct({ name: Text }),
  SET_DRIVE_ICON: Schema.Struct({ icon: Text }),
  SET_SHARING_TYPE: Schema.Struct({ type: Text }),
  SET_AVAILABLE_OFFLINE: Schema.Struct({ availableOffline: Schema.Boolean }),
  ADD_LISTENER: Schema.Struct({ listener: Listener }),
  REMOVE_LISTENER: Schema.Struct({ listenerId: Text }),
  ADD_TRIGGER: Schema.Struct({ trigger: Trigger }),
  REMOVE_TRIGGER: Schema.Struct({ triggerId: Text }),
  DELETE_DOCUMENT: Schema.Struct({ documentId: Text }),
  NOOP: Schema.Unknown,
  UNDO: Schema.Unknown,
  REDO: Schema.Unknown,
  PRUNE: Schema.Unknown,
  LOAD_STATE: Schema.Unknown
})

/** The operation takes back what others have done, or puts another state in its place. */
export class TakenBack extends Data.TaggedError("TakenBack")<{
  readonly type: string
  readonly index: number
  readonly skip: number
}> {
  override get message(): string {
    const what = this.skip > 0 ? `takes back the ${this.skip} before it` : "replaces the drive's state"
    return `${this.type} at index ${this.index} ${what}, which rows alone cannot follow`
  }
}

const migrations: Migration.Migrations = {
  "0001_drive_node": {
    up: Effect.flatMap(SqlClient.SqlClient, (sql) =>
      Effect.all([
        sql`
          CREATE TABLE drive (
            drive_id TEXT NOT NULL PRIMARY KEY,
            name TEXT,
            icon TEXT,
            sharing_type TEXT,
            available_offline INTEGER
          )`,
        sql`
          CREATE TABLE drive_node (
            drive_id TEXT NOT NULL,
            node_id TEXT NOT NULL,
            parent_id TEXT,
            kind TEXT NOT NULL,
            name TEXT NOT NULL,
            document_type TEXT,
            PRIMARY KEY (drive_id, node_id)
          )`,
        sql`CREATE INDEX drive_node_parent ON drive_node (drive_id, parent_id)`
      ], { discard: true })),
    down: Effect.flatMap(
      SqlClient.SqlClient,
      (sql) => Effect.zipRight(sql`DROP TABLE drive_node`, sql`DROP TABLE drive`)
    )
  }
}

/** Follows the drives themselves, in every scope: a drive's sharing is in `local`, its end in `document`. */
export const NodeTree = Processor.make("node-tree", {
  namespace: "node_tree",
  filter: { documentType: [Drive.type], branch: ["main"] },
  migrations,
  handler: Effect.map(SqlClient.SqlClient, (sql) => {
    const tree = treeOf(sql)
    return Processor.onOperations(Drive, {
      ADD_FOLDER: going(({ drive, input }) => tree.add(drive, { ...input, kind: "folder" })),
      ADD_FILE: going(({ drive, input }) => tree.add(drive, { ...input, kind: "file" })),
      UPDATE_FILE: going(({ drive, input }) => tree.updateFile(drive, input)),
      UPDATE_NODE: going(({ drive, input }) => tree.updateNode(drive, input)),
      DELETE_NODE: going(({ drive, input }) => tree.remove(drive, input.id)),
      MOVE_NODE: going(({ drive, input }) => tree.move(drive, input.srcFolder, input.targetParentFolder)),
      COPY_NODE: going(({ drive, input }) => tree.copy(drive, input)),
      SET_DRIVE_NAME: going(({ drive, input }) => tree.set(drive, "name", input.name)),
      SET_DRIVE_ICON: going(({ drive, input }) => tree.set(drive, "icon", input.icon)),
      SET_SHARING_TYPE: going(({ drive, input }) => tree.set(drive, "sharing_type", input.type)),
      SET_AVAILABLE_OFFLINE: going(({ drive, input }) =>
        tree.set(drive, "available_offline", input.availableOffline ? 1 : 0)
      ),
      DELETE_DOCUMENT: ({ strand }) => tree.removeDrive(strand.documentId),
      NOOP: going(() => Effect.void),
      UNDO: ({ operation }) => new TakenBack(operation),
      REDO: ({ operation }) => new TakenBack(operation),
      PRUNE: ({ operation }) => new TakenBack(operation),
      LOAD_STATE: ({ operation }) => new TakenBack(operation)
    })
  })
}).pipe(Processor.withPolicy({ ...Policy.standard, TakenBack: Policy.park }))

/** A handler of operations that go on from the drive's present state; one that takes others back is refused. */
const going = <Input, A>(
  handle: (received: { readonly drive: string; readonly input: Input }) => Effect.Effect<A, SqlError>
) =>
(received: {
  readonly input: Input
  readonly operation: Operation.Operation
  readonly strand: { readonly documentId: string }
}): Effect.Effect<A, SqlError | TakenBack> =>
  received.operation.skip > 0
    ? new TakenBack(received.operation)
    : handle({ drive: received.strand.documentId, input: received.input })

interface Added {
  readonly id: string
  readonly name: string
  readonly kind: "file" | "folder"
  readonly parentFolder?: string | null | undefined
  readonly documentType?: string
}

interface Node {
  readonly name: string
  readonly kind: string
  readonly parent_id: string | null
  readonly document_type: string | null
}

/** The statements of the tree. No folder has the empty text for an id: it stands for the top, as nothing does. */
const treeOf = (sql: SqlClient.SqlClient) => {
  const folder = (id: string | null | undefined): string | null => id === undefined || id === "" ? null : id

  const find = (drive: string, id: string) =>
    Effect.map(
      sql<Node>`
        SELECT name, kind, parent_id, document_type FROM drive_node WHERE drive_id = ${drive} AND node_id = ${id}`,
      ([node]) => node
    )

  const siblings = (drive: string, parent: string | null) =>
    sql`drive_id = ${drive} AND ${parent === null ? sql`parent_id IS NULL` : sql`parent_id = ${parent}`}`

  /** `name`, or `name (copy) n` with the next n where the folder has that name already. */
  const freeName = (drive: string, parent: string | null, name: string) =>
    Effect.gen(function*() {
      const taken = yield* sql`
        SELECT 1 FROM drive_node WHERE ${siblings(drive, parent)} AND name = ${name} LIMIT 1`
      if (taken.length === 0) return name
      const names = yield* sql<{ readonly name: string }>`SELECT name FROM drive_node WHERE ${siblings(drive, parent)}`
      const copies = names.map((each) => copyNumber(each.name, name))
      return `${name} (copy) ${Math.max(0, ...copies) + 1}`
    })

  const insert = (drive: string, id: string, node: Node) =>
    sql`
      INSERT INTO drive_node (drive_id, node_id, parent_id, kind, name, document_type)
      VALUES (${drive}, ${id}, ${node.parent_id}, ${node.kind}, ${node.name}, ${node.document_type})`

  return {
    add: (drive: string, added: Added) =>
      Effect.gen(function*() {
        const parent_id = folder(added.parentFolder)
        const name = yield* freeName(drive, parent_id, added.name)
        const document_type = added.documentType ?? null
        yield* sql`INSERT INTO drive (drive_id) VALUES (${drive}) ON CONFLICT (drive_id) DO NOTHING`
        yield* insert(drive, added.id, { name, kind: added.kind, parent_id, document_type })
      }),

    // The reducer looks for the new name among the children of `parentFolder`, which updates mostly leave out: the top.
    updateFile: (drive: string, input: typeof Drive.operations.UPDATE_FILE.Type) =>
      Effect.gen(function*() {
        const node = yield* find(drive, input.id)
        if (node === undefined) return
        const name = yield* freeName(drive, folder(input.parentFolder), input.name ?? node.name)
        yield* sql`
          UPDATE drive_node SET name = ${name}, document_type = ${input.documentType ?? node.document_type}
          WHERE drive_id = ${drive} AND node_id = ${input.id}`
      }),

    // The reducer moves a node to the top when `parentFolder` is null, and nowhere when it names a folder.
    updateNode: (drive: string, input: typeof Drive.operations.UPDATE_NODE.Type) =>
      Effect.gen(function*() {
        const node = yield* find(drive, input.id)
        if (node === undefined) return
        const name = yield* freeName(drive, folder(input.parentFolder), input.name ?? node.name)
        yield* sql`
          UPDATE drive_node SET name = ${name}, parent_id = ${input.parentFolder === null ? null : node.parent_id}
          WHERE drive_id = ${drive} AND node_id = ${input.id}`
      }),

    // UNION keeps each node once, so that it would end even if folders were in a circle.
    remove: (drive: string, id: string) =>
      sql`
        DELETE FROM drive_node
        WHERE drive_id = ${drive} AND node_id IN (
          WITH RECURSIVE gone (node_id) AS (
            SELECT CAST(${id} AS TEXT)
            UNION
            SELECT child.node_id FROM drive_node AS child JOIN gone ON child.parent_id = gone.node_id
            WHERE child.drive_id = ${drive}
          )
          SELECT node_id FROM gone)`,

    move: (drive: string, id: string, target: string | null | undefined) =>
      Effect.gen(function*() {
        const node = yield* find(drive, id)
        if (node === undefined) return
        const parent = folder(target)
        const name = yield* freeName(drive, parent, node.name)
        yield* sql`
          UPDATE drive_node SET name = ${name}, parent_id = ${parent} WHERE drive_id = ${drive} AND node_id = ${id}`
      }),

    copy: (drive: string, input: typeof Drive.operations.COPY_NODE.Type) =>
      Effect.gen(function*() {
        const node = yield* find(drive, input.srcId)
        if (node === undefined) return
        const parent_id = folder(input.targetParentFolder)
        const wanted = input.targetName === undefined || input.targetName === null || input.targetName === ""
          ? node.name
          : input.targetName
        yield* insert(drive, input.targetId, { ...node, parent_id, name: yield* freeName(drive, parent_id, wanted) })
      }),

    set: (drive: string, column: "name" | "icon" | "sharing_type" | "available_offline", value: string | number) =>
      sql`
        INSERT INTO drive (drive_id, ${sql(column)}) VALUES (${drive}, ${value})
        ON CONFLICT (drive_id) DO UPDATE SET ${sql(column)} = excluded.${sql(column)}`,

    removeDrive: (drive: string) =>
      Effect.zipRight(
        sql`DELETE FROM drive_node WHERE drive_id = ${drive}`,
        sql`DELETE FROM drive WHERE drive_id = ${drive}`
      )
  }
}

/** The n of `base (copy) n`, 1 where no number follows, and 0 for any other name. */
const copyNumber = (name: string, base: string): number => {
  if (!name.startsWith(`${base} (copy)`)) return 0
  const match = /^(?: (\d+))?$/.exec(name.slice(`${base} (copy)`.length))
  return match === null ? 0 : Number(match[1] ?? 1)
}
