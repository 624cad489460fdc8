"""`daybook backfill stripe` at a moment that stands still: its seconds since 1970 are the argument."""

import sys

import time_machine

from service.cli import app

if __name__ == "__main__":
    time_machine.travel(int(sys.argv[1]), tick=False).start()
    app(["backfill", "stripe"])
