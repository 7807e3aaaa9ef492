"""Compiled loops over steps, and what is around them: how large a call is, how steps run in it."""
