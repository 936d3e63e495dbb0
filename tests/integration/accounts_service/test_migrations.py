"""The schema goes up, down and up again, and is what the tables say."""

from alembic import command

from chassis.migrations import config_of


def test_the_schema_goes_up_and_down_and_up_again_without_a_difference(database: str) -> None:
    config = config_of("accounts_service", database)
    command.upgrade(config, "heads")
    command.check(config)
    command.downgrade(config, "base")
    command.upgrade(config, "heads")
    command.check(config)
