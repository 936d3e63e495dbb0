"""The contracts install and work where there is nothing but Python and pydantic."""

import re
import subprocess
import sys
import zipfile
from importlib.metadata import Distribution, distribution
from pathlib import Path

import pytest

from contracts.generated import HERE

READER = """
import sys
from pathlib import Path
import contracts, contracts.topics, contracts.asyncapi, contracts.generated
assert Path(contracts.__file__).is_relative_to(sys.prefix), contracts.__file__

{readme}

value = Path(contracts.__file__).parent / "examples" / "users.user-signed-up.v1.json"
print(signed_up(value.read_bytes()).username)
"""


def run(*command: str | Path, cwd: Path | None = None) -> str:
    completed = subprocess.run(command, cwd=cwd, check=False, capture_output=True, text=True)
    assert completed.returncode == 0, completed.stderr
    return completed.stdout


def pydantic_and_what_it_needs() -> dict[str, Distribution]:
    found: dict[str, Distribution] = {}
    wanted = ["pydantic"]
    while wanted:
        name = wanted.pop()
        if name not in found:
            found[name] = distribution(name)
            needs = [need for need in found[name].requires or [] if "extra ==" not in need]
            wanted += [re.split(r"[^A-Za-z0-9_.-]", need)[0] for need in needs]
    return found


@pytest.fixture(scope="module")
def python(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A Python in an environment of its own that holds pydantic, and nothing else of ours."""
    home = tmp_path_factory.mktemp("alone")
    run(sys.executable, "-m", "venv", "--without-pip", home)
    [packages] = home.glob("lib/python*/site-packages")
    for needed in pydantic_and_what_it_needs().values():
        for top in {file.parts[0] for file in needed.files or [] if file.parts[0] != ".."}:
            if top != "__pycache__":
                (packages / top).symlink_to(Path(str(needed.locate_file(top))))
    return home / "bin" / "python"


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    target = tmp_path_factory.mktemp("wheel")
    run(sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", target, cwd=HERE)
    [built] = target.glob("*.whl")
    return built


def test_the_wheel_holds_the_package_and_its_generated_files(wheel: Path) -> None:
    committed = {
        f"contracts/{path.relative_to(HERE)}"
        for pattern in ("*.py", "py.typed", "README.md", "*.json", "*/*.json")
        for path in HERE.glob(pattern)
    }

    packed = {name for name in zipfile.ZipFile(wheel).namelist() if ".dist-info/" not in name}

    assert packed == committed


def test_what_the_readme_shows_runs_with_nothing_but_pydantic(python: Path, wheel: Path) -> None:
    # No index: pip must find every requirement already there.
    run(sys.executable, "-m", "pip", "--python", python, "install", "--no-index", wheel)
    [shown] = re.findall(
        r"```python\n(.*?)```", (HERE / "README.md").read_text(encoding="utf-8"), re.DOTALL
    )

    # -I: neither this checkout nor PYTHONPATH is looked at.
    output = run(python, "-I", "-c", READER.format(readme=shown))

    assert output == "ada\n"
