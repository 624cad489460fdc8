"""`daybook run`."""

import typer

from service.commands.shell import Host, Port, command
from service.processes import supervisor


def run(*, host: Host = None, port: Port = None) -> None:
    """Start everything: the embedded Valkey, the web process and the worker. Ctrl-C stops it all.

    With DAYBOOK_REDIS_URL set, that server is used and none is started.

    For example:

        daybook run
        daybook run --port 9000
    """
    with command(host=host, port=port) as settings:
        raise typer.Exit(supervisor.supervise(settings))
