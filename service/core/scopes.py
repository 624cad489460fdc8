"""The scopes of a read key: what a request that carries the key may see and do."""

FIGURES = "figures"  # every read; customers' names and e-mail addresses are null
PEOPLE = "people"  # names, e-mail addresses and raw bodies
METRICS = "metrics"  # the metrics of the service
OPERATE = "operate"  # whatever changes something
SCOPES = (FIGURES, PEOPLE, METRICS, OPERATE)
DEFAULT_SCOPES = frozenset(SCOPES) - {OPERATE}  # of a key that names none
