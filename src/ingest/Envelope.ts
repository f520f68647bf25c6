/**
 * An envelope: one JSON value as a generation of the real system delivers it, read into strands.
 *
 *     G1, G2   { driveId, documentId, documentType, scope, branch, operations }    one strand
 *     G3       { operation, context }                                              one strand of one operation
 *     a list of either: one call. Neighbours of G3 that share document, scope and branch are one strand.
 *
 * Invariants: everything returned satisfies the Schemas of `domain`. Nothing is half refused: an operation that cannot be
 * placed (document, type, scope, branch, index, skip) refuses the whole envelope, for without its place nothing after it
 * is in order. An operation that can be placed but not trusted stays where it is and says why in `flaw`; what did not fit
 * a field is replaced (by empty text, {@link timestampUnknown} or {@link typeUnknown}) and quoted in `flaw`, and its `input`
 * is what was sent. State in any form (`state`, `previousState`, `resultingState`, `document`) is dropped: only
 * some deliveries carry it, and a reader must not come to depend on it.
 *
 * `input` travels as JSON text on the wire of the pull responder and as a value everywhere else, where text is a value
 * too (SET_NAME). A strand is in wire form when it has no `state`, which in-process strands always have and the wire never
 * has, and each input it carries is text.
 */

import * as Data from "effect/Data"
import * as Either from "effect/Either"
import * as Option from "effect/Option"
import * as ParseResult from "effect/ParseResult"
import * as Schema from "effect/Schema"
import type { Protocol } from "../domain/History.js"
import { receivedMax } from "../domain/Name.js"
import {
  Index,
  indexMax,
  inputFlaw,
  Operation,
  OperationType,
  quote,
  Skip,
  skipMax,
  Storable,
  Timestamp
} from "../domain/Operation.js"
import { Branch, DocumentId, DocumentType, DriveId, Scope } from "../domain/Strand.js"
import type { Unplaced } from "./Source.js"

/** The value is no envelope, or holds an operation without a place: reading it again gives the same. */
export class MalformedEnvelope extends Data.TaggedError("MalformedEnvelope")<{
  /** The field at fault, from the value's root, such as `operations[3].index`. */
  readonly field: string
  readonly reason: string
}> {
  override get message(): string {
    return `${this.field} ${this.reason}`
  }
}

/** Stands where a flawed operation's timestamp was not an instant. */
export const timestampUnknown: Timestamp = Schema.decodeSync(Timestamp)("1970-01-01T00:00:00.000Z")

/** Stands where a flawed operation's type was not clean text. */
export const typeUnknown: OperationType = Schema.decodeSync(OperationType)("?")

/**
 * Reads one envelope. `bytes` is the size of the text that `value` was parsed from; the strands share it evenly, rounded up.
 * A list without elements, which is what a call without operations is, holds no strands.
 */
export const decode = (value: unknown, bytes = 0): Either.Either<ReadonlyArray<Unplaced>, MalformedEnvelope> => {
  const drafts: Drafts = { strands: [], context: undefined }
  const misfit = Array.isArray(value) ? addAll(drafts, value) : addOne(drafts, value)
  if (misfit !== undefined) {
    return Either.left(new MalformedEnvelope({ ...misfit, field: misfit.field === "" ? "the value" : misfit.field }))
  }
  const share = Math.ceil(bytes / drafts.strands.length)
  for (const strand of drafts.strands) strand.bytes = share
  return Either.right(drafts.strands)
}

/** A JSON object as it came. Only listed names are read, so that a key of any other name does nothing. */
type Fields = { readonly [name: string]: unknown }

/** The strands in the making. `context` is set while the next G3 operation may still join the last of them. */
interface Drafts {
  readonly strands: Array<Draft>
  context: Fields | undefined
}

interface Draft extends Header {
  readonly protocol: Protocol
  readonly operations: Array<Operation>
  bytes: number
}

/** A draft whose header is yet to be looked at. */
type Undecided = { readonly [Name in keyof Header]: unknown } & Pick<Draft, "operations" | "bytes" | "protocol">

const Header = Schema.Struct({
  driveId: Schema.UndefinedOr(DriveId),
  documentId: DocumentId,
  documentType: DocumentType,
  scope: Scope,
  branch: Branch
})
type Header = typeof Header.Type

const Place = Schema.Struct({ index: Index, skip: Skip })

// None of these Schemas transforms, so checking is decoding and the fields are not copied.
const isHeader = Schema.is(Header)
const isPlace = Schema.is(Place)
const isOperation = Schema.is(Operation)

