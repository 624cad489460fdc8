"""Predictions: what the purchases and contracts so far say of each customer's next ones.

`model` is pure and is all that readers need; `fit` and `backtest` need numpy and lifelines, and run in the
worker.
"""
