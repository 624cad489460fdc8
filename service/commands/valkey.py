"""`daybook valkey`."""

from service.commands.shell import command
from service.processes import lifeline
from service.queue import valkey as embedded


def valkey() -> None:
    """Serve the embedded Valkey of this data directory, which run starts.

    For example:

        daybook valkey
    """
    with command() as settings:
        lifeline.follow_lifeline()
        embedded.serve(settings.data_dir)
