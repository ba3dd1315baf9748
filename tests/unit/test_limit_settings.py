"""Settings that would be taken and then break the service, or silently mean something else."""

import pytest
from pydantic import ValidationError

from services.intake.settings import IntakeSettings
from shared.settings import Settings


@pytest.mark.parametrize("limit", ["10/hour;5/minute", "5/99999999 year", "0/hour", "often", ""])
def test_a_limit_is_one_limit_that_can_be_counted(limit: str) -> None:
    with pytest.raises(ValidationError, match="reports_per_address"):
        IntakeSettings.model_validate({"reports_per_address": limit})


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("batch_size", 0),
        ("tries_together", -1),
        ("max_parked_in_a_row", 0),
        ("stalled_after_seconds", 0),
        ("lock_timeout_seconds", 0),  # to PostgreSQL: wait for ever
        ("lock_timeout_seconds", 60),  # longer than a command may take
    ],
)
def test_a_number_that_would_stop_a_service_is_refused(name: str, value: float) -> None:
    with pytest.raises(ValidationError, match=name):
        Settings.model_validate({name: value})
