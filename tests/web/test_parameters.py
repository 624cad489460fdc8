"""Text that no store could hold is refused, and alike whichever store there is."""

from service.reads.catalog import READS
from service.web.reads import common_parameters
from tests.support.running import Daybook
from tests.support.stores import EACH_STORE

STORES = EACH_STORE

UNPRINTABLE = ("%00", "a%00", "%0a", "%E2%80%AE")
CURSORS = ("%00", "AA==", "c3Vic2NyaXB0aW9ufABh", "7aCA")  # base64 of a NUL, of one within, of a surrogate
PAGED = [read.path for read in READS if read.page_parameter]
ASKED = (
    *((read.path, "account", text) for read in READS for text in UNPRINTABLE),
    *(("/api/v1/contracts", "status", text) for text in UNPRINTABLE),
    *((path, "cursor", text) for path in PAGED for text in CURSORS),
)


async def test_unprintable_text_is_400_and_names_its_parameter(daybook: Daybook) -> None:
    for path, name, text in ASKED:
        answer = await daybook.http.get(f"{path}?{name}={text}")

        assert answer.status_code == 400, (path, name, text)
        assert answer.json()["detail"].startswith(f"{name}:")


async def test_bytes_that_are_no_text_are_read_as_the_sign_for_them(daybook: Daybook) -> None:
    for text in ("%ED%A0%80", "%FF"):
        page = await daybook.get(f"/api/v1/contracts?account={text}&status={text}")
        assert page["contracts"] == []


async def test_a_parameter_that_is_there_twice_is_400_and_named(daybook: Daybook) -> None:
    for path, name in {
        (read.path, parameter.name) for read in READS for parameter in common_parameters(read)
    }:
        for query in (
            f"{name}=1&{name}=2",
            f"{name}=1&{name}=1",
            f"{name}=&{name}=1",
            f"{name}&%{ord(name[0]):x}{name[1:]}",
        ):
            answer = await daybook.http.get(f"{path}?{query}")

            assert answer.status_code == 400, (path, query)
            assert answer.json()["detail"] == f"{name}: once, not 2 times"


async def test_so_is_one_of_a_read_of_the_ledger(daybook: Daybook) -> None:
    for path in (
        "/api/v1/ledger/events",
        "/api/v1/quarantine",
        "/api/v1/restatements",
        "/api/v1/mrr/compare",
    ):
        answer = await daybook.http.get(f"{path}?limit=1&limit=2")

        assert answer.status_code == 400
        assert answer.json()["detail"] == "limit: once, not 2 times"