/**
 * What a field must be, to name the one at fault once the whole has been refused: the issue that a Schema reports would
 * print all of a hostile value.
 */
interface Rule<A> {
  readonly read: (value: unknown) => Option.Option<A>
  readonly words: string
}
const rule = <A, I>(schema: Schema.Schema<A, I>, words: string): Rule<A> => ({
  read: ParseResult.decodeUnknownOption(schema),
  words
})

const received = `clean text of 1 to ${receivedMax} characters`
const headerRules = {
  driveId: rule(Header.fields.driveId, received),
  documentId: rule(DocumentId, received),
  documentType: rule(DocumentType, received),
  scope: rule(Scope, received),
  branch: rule(Branch, received)
}
const placeRules = {
  index: rule(Index, `a whole number from 0 to ${indexMax}`),
  skip: rule(Skip, `a whole number from 0 to ${skipMax}`)
}
const restRules = {
  id: rule(Operation.fields.id, `text of at most ${receivedMax} characters, without NUL or lone surrogates`),
  type: rule(OperationType, received),
  timestamp: rule(Timestamp, "an instant in UTC such as 2026-11-21T17:27:02.007Z"),
  hash: rule(Operation.fields.hash, `text of at most ${receivedMax} characters, without NUL or lone surrogates`),
  prevOpIndex: rule(Schema.UndefinedOr(Operation.fields.prevOpIndex.from), `a whole number from -1 to ${indexMax}`),
  prevOpHash: rule(
    Schema.UndefinedOr(Operation.fields.prevOpHash.from),
    `text of at most ${receivedMax} characters, without NUL or lone surrogates`
  ),
  actionId: rule(
    Schema.UndefinedOr(Operation.fields.actionId.from),
    `text of at most ${receivedMax} characters, without NUL or lone surrogates`
  ),
  error: rule(Schema.UndefinedOr(Storable), "text without NUL or lone surrogates")
}

/** A field that cannot be read, from where the reader stands; whoever called it adds where that is. */
interface Misfit {
  readonly field: string
  readonly reason: string
}

const under = (at: string, { field, reason }: Misfit): Misfit => ({
  field: field === "" || field.startsWith("[") ? at + field : `${at}.${field}`,
  reason
})

const addAll = (drafts: Drafts, values: ReadonlyArray<unknown>): Misfit | undefined => {
  for (let i = 0; i < values.length; i++) {
    const misfit = addOne(drafts, values[i])
    if (misfit !== undefined) return under(`[${i}]`, misfit)
  }
  return undefined
}

const addOne = (drafts: Drafts, value: unknown): Misfit | undefined => {
  if (isFields(value)) {
    if (isFields(value["operation"]) && isFields(value["context"])) {
      return addWithContext(drafts, value["operation"], value["context"])
    }
    if (Array.isArray(value["operations"])) return addStrand(drafts, value, value["operations"])
  }
  return {
    field: "",
    reason: `is ${show(value)}, neither a strand (with a list \`operations\`) nor an operation with its \`context\``
  }
}

const addStrand = (drafts: Drafts, strand: Fields, sent: ReadonlyArray<unknown>): Misfit | undefined => {
  const driveId = strand["driveId"] ?? undefined
  const candidate: Undecided = {
    protocol: 1,
    driveId,
    // The pull responder of document-drive 4 names the drive itself by an empty id.
    documentId: strand["documentId"] === "" && driveId !== undefined ? driveId : strand["documentId"],
    documentType: strand["documentType"],
    scope: strand["scope"],
    branch: strand["branch"],
    operations: [],
    bytes: 0
  }
  if (!isDraft(candidate)) return misfitOf(candidate, headerRules)
  const wire = isWire(strand, sent)
  for (let i = 0; i < sent.length; i++) {
    const misfit = addOperation(candidate.operations, sent[i], wire)
    if (misfit !== undefined) return under(`operations[${i}]`, misfit)
  }
  drafts.strands.push(candidate)
  drafts.context = undefined
  return undefined
}

const addWithContext = (drafts: Drafts, sent: Fields, context: Fields): Misfit | undefined => {
  const draft = joinable(drafts, context) ?? open(drafts, context)
  if ("reason" in draft) return under("context", draft)
  const misfit = addOperation(draft.operations, sent, false)
  return misfit === undefined ? undefined : under("operation", misfit)
}

const joinable = ({ context: last, strands }: Drafts, context: Fields): Draft | undefined =>
  last !== undefined && isSameStream(last, context) ? strands[strands.length - 1] : undefined

