"""Each reader gets its own secrets, shared ones are the same, and none changes by itself."""

from collections.abc import Sequence
from pathlib import Path

from cryptography import x509

from services import WITH_DATABASE
from services.secrets import write_secrets

Files = dict[str, str]


def written(directory: Path, brokers: Sequence[str] = ()) -> Files:
    """Every file of the readers with its content, after one more run."""
    write_secrets(directory, postgres="db:5432", brokers=brokers)
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


def test_another_login_has_its_password(tmp_path: Path) -> None:
    write_secrets(tmp_path, postgres="db:5432", logins=["debezium"])

    password = (tmp_path / "debezium" / "password").read_text()
    assert password == (tmp_path / "all" / "postgres-debezium").read_text()


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


class TestWithBrokers:
    def test_each_login_has_a_password_of_its_own_and_the_authority(self, tmp_path: Path) -> None:
        files = written(tmp_path, ["kafka"])

        logins = [*(each.name for each in WITH_DATABASE), "verification"]
        passwords = {files[f"{each}/kafka_sasl_password"] for each in logins}
        assert len(passwords) == len(logins)
        assert {files[f"administrator/password_of_{each}"] for each in logins} == passwords
        assert {files[f"{each}/kafka_ca_file"] for each in logins} == {files["kafka/truststore"]}

    def test_the_authority_signs_the_brokers_and_their_administrator(self, tmp_path: Path) -> None:
        files = written(tmp_path, ["kafka", "kafka-2"])
        authority = x509.load_pem_x509_certificate(files["kafka/truststore"].encode())

        for file, name in (
            ("kafka/keystore", "broker"),
            ("administrator/kafka_certificate_file", "administrator"),
        ):
            signed = x509.load_pem_x509_certificate(files[file].encode())
            signed.verify_directly_issued_by(authority)
            assert signed.subject.rfc4514_string() == f"CN={name}"
        broker = x509.load_pem_x509_certificate(files["kafka/keystore"].encode())
        names = broker.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
        assert names.get_values_for_type(x509.DNSName) == ["kafka", "kafka-2", "localhost"]

    def test_no_service_has_a_key(self, tmp_path: Path) -> None:
        files = written(tmp_path, ["kafka"])

        holders = {name for name, content in files.items() if "PRIVATE KEY" in content}
        assert holders == {"kafka/keystore", "administrator/kafka_certificate_file"}

    def test_run_again_changes_nothing(self, tmp_path: Path) -> None:
        assert written(tmp_path, ["kafka"]) == written(tmp_path, ["kafka"])
