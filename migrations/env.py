"""How alembic runs the steps: on the connection that `bot.store.database` hands over, or on a database of its own.

Alembic loads this file itself, inside `alembic.context`. Its own command line, for making a new step, needs
`sqlalchemy.url` in its configuration.
"""

import asyncio

from alembic import context
from sqlalchemy import Connection
from sqlalchemy.ext.asyncio import create_async_engine

from bot.store.tables import metadata


def run_migrations(connection: Connection) -> None:
    """Run the wanted steps in the connection's transaction."""
    # SQLite changes most things by rebuilding the table: batch.
    context.configure(connection=connection, target_metadata=metadata, render_as_batch=True)
    with context.begin_transaction():
        context.run_migrations()


async def run_on_own_database() -> None:
    """Open the database that alembic's own configuration names."""
    url = context.config.get_main_option("sqlalchemy.url")
    if not url:
        raise SystemExit("name the database in alembic's configuration: sqlalchemy.url = sqlite+aiosqlite:///FILE")
    engine = create_async_engine(url)
    try:
        async with engine.begin() as connection:
            await connection.run_sync(run_migrations)
    finally:
        await engine.dispose()


handed_over = context.config.attributes.get("connection")
if handed_over is not None:
    run_migrations(handed_over)
else:
    asyncio.run(run_on_own_database())
