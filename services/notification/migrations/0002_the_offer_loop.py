"""The offer loop: messages beside offers, what became of each offer, answers on the fake phones."""

from alembic import op

from shared.migrations import execute_all

revision = "notification_0002"
down_revision = "notification_0001"


def upgrade() -> None:
    """Grow what is there; messages that wait keep their meaning."""
    op.execute("SET LOCAL lock_timeout = '5s'")
    execute_all("""
        ALTER TABLE messages
            ALTER COLUMN offer_id DROP NOT NULL,
            ALTER COLUMN reported_at DROP NOT NULL,
            ALTER COLUMN recipient TYPE text USING CAST(recipient AS text),
            ADD COLUMN answer_code text,
            DROP CONSTRAINT messages_state,
            ADD CONSTRAINT messages_state CHECK (state IN (
                'queued', 'sending', 'sent', 'failed', 'expired', 'unknown', 'withdrawn'));
        CREATE INDEX messages_offer ON messages (offer_id);

        CREATE TABLE offer_states (
            offer_id uuid PRIMARY KEY,
            state text NOT NULL,
            changed_at timestamptz NOT NULL DEFAULT now(),
            heard_at timestamptz NOT NULL DEFAULT now(),
            CONSTRAINT offer_states_state CHECK (
                state IN ('open', 'accepted', 'arrived', 'ended'))
        );

        ALTER TABLE sandbox_messages ADD COLUMN arrival bigint NOT NULL
            DEFAULT CAST(CAST(pg_current_xact_id() AS text) AS bigint);
        CREATE INDEX sandbox_messages_arrival ON sandbox_messages (arrival);
        CREATE INDEX sandbox_messages_address ON sandbox_messages (address, received_at);

        CREATE TABLE sandbox_answers (
            event_id uuid PRIMARY KEY,
            offer_id uuid NOT NULL,
            address text NOT NULL,
            body text NOT NULL,
            given_at timestamptz NOT NULL DEFAULT now()
        );
        CREATE INDEX sandbox_answers_address ON sandbox_answers (address, given_at);
        CREATE INDEX sandbox_answers_offer ON sandbox_answers (offer_id);
    """)
