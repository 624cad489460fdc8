"""Reads about customers: one of them, and lists of them."""
