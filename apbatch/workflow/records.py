"""Records of finished steps: what each made, and from what. Written last, in one move: a step is done or not."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from apbatch.localfiles import write_whole
from apbatch.provenance import provenance
from apbatch.workflow.step import Products, Step


class Records:
    """Finished steps of one job on one set of services, one small JSON file each."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def _file(self, kind: str, key: str) -> Path:
        return self._folder / f"{kind}-{key}.json"

    def products(self, step: Step, key: str) -> Products | None:
        """Return what a finished step made, or None if it has not finished (or its record is damaged)."""
        try:
            products: Products = json.loads(self._file(step.kind, key).read_text())["products"]
        except (FileNotFoundError, ValueError, KeyError, TypeError, RecursionError):
            return None
        return step.recall(products) if isinstance(products, dict) and products.keys() >= set(step.makes) else None

    def finish(self, kind: str, key: str, inputs: Any, parameters: Any, products: Products) -> None:
        """Record that a step has finished.

        Parameters
        ----------
        kind, key : str
            Kind and address of the step.
        inputs, parameters : object
            What its address is made of, as JSON.
        products : dict of str to str
        """
        record = {**provenance(kind, inputs, parameters), "products": products}
        write_json(self._file(kind, key), record)


def write_json(path: Path, content: Any) -> None:
    """Write JSON so that the file is there whole or not at all, also after a power cut."""
    write_whole(path, json.dumps(content, indent=1, default=str))
