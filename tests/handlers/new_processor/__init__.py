"""A made-up processor, "meterly": a test adds its folder, its line and its setting to a copy of Daybook."""
