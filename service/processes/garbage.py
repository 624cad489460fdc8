"""How often Python looks for garbage: objects that only refer to each other."""

import gc

_THRESHOLDS = (100_000, 50, 100)  # new objects, collections of those, collections of the survivors


def collect_rarely() -> None:
    """Let this process look for garbage a hundred times less often than Python does by default.

    Events and rows are many, and none refers to what refers to it: looking for such took an eighth of the
    time of folding them.
    """
    gc.set_threshold(*_THRESHOLDS)
