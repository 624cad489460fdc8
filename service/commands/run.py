"""`daybook run`."""

from functools import partial

import typer

from service import bootstrap
from service.commands.shell import AcceptLoss, Host, Port, command
from service.processes import supervisor


def run(*, accept_loss: AcceptLoss = None, host: Host = None, port: Port = None) -> None:
    """Start everything: the embedded Valkey, the web process and the worker. Ctrl-C stops it all.

    With DAYBOOK_REDIS_URL set, that server is used and none is started. Exits 1 if the ledger lacks events
    that it had acknowledged, or a key.

    For example:

        daybook run
        daybook run --port 9000
    """
    with command(host=host, port=port) as settings:
        raise typer.Exit(
            supervisor.supervise(settings, partial(bootstrap.prepare, settings, accept_loss=accept_loss))
        )
