"""What intake is told from outside."""

from shared.settings import Settings


class IntakeSettings(Settings):
    """Intake's own settings."""

    # Where reporters reach us; status links begin with it. Empty: the address of the request.
    public_url: str = ""
