"""What the garbage collector does while a ``__main__`` imports, and afterwards."""

import gc
import subprocess
import sys

import pytest

from services.importing import importing


def test_nothing_is_collected_during_the_imports_and_everything_afterwards() -> None:
    with importing():
        during = gc.isenabled()

    assert (during, gc.isenabled()) == (False, True)


def test_what_was_imported_is_left_out_of_later_collections() -> None:
    code = (
        "import gc\nfrom services.importing import importing\n"
        "with importing():\n    import sqlalchemy\n"
        "print(gc.get_freeze_count() > 10_000, len(gc.get_objects()) < 1_000)"
    )

    ended = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)

    assert ended.stdout.split() == ["True", "True"]


def test_an_import_that_fails_leaves_the_collector_on() -> None:
    with pytest.raises(ImportError), importing():
        raise ImportError

    assert gc.isenabled()
