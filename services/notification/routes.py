"""Routes: by which channels a person can be reached, and in which order they are tried."""

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from sqlmodel.ext.asyncio.session import AsyncSession

from services.notification.channels import Channel
from shared.database import execute, sql
from shared.districts import District
from shared.policy import Messages

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

    def after(self, routes: Sequence[str], channel: str) -> str | None:
        """The next of a message's routes that there still is here; None if none is left."""
        rest = routes[routes.index(channel) + 1 :] if channel in routes else routes
        known = {each.name for each in self.channels}
        return next((name for name in rest if name in known and name != channel), None)

    def policy(self, district: str) -> Messages:
        """What a district says of its messages; nothing, if it has no folder here."""
        known = self.districts.get(district)
        return known.policy.messages if known else Messages()

    def _ordered(self, district: str) -> Iterable[Channel]:
        by_name = {channel.name: channel for channel in self.channels}
        chosen = self.policy(district).channels or tuple(by_name)
        return [by_name[name] for name in chosen if name in by_name]


def unknown_channels(routes: Routes) -> dict[str, list[str]]:
    """Channels that districts name and this installation does not have, by district."""
    known = {channel.name for channel in routes.channels}
    return {
        code: missing
        for code, district in routes.districts.items()
        if (missing := [name for name in district.policy.messages.channels if name not in known])
    }


def is_paid(channel: Channel) -> bool:
    """Whether what goes out by this channel counts against a budget of SMS."""
    return channel.kind == "sms" and channel.cost_per_segment > 0


def budgets_without_cost(routes: Routes) -> list[tuple[str, str]]:
    """Districts with a budget, and the real SMS channels that cost nothing and would not count."""
    free = [
        channel.name
        for channel in routes.channels
        if channel.kind == "sms" and channel.name != "sandbox" and not is_paid(channel)
    ]
    limited = [
        code for code, d in routes.districts.items() if d.policy.messages.sms_a_day is not None
    ]
    return [(code, name) for code in limited for name in free]


async def stopped(session: AsyncSession, addresses: Iterable[str | None]) -> set[tuple[str, str]]:
    """Those of these addresses that want no more messages, with the kind of channel."""
    asked = sorted({address for address in addresses if address})
    rows = await execute(session, _STOPPED, {"addresses": asked})
    return {(row.address, row.kind) for row in rows}
