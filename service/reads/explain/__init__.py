"""Explanations of figures: the rows of the books behind any number in a read's answer."""
