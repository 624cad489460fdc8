"""Books: one file each, and one line in this table. Pure: they know money and nothing else."""

from projections.bills import BILLS
from projections.collections import COLLECTIONS
from projections.customers import CUSTOMERS
from projections.mrr import MRR
from projections.revenue import REVENUE

__all__ = ["BOOKS", "MRR"]

BOOKS = (MRR, BILLS, COLLECTIONS, CUSTOMERS, REVENUE)
