/** Kinds of statements that there are not. */
import { Migrator, Namespace, Permit } from "../../../src/index.js"

const shop = Namespace.make("shop")

export const migrated = [
  Migrator.up(shop, {}, { statements: "schemas" }),
  Migrator.up(shop, {}, { statements: [...Permit.schema, "CREATE EXTENSON"] })
]
