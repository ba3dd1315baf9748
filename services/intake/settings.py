"""What intake is told from outside."""

from datetime import timedelta
from typing import Annotated, ClassVar

import limits
from limits import RateLimitItem
from pydantic import BeforeValidator, InstanceOf

from shared.settings import AgencySettings, PublicSettings


def _limit(value: object) -> object:
    if not isinstance(value, str):
        return value
    try:
        (parsed,) = limits.parse_many(value)
        timedelta(seconds=parsed.get_expiry())
    except (ValueError, OverflowError):
        raise ValueError("must be one limit, written as 10/hour") from None
    if parsed.amount < 1:
        raise ValueError("must allow 1 at least")
    return parsed


# Such as `10/hour` or `5 per day`, in the words of the library `limits`.
Limit = Annotated[InstanceOf[RateLimitItem], BeforeValidator(_limit)]


class IntakeSettings(AgencySettings, PublicSettings):
    """Intake's own settings. Limits are for strangers: who shows the agency's token has none."""

    # Where reporters reach us; status links begin with it. Nothing, in development only: this
    # machine, at the port that was asked.
    public_url: str = ""
    _may_be_nothing_in: ClassVar[tuple[str, ...]] = ("development",)

    # What an address sends beyond this is kept, and looked at by the duty officer before anybody
    # is asked. A district's 112 had 22 incidents in 2,072 calls: ten in an hour from one place is
    # no single reporter. It may be a whole carrier behind one address on a bad day, so nothing is
    # lost by it but minutes; a desk shows its token.
    reports_per_address: Limit = limits.parse("10/hour")
    # Beyond this nothing is stored any more. One every six seconds for an hour is no carrier of a
    # district of 200,000 people even on its worst day; below it a flood of one address is a list
    # that an officer can go through.
    floods_per_address: Limit = limits.parse("600/hour")
    # A village head may report five people in a day. Whoever gives a stranger's number for a joke
    # gives it more often, and the officer sees it.
    reports_per_contact: Limit = limits.parse("5/day")
    # Codes that there are not: a slip when one types ten characters happens, thirty in an hour are
    # tries. There are 5.9e14 codes.
    unknown_codes_per_address: Limit = limits.parse("30/hour")

    @property
    def drills_for_all(self) -> bool:
        """Whether a drill needs no token: on a developer's machine that has none."""
        return self.environment == "development" and self.agency_token is None
