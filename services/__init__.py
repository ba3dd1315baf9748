"""The three services. They import ``shared`` and never each other."""
