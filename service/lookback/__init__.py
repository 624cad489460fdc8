"""Look back: the books as they were known, and what later events changed of days already gone."""
