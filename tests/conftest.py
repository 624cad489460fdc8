import os

from hypothesis import settings

# Random where people run it, so that it keeps looking; the same examples every time where a machine does.
settings.register_profile("ci", derandomize=True, deadline=None)
settings.register_profile("people", deadline=None)
settings.load_profile("ci" if os.environ.get("CI") else "people")
