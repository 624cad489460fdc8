"""Text that no store could hold is refused, and alike whichever store there is."""

from service.reads.catalog import READS
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
