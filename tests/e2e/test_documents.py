"""Every process keeps what its API document says, also for requests that nobody would type."""

import httpx
import pytest

from local_cluster.testing import RunningCluster
from services import WITH_DATABASE, DeclaredService
from tests.documents import assert_keeps_its_document
from tests.e2e.people import Operator, Person

pytestmark = pytest.mark.xdist_group("e2e")

#: It is asked for what is below /ops too. That code is the same at the others, and asked for there
#: through the gateway only.
WITH_OPS = "accounts"
#: Its answer has no end.
BUT_STREAMS = "--exclude-path=/me/stream"


class TestADocument:
    async def test_of_the_public_listener_is_kept(
        self, cluster: RunningCluster, gateway: httpx.AsyncClient
    ) -> None:
        person = Person(gateway)
        await person.sign_up()

        await assert_keeps_its_document(
            cluster.gateway_url, await person.sign_in(), examples=5, options=[BUT_STREAMS]
        )

    async def test_of_the_operators_listener_is_kept(
        self, cluster: RunningCluster, operator: Operator
    ) -> None:
        await assert_keeps_its_document(
            cluster.operators_url, operator.headers, examples=1, options=["--phases=fuzzing"]
        )

    @pytest.mark.parametrize(
        "service", [each for each in WITH_DATABASE if each.operator_routes], ids=lambda it: it.name
    )
    async def test_of_a_service_is_kept_beside_what_the_gateway_forwards(
        self, cluster: RunningCluster, operator: Operator, service: DeclaredService
    ) -> None:
        paths = {path for _method, path in service.operations}
        forwarded = [f"--exclude-path={path}" for path in sorted(paths)]
        ops = [] if service.name == WITH_OPS else ["--exclude-path-regex=^/ops/"]

        await assert_keeps_its_document(
            cluster.url(service.name),
            operator.headers,
            examples=2,
            options=[BUT_STREAMS, *forwarded, *ops],
        )
