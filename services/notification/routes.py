"""Routes: by which channels a person can be reached, and in which order they are tried."""

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from sqlmodel.ext.asyncio.session import AsyncSession

from services.notification.channels import Channel
from shared.database import execute, sql
from shared.districts import District
from shared.policy import Messages

# The channels by which somebody was called for a message ``m``, whatever came of it.
TRIED = """ARRAY(
    SELECT DISTINCT called.channel FROM attempts called WHERE called.message_id = m.id)"""

# An address, and the kind of channel by which it wants no more messages.
Stopped = Collection[tuple[str, str]]

_STOPPED = sql("SELECT address, kind FROM stops WHERE address = ANY (CAST(:addresses AS text[]))")


@dataclass(frozen=True)
class Routes:
    """The installation's channels in its own order, and what each district makes of it."""

    channels: Sequence[Channel]
    districts: Mapping[str, District] = field(default_factory=dict)

    def of(
        self,
        *,
        district: str,
        phone: str | None,
        email: str | None,
        preferred: str | None = None,
        stopped: Stopped = (),
    ) -> list[str]:
        """The names of the channels to try: the kind that the person prefers first, then in the
        order of the district, without what they have stopped."""
        ways = [
            channel
            for channel in self._ordered(district)
            if (address := channel.address_of(phone=phone, email=email))
            and (address, channel.kind) not in stopped
        ]
        ways.sort(key=lambda channel: channel.kind != preferred)
        return [channel.name for channel in ways]

    def of_message(self, message: Any) -> Sequence[str]:
        """The routes of a stored message: what was noted with it, less what was stopped since."""
        # Stored before routes were: as they would be now.
        return message.routes or self.of(
            district=message.district, phone=message.phone, email=message.email
        )

    def after(self, routes: Sequence[str], channel: str, *, tried: Collection[str]) -> str | None:
        """The one rule by which a message goes on from a channel; None if no way is left.

        The next of its routes that there still is here and by which it was never called
        (:data:`TRIED`, read under the lock of the message): what was called may have brought it,
        now or later, wherever in the routes it stands or stood. The order is kept too, so that two
        channels that both refuse for lack of a budget do not hand it to each other for ever.
        """
        rest = routes[routes.index(channel) + 1 :] if channel in routes else routes
        usable = {each.name for each in self.channels} - {channel, *tried}
        return next((name for name in rest if name in usable), None)

    def policy(self, district: str) -> Messages:
        """What a district says of its messages; nothing, if it has no folder here."""
        known = self.districts.get(district)
        return known.policy.messages if known else Messages()

    def _ordered(self, district: str) -> Iterable[Channel]:
        by_name = {channel.name: channel for channel in self.channels}
        chosen = self.policy(district).channels or tuple(by_name)
        return [by_name[name] for name in chosen if name in by_name]


def is_paid(channel: Channel) -> bool:
    """Whether what goes out by this channel counts against a budget of SMS."""
    return channel.kind == "sms" and channel.cost_per_segment > 0


def is_metered(channel: Channel) -> bool:
    """Whether what goes out by this channel counts as SMS, whatever we know of its price."""
    return channel.kind == "sms" and channel.name != "sandbox"


def policy_problem(channels: Sequence[Channel], district: District) -> str | None:
    """Why this installation cannot do what a district's policy says; None if it can.

    Refused are channels that there are not, and a budget for one that costs nothing and would not
    count.
    """
    code, messages = district.code, district.policy.messages
    known = [channel.name for channel in channels]
    if missing := [name for name in messages.channels if name not in known]:
        return (
            f"policy.toml of {code} names the channels {', '.join(missing)}; this installation "
            f"has {', '.join(known)} (JANGKAU_CHANNELS)"
        )
    free = [
        channel.name
        for channel in channels
        if channel.kind == "sms" and channel.name != "sandbox" and not is_paid(channel)
    ]
    if messages.sms_a_day is not None and free:
        return (
            f"policy.toml of {code} has a budget (sms_a_day), but the channel {free[0]} costs "
            f"nothing and would not count: set JANGKAU_{free[0].upper()}_COST_PER_SEGMENT"
        )
    return None


async def stopped(session: AsyncSession, addresses: Iterable[str | None]) -> set[tuple[str, str]]:
    """Those of these addresses that want no more messages, with the kind of channel."""
    asked = sorted({address for address in addresses if address})
    rows = await execute(session, _STOPPED, {"addresses": asked})
    return {(row.address, row.kind) for row in rows}
