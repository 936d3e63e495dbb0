"""The generated files as they are committed: what readers may depend on already."""

import io
import json
import subprocess
import tarfile
from collections.abc import Mapping
from pathlib import Path

from contracts.json_schemas import Json


def published(directory: Path) -> Mapping[str, Json]:
    """Return the schemas and the AsyncAPI document, by their paths below ``directory``.

    In a checkout they are those of git's HEAD, so that a draft may change until it is committed.
    Anywhere else, for example where the package is installed, they are the files as they are.
    """
    try:
        _git(directory, "rev-parse", "--show-toplevel")
    except (OSError, subprocess.CalledProcessError):
        return {str(path.relative_to(directory)): _read(path) for path in _files(directory)}
    try:
        # In a subdirectory, git archives only that one.
        archive = _git(directory, "archive", "--format=tar", "HEAD")
    except subprocess.CalledProcessError:
        return {}  # no commit yet, or none with this directory
    with tarfile.open(fileobj=io.BytesIO(archive)) as tar:
        return {
            each.name: json.loads(content.read())
            for each in tar
            if _is_published(Path(each.name)) and (content := tar.extractfile(each))
        }


def _git(directory: Path, *arguments: str) -> bytes:
    return subprocess.run(  # noqa: S603 - no input of others
        # Also where another user owns the checkout.
        ["git", "-c", "safe.directory=*", *arguments],  # noqa: S607 - the git on the path
        cwd=directory,
        check=True,
        capture_output=True,
    ).stdout


def _files(directory: Path) -> list[Path]:
    return [
        path
        for path in (directory / "asyncapi.json", *directory.glob("schemas/*.json"))
        if path.exists()
    ]


def _is_published(path: Path) -> bool:
    return path == Path("asyncapi.json") or (
        path.parent == Path("schemas") and path.suffix == ".json"
    )


def _read(path: Path) -> Json:
    content: Json = json.loads(path.read_text(encoding="utf-8"))
    return content
