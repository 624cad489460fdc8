"""Random scenarios of one kind of life at a time, which the mix of them may seldom draw."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.books.test_random_scenarios import the_books_say_what_happened
from tests.support.effort import examples
from tests.support.random_scenarios import KINDS, scenarios


@pytest.mark.parametrize("kind", KINDS)
@given(st.data())
@examples(2)
def test_the_books_say_what_happened_in_lives_of_one_kind(kind, data):
    the_books_say_what_happened(data, data.draw(scenarios(kind), label="scenario"))
