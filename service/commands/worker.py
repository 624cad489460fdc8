"""`daybook worker`."""

import asyncio

from service import bootstrap
from service.clock import utc_now
from service.commands.shell import command
from service.core.errors import SettingsError
from service.processes import lifeline
from service.worker import main as books_worker


def worker() -> None:
    """Keep the books in step with the ledger.

    It needs a Redis or Valkey server in DAYBOOK_REDIS_URL; `daybook run` brings one.

    For example:

        daybook worker
    """
    with command() as settings:
        if not settings.redis_url:
            raise SettingsError(
                "DAYBOOK_REDIS_URL is unset; `daybook run` brings a server, a worker alone needs one"
            )
        lifeline.follow_lifeline()
        bootstrap.prepare(settings)
        asyncio.run(books_worker.work(settings, utc_now))
