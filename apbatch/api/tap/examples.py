"""Examples of statements, as TOPCAT lists them (DALI 1.1, 2.3)."""

from __future__ import annotations

from apbatch.api.tap.votable import attribute, clean

_EXAMPLES = (
    ("nights", "Nights and their files",
     "SELECT night, COUNT(*) AS files FROM apbatch.files GROUP BY night ORDER BY night"),
    ("large", "The largest files", 'SELECT TOP 100 path, "size", night FROM apbatch.files ORDER BY "size" DESC'),
    ("region", "Observations around the Crab Nebula",
     "SELECT obs_id, t_min, access_url FROM ivoa.obscore "
     "WHERE CONTAINS(POINT('ICRS', s_ra, s_dec), CIRCLE('ICRS', 83.63, 22.01, 2)) = 1"),
    ("time", "Observations of one night",
     "SELECT obs_id, obs_collection, t_min FROM ivoa.obscore WHERE t_min BETWEEN 58055.5 AND 58056.5 ORDER BY t_min"),
)  # fmt: skip


def document() -> bytes:
    """Return the examples as XHTML with RDFa."""
    parts = "".join(
        f'<div typeof="example" id={attribute(name)} resource={attribute("#" + name)}>'
        f'<h2 property="name">{clean(title)}</h2><pre property="query">{clean(text)}</pre></div>\n'
        for name, title, text in _EXAMPLES
    )
    return (
        '<?xml version="1.0" encoding="UTF-8"?>\n<html xmlns="http://www.w3.org/1999/xhtml">'
        f'<head><title>Examples</title></head><body vocab="http://www.ivoa.net/rdf/examples#">\n{parts}</body></html>\n'
    ).encode()