const open = (drafts: Drafts, context: Fields): Draft | Misfit => {
  const candidate: Undecided = {
    protocol: 2,
    driveId: undefined,
    documentId: context["documentId"],
    documentType: context["documentType"],
    scope: context["scope"],
    branch: context["branch"],
    operations: [],
    bytes: 0
  }
  if (!isDraft(candidate)) return misfitOf(candidate, headerRules)
  drafts.strands.push(candidate)
  drafts.context = context
  return candidate
}

const isDraft = (candidate: Undecided): candidate is Undecided & Draft =>
  isPlainHeader(candidate) || isHeader(candidate)

const isSameStream = (a: Fields, b: Fields): boolean =>
  a["documentId"] === b["documentId"] && a["scope"] === b["scope"] && a["branch"] === b["branch"] &&
  a["documentType"] === b["documentType"]

/** An operation's fields, brought together from where its generation keeps them. */
interface Candidate {
  readonly id: unknown
  readonly index: unknown
  readonly skip: unknown
  readonly type: unknown
  readonly timestamp: unknown
  readonly hash: unknown
  input: unknown
  error?: unknown
  prevOpIndex?: unknown
  prevOpHash?: unknown
  actionId?: unknown
  signer?: unknown
}

const addOperation = (operations: Array<Operation>, sent: unknown, wire: boolean): Misfit | undefined => {
  if (!isFields(sent)) return { field: "", reason: `is ${show(sent)}, not an operation` }
  // G2 and G3 nest the action; G2 repeats its type and input beside it, G1 has only those.
  const action = isFields(sent["action"]) ? sent["action"] : sent
  const candidate: Candidate = {
    id: sent["id"],
    index: sent["index"],
    skip: sent["skip"],
    type: action["type"],
    timestamp: sent["timestampUtcMs"] ?? sent["timestamp"],
    hash: sent["hash"],
    input: action["input"]
  }
  const error = sent["error"] ?? sent["deniedReason"] ?? undefined
  if (error !== undefined) candidate.error = error
  const actionId = (action === sent ? undefined : action["id"]) ?? sent["actionId"]
  if (actionId !== undefined && actionId !== null) candidate.actionId = actionId
  const meant = action["context"] ?? sent["context"]
  if (isFields(meant)) addIntent(candidate, meant)
  const flaw = wire ? unwrapInput(candidate) : inputFlaw(candidate.input)
  if (isPlain(candidate) || isOperation(candidate)) {
    operations.push(flaw === undefined ? candidate : { ...candidate, flaw: `input ${flaw}` })
    return undefined
  }
  if (!isPlace(candidate)) return misfitOf(candidate, placeRules)
  operations.push(salvage(candidate, flaw))
  return undefined
}

/** An action's context says what its author saw last, and who signed it; a signer that cannot be stored is left out. */
const addIntent = (candidate: Candidate, { prevOpHash, prevOpIndex, signer }: Fields): void => {
  if (isFields(signer) && inputFlaw(signer) === undefined) candidate.signer = signer
  if (prevOpIndex !== undefined && prevOpIndex !== null) candidate.prevOpIndex = prevOpIndex
  if (prevOpHash !== undefined && prevOpHash !== null) candidate.prevOpHash = prevOpHash
}

/**
 * Whether the fields are of the kind that nearly all are, which satisfies the Schema: told at a fifth of the Schema's
 * price. Whatever is not plain goes to the Schema, which decides.
 */
const isPlain = (candidate: Candidate): candidate is Candidate & Operation =>
  isPlainInteger(candidate.index, indexMax) && isPlainInteger(candidate.skip, skipMax) &&
  isPlainText(candidate.type) && isPlainText(candidate.id) && typeof candidate.hash === "string" &&
  (candidate.hash === "" || isPlainText(candidate.hash)) &&
  typeof candidate.timestamp === "string" && plainTimestamp.test(candidate.timestamp) &&
  candidate.error === undefined && candidate.prevOpIndex === undefined && candidate.prevOpHash === undefined &&
  (candidate.actionId === undefined || isPlainText(candidate.actionId))

const isPlainHeader = (header: { readonly [Name in keyof Header]: unknown }): header is Header =>
  (header.driveId === undefined || isPlainText(header.driveId)) && isPlainText(header.documentId) &&
  isPlainText(header.documentType) && isPlainText(header.scope) && isPlainText(header.branch)

const isPlainInteger = (value: unknown, max: number): boolean =>
  Number.isInteger(value) && value as number >= 0 && value as number <= max
const isPlainText = (value: unknown): boolean =>
  typeof value === "string" && value.length <= receivedMax && printable.test(value)

