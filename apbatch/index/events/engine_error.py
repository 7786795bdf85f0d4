"""The error of an engine of queries, which needs no engine to be installed."""

from __future__ import annotations


class EngineError(Exception):
    """A query that DuckDB could not answer.

    Parameters
    ----------
    cause : Exception
    memory : bool
        Whether memory, or disk for what it put aside, did not suffice.
    """

    def __init__(self, cause: Exception, *, memory: bool) -> None:
        super().__init__(" ".join(str(cause).split())[:300])
        self.memory = memory
