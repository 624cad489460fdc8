"""Rebuild: the books made anew beside the live ones, and put in their place."""
