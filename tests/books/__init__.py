"""The books: each rule by itself, and all of them over lives made at random."""
