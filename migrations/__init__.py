"""The database's schema, step by step. `bot.store.database` runs these steps; each is tested with rows in it."""
