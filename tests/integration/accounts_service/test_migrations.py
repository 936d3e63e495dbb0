"""The schema can be migrated up, down and up again, and equals the declared tables."""

from alembic import command

from chassis.migrations import config_of


def test_the_schema_can_be_migrated_up_down_and_up_again(database: str) -> None:
    config = config_of("accounts_service", database)
    command.upgrade(config, "heads")
    command.check(config)
    command.downgrade(config, "base")
    command.upgrade(config, "heads")
    command.check(config)
