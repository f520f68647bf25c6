/**
 * A fold: what the example's tables must hold, worked out from the same files in plain TypeScript, row by row and
 * without a line of the framework or of the processors. Where the two agree, neither has dropped, doubled or invented
 * anything.
 */
import { readFileSync } from "node:fs"
import { gunzipSync } from "node:zlib"

/** One delivered operation with the stream it belongs to, whichever generation delivered it. */
export interface Delivered {
  readonly documentId: string
  readonly documentType: string
  readonly scope: string
  readonly branch: string
  readonly index: number
  readonly skip: number
  readonly hash: string
  readonly type: string
  readonly input: unknown
  readonly timestamp: string
  readonly error: unknown
}

export type Row = { readonly [column: string]: string | number | null }

export interface Tables {
  readonly search_entry: ReadonlyArray<Row>
  readonly drive_activity: ReadonlyArray<Row>
  readonly drive: ReadonlyArray<Row>
  readonly drive_node: ReadonlyArray<Row>
}

/** An operation that waits because earlier ones of its document never came. */
export interface Held {
  readonly operation: Delivered
  /** The indexes missing between it and what had come before it, first and last; `undefined` where it only waits. */
  readonly missing: readonly [number, number] | undefined
}

export interface Folded {
  readonly tables: Tables
  /** In the order of arrival. */
  readonly held: ReadonlyArray<Held>
  readonly deliveries: number
  readonly applied: number
  readonly redelivered: number
}

/** The lines of an NDJSON file, plain or gzip. */
export const linesOf = (file: string): ReadonlyArray<string> => {
  const bytes = readFileSync(file)
  const text = (bytes[0] === 0x1f && bytes[1] === 0x8b ? gunzipSync(bytes) : bytes).toString("utf8")
  return text.split("\n").filter((line) => line.trim() !== "")
}

type Json = { readonly [key: string]: unknown }

/** The operations of a line, in order. */
export const deliveriesOf = (line: string): ReadonlyArray<Delivered> => {
  const value = JSON.parse(line) as Json | ReadonlyArray<Json>
  return (Array.isArray(value) ? value as ReadonlyArray<Json> : [value as Json]).flatMap((each) =>
    "context" in each && "operation" in each
      ? [delivered(each["context"] as Json, each["operation"] as Json)]
      : (each["operations"] as ReadonlyArray<Json>).map((operation) => delivered(each, operation))
  )
}

const delivered = (stream: Json, operation: Json): Delivered => {
  const action = (operation["action"] ?? operation) as Json
  return {
    documentId: stream["documentId"] as string,
    documentType: stream["documentType"] as string,
    scope: stream["scope"] as string,
    branch: stream["branch"] as string,
    index: operation["index"] as number,
    skip: operation["skip"] as number,
    hash: operation["hash"] as string,
    type: action["type"] as string,
    input: action["input"],
    timestamp: (operation["timestampUtcMs"] ?? operation["timestamp"]) as string,
    error: operation["error"]
  }
}

/** What the tables hold after the files, and what is held back. */
export const fold = (files: ReadonlyArray<string>): Folded => foldLines(files.flatMap(linesOf))

export const foldLines = (lines: Iterable<string>): Folded => {
  const documents = new Map<string, Document>()
  const world = new World()
  const counts = { deliveries: 0, redelivered: 0 }
  for (const line of lines) {
    for (const operation of deliveriesOf(line)) {
      counts.deliveries++
      const document = documents.get(operation.documentId) ?? new Document()
      documents.set(operation.documentId, document)
      if (!document.receive(operation, world)) counts.redelivered++
    }
  }
  const held = Array.from(documents.values()).flatMap((document) => document.held)
  return { tables: world.tables(), held, applied: world.applied, ...counts }
}

/** A document's streams and what waits in front of them. */
class Document {
  private readonly heads = new Map<string, number>()
  private readonly seen = new Set<string>()
  held: Array<Held> = []

