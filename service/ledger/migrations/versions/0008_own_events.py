"""Older code knows neither the event by which a loss is accepted, nor bodies that are bound to their rows.

It can't read what is written from now on. Cursors have a digest now, which takes the master key; those
without one would count as none, so they are removed.
"""

from alembic import op

revision = "0008"
down_revision = "0007"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Remove the cursors, and say which schema code must know at least."""
    op.execute("DELETE FROM cursors")
    op.execute("UPDATE compatibility SET oldest = '0008'")
