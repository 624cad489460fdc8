"""`daybook worker`."""

import asyncio

from service import bootstrap
from service.clock import utc_now
from service.commands.shell import AcceptLoss, command
from service.core.errors import SettingsError
from service.processes import lifeline
from service.worker import main as books_worker


def worker(*, accept_loss: AcceptLoss = None) -> None:
    """Keep the books in step with the ledger.

    It needs a Redis or Valkey server in DAYBOOK_REDIS_URL; `daybook run` brings one. Exits 1 if the ledger
    lacks events that it had acknowledged, or a key.

    For example:

        daybook worker
    """
    with command() as settings:
        if not settings.redis_url:
            raise SettingsError(
                "DAYBOOK_REDIS_URL is unset; `daybook run` brings a server, a worker alone needs one"
            )
        lifeline.follow_lifeline()
        bootstrap.prepare(settings, accept_loss=accept_loss)
        asyncio.run(books_worker.work(settings, utc_now))