  /** Whether the operation was new. */
  receive(operation: Delivered, world: World): boolean {
    const { branch, hash, index, scope, skip } = operation
    const identity = JSON.stringify([scope, branch, index, skip, hash])
    if (this.seen.has(identity)) return false
    this.seen.add(identity)
    const isNext = index - skip <= this.headOf(operation) + 1
    if (isNext && (this.held.length === 0 || this.hasGap(operation))) {
      this.apply(operation, world)
      this.release(world)
    } else {
      const come = Math.max(this.headOf(operation), ...this.heldOf(operation).map((each) => each.index))
      const last = index - skip - 1
      this.held.push({ operation, missing: last > come ? [come + 1, last] : undefined })
    }
    return true
  }

  /** Lets those go whose turn has come: of each stream by index, and the whole in order of arrival otherwise. */
  /** Lets those go whose turn has come: of each stream by index, and the whole in order of arrival otherwise. */
  private release(world: World): void {
    for (;;) {
      const ready = this.held
        .filter(({ operation }) => operation.index - operation.skip <= this.headOf(operation) + 1)
        .sort((a, b) => a.operation.index - b.operation.index)
      const oldest = this.held[0]?.operation
      const next = ready.find(({ operation }) => this.heldOf(operation).some((each) => this.isBehindGap(each))) ??
        ready.find(({ operation }) => oldest !== undefined && isSameStream(oldest, operation))
      if (next === undefined) return
      this.held = this.held.filter((each) => each !== next)
      this.apply(next.operation, world)
    }
  }

  /** Whether everything that is held of the stream waits for operations that have not come. */
  private hasGap(stream: Delivered): boolean {
    const held = this.heldOf(stream)
    return held.length > 0 && held.every((each) => each.index - each.skip > this.headOf(stream) + 1)
  }

  private isBehindGap(operation: Delivered): boolean {
    return this.held.some((each) => each.operation === operation && each.missing !== undefined)
  }

  private heldOf(stream: Delivered): ReadonlyArray<Delivered> {
    return this.held.map((each) => each.operation).filter((operation) => isSameStream(operation, stream))
  }

  private headOf({ branch, scope }: Delivered): number {
    return this.heads.get(JSON.stringify([scope, branch])) ?? -1
  }

  private apply(operation: Delivered, world: World): void {
    this.heads.set(JSON.stringify([operation.scope, operation.branch]), operation.index)
    world.apply(operation)
  }
}

const isSameStream = (a: Delivered, b: Delivered): boolean => a.scope === b.scope && a.branch === b.branch

interface Node {
  id: string
  name: string
  kind: string
  parent: string | null
  documentType: string | null
}

interface Drive {
  name: string | null
  icon: string | null
  sharing: string | null
  offline: number | null
  nodes: Array<Node>
}

/** The tables in memory. */
class World {
  private readonly entries = new Map<string, Map<string, { type: string; content: string }>>()
  private readonly activity = new Map<string, { operations: number; refused: number }>()
  private readonly drives = new Map<string, Drive>()
  applied = 0

  apply(operation: Delivered): void {
    this.applied++
    this.count(operation)
    if (operation.error !== undefined && operation.error !== null) return
    this.index(operation)
    if (operation.documentType === "powerhouse/document-drive") this.grow(operation)
  }

  private count({ documentId, documentType, error, timestamp }: Delivered): void {
    const key = JSON.stringify([timestamp.slice(0, 10), documentType, documentId])
    const entry = this.activity.get(key) ?? { operations: 0, refused: 0 }
    entry.operations++
    if (error !== undefined && error !== null) entry.refused++
    this.activity.set(key, entry)
  }

  private index({ documentId, documentType, input, type }: Delivered): void {
    if (type === "DELETE_DOCUMENT") {
      this.entries.delete(documentId)
      return
    }
    const things = this.entries.get(documentId) ?? new Map<string, { type: string; content: string }>()
    this.entries.set(documentId, things)
    const sent = (input as { id?: unknown } | null | undefined)?.id
    const id = typeof sent === "string" && sent !== "" && sent.length <= 512 ? sent : undefined
    if (type.startsWith("DELETE_") || type.startsWith("REMOVE_")) {
      if (id !== undefined) things.delete(id)
      return
    }
    const content = strings(input, "id").map((each) => each.trim()).filter(isHuman).join("\n").slice(0, 100_000)
    if (content !== "") things.set(id ?? type, { type: documentType, content })
  }

