/**
 * Undo: documents take operations back, and each processor says how it copes with that.
 */
import { NodeRuntime } from "@effect/platform-node"
import { Console, Effect, Logger, LogLevel, Schema } from "effect"
import * as Test from "../layers/Test.js"
import { DocumentModel, Draft, Namespace, Policy, Processor, Reactor, Table } from "../src/index.js"

const inputs = {
  PUT: Schema.Struct({ sku: Schema.String, pieces: Schema.Int }),
  EMPTY: Schema.Struct({})
}

// How the state of a cart is folded, as its own reducer does it. It is stored beside the cursor, in the same transaction,
// so that it is the same live, in a backfill, and after something was undone.
interface Cart {
  readonly pieces: { readonly [sku: string]: number }
}
const CartModel = DocumentModel.make("acme/cart", inputs, {
  state: {
    initial: { pieces: {} },
    reduce: (cart: Cart, { input, type }): Cart => {
      const put = Schema.decodeUnknownOption(inputs.PUT)(input)
      if (type === "EMPTY") return { pieces: {} }
      return put._tag === "None" ? cart : { pieces: { ...cart.pieces, [put.value.sku]: put.value.pieces } }
    }
  }
})

const Lines = Table.make(
  "lines",
  Schema.Struct({ cart: Schema.String, sku: Schema.String, pieces: Schema.Int, sum: Schema.Int }),
  { key: ["cart", "sku"], document: "cart" }
)

const sumOf = ({ pieces }: Cart) => Object.values(pieces).reduce((sum, some) => sum + some, 0)

// "replay": the rows of the document go, and what survives is projected again, in the same transaction.
const Carts = Processor.make("carts", {
  namespace: "shop",
  history: "replay",
  tables: [Lines],
  migrations: { "0001_lines": Draft.migration(Draft.initial([Lines])) },
  batch: { operations: 1 },
  handler: Processor.onOperations(CartModel, {
    PUT: ({ input, state, strand }) => Lines.upsert({ cart: strand.documentId, ...input, sum: sumOf(state) }),
    EMPTY: ({ strand }) => Lines.removeDocument(strand.documentId)
  })
}).pipe(Processor.withPolicy(Policy.standard))

// "append": nothing is done again. It is told what is taken back, before the operation that does, and sees to it.
const Bell = Processor.make("bell", {
  namespace: "shop",
  history: "append",
  batch: { operations: 1 },
  handler: Processor.onOperations(DocumentModel.make("acme/cart", inputs), {
    PUT: ({ input, operation }) => Console.log(`  ${operation.index}: ${input.pieces} ${input.sku}`),
    EMPTY: ({ operation }) => Console.log(`  ${operation.index}: emptied`)
  }, {
    retract: ({ retraction: { by, indexes } }) => Console.log(`  ${by} takes back ${indexes.join(", ")}`)
  })
}).pipe(Processor.withPolicy(Policy.standard))

const put = (sku: string, pieces: number, more: Partial<Test.OperationOptions> = {}) => ({
  type: "PUT",
  input: { sku, pieces },
  ...more
})
// An undo is a mark: a NOOP with a skip. Operation 2 comes from a merge with what somebody else did meanwhile: it takes the
// place of 1, which comes again after it.
const strands = [
  Test.strand({
    documentId: "c-1",
    documentType: CartModel.type,
    operations: [
      put("lamp", 1),
      put("rug", 2),
      put("vase", 4, { skip: 1 }),
      put("rug", 2),
      { type: "EMPTY", input: {} },
      { type: "NOOP", skip: 1 }
    ]
  })
]

const program = Effect.gen(function*() {
  yield* Console.log("told:")
  const [carts] = yield* Reactor.run(Carts, Bell)
  yield* Console.log(`left, at position ${carts?.position}:`)
  for (const { pieces, sku, sum } of yield* Namespace.query("shop", Lines.find({ cart: "c-1" }))) {
    yield* Console.log(`  ${pieces} ${sku}, ${sum} together when it was put`)
  }
})

program.pipe(Effect.provide(Test.layer(strands)), Logger.withMinimumLogLevel(LogLevel.Warning), NodeRuntime.runMain)

/* It prints:

told:
  0: 1 lamp
  1: 2 rug
  2 takes back 1
  2: 4 vase
  3: 2 rug
  4: emptied
  5 takes back 4
left, at position 1:
  1 lamp, 1 together when it was put
  2 rug, 7 together when it was put
  4 vase, 5 together when it was put

*/
