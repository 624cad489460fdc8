"""Older code knows neither the event by which a loss is accepted, nor bodies that are bound to their rows.

It can't read what is written from now on.
"""

from alembic import op

revision = "0008"
down_revision = "0007"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Say which schema code must know at least."""
    op.execute("UPDATE compatibility SET oldest = '0008'")
