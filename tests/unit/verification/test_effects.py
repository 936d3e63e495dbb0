"""The effects that the verification states are those of the services."""

from datetime import UTC, datetime

from accounts_service.adapters.currencies import CURRENCIES
from accounts_service.application.open_account import OpenAccountHandler
from accounts_service.entrypoints import agents as accounts_agents
from audit_service import records
from chassis.correlation import new_id
from contracts.topics import TOPICS
from users_service.application.create_onboarding_tasks import (
    ONBOARDING_TASKS,
    CreateOnboardingTasksHandler,
)
from users_service.entrypoints import agents as users_agents
from verification import effects
from verification.addresses import SERVICES


def now() -> datetime:
    return datetime.now(UTC)


class TestTheStatedEffects:
    def test_the_onboarding_tasks(self) -> None:
        assert tuple(each.value for each in ONBOARDING_TASKS) == effects.ONBOARDING_TASKS

    def test_who_opens_accounts_creates_tasks_and_keeps_records(self) -> None:
        accounts = accounts_agents.subscribers(
            OpenAccountHandler(new_id, now, currency=CURRENCIES["USD"])
        )
        users = users_agents.subscribers(CreateOnboardingTasksHandler(new_id, now))

        assert effects.OPENS_ACCOUNTS in {each.name for each in accounts}
        assert effects.CREATES_TASKS in {each.name for each in users}
        assert records.SUBSCRIBER == effects.KEEPS_RECORDS

    def test_every_topic_has_a_table_with_the_last_sequence_of_each_subject(self) -> None:
        operations = {f"{service}.operations" for service in SERVICES}

        assert {topic.name for topic in TOPICS} - operations == set(effects.AGGREGATES)
