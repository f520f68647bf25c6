/**
 * The traits of a connection: whether it is like one that is opened anew, so that a transaction means the same on both.
 *
 *     PRAGMA foreign_keys = OFF · ATTACH … · CREATE TEMP TABLE … · an extension      from then on it is not
 *     a backup of it                                                                 not as long as that takes
 */

export interface Traits {
  /** Once it is not plain, it never is again. */
  isPlain: boolean
  /** Backups that run: one begins anew whenever another connection writes. */
  backups: number
}

/** Those of a connection that was just opened. */
export const make = (): Traits => ({ isPlain: true, backups: 0 })

/** Notices what a statement may change about the connection. It is enough that each text comes here once. */
export const notice = (traits: Traits, text: string): void => {
  if (traits.isPlain && changesConnection(text)) traits.isPlain = false
}

const space = String.raw`(?:\s|--[^\n]*(?:\n|$)|\/\*[^]*?\*\/)`
const first = new RegExp(`^(?:${space}|;)*(pragma|attach|detach|create)\\b`, "i")
/** Those that ask something, or end with the transaction, or are taken back by the framework itself. */
const harmless = new RegExp(
  `^(?:${space}|;)*pragma${space}+(?:data_version|database_list|defer_foreign_keys|foreign_key_check|` +
    "foreign_key_list|index_info|index_list|index_xinfo|integrity_check|query_only|quick_check|table_info|" +
    "table_list|table_xinfo|user_version|wal_checkpoint)\\b",
  "i"
)

const changesConnection = (text: string): boolean => {
  const keyword = first.exec(text)?.[1]?.toLowerCase()
  if (keyword === undefined) return false
  return keyword === "create" ? /\btemp(?:orary)?\b/i.test(text) : !harmless.test(text)
}
