/**
 * Disk: a small file system of its own whose power can be cut, as that of the machine under it cannot.
 *
 *     sparse file ─▶ ext4 ─▶ mounted ─▶ cut: what no sync has written is gone, and nothing works any more ─▶ mounted again
 *
 * A cut is ext4's own shutdown (`EXT4_IOC_SHUTDOWN`), which neither flushes its journal nor writes what waits in memory.
 * What was synced is in the file; that the file itself outlives the machine is not what is tested here. A janitor clears away
 * what a test run leaves that is killed: a shell whose stdin we hold.
 */
import * as Effect from "effect/Effect"
import type * as Scope from "effect/Scope"
import { execFileSync, spawn } from "node:child_process"
import { once } from "node:events"
import { chmodSync, mkdirSync, mkdtempSync, rmSync } from "node:fs"
import { tmpdir } from "node:os"
import { join } from "node:path"

export interface Disk {
  /** Every user may pass through it. */
  readonly directory: string
  /** Writes all that waits in memory. */
  readonly settle: Effect.Effect<void>
  /**
   * From here on every write to it fails, and what was not synced is lost. A sync that is under way at that very moment may be
   * answered with success and be lost all the same, as no power cut does: whoever counts on answers has to stand still.
   */
  readonly cut: Effect.Effect<void>
  /** The power is back. Nobody may have a file of it open, which is waited for. */
  readonly restore: Effect.Effect<void>
}

const megabytes = 600

const sh = (file: string, ...args: ReadonlyArray<string>): void => {
  execFileSync(file, args, { stdio: ["ignore", "ignore", "pipe"] })
}

/** A disk for as long as the scope lasts. */
export const make: Effect.Effect<Disk, never, Scope.Scope> = Effect.map(
  Effect.acquireRelease(
    Effect.sync(() => {
      const root = mkdtempSync(join(tmpdir(), "effect-processors-power-"))
      chmodSync(root, 0o755)
      const image = join(root, "image")
      const directory = join(root, "disk")
      mkdirSync(directory)
      const mount = () => sh("mount", "-o", "loop", image, directory)
      try {
        sh("truncate", "-s", `${megabytes}M`, image)
        sh("mkfs.ext4", "-q", "-F", "-E", "lazy_itable_init=1,nodiscard", image)
        mount()
      } catch (cause) {
        rmSync(root, { recursive: true })
        throw cause
      }
      const janitor = spawn("sh", ["-c", janitorScript, root], {
        cwd: "/",
        stdio: ["pipe", "ignore", "inherit"],
        detached: true
      })
      return { directory, mount, janitor }
    }),
    ({ directory, janitor }) =>
      Effect.zipRight(
        unmounted(directory),
        Effect.promise(() => {
          const gone = once(janitor, "exit")
          janitor.stdin.end()
          return gone
        })
      )
  ),
  ({ directory, mount }) => ({
    directory,
    settle: Effect.sync(() => sh("sync", "-f", directory)),
    cut: Effect.sync(() => sh("perl", "-e", shutdown, directory)),
    restore: Effect.zipRight(unmounted(directory), Effect.sync(mount))
  })
)

/** Whoever runs on the disk may outlive us for a moment. */
const janitorScript = `
  cat > /dev/null
  tries=0
  while mountpoint -q "$0/disk" && [ $((tries += 1)) -lt 100 ]; do umount "$0/disk" 2> /dev/null || sleep 0.1; done
  rm -rf "$0"
`

/** `_IOR('X', 125, __u32)`, with the flag that says not to flush the journal. */
const shutdown = `
  open(my $disk, "<", $ARGV[0]) or die $!;
  my $flags = pack("I", 2);
  ioctl($disk, 0x8004587d, $flags) or die $!;`

/** Whoever has just ended may not have let go of it yet; a lazy unmounting would leave two file systems on one file. */
const unmounted = (directory: string): Effect.Effect<void> =>
  Effect.try(() => sh("umount", directory)).pipe(
    Effect.tapError(() => Effect.sleep(50)),
    Effect.retry({ times: 200 }),
    Effect.orDie
  )

/** Why this machine has no such disks; `undefined` where it has. */
export const missing: Effect.Effect<string | undefined> = Effect.suspend(() => {
  if (process.platform !== "linux") return Effect.succeed("not on Linux")
  if (process.getuid?.() !== 0) return Effect.succeed("not root")
  return Effect.scoped(Effect.flatMap(make, ({ cut }) => cut)).pipe(
    Effect.as(undefined),
    Effect.catchAllDefect((defect) =>
      Effect.succeed(defect instanceof Error ? defect.message.split("\n")[0]! : String(defect))
    )
  )
})
