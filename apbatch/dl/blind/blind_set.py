"""Blind analysis: a test set whose labels and proportions are sealed until the scores are frozen.

::

    FOLDER/set/       manifest.json, train.parquet, validation.parquet, test.parquet   for whoever scores
    FOLDER/sealed/    labels.json           labels, proportion, salt; its SHA-256 was published when the set was made
    FOLDER/frozen/    scores-HASH.parquet   what was submitted, before anybody saw a label
    FOLDER/unsealed/  labels.parquet        after that
    FOLDER/ledger.jsonl                     who did what when, chained by hashes

``sha256sum sealed/labels.json`` prints the commitment of the manifest: anybody can check it. The labels lie under a
salt of 32 bytes, so they can't be found by trying. A set made with a seed can be made again by everybody who has
the inputs and the seed; it shows the procedure and is repeatable, but only a set without one is blind to its makers.
"""

from __future__ import annotations

import hashlib
import secrets
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
from pydantic import ConfigDict, Field

from apbatch.dl.blind.image_selection import FEATURES, TRUTH, Selected, Selection, select
from apbatch.dl.blind.ledger import Ledger
from apbatch.dl.files import json_bytes, read_json, read_parquet, sha256, write_bytes, write_json, write_table
from apbatch.errors import FormatError, NotFoundError, UsageError, VerificationError
from apbatch.provenance import digest, provenance

_SPLITS = ("train", "validation", "test")
_SCORE_COLUMNS = ("method", "variant", "split", "id", "score")


