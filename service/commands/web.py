"""`daybook web`."""

from typing import Annotated

import structlog
import typer

import handlers
from service import bootstrap, settings
from service.commands.shell import AcceptLoss, Host, Port, command
from service.intake import versions
from service.processes import lifeline
from service.web import multiprocess as web_processes
from service.web import server

log = structlog.get_logger()


def web(
    *,
    workers: Annotated[int, typer.Option(min=1, help="Processes that share the port.")] = 1,
    accept_loss: AcceptLoss = None,
    host: Host = None,
    port: Port = None,
) -> None:
    """Receive webhooks and serve reads.

    Stops on SIGTERM or Ctrl-C. Exits 1 if the ledger lacks events that it had acknowledged, or a key,
    2 if a setting is wrong, 3 if it can't start.

    For example:

        daybook web
        daybook web --workers 4 --port 9000
    """
    with command(host=host, port=port) as given:
        lifeline.follow_lifeline()
        if names := settings.unknown_variables():
            log.warning("unknown_settings", variables=names, hint="nothing reads them")
        if not given.has_webhook_secret():
            log.warning("no_webhook_secret", hint="every webhook gets a 503 until a secret is set")
        if due := bootstrap.prepare(given, accept_loss=accept_loss):
            log.warning("retranslation_due", processors=due, command=versions.COMMAND)
        asked = [processor.name for processor in handlers.PROCESSORS if given.has_api(processor)]
        if asked and bootstrap.is_ledger_empty(given):
            log.info("history_missing", processors=asked, command="daybook backfill")
        if workers > 1:
            raise typer.Exit(web_processes.serve_many(given, workers))
        server.serve(given)