const printable = /^[ -~]+$/
/** Days that every month has. */
const plainTimestamp = /^\d{4}-(0[1-9]|1[0-2])-(0[1-9]|1\d|2[0-8])T([01]\d|2[0-3]):[0-5]\d:[0-5]\d(\.\d{1,9})?Z$/

/** The operation that is left when fields do not fit: each that does, and a stand-in for each that does not. */
const salvage = (candidate: Candidate & typeof Place.Type, flaw: string | undefined): Operation => {
  const { actionId, error, hash, id, index, input, prevOpHash, prevOpIndex, signer, skip, timestamp, type } = candidate
  const sent: Fields = { id, type, timestamp, hash, error, prevOpIndex, prevOpHash, actionId }
  const flaws = Object.entries<Rule<unknown>>(restRules).flatMap(([name, { read, words }]) =>
    Option.isNone(read(sent[name])) ? [`${name} ${misfitWords(sent[name], words)}`] : []
  )
  return {
    id: Option.getOrElse(restRules.id.read(id), () => ""),
    index,
    skip,
    type: Option.getOrElse(restRules.type.read(type), () => typeUnknown),
    timestamp: Option.getOrElse(restRules.timestamp.read(timestamp), () => timestampUnknown),
    hash: Option.getOrElse(restRules.hash.read(hash), () => ""),
    input,
    ...fitting("prevOpIndex", restRules.prevOpIndex.read(prevOpIndex)),
    ...fitting("prevOpHash", restRules.prevOpHash.read(prevOpHash)),
    ...fitting("actionId", restRules.actionId.read(actionId)),
    ...(signer === undefined ? undefined : { signer }),
    // An error that cannot be read is an error all the same: its operation changed nothing.
    ...(error === undefined ? undefined : { error: Option.getOrUndefined(restRules.error.read(error)) ?? show(error) }),
    flaw: [...flaws, ...(flaw === undefined ? [] : [`input ${flaw}`])].join("; ")
  }
}

const fitting = <Name extends string, A>(
  name: Name,
  value: Option.Option<A | undefined>
): { readonly [_ in Name]?: A } =>
  Option.match(Option.flatMapNullable(value, (found) => found), {
    onNone: () => ({}),
    onSome: (found) => ({ [name]: found }) as { readonly [_ in Name]?: A }
  })

const isWire = (strand: Fields, operations: ReadonlyArray<unknown>): boolean =>
  !Object.hasOwn(strand, "state") &&
  operations.every((operation) => isFields(operation) && isTextOrNothing(operation["input"]))

const isTextOrNothing = (input: unknown): boolean => typeof input === "string" || input === undefined || input === null

/** Puts the value that wire text stands for in the text's place, or says why it stays text. */
const unwrapInput = (candidate: Candidate): string | undefined => {
  if (typeof candidate.input !== "string") return undefined
  const value = parseJson(candidate.input)
  if (Either.isLeft(value)) return "is text that is not JSON"
  const flaw = inputFlaw(value.right)
  if (flaw === undefined) candidate.input = value.right
  return flaw
}

const parseJson = (text: string): Either.Either<unknown, unknown> => Either.try((): unknown => JSON.parse(text))

const isFields = (value: unknown): value is Fields =>
  typeof value === "object" && value !== null && !Array.isArray(value)

/** The first of `fields` that breaks its rule. */
const misfitOf = (fields: object, rules: { readonly [name: string]: Rule<unknown> }): Misfit => {
  const sent = new Map<string, unknown>(Object.entries(fields))
  const broken = Object.entries(rules).find(([name, { read }]) => Option.isNone(read(sent.get(name))))
  if (broken === undefined) return { field: "", reason: "is not readable" }
  const [name, { words }] = broken
  return { field: name, reason: misfitWords(sent.get(name), words) + hintOf(name, sent.get(name)) }
}

const misfitWords = (value: unknown, words: string): string =>
  value === undefined ? "is missing" : `is ${show(value)}, not ${words}`

const hintOf = (name: string, value: unknown): string =>
  name === "documentType" && value === undefined
    ? ": the pull responder of document-drive 4 leaves it out, add it to the strand before it is delivered here"
    : name === "documentId" && value === ""
    ? ": an empty id stands for the drive, and there is no driveId"
    : ""

/** A value in a message: text quoted and cut, numbers as they are, and of the rest only the kind. */
const show = (value: unknown): string =>
  value === null || typeof value === "number" || typeof value === "boolean"
    ? String(value)
    : Array.isArray(value)
    ? "a list"
    : typeof value === "string"
    ? `"${quote(value)}"`
    : value === undefined
    ? "nothing"
    : "an object"