class BlindSettings(Selection):
    """How a blind set is made.

    Attributes
    ----------
    test_fraction, validation_fraction : float
        Shares of the showers of each class.
    gamma_fraction_min, gamma_fraction_max : float
        The share of gammas in the test set is drawn uniformly between these.
    seed : int, optional
        Makes the set repeatable; without it the randomness is the operating system's and is kept nowhere but
        in the sealed file.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    test_fraction: float = Field(default=0.3, gt=0, lt=1)
    validation_fraction: float = Field(default=0.2, gt=0, lt=1)
    gamma_fraction_min: float = Field(default=0.25, gt=0, lt=1)
    gamma_fraction_max: float = Field(default=0.6, gt=0, lt=1)
    seed: int | None = Field(default=None, ge=0)


@dataclass(frozen=True)
class BlindSet:
    """A blind set on disk.

    Attributes
    ----------
    folder : pathlib.Path
        Holds `set`, `sealed`, `frozen`, `unsealed` and the ledger.
    manifest : dict
        What is public about it.
    """

    folder: Path
    manifest: dict[str, Any]

    @property
    def files(self) -> Path:
        """The folder for whoever scores; it alone need be handed out."""
        return self.folder / "set"

    @property
    def ledger(self) -> Ledger:
        """The chained record of what was done."""
        return Ledger(self.folder / "ledger.jsonl")


def make(grids: str, parameters: str, truth: str, folder: Path, settings: BlindSettings | None = None) -> BlindSet:
    """Select, split by shower, draw the proportion, seal the labels. Made already from the same: nothing is done.

    Parameters
    ----------
    grids, parameters, truth : str
        URLs of the gridded images (or of images of a camera), the image parameters and the truth.
    folder : pathlib.Path
        Local folder of the analysis.

    Raises
    ------
    UsageError
        If a class is missing, there are too few showers, or `folder` holds another analysis.
    """
    settings = settings or BlindSettings()
    if settings.gamma_fraction_min > settings.gamma_fraction_max:
        raise UsageError("gamma_fraction_min is above gamma_fraction_max")
    if settings.test_fraction + settings.validation_fraction >= 1:
        raise UsageError("test_fraction and validation_fraction leave nothing to train on")
    inputs = {"grids": grids, "parameters": parameters, "truth": truth}
    public = settings.model_dump(exclude={"seed"})
    made_from = digest({"inputs": inputs, "settings": public, "seed": settings.seed})
    if (folder / "set" / "manifest.json").exists():
        return _made_already(folder, made_from)

    secret = secrets.token_bytes(32) if settings.seed is None else _from_seed(settings.seed)
    selected = select(grids, parameters, truth, settings)
    splits = _split(selected, settings, secret)
    ids = _opaque_ids(secret, sum(len(rows) for rows in splits.values()))
    start, files, sealed = 0, {}, {}
    for name, rows in splits.items():
        names = ids[start : start + len(rows)]
        start += len(rows)
        table = selected.table.take(pa.array(rows)).add_column(0, "id", pa.array(names))
        if name == "test":
            sealed = _sealed(selected, rows, names, secret)
        else:
            table = table.append_column("gamma", pa.array(selected.gamma[rows]))
            table = table.append_column("shower", pa.array(selected.shower[rows]))
            for column, values in selected.truth.items():
                table = table.append_column(column, pa.array(values[rows]))
        table = table.replace_schema_metadata(None)  # nothing of where the images came from
        write_table(folder / "set" / f"{name}.parquet", table)
        files[name] = sha256(folder / "set" / f"{name}.parquet")
    labels = json_bytes(sealed)
    write_bytes(folder / "sealed" / "labels.json", labels, mode=0o400)
    manifest = {
        "schema": "blind/1",
        "made_from": made_from,
        "commitment": hashlib.sha256(labels).hexdigest(),
        "repeatable": settings.seed is not None,
        "files": files,
        **selected.layout,
        "cleaning": selected.cleaning,
        "features": [name for name in FEATURES if f"{name}_none" in selected.table.column_names],
        "settings": public,
        "cut_flow": selected.cut_flow,
        "events": _counts(selected, splits),
        "provenance": provenance("blind", inputs, public),
    }
    ledger = Ledger(folder / "ledger.jsonl")
    ledger.append("made", manifest=hashlib.sha256(json_bytes(manifest)).hexdigest(), commitment=manifest["commitment"])
    write_json(folder / "set" / "manifest.json", manifest)  # last: with it the set is made
    return BlindSet(folder, manifest)


def open_set(folder: Path) -> BlindSet:
    """Open a blind set and verify that nothing in it was changed since it was made.

    Raises
    ------
    NotFoundError
        If there is none.
    VerificationError
        If a file differs from what was published.
    """
    if not (folder / "set" / "manifest.json").exists():
        raise NotFoundError("there is no blind set", where=str(folder), remedy="apbatch blind make")
    manifest = read_manifest(folder / "set")
    made = Ledger(folder / "ledger.jsonl").last("made")
    if made is None or made["manifest"] != sha256(folder / "set" / "manifest.json"):
        raise VerificationError("the manifest is not the one in the ledger", where=str(folder / "set/manifest.json"))
    return BlindSet(folder, manifest)


def read_manifest(files: Path) -> dict[str, Any]:
    """Read the manifest of a set that was handed out (the folder `set` alone) and verify its files.

    Raises
    ------
    NotFoundError, FormatError, VerificationError
    """
    manifest = read_json(files / "manifest.json")
    if not isinstance(manifest, dict) or manifest.get("schema") != "blind/1":
        raise FormatError("not the manifest of a blind set", where=str(files / "manifest.json"))
    for name in _SPLITS:
        if sha256(files / f"{name}.parquet") != manifest["files"][name]:
            raise VerificationError("differs from what the manifest says", where=str(files / f"{name}.parquet"))
    return manifest


def submit(folder: Path, scores: Path, *, again: bool = False) -> dict[str, Any]:
    """Freeze scores: from now on they can't be exchanged, and the labels may be opened.

    Parameters
    ----------
    folder : pathlib.Path
        The blind analysis.
    scores : pathlib.Path
        Parquet with the columns method, variant, split (`validation` or `test`), id, score; the higher, the more
        like a gamma. Scores of the validation set are needed since cuts are chosen there.
    again : bool
        Allow other scores after the labels were opened, for a set made with a seed, which is for practice. The
        ledger and the report say that the labels were open; the earlier scores stay in ``frozen``.

    Returns
    -------
    dict
        Entry of the ledger: time, SHA-256, number of scores. The same scores again change nothing.

    Raises
    ------
    FormatError
        If an event has no score, two, or one that is no number.
    UsageError
        If other scores were frozen already, or the labels are open.
    """
    blind = open_set(folder)
    content = scores.read_bytes() if scores.is_file() else b""
    methods = _check_scores(blind, scores)
    received = hashlib.sha256(content).hexdigest()
    check_takes(blind, scores, again=again)
    earlier = blind.ledger.last("frozen")
    opened = blind.ledger.last("unsealed") is not None
    if earlier is not None and earlier["scores"] == received:
        if not frozen_file(folder, earlier).exists():
            write_bytes(frozen_file(folder, earlier), content, mode=0o444)
        return earlier
    write_bytes(frozen_file(folder, {"scores": received}), content, mode=0o444)
    return blind.ledger.append("frozen", scores=received, methods=methods, labels_were_open=opened)


def check_takes(blind: BlindSet, scores: Path, *, again: bool = False) -> None:
    """Raise a UsageError if other scores were frozen than those of a file, which need not be there yet.

    For whoever is about to spend hours on scores; `again` as in `submit`.
    """
    earlier = blind.ledger.last("frozen")
    if earlier is None or (scores.is_file() and sha256(scores) == earlier["scores"]):
        return
    practice = blind.ledger.last("unsealed") is not None and blind.manifest["repeatable"]
    if not (again and practice):
        raise UsageError(
            f"other scores were frozen at {earlier['time']} and can't be replaced",
            where=str(blind.folder),
            remedy="a new analysis needs a new blind set" + ("; for practice on this one: --again" if practice else ""),
        )


def frozen_file(folder: Path, entry: dict[str, Any]) -> Path:
    """Return where the scores of an entry of the ledger are kept."""
    return folder / "frozen" / f"scores-{entry['scores'][:16]}.parquet"


def unseal(folder: Path) -> pa.Table:
    """Open the labels, once scores were frozen.

    Returns
    -------
    pa.Table
        Columns id, gamma, shower, energy (TeV), source_x, source_y, zenith (deg, where known) of every test event;
        also in ``unsealed/labels.parquet``.

    Raises
    ------
    UsageError
        If no scores were frozen.
    VerificationError
        If the set, the scores or the labels are not what was published.
    """
    blind = open_set(folder)
    frozen = blind.ledger.last("frozen")
    if frozen is None:
        raise UsageError("no scores were frozen yet", where=str(folder), remedy="apbatch blind submit")
    if sha256(frozen_file(folder, frozen)) != frozen["scores"]:
        raise VerificationError("differs from what was frozen", where=str(frozen_file(folder, frozen)))
    place = folder / "sealed" / "labels.json"
    if sha256(place) != blind.manifest["commitment"]:
        raise VerificationError("the labels are not those of the published commitment", where=str(place))
    sealed = read_json(place)
    labels = pa.table(
        {
            "id": pa.array(sealed["id"], pa.string()),
            "gamma": pa.array(sealed["gamma"], pa.bool_()),
            "shower": pa.array(sealed["shower"], pa.int64()),
            **{name: pa.array(sealed[name], pa.float64()) for name in TRUTH if name in sealed},
        }
    )
    ids = read_parquet(blind.files / "test.parquet", ["id"])["id"]
    if sorted(ids.to_pylist()) != sorted(sealed["id"]):
        raise VerificationError("the labels are of other events than the set", where=str(place))
    opened = folder / "unsealed" / "labels.parquet"
    if blind.ledger.last("unsealed") is None:
        blind.ledger.append("unsealed", scores=frozen["scores"], commitment=blind.manifest["commitment"])
    write_table(opened, labels)
    return labels


def status(folder: Path) -> list[dict[str, Any]]:
    """Return the entries of the ledger after verifying the set."""
    return open_set(folder).ledger.entries()


def _made_already(folder: Path, made_from: str) -> BlindSet:
    blind = open_set(folder)
    if blind.manifest["made_from"] != made_from:
        raise UsageError(
            "the folder holds a blind set made from other inputs or with other settings",
            where=str(folder),
            remedy="choose another folder",
        )
    return blind


def _from_seed(seed: int) -> bytes:
    return hashlib.sha256(f"apbatch blind set, repeatable, seed {seed}".encode()).digest()


def _random(secret: bytes, purpose: str) -> np.random.Generator:
    """Return a stream of its own for each purpose: what is seen of one says nothing about another."""
    return np.random.default_rng(int.from_bytes(hashlib.sha256(secret + purpose.encode()).digest(), "big"))


def _opaque_ids(secret: bytes, n: int) -> list[str]:
    """Return ids that depend on the secret and the place after shuffling, never on the event."""
    return [hashlib.sha256(secret + f"id {place}".encode()).hexdigest()[:20] for place in range(n)]


def _split(selected: Selected, settings: BlindSettings, secret: bytes) -> dict[str, npt.NDArray[np.int64]]:
    """Return shuffled row numbers of each split; images of one shower are never in two splits."""
    random = _random(secret, "split")
    parts: dict[str, list[npt.NDArray[np.int64]]] = {name: [] for name in _SPLITS}
    pools = {}
    for gamma, name in ((True, "gamma"), (False, "hadron")):
        showers = np.unique(selected.shower[selected.gamma == gamma])
        n_test = round(settings.test_fraction * len(showers))
        n_validation = round(settings.validation_fraction * len(showers))
        if min(n_test, n_validation, len(showers) - n_test - n_validation) < 1:
            raise UsageError(
                f"{len(showers)} {name} showers pass the selection, too few for training, validation and test",
                remedy="simulate more showers or loosen the selection",
            )
        showers = random.permutation(showers)
        borders = [n_test, n_test + n_validation]
        for split, chosen in zip(("test", "validation", "train"), np.split(showers, borders), strict=True):
            rows = np.flatnonzero(np.isin(selected.shower, chosen) & (selected.gamma == gamma))
            if split == "test":
                pools[gamma] = rows
            else:
                parts[split].append(rows)
    parts["test"] = _draw_test(pools[True], pools[False], settings, secret)
    order = _random(secret, "order")
    return {name: order.permutation(np.concatenate(parts[name])) for name in _SPLITS}


def _draw_test(
    gammas: npt.NDArray[np.int64], hadrons: npt.NDArray[np.int64], settings: BlindSettings, secret: bytes
) -> list[npt.NDArray[np.int64]]:
    """Draw the proportion, then the events.

    The size of the set is one that any allowed proportion could fill, so that it tells nothing about the one drawn.
    """
    random = _random(secret, "proportion")
    n_events = int(min(len(gammas) / settings.gamma_fraction_max, len(hadrons) / (1 - settings.gamma_fraction_min)))
    share = random.uniform(settings.gamma_fraction_min, settings.gamma_fraction_max)
    n_gammas = min(round(share * n_events), len(gammas))
    n_hadrons = min(n_events - n_gammas, len(hadrons))
    if n_gammas < 1 or n_hadrons < 1:
        raise UsageError(
            f"{len(gammas)} gammas and {len(hadrons)} hadrons are too few for a test set",
            remedy="simulate more showers",
        )
    return [random.permutation(gammas)[:n_gammas], random.permutation(hadrons)[:n_hadrons]]


def _sealed(selected: Selected, rows: npt.NDArray[np.int64], ids: list[str], secret: bytes) -> dict[str, Any]:
    gamma = selected.gamma[rows]
    return {
        "salt": hashlib.sha256(secret + b"salt").hexdigest(),
        "gamma_fraction": float(gamma.mean()),
        "id": ids,
        "gamma": gamma.tolist(),
        "shower": selected.shower[rows].tolist(),
        **{
            name: [float(value) if np.isfinite(value) else None for value in values[rows]]
            for name, values in selected.truth.items()
        },
    }


def _counts(selected: Selected, splits: dict[str, npt.NDArray[np.int64]]) -> dict[str, dict[str, int]]:
    """Count what may be known: classes of the training and validation sets, only the sum of the test set."""
    counts = {"test": {"events": len(splits["test"])}}
    for name in ("train", "validation"):
        gamma = selected.gamma[splits[name]]
        counts[name] = {"events": len(gamma), "gammas": int(gamma.sum()), "hadrons": int((~gamma).sum())}
    return counts


def _check_scores(blind: BlindSet, path: Path) -> list[str]:
    """Return the methods of a submission after checking that it scores every event once."""
    table = read_parquet(path, list(_SCORE_COLUMNS))
    values = table["score"].cast(pa.float64())
    if values.null_count or not pc.all(pc.is_finite(values)).as_py():
        raise FormatError("a score is missing or no number", where=str(path))
    labels = pc.binary_join_element_wise(table["method"], table["variant"], " / ")
    methods = sorted(pc.unique(labels).to_pylist())
    if not methods:
        raise FormatError("there are no scores", where=str(path))
    for split in ("validation", "test"):
        wanted = sorted(read_parquet(blind.files / f"{split}.parquet", ["id"])["id"].to_pylist())
        for method in methods:
            chosen = pc.and_(pc.equal(labels, method), pc.equal(table["split"], split))
            found = sorted(table.filter(chosen)["id"].to_pylist())
            if found != wanted:
                missing, foreign = len(set(wanted) - set(found)), len(set(found) - set(wanted))
                twice = len(found) - len(set(found))
                raise FormatError(
                    f"scores of '{method}' for the {split} set: {missing} events have none, {twice} have two, "
                    f"{foreign} are unknown",
                    where=str(path),
                )
    return methods
