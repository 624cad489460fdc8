"""Rebuild: books built anew beside the live ones, and made live in their place."""
