"""Writes every text with samples, at start: what is broken is found now and not at night."""


def check() -> None:
    """See :func:`services.notification.texts.check`."""
