"""Processors: a folder for each, and a line in the table. Pure: no database, clock or socket."""

from handlers import mxmerchant, standard, stripe

PROCESSORS = (stripe.PROCESSOR, mxmerchant.PROCESSOR, standard.PROCESSOR)
