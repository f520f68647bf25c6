/** Names, received and chosen: what is refused first, then what is taken. */
import { describe, expect, it } from "@effect/vitest"
import * as FastCheck from "effect/FastCheck"
import * as Schema from "effect/Schema"
import * as DocumentModel from "../../src/domain/DocumentModel.js"
import { Chosen, isClean, Received, receivedMax } from "../../src/domain/Name.js"

const isReceived = Schema.is(Received)
const isChosen = Schema.is(Chosen)

describe("a received name", () => {
  it.each([
    ["empty text", ""],
    ["text that is too long", "a".repeat(receivedMax + 1)],
    ["NUL", "a\u0000b"],
    ["a newline", "a\nb"],
    ["an escape", "\u001b[31m"],
    ["DEL", "a\u007f"],
    ["a lone high surrogate", "a\ud800"],
    ["a lone low surrogate", "\udc00a"],
    ["a number", 7],
    ["nothing", undefined]
  ])("refuses %s", (_, value) => expect(isReceived(value)).toBe(false))

  it.each([
    ["a UUID", "97da2849-d73e-4b43-aa90-7d090402c802"],
    ["a document type", "powerhouse/document-drive"],
    ["SQL, which is only ever a parameter", "'; DROP TABLE x; --"],
    ["a key that means something to objects", "__proto__"],
    ["letters of any script and a whole surrogate pair", "Ωmega 文書 😀"],
    ["the longest", "a".repeat(receivedMax)]
  ])("takes %s", (_, value) => expect(isReceived(value)).toBe(true))

  it("is clean exactly when it survives UTF-8 and has no control characters", () => {
    FastCheck.assert(
      FastCheck.property(
        FastCheck.fullUnicodeString(),
        FastCheck.constantFrom("", "\ud800", "\u0007"),
        (text, tail) => {
          const whole = text + tail
          const survives = new TextDecoder().decode(new TextEncoder().encode(whole)) === whole
          const controls = Array.from(whole).some((c) => c < " " || c === "\u007f")
          // The decoder takes a leading byte order mark away, which is no fault of the text.
          expect(isClean(`x${whole}`)).toBe((survives || whole.startsWith("\ufeff")) && !controls)
        }
      )
    )
  })
})

describe("a chosen name", () => {
  it.each(["", "A", "1a", "_a", "-a", "a b", "a.b", "a\"b", "é", "a\n", "a".repeat(49)])(
    "refuses %j",
    (value) => expect(isChosen(value)).toBe(false)
  )
  it.each(["a", "todo-list", "todo_list_2", "a".repeat(48)])("takes %j", (value) => expect(isChosen(value)).toBe(true))
  it("says what a name is when it refuses one", () => {
    expect(() => Schema.decodeUnknownSync(Chosen)("To Do")).toThrow(/a name is a-z, 0-9, _ and -.*"To Do"/)
  })
})

describe("a document model", () => {
  const Todo = DocumentModel.make("acme/todo", { ADD: Schema.Struct({ id: Schema.String }) })

  it("is not made of a type that is not clean", () => {
    expect(() => DocumentModel.make("", {})).toThrow(/of 1 to 512 characters/)
    expect(() => DocumentModel.make("acme\u0000todo", {})).toThrow(/without control characters/)
  })
  it.each(["constructor", "toString", "__proto__", "add", ""])("does not know the operation %j", (type) => {
    expect(Todo.knows(type)).toBe(false)
    expect(Todo.decode(type, {})).toBeUndefined()
  })
  it("refuses an input that its Schema refuses", () => {
    expect(Todo.decode("ADD", { id: 1 })).toMatchObject({ _tag: "Left" })
  })
  it("knows what it declares and what every document may carry, and decodes the former", () => {
    expect(Todo.knows("ADD")).toBe(true)
    expect(Todo.knows("NOOP")).toBe(true)
    expect(Todo.decode("NOOP", {})).toBeUndefined()
    expect(Todo.decode("ADD", { id: "a" })).toMatchObject({ _tag: "Right", right: { id: "a" } })
  })
})
