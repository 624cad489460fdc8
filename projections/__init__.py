"""The books: one module each, and one line in the table `BOOKS`. Pure functions: no database, no clock."""

from projections.bills import BILLS
from projections.collections import COLLECTIONS
from projections.customers import CUSTOMERS
from projections.ignored import IGNORED
from projections.mrr import MRR
from projections.revenue import REVENUE
from projections.set_aside import SET_ASIDE

__all__ = ["BOOKS", "MRR"]

BOOKS = (MRR, BILLS, COLLECTIONS, CUSTOMERS, REVENUE, IGNORED, SET_ASIDE)
