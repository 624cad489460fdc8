"""Student's t distribution for whole degrees of freedom, by the closed forms of its probability.

They are 26.7.3 and 26.7.4 of Abramowitz and Stegun, Handbook of Mathematical Functions (1964).
"""

import math
from functools import cache

_HALVINGS = 60  # of an interval of length π/2: to less than a float can tell


@cache
def critical_value(confidence: float, degrees: int) -> float:
    """The t for which P(|T| ≤ t) is `confidence`: 2.5706 for 0.95 and 5 degrees of freedom."""
    low, high = 0.0, math.pi / 2
    for _ in range(_HALVINGS):
        middle = (low + high) / 2
        low, high = (middle, high) if _probability(middle, degrees) < confidence else (low, middle)
    return math.sqrt(degrees) * math.tan(low)


def _probability(angle: float, degrees: int) -> float:
    """P(|T| ≤ √degrees × tan(angle)), by a sum of powers of the cosine: the even ones for even degrees."""
    cosine, odd = math.cos(angle), degrees % 2
    total, term = 0.0, cosine if odd else 1.0
    for power in range(odd, degrees - 1, 2):
        total += term
        term *= cosine**2 * (power + 1) / (power + 2)
    total *= math.sin(angle)
    return (angle + total) * 2 / math.pi if odd else total
