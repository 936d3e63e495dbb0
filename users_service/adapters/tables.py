"""The service's tables, and those that every service has."""

from sqlalchemy import (
    BigInteger,
    Boolean,
    Column,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    Table,
    Text,
    UniqueConstraint,
    Uuid,
)

from chassis.persistence import tables
from chassis.persistence.tables import Moment

metadata = MetaData(naming_convention=tables.NAMING)

users = Table(
    "users",
    metadata,
    Column("id", Uuid, primary_key=True),
    Column("username", Text, nullable=False),
    Column("email", Text, nullable=False),
    Column("password_hash", Text, nullable=False),
    Column("alias", Text),
    Column("active", Boolean, nullable=False),
    Column("roles", Text, nullable=False, comment="separated by spaces"),
    Column("created_at", Moment, nullable=False),
    Column("version", Integer, nullable=False),
    Column("sequence", BigInteger, nullable=False),
    UniqueConstraint("username"),
    UniqueConstraint("email"),
)

tasks = Table(
    "tasks",
    metadata,
    Column("id", Uuid, primary_key=True),
    Column("name", Text, nullable=False),
    Column("assignee_id", Uuid, nullable=False),
    Column("created_at", Moment, nullable=False),
    Column("version", Integer, nullable=False),
    Column("sequence", BigInteger, nullable=False),
    # A page of someone's tasks, newest first: ids are ordered by time.
    Index(None, "assignee_id", "id"),
)

sign_in_attempts = Table(
    "sign_in_attempts",
    metadata,
    Column("fingerprint", LargeBinary, primary_key=True, comment="whose: a keyed hash"),
    Column("count", Integer, nullable=False),
    Column("window_began_at", Moment, nullable=False),
    Index(None, "window_began_at"),
)

sign_in_networks = Table(
    "sign_in_networks",
    metadata,
    Column("fingerprint", LargeBinary, primary_key=True, comment="whose and where: keyed"),
    Column("signed_in_at", Moment, nullable=False),
    Index(None, "signed_in_at"),
)

tables.add_to(metadata)
