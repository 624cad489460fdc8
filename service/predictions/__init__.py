"""Predictions: what the purchases and contracts so far say of each customer's next ones.

`model` and `student_t` are pure and are all that readers need; `fit` and `backtest` need numpy, and run in
the worker.
"""
