"""A new processor is one folder, one line and its settings: with these it goes through every door."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

from tests.support.paths import ROOT

PARTS = ROOT / "tests" / "handlers" / "new_processor"
SETTINGS = """    meterly_secrets: List = ()
    meterly_api_key: str | None = None
    meterly_api_url: str | None = None
"""


def test_a_new_processor_is_one_folder_one_line_and_its_settings(tmp_path: Path) -> None:
    # given a copy of Daybook with a made-up processor
    copy = tmp_path / "copy"
    for room in ("handlers", "projections", "service"):
        shutil.copytree(ROOT / room, copy / room, ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copytree(PARTS / "meterly", copy / "handlers" / "meterly")
    table, settings = copy / "handlers" / "__init__.py", copy / "service" / "settings" / "__init__.py"
    replace(table, "standard.PROCESSOR)", "standard.PROCESSOR, meterly.PROCESSOR)")
    replace(table, "import mxmerchant,", "import meterly, mxmerchant,")
    replace(settings, "    stripe_webhook_secrets:", f"{SETTINGS}    stripe_webhook_secrets:")

    # when it is driven through every door
    ran = subprocess.run(
        [sys.executable, PARTS / "drive.py", tmp_path],
        env={**os.environ, "PYTHONPATH": f"{copy}{os.pathsep}{ROOT}"},
        cwd=tmp_path,
        check=False,
        capture_output=True,
        text=True,
    )

    assert ran.returncode == 0, ran.stderr


def replace(path: Path, old: str, new: str) -> None:
    text = path.read_text()
    assert text.count(old) == 1
    path.write_text(text.replace(old, new))
