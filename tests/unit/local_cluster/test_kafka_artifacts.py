"""Only jars with the digest in the lock file are run."""

import hashlib
import os
import re
import ssl
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from local_cluster import kafka_artifacts
from local_cluster.errors import ClusterError
from local_cluster.kafka_artifacts import Artifact, kafka_jars, read_lock
from local_cluster.settings import REPOSITORY
from tests.certificates import Authority, Certificate

CONTENT = b"a jar"
JAR = Artifact("org.example", "broker", "1.0", hashlib.sha256(CONTENT).hexdigest())


def fail_on_report(text: str) -> None:
    raise AssertionError(f"nothing was to be done, but: {text}")


def cached(cache: Path, content: bytes) -> Path:
    jar = cache / "kafka" / JAR.filename
    jar.parent.mkdir(parents=True)
    jar.write_bytes(content)
    return jar


def serve(monkeypatch: pytest.MonkeyPatch, content: bytes) -> Counter[str]:
    """Have downloads answered with ``content``, and count them by jar."""
    downloads: Counter[str] = Counter()

    def download(artifact: Artifact, folder: Path) -> Path:
        downloads[artifact.name] += 1
        time.sleep(0.05)  # so that others run meanwhile
        jar = folder / f"{artifact.name}-{threading.get_ident()}.jar"
        jar.write_bytes(content)
        return jar

    monkeypatch.setattr(kafka_artifacts, "download", download)
    return downloads


class TestTheCache:
    def test_the_pinned_jar_is_used_as_it_is(self, tmp_path: Path) -> None:
        jar = cached(tmp_path, CONTENT)

        assert kafka_jars(tmp_path, fail_on_report, (JAR,)) == (jar,)

    def test_a_tampered_jar_is_refused_by_name(self, tmp_path: Path) -> None:
        jar = cached(tmp_path, CONTENT + b"!")

        with pytest.raises(ClusterError, match=f"{re.escape(str(jar))} is not broker 1.0 as pin"):
            kafka_jars(tmp_path, fail_on_report, (JAR,))

    def test_a_jar_that_the_lock_does_not_name_is_not_run(self, tmp_path: Path) -> None:
        jar = cached(tmp_path, CONTENT)
        (jar.parent / "stranger.jar").write_bytes(b"")

        assert kafka_jars(tmp_path, fail_on_report, (JAR,)) == (jar,)


class TestFetching:
    def test_what_is_missing_is_fetched_and_kept(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        serve(monkeypatch, CONTENT)
        reports: list[str] = []

        (jar,) = kafka_jars(tmp_path, reports.append, (JAR,))

        assert jar.read_bytes() == CONTENT
        assert reports == ["fetching 1 jars"]
        assert kafka_jars(tmp_path, fail_on_report, (JAR,)) == (jar,)

    def test_a_tampered_download_never_gets_into_the_cache(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        serve(monkeypatch, b"something else")

        with pytest.raises(ClusterError, match=r"is not broker 1\.0 as pinned"):
            kafka_jars(tmp_path, lambda _: None, (JAR,))

        assert not (tmp_path / "kafka" / JAR.filename).exists()

    def test_clusters_that_start_at_once_fetch_once(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        downloads = serve(monkeypatch, CONTENT)

        with ThreadPoolExecutor(8) as clusters:
            found = set(
                clusters.map(lambda _: kafka_jars(tmp_path, lambda _: None, (JAR,)), range(8))
            )

        assert len(found) == 1
        assert downloads == {"broker": 1}


@contextmanager
def repository(certificate: Certificate) -> Iterator[str]:
    """Serve the jar over HTTPS while the block runs; yield the URL."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200 if self.path.endswith("/broker-1.0.jar") else 404)
            self.end_headers()
            self.wfile.write(CONTENT)

        def log_message(self, *_: object) -> None:
            """Nothing is logged."""

    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate.certificate, certificate.key)
    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.socket = context.wrap_socket(server.socket, server_side=True)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield f"https://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def downloaded(home: Path, url: str, **variables: str) -> str:
    """Have another process, of a user with this home and mirror, fetch the jar; return its words.

    Another one, because what a process trusts is the same for all that it does.
    """
    (home / ".jgorc").write_text(f"[repositories]\nmirror = {url}\n")
    program = f"""
from pathlib import Path
from local_cluster.errors import ClusterError
from local_cluster.kafka_artifacts import Artifact, download
try:
    print(download(Artifact{(JAR.group, JAR.name, JAR.version, JAR.sha256)}, Path({str(home)!r})))
except ClusterError as error:
    print(error)
"""
    environment = {"PATH": os.environ["PATH"], "HOME": str(home), **variables}
    return subprocess.run(
        [sys.executable, "-c", program],
        env=environment,
        cwd=REPOSITORY,
        capture_output=True,
        text=True,
        check=True,
    ).stdout


class TestAMirrorWithAnAuthorityOfItsOwn:
    def test_is_trusted_where_the_system_trusts_it(self, tmp_path: Path) -> None:
        authority = Authority(tmp_path, "proxy")
        with repository(authority.sign("mirror", "127.0.0.1")) as url:
            jar = downloaded(tmp_path, url, SSL_CERT_FILE=str(authority.ca_file))

        assert Path(jar.strip()).read_bytes() == CONTENT

    def test_is_refused_else_with_what_to_do(self, tmp_path: Path) -> None:
        with repository(Authority(tmp_path, "proxy").sign("mirror", "127.0.0.1")) as url:
            refused = downloaded(tmp_path, url)

        assert refused.startswith("broker 1.0 could not be fetched: the certificate is not trusted")
        assert "REQUESTS_CA_BUNDLE" in refused
        assert refused.count("\n") == 1


class TestTheLock:
    def test_it_pins_every_jar_by_version_and_digest(self) -> None:
        artifacts = read_lock()

        assert {("kafka_2.13", "4.3.1"), ("kafka-tools", "4.3.1"), ("kafka-clients", "4.3.1")} <= {
            (artifact.name, artifact.version) for artifact in artifacts
        }
        assert all(re.fullmatch("[0-9a-f]{64}", artifact.sha256) for artifact in artifacts)

    def test_it_has_no_urls(self) -> None:
        assert "://" not in kafka_artifacts.LOCK.read_text()
