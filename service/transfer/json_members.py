"""What imports of JSON have in common: the members of a file's documents, as bodies."""

from collections.abc import Iterator

from service.transfer.importer import Fault
from service.transfer.sources import NO_JSON, Source, documents, members

_BODY_BYTES = 1 << 20  # as of a webhook


def members_of(source: Source, field: str) -> Iterator[tuple[int, bytes] | Fault]:
    """Each body of a file: what its documents list under `field`, or the documents."""
    for line, document in documents(source.lines()):
        try:
            bodies = members(document, field)
        except NO_JSON:
            yield Fault(line=line, detail="it is no JSON")
            continue
        for body in bodies:
            if len(body) > _BODY_BYTES:
                yield Fault(line=line, detail=f"it is over {_BODY_BYTES} bytes")
            else:
                yield line, body
