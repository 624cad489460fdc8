"""The demo: November 2025, posted over HTTP like a processor would, then read back over HTTP."""

from service.demo.runner import show

__all__ = ["show"]
