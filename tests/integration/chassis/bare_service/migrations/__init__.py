"""Every table that a service has before it has its own."""

from sqlalchemy import MetaData

from chassis.persistence.tables import NAMING, add_to

metadata = add_to(MetaData(naming_convention=NAMING))

__all__ = ["metadata"]
