"""What peers write for a sign-up, to the tables that ``benchmarks.journeys`` makes.

It needs nothing but SQLAlchemy, which each peer has.
"""

from sqlalchemy import text

TASK_NAMES = ("Read the project documentation", "Complete your profile")
USER = text("INSERT INTO users (id, username, email) VALUES (:id, :name, :email)")
TASK = text("INSERT INTO tasks (id, assignee_id, name) VALUES (:id, :user, :name)")
ACCOUNT = text("INSERT INTO accounts (id, user_id, balance) VALUES (:id, :user, 0)")
ENTRY = text(
    "INSERT INTO entries (id, account_id, amount, description) VALUES (:id, :account, 0, 'Initial')"
)
RECORD = text(
    "INSERT INTO records (id, type, subject, payload) VALUES (:id, :type, :subject, :payload)"
)
