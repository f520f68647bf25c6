/**
 * The child of the kill tests: a `Host`, which is killed from outside. It prints the operations that it found when it came,
 * and ends by itself once everything that the reactor has stored is in our tables.
 *
 *     node child.js '{"generation":3,"program":"file:…","theirs":"postgresql://…","ours":{…},"documents":8,"operations":2000}'
 */
import * as Powerhouse from "../../src/powerhouse/Powerhouse.js"
import type { Drive5 } from "./Drive5.js"
import * as Host from "./Host.js"
import type { Delivered, Reactor6 } from "./Reactor6.js"

const order = JSON.parse(process.argv[2] ?? "{}") as Host.Order

const program = await import(order.program) as {
  readonly open: (at: unknown) => Promise<Reactor6 & Drive5>
  readonly writeAtomically: () => void
}

const runtime = Host.runtimeOf(order.ours)

const sleep = (millis: number) => new Promise((resolve) => setTimeout(resolve, millis))

/** Waits until each processor has applied what it wants of each drive. */
const untilApplied = async (expected: ReadonlyArray<number>): Promise<void> => {
  for (;;) {
    const applied = await runtime.runPromise(Host.applied)
    if (applied.every((count, i) => count >= (expected[i] ?? 0))) return
    await sleep(50)
  }
}

const current = async (): Promise<void> => {
  const reactor = await program.open(order.theirs)
  const archive = Powerhouse.ReactorArchive.make(reactor)
  await reactor.processorManager.registerFactory(
    "ours",
    Powerhouse.processorFactory(runtime, Host.processors, Host.options(archive))
  )
  const found = await reactor.stored()
  process.stdout.write(`found ${found.length}\n`)
  const known = (documentId: string) => found.some(({ context }) => context.documentId === documentId)
  const joined = (documentId: string) =>
    found.some(({ operation }) =>
      operation.action.type === "ADD_RELATIONSHIP" &&
      (operation.action.input as { readonly targetId: string }).targetId === documentId
    )
  for (const drive of Host.drives) if (!known(drive)) await reactor.createDrive(drive)
  let written = found.filter(({ context }) => context.scope === "global").length
  await Promise.all(
    Host.documentsOf(order).map(async ({ drive, id }, d) => {
      if (!known(id)) await reactor.createDocument(id)
      if (!joined(id)) await reactor.addToDrive(drive, id)
      for (let i = 0; written < order.operations; i++) {
        const actions = Array.from(
          { length: 1 + (i * 7 + d) % 12 },
          (_, j) => j % 5 === 4 ? reactor.refused() : reactor.setName(`${id} ${written} ${j}`)
        )
        written += actions.length
        await reactor.execute(id, ...actions)
      }
    })
  )
  const stored = await reactor.stored()
  const inDrive = (drive: string) => ({ context }: Delivered) => Host.isOf(drive)(context.documentId)
  await untilApplied(Host.drives.flatMap((drive) => {
    const own = stored.filter(inDrive(drive))
    return [own.length, own.filter(({ context }) => context.scope === "global").length]
  }))
  await reactor.close()
}

const former = async (): Promise<void> => {
  program.writeAtomically()
  const server = await program.open({ directory: order.theirs })
  const archive = Powerhouse.StorageArchive.make(server.storage)
  await server.processorManager.registerFactory(
    "ours",
    Powerhouse.processorFactory(runtime, Host.processors, Host.options(archive))
  )
  const storedOf = async () => {
    const all = []
    for (const drive of Host.drives) all.push(await server.stored(drive).catch(() => []))
    return all
  }
  const found = (await storedOf()).flat()
  process.stdout.write(`found ${found.length}\n`)
  for (const drive of Host.drives) await server.createDrive(drive).catch(() => {})
  for (const { drive, id } of Host.documentsOf(order)) {
    await server.createDocument(drive, id).catch(() => {})
  }
  let written = found.length
  await Promise.all(
    Host.documentsOf(order).map(async ({ id }) => {
      while (written < order.operations) await server.execute(id, server.setName(`${id} ${written++}`))
    })
  )
  await untilApplied((await storedOf()).flatMap(({ length }) => [length, length]))
}

await (order.generation === 3 ? current() : former())
await runtime.dispose()
process.stdout.write("done\n")
process.exit()
