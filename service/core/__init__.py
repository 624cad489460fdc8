"""The vocabulary: money, cadence, events, order, errors. Pure; imports none of us."""
