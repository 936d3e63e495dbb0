"""Each reader gets its own secrets, shared ones are the same, and none changes by itself."""

from pathlib import Path

from services import WITH_DATABASE
from services.secrets import write_secrets

Files = dict[str, str]


def written(directory: Path) -> Files:
    """Every file of the readers with its content, after one more run."""
    write_secrets(directory, postgres="db:5432")
    return {
        str(path.relative_to(directory)): path.read_text()
        for path in directory.glob("*/*")
        if path.parent.name != "all"
    }


def test_shared_ones_are_the_same_and_all_others_differ(tmp_path: Path) -> None:
    files = written(tmp_path)

    shared = files.pop("gateway/forward_secret")
    assert shared == files["users/gateway_secret"]
    assert all(len(value) >= 32 for value in files.values())
    assert len(set(files.values())) == len(files)


def test_a_service_with_a_database_has_the_password_of_its_own_login(tmp_path: Path) -> None:
    files = written(tmp_path)

    for service in (each.name for each in WITH_DATABASE):
        password = (tmp_path / "all" / f"postgres-{service}").read_text()
        url = f"postgresql://{service}:{password}@db:5432/{service}"
        assert files[f"{service}/database_url"] == url
    administrator = files["postgres/password"]
    url = f"postgresql://postgres:{administrator}@db:5432/postgres"
    assert files["postgres/database_url"] == url


def test_run_again_changes_nothing_but_what_was_removed(tmp_path: Path) -> None:
    before = written(tmp_path)
    assert written(tmp_path) == before

    (tmp_path / "all" / "gateway-forward").unlink()
    after = written(tmp_path)

    changed = {name for name in after if after[name] != before[name]}
    assert changed == {"gateway/forward_secret", "users/gateway_secret"}


def test_the_originals_are_for_their_owner_only(tmp_path: Path) -> None:
    written(tmp_path)

    originals = tmp_path / "all"
    assert originals.stat().st_mode & 0o077 == 0
    assert all(each.stat().st_mode & 0o077 == 0 for each in originals.iterdir())
