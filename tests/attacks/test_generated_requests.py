"""Requests that schemathesis makes from the API's own description, to a service that runs.

It holds that each answer is described, has the shape that is described, and that a request without a key is
refused; for a minute on CI.
"""

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.effort import times
from tests.support.processes import DaybookProcesses, post

SECONDS = times(60)
KEY = "the-key-of-generated-requests"
SETTINGS = """
[checks]
# 503 and 504 are described: a store is away, too many ask, or `at_least` was not reached in time
not_a_server_error.expected-statuses = ["2xx", "3xx", "4xx", 503, 504]
# which parameters go together, and what proves a webhook, is said in words only
positive_data_acceptance.enabled = false
# of a processor without a secret nothing is checked, and a biller that is in no setting is not found
missing_required_header.expected-statuses = [400, 401, 404, 503]
"""


@pytest.fixture
def daybook(tmp_path: Path) -> Iterator[DaybookProcesses]:
    with DaybookProcesses(tmp_path) as daybook:
        daybook.environment["DAYBOOK_API_KEYS"] = f"{KEY}:figures+people+metrics"
        daybook.start("run")
        daybook.wait_ready()
        yield daybook


def test_no_generated_request_is_answered_otherwise_than_described(daybook: DaybookProcesses) -> None:
    for number in range(20):
        assert post(daybook, number).status_code == 200
    (daybook.data_dir / "schemathesis.toml").write_text(SETTINGS)

    found = subprocess.run(
        [
            *(Path(sys.executable).parent / "schemathesis", "run", f"{daybook.url}/openapi.json"),
            *(
                "--max-time",
                str(SECONDS),
                "--request-timeout",
                "40",
                "--header",
                f"Authorization: Bearer {KEY}",
            ),
            *("--continue-on-failure", "--generation-deterministic"),
        ],
        cwd=daybook.data_dir,
        capture_output=True,
        text=True,
        check=False,
        timeout=600,
    )

    assert found.returncode == 0, found.stdout
    assert "Tested" in found.stdout
