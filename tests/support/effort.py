"""How often tests try that try at random.

Their counts are those of CI. Elsewhere a quarter of each is tried, or what `TEST_EFFORT` says: 1 is as often
as on CI, 10 is ten times as often.
"""

import os
from math import ceil

from hypothesis import HealthCheck, Phase, settings

ON_CI = bool(os.environ.get("CI"))
EFFORT = float(os.environ.get("TEST_EFFORT") or (1 if ON_CI else 0.25))


def times(count: int) -> int:
    """How often to try what CI tries so often."""
    return ceil(count * EFFORT)


def examples(count: int) -> settings:
    """How many examples a property looks at. To explain a failure costs more than to find a smaller one."""
    return settings(
        max_examples=times(count),
        deadline=None,
        suppress_health_check=list(HealthCheck),
        phases=[phase for phase in Phase if phase is not Phase.explain],
    )
