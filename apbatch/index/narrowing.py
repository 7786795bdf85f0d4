"""What is left of a condition for the files below one folder of the merged tree: mostly all or nothing."""

from __future__ import annotations

from apbatch.index import query as q


def narrowed(rule: q.Query, folder: str) -> q.Query:
    """Return a normalised condition without what the folder decides.

    Parameters
    ----------
    rule : Query
        Normalised.
    folder : str
        Path in the merged tree; the root is the empty text. The place of every file in it begins with this and a slash.

    Returns
    -------
    Query
        `Everything` if all files below the folder match, `NOTHING` if none can.
    """
    match rule:
        case q.And(parts):
            left = [narrowed(part, folder) for part in parts]
            return q.NOTHING if q.NOTHING in left else _joined(q.And, left, q.Everything())
        case q.Or(parts):
            left = [narrowed(part, folder) for part in parts]
            return q.Everything() if q.Everything() in left else _joined(q.Or, left, q.NOTHING)
        case q.Like("place", pattern):
            return _like(rule, pattern, f"{folder}/")
        case q.Not(q.Like("place", pattern) as part):
            inner = _like(part, pattern, f"{folder}/")
            opposite: dict[q.Query, q.Query] = {q.Everything(): q.NOTHING, q.NOTHING: q.Everything()}
            return opposite.get(inner, rule)
        case q.Compare("place", "=", str(value)) if not value.startswith(f"{folder}/"):
            return q.NOTHING
        case _:
            return rule


def _joined(kind: type[q.And] | type[q.Or], parts: list[q.Query], neutral: q.Query) -> q.Query:
    parts = [part for part in parts if part != neutral]
    return neutral if not parts else parts[0] if len(parts) == 1 else kind(tuple(parts))


def _like(rule: q.Query, pattern: str, start: str) -> q.Query:
    prefix = q.like_prefix(pattern)
    if start.startswith(prefix):
        return q.Everything() if q.like_escaped(pattern) == q.like_escaped(_plain(prefix) + "%") else rule
    return rule if prefix.startswith(start) else q.NOTHING


def _plain(text: str) -> str:
    return text.replace("\\", "\\\\").replace("%", "\\%").replace("_", "\\_")
