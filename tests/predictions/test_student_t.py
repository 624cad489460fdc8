"""Critical values of Student's t: those of printed tables, and what holds for all degrees of freedom."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.predictions.student_t import critical_value

NORMAL = {0.8: 1.2815515655446004, 0.95: 1.959963984540054, 0.99: 2.5758293035489004}
# as tables print them: degrees of freedom, then t for 80 %, 95 % and 99 % (two-sided)
PRINTED = """
1    3.07768 12.70620 63.65674
2    1.88562 4.30265 9.92484
3    1.63774 3.18245 5.84091
4    1.53321 2.77645 4.60409
5    1.47588 2.57058 4.03214
6    1.43976 2.44691 3.70743
7    1.41492 2.36462 3.49948
8    1.39682 2.30600 3.35539
9    1.38303 2.26216 3.24984
10   1.37218 2.22814 3.16927
11   1.36343 2.20099 3.10581
12   1.35622 2.17881 3.05454
13   1.35017 2.16037 3.01228
14   1.34503 2.14479 2.97684
15   1.34061 2.13145 2.94671
16   1.33676 2.11991 2.92078
17   1.33338 2.10982 2.89823
18   1.33039 2.10092 2.87844
19   1.32773 2.09302 2.86093
20   1.32534 2.08596 2.84534
21   1.32319 2.07961 2.83136
22   1.32124 2.07387 2.81876
23   1.31946 2.06866 2.80734
24   1.31784 2.06390 2.79694
25   1.31635 2.05954 2.78744
26   1.31497 2.05553 2.77871
27   1.31370 2.05183 2.77068
28   1.31253 2.04841 2.76326
29   1.31143 2.04523 2.75639
30   1.31042 2.04227 2.75000
60   1.29582 2.00030 2.66028
120  1.28865 1.97993 2.61742
1000 1.28240 1.96234 2.58075
"""
ROWS = [line.split() for line in PRINTED.split("\n") if line]


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row[0])
def test_the_values_are_those_that_tables_print(row: list[str]) -> None:
    degrees, *values = row
    assert [f"{critical_value(confidence, int(degrees)):.5f}" for confidence in NORMAL] == values


@pytest.mark.parametrize("confidence", NORMAL)
def test_with_many_degrees_of_freedom_the_value_nears_the_one_of_the_normal_distribution(
    confidence: float,
) -> None:
    z, degrees = NORMAL[confidence], 10_000
    expansion = z + (z**3 + z) / (4 * degrees)  # Fisher's, the first two terms
    assert critical_value(confidence, degrees) == pytest.approx(expansion, abs=1e-7)


@given(st.floats(0.01, 0.999))
def test_one_and_two_degrees_of_freedom_follow_their_own_formulas(confidence: float) -> None:
    assert critical_value(confidence, 1) == pytest.approx(math.tan(confidence * math.pi / 2), rel=1e-12)
    two = confidence * math.sqrt(2 / (1 - confidence**2))
    assert critical_value(confidence, 2) == pytest.approx(two, rel=1e-12)


@given(st.floats(0.01, 0.999), st.integers(1, 200))
def test_the_value_falls_as_degrees_of_freedom_are_added(confidence: float, degrees: int) -> None:
    assert critical_value(confidence, degrees + 1) < critical_value(confidence, degrees)
