"""Receipts, look-ups and budgets beside messages; who was asked, what came in, who wants none."""

from alembic import op

from shared.migrations import execute_all

revision = "notification_0003"
down_revision = "notification_0002"


def upgrade() -> None:
    """Grow what is there; messages that wait keep their meaning."""
    op.execute("SET LOCAL lock_timeout = '5s'")
    execute_all("""
        ALTER TABLE messages
            ADD COLUMN routes text[] NOT NULL DEFAULT '{}',
            ADD COLUMN urgent boolean NOT NULL DEFAULT false,
            ADD COLUMN segments integer NOT NULL DEFAULT 1,
            ADD COLUMN receipt_by timestamptz,
            ADD COLUMN look_up_at timestamptz,
            ADD COLUMN look_ups integer NOT NULL DEFAULT 0,
            ADD COLUMN delivered_at timestamptz,
            DROP CONSTRAINT messages_state,
            ADD CONSTRAINT messages_state CHECK (state IN (
                'queued', 'sending', 'sent', 'delivered', 'failed', 'expired', 'unknown',
                'withdrawn'));
        CREATE INDEX messages_receipt_by ON messages (receipt_by) WHERE receipt_by IS NOT NULL;
        CREATE INDEX messages_look_up_at ON messages (channel, look_up_at)
            WHERE look_up_at IS NOT NULL;
        CREATE INDEX messages_recipient ON messages (recipient, created_at);

        ALTER TABLE attempts
            ADD COLUMN segments integer NOT NULL DEFAULT 0,
            ADD COLUMN receipt text,
            ADD COLUMN receipt_at timestamptz,
            ADD CONSTRAINT attempts_receipt CHECK (
                receipt IN ('sent', 'delivered', 'undelivered'));
        CREATE INDEX attempts_provider_id ON attempts (channel, provider_id)
            WHERE provider_id <> '';

        CREATE TABLE receipts (
            id uuid PRIMARY KEY,
            channel text NOT NULL,
            provider_id text,
            message_id uuid,
            state text NOT NULL,
            error text,
            received_at timestamptz NOT NULL DEFAULT now(),
            CONSTRAINT receipts_state CHECK (state IN ('sent', 'delivered', 'undelivered')),
            CONSTRAINT receipts_once UNIQUE NULLS NOT DISTINCT (
                channel, provider_id, message_id, state)
        );
        CREATE INDEX receipts_received_at ON receipts (received_at);
        CREATE INDEX receipts_message ON receipts (channel, message_id)
            WHERE message_id IS NOT NULL;

        CREATE TABLE asked (
            offer_id uuid PRIMARY KEY,
            kind text NOT NULL,
            case_id uuid NOT NULL,
            district text NOT NULL,
            drill boolean NOT NULL,
            volunteer_id uuid NOT NULL,
            phone text,
            email text,
            language text NOT NULL,
            answer_code text NOT NULL,
            respond_by timestamptz NOT NULL,
            made jsonb NOT NULL,
            reporter jsonb,
            outcome text,
            asked_at timestamptz NOT NULL DEFAULT now(),
            CONSTRAINT asked_kind CHECK (kind IN ('offer', 'ping'))
        );
        CREATE INDEX asked_code ON asked (answer_code, asked_at);
        CREATE INDEX asked_phone ON asked (phone, asked_at);
        CREATE INDEX asked_email ON asked (lower(email), asked_at);

        CREATE TABLE stops (
            address text NOT NULL,
            kind text NOT NULL,
            since timestamptz NOT NULL DEFAULT now(),
            PRIMARY KEY (address, kind)
        );

        CREATE TABLE spending (
            district text NOT NULL,
            day date NOT NULL,
            segments integer NOT NULL,
            warned_at timestamptz,
            PRIMARY KEY (district, day)
        );

        CREATE TABLE inbound (
            id uuid PRIMARY KEY,
            channel text NOT NULL,
            kind text NOT NULL,
            provider_id text NOT NULL,
            sender text NOT NULL,
            body text NOT NULL,
            meaning text NOT NULL,
            why text,
            offer_id uuid,
            received_at timestamptz NOT NULL DEFAULT now(),
            CONSTRAINT inbound_once UNIQUE (channel, provider_id)
        );
        CREATE INDEX inbound_sender ON inbound (sender, received_at);
        CREATE INDEX inbound_received_at ON inbound (received_at);
    """)
