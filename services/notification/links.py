"""The short link by which a volunteer answers on a page: it has to fit into an SMS.

``/r/``, the answer code and eleven characters of a signature over the offer's id (docs/adr/0015).
"""

from uuid import UUID

from shared.security import Links

PURPOSE = "offer"
CODE_LENGTH = 5


def respond_link(links: Links, *, public_url: str, offer_id: UUID, answer_code: str) -> str:
    """The address of the page on which this offer is answered."""
    return f"{public_url.rstrip('/')}/r/{answer_code}{links.short(PURPOSE, offer_id.bytes)}"
