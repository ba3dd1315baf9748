"""When a district's SMS have reached their ceiling; how often a reporter has been written to."""

from alembic import op

from shared.migrations import execute_all

revision = "notification_0040"
down_revision = "notification_0020"


def upgrade() -> None:
    """The version before knows no ceiling and writes as often as it did."""
    op.execute("SET LOCAL lock_timeout = '5s'")
    execute_all("""
        ALTER TABLE spending ADD COLUMN ceiling_told_at timestamptz;
        CREATE INDEX messages_reporter_phone ON messages (phone, created_at)
            WHERE purpose IN ('acknowledged', 'news_accepted', 'news_closed');
        CREATE INDEX messages_reporter_email ON messages (lower(email), created_at)
            WHERE purpose IN ('acknowledged', 'news_accepted', 'news_closed');
    """)
