"""From an SMS text to what it says, as a pure function that knows nobody's cases.

What is not understood word for word is a question back; an act is never guessed.
"""

from services.notification.incoming.reading.leave import Day, Leave
from services.notification.incoming.reading.verdict import Meaning, Reading, classify

__all__ = ["Day", "Leave", "Meaning", "Reading", "classify"]
