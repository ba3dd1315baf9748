"""What a case goes through once somebody has it: accepted, arrived, closed, reopened. Pure."""

from datetime import timedelta

from services.assignment.turn import HELD, OPEN, Asked, Case, Turn
from shared.events import (
    PublicCaseAccepted,
    PublicCaseArrived,
    PublicCaseClosed,
    PublicCaseReopened,
)


def accept(
    turn: Turn,
    case: Case,
    offer: Asked,
    *,
    words: str | None = None,
    who: str | None = None,
    why: str | None = None,
) -> None:
    """The case is theirs; everybody else's offer ends at once.

    ``words`` are the volunteer's own; ``who`` is the coordinator who gave it to them, and ``why``.
    """
    policy = turn.district(case).policy
    turn.change(offer, "accepted", words=words)
    turn.log(case, "assigned" if who else "accepted", offer=offer.id, who=who, why=why or words)
    for other in turn.offers_of(case, *OPEN):
        turn.close_offer(other, "withdrawn", "taken_by_another")
        turn.log(case, "withdrawn", offer=other.id)
    case.state, case.waiting_for = "accepted", None
    case.escalated_at = case.escalated_for = None
    case.next_action_at = turn.moment + policy.arrive_within
    turn.seeking.discard(case.id)
    turn.tell(case, PublicCaseAccepted)
    turn.help_is_coming(case)


def arrive(turn: Turn, case: Case, offer: Asked, *, words: str | None = None) -> None:
    """They are with the person."""
    policy = turn.district(case).policy
    turn.change(offer, "arrived", words=words)
    turn.log(case, "arrived", offer=offer.id, why=words)
    case.state = "arrived"
    case.escalated_at = case.escalated_for = None
    case.next_action_at = turn.moment + policy.report_within
    turn.tell(case, PublicCaseArrived)


def close(
    turn: Turn,
    case: Case,
    outcome: str,
    *,
    offer: Asked | None = None,
    who: str | None = None,
    why: str | None = None,
) -> None:
    """The case has ended; whoever is still asked or has it is told."""
    for other in turn.offers_of(case, *OPEN, *HELD):
        # Whoever was with the person has done their part.
        rest = turn.rest_after(other) if other.state == "arrived" else timedelta(0)
        turn.close_offer(other, "withdrawn", "case_closed", rest=rest)
        turn.log(case, "withdrawn", offer=other.id)
    case.state, case.outcome, case.closed_at = "closed", outcome, turn.moment
    case.waiting_for = case.next_action_at = case.escalated_at = case.escalated_for = None
    turn.seeking.discard(case.id)
    turn.log(case, f"closed:{outcome}", offer=offer.id if offer else None, who=who, why=why)
    turn.tell(case, PublicCaseClosed)
    turn.progress(case, "closed", outcome=outcome)
    turn.forget_reporter(case)


def reopen(turn: Turn, case: Case) -> None:
    """Whoever had the case has it no longer: look again from the beginning, and give the search its
    time before a coordinator is told again. Nobody is asked twice, as their offers stay."""
    policy = turn.district(case).policy
    case.state, case.waiting_for = "searching", None
    case.stage = case.asked_in_stage = 0
    case.escalated_at = case.escalated_for = None
    case.escalate_at = turn.moment + policy.escalate_after[case.urgency]
    turn.tell(case, PublicCaseReopened)
    turn.seeking.add(case.id)