  private grow({ documentId, input, type }: Delivered): void {
    const sent = input as { readonly [key: string]: never }
    const blank = (): Drive => ({ name: null, icon: null, sharing: null, offline: null, nodes: [] })
    const drive = this.drives.get(documentId) ?? blank()
    const nameIn = (parent: string | null, name: string): string => {
      const names = drive.nodes.filter((node) => node.parent === parent).map((node) => node.name)
      if (!names.includes(name)) return name
      for (let n = names.length + 1;; n--) {
        if (n === 0 || names.includes(`${name} (copy) ${n}`) || (n === 1 && names.includes(`${name} (copy)`))) {
          return `${name} (copy) ${n + 1}`
        }
      }
    }
    const parent = sent["parentFolder"] ?? null
    switch (type) {
      case "ADD_FOLDER":
      case "ADD_FILE":
        drive.nodes.push({
          id: sent["id"]!,
          name: nameIn(parent, sent["name"]!),
          kind: type === "ADD_FILE" ? "file" : "folder",
          parent,
          documentType: sent["documentType"] ?? null
        })
        break
      case "UPDATE_NODE": {
        const node = drive.nodes.find((each) => each.id === sent["id"])
        if (node !== undefined) {
          node.name = nameIn(parent, sent["name"] ?? node.name)
          if (sent["parentFolder"] === null) node.parent = null
        }
        break
      }
      case "DELETE_NODE": {
        const gone = new Set<string>([sent["id"]!])
        for (let size = 0; size !== gone.size;) {
          size = gone.size
          for (const node of drive.nodes) if (node.parent !== null && gone.has(node.parent)) gone.add(node.id)
        }
        drive.nodes = drive.nodes.filter((node) => !gone.has(node.id))
        break
      }
      case "SET_DRIVE_NAME":
        drive.name = sent["name"]!
        break
      case "SET_SHARING_TYPE":
        drive.sharing = sent["type"]!
        break
      case "SET_AVAILABLE_OFFLINE":
        drive.offline = sent["availableOffline"]! ? 1 : 0
        break
      case "CREATE_DOCUMENT":
      case "UPGRADE_DOCUMENT":
        return
      default:
        throw new Error(`this fold does not know ${type} of a drive; teach it`)
    }
    this.drives.set(documentId, drive)
  }

  tables(): Tables {
    return {
      search_entry: Array.from(this.entries).flatMap(([document_id, things]) =>
        Array.from(things, ([thing, { content, type }]) => ({ document_id, thing, document_type: type, content }))
      ),
      drive_activity: Array.from(this.activity, ([key, { operations, refused }]) => {
        const [day, document_type, document_id] = JSON.parse(key) as [string, string, string]
        return { day, document_type, document_id, operations, refused }
      }),
      drive: Array.from(this.drives, ([drive_id, { icon, name, offline, sharing }]) => ({
        drive_id,
        name,
        icon,
        sharing_type: sharing,
        available_offline: offline
      })),
      drive_node: Array.from(this.drives).flatMap(([drive_id, { nodes }]) =>
        nodes.map((node) => ({
          drive_id,
          node_id: node.id,
          parent_id: node.parent,
          kind: node.kind,
          name: node.name,
          document_type: node.documentType
        }))
      )
    }
  }
}

/** All strings in a value, depth first, in the order of its keys, without those under `except` at the top. */
const strings = (value: unknown, except?: string): ReadonlyArray<string> =>
  typeof value === "string"
    ? [value]
    : typeof value === "object" && value !== null
    ? Object.entries(value).flatMap(([key, each]) => key === except ? [] : strings(each))
    : []

const isHuman = (text: string): boolean => {
  if (text === "") return false
  if (/\s/.test(text)) return true
  return !text.includes("://") && !(text.length >= 16 && /[0-9]/.test(text))
}
