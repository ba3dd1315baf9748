"""Messages, attempts, the sandbox's phones, and the spine."""

from alembic import op

from shared.migrations import SPINE_0001, execute_all

revision = "notification_0001"
down_revision = None


def upgrade() -> None:
    """Create everything."""
    op.execute("SET LOCAL lock_timeout = '5s'")
    execute_all(SPINE_0001)
    execute_all("""
        CREATE TABLE messages (
            id uuid PRIMARY KEY,
            event_id uuid NOT NULL,
            case_id uuid NOT NULL,
            offer_id uuid NOT NULL,
            recipient uuid NOT NULL,
            purpose text NOT NULL,
            district text NOT NULL,
            drill boolean NOT NULL,
            phone text,
            email text,
            short_text text NOT NULL,
            subject text NOT NULL,
            long_text text NOT NULL,
            state text NOT NULL,
            channel text,
            error text,
            attempts integer NOT NULL,
            reported_at timestamptz NOT NULL,
            created_at timestamptz NOT NULL DEFAULT now(),
            next_attempt_at timestamptz NOT NULL DEFAULT now(),
            send_before timestamptz NOT NULL,
            sent_at timestamptz,
            CONSTRAINT messages_once UNIQUE (event_id, recipient, purpose),
            CONSTRAINT messages_state CHECK (
                state IN ('queued', 'sending', 'sent', 'failed', 'expired', 'unknown'))
        );
        CREATE INDEX messages_due ON messages (channel, next_attempt_at) WHERE state = 'queued';
        CREATE INDEX messages_case ON messages (case_id);

        CREATE TABLE attempts (
            id uuid PRIMARY KEY,
            message_id uuid NOT NULL REFERENCES messages,
            channel text NOT NULL,
            state text NOT NULL,
            provider_id text,
            error text,
            started_at timestamptz NOT NULL DEFAULT now(),
            lease_until timestamptz NOT NULL,
            ended_at timestamptz,
            CONSTRAINT attempts_state CHECK (state IN ('sending', 'sent', 'failed', 'unknown'))
        );
        CREATE INDEX attempts_open ON attempts (lease_until) WHERE state = 'sending';
        CREATE INDEX attempts_message ON attempts (message_id);

        CREATE TABLE sandbox_messages (
            idempotency_key uuid PRIMARY KEY,
            address text NOT NULL,
            body text NOT NULL,
            received_at timestamptz NOT NULL DEFAULT now()
        );
        CREATE INDEX sandbox_messages_received_at ON sandbox_messages (received_at);
    """)
