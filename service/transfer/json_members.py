"""Bodies of deliveries in JSON files: the members of the files' documents."""

from collections.abc import Iterator

from service.core.rfc8259 import NOT_JSON
from service.transfer.importer import LineFault
from service.transfer.sources import ImportSource, list_members, read_documents

_MAX_BODY_BYTES = 1 << 20  # as of a webhook


def read_members(source: ImportSource, field: str) -> Iterator[tuple[int, bytes] | LineFault]:
    """Each body in a file, with its line: the members of its documents, or the documents themselves."""
    for line, document in read_documents(source.lines()):
        try:
            bodies = list_members(document, field)
        except NOT_JSON:
            yield LineFault(line=line, detail="it is no JSON")
            continue
        for body in bodies:
            if len(body) > _MAX_BODY_BYTES:
                yield LineFault(line=line, detail=f"it is over {_MAX_BODY_BYTES} bytes")
            else:
                yield line, body
