"""Takes a report and answers for it."""
