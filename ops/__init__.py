"""Operations: the command line, the embedded stack, real servers for tests."""
