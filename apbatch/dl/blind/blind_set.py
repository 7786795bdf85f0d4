"""Blind sets: training and validation images with labels, test images without, and the sealed labels.

::

    FOLDER/set/             manifest.json, train.parquet, validation.parquet, test.parquet   for whoever scores
    FOLDER/sealed/          labels.json      labels, proportion, salt; the manifest publishes its SHA-256
    FOLDER/origin.json      from which datasets it was made; not handed out
    FOLDER/frozen/          scores-HASH.parquet   what was submitted, before anybody saw a label
    FOLDER/ledger.jsonl     who did what when: `apbatch.dl.blind.ledger`
    FOLDER/signatures.json  of a custodian, if there is one

``sha256sum sealed/labels.json`` prints the commitment of the manifest: anybody can check it. The labels lie under a
salt of 32 bytes, so they can't be found by trying. What is done with a set is in `apbatch.dl.blind.protocol`; what the
protocol holds against, and what not, in docs/blind_protocol.md.
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

from apbatch.dl.blind.anchors import KeptHeads
from apbatch.dl.blind.image_selection import FEATURES, Selected, select
from apbatch.dl.blind.ledger import Head, Ledger
from apbatch.dl.blind.production_manifest import night_sky_of, why_seed_is_public
from apbatch.dl.blind.settings import BlindSettings
from apbatch.dl.files import json_bytes, read_json, sha256, write_json, write_table
from apbatch.errors import FormatError, NotFoundError, UsageError, VerificationError
from apbatch.localfiles import locked, partials_of, write_whole
from apbatch.provenance import digest, provenance

_SCHEMA = "blind/2"
SPLITS = ("train", "validation", "test")


@dataclass(frozen=True)
class BlindSet:
    """A blind set on disk.

    Attributes
    ----------
    folder : pathlib.Path
        Holds `set`, `sealed`, `frozen` and the ledger.
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
    def sealed(self) -> Path:
        """The file of the sealed labels."""
        return self.folder / "sealed" / "labels.json"

    @property
    def ledger(self) -> Ledger:
        """The chained record of what was done."""
        return Ledger(self.folder / "ledger.jsonl")

    @property
    def commitment(self) -> str:
        """The published SHA-256 of the sealed labels, which also names the set."""
        return str(self.manifest["commitment"])

    @property
    def open(self) -> bool:
        """Whether it is for practice, since its labels may be known to others."""
        return bool(self.manifest["open"])


def make(
    images: str,
    parameters: str,
    truth: str,
    folder: Path,
    settings: BlindSettings | None = None,
    sources: str | None = None,
) -> BlindSet:
    """Select, split by shower, draw the proportion, seal the labels. Made already from the same: nothing is done.

    Parameters
    ----------
    images, parameters, truth : str
        URLs of the images (of the step `clean`), the image parameters and the truth.
    folder : pathlib.Path
        Local folder of the analysis.
    settings : BlindSettings, optional
    sources : str, optional
        URL of the observed source's place, image by image; for the worlds ``point`` and ``diffuse``.

    Raises
    ------
    UsageError
        If a class is missing, there are too few showers, or `folder` holds another analysis or other files.
    """
    settings = settings or BlindSettings()
    settings.check()
    inputs = {"images": images, "parameters": parameters, "truth": truth}
    if sources is not None:
        inputs["sources"] = sources
    made_from = digest({"inputs": inputs, "settings": settings.model_dump()})
    if Ledger(folder / "ledger.jsonl").last("made") is not None:
        return _made_already(folder, made_from)
    secret = secrets.token_bytes(32) if settings.seed is None else _from_seed(settings.seed)
    selected = select(images, parameters, truth, settings, sources)
    reasons = _openness(settings, selected, truth)
    splits = _split(selected, settings, secret)
    with locked(folder / ".making.lock"):
        if Ledger(folder / "ledger.jsonl").last("made") is not None:  # by another process, meanwhile
            return _made_already(folder, made_from)
        _clear(folder)
        files, labels = _write_files(folder, selected, splits, secret)
        origin = {"made_from": made_from, **provenance("blind", inputs, settings.model_dump())}
        write_json(folder / "origin.json", origin)
        manifest = {
            "schema": _SCHEMA,
            "commitment": hashlib.sha256(labels).hexdigest(),
            "open": reasons,
            "custodian": settings.custodian,
            "files": files,
            "camera": selected.camera,
            "cleaning": selected.cleaning,
            "features": [name for name in FEATURES if f"{name}_none" in selected.table.column_names],
            "settings": settings.model_dump(exclude={"seed", "open", "custodian"}),
            "night_sky": night_sky_of(truth),
            "cut_flow": selected.cut_flow,
            "events": _counts(selected, splits),
        }
        write_json(folder / "set" / "manifest.json", manifest)
        blind_set = BlindSet(folder, manifest)
        entry = blind_set.ledger.append(  # last: with it the set is made
            "made",
            manifest=sha256(folder / "set" / "manifest.json"),
            origin=sha256(folder / "origin.json"),
            commitment=manifest["commitment"],
        )
        if not blind_set.open:
            KeptHeads().keep(blind_set.commitment, Head(entry["n"], entry["digest"]), folder)
        return blind_set


def _clear(folder: Path) -> None:
    """Remove what a killed making left: its files hold labels of images that may be drawn for the test set now."""
    files = [folder / "set" / f"{name}.parquet" for name in SPLITS]
    files += [folder / "set" / "manifest.json", folder / "sealed" / "labels.json"]
    ours = [file for file in files if file.exists()] + [part for file in files for part in partials_of(file)]
    others = [file for name in ("set", "sealed") for file in (folder / name).glob("*") if file not in ours]
    if others:
        raise UsageError("there is a file of something else", where=str(others[0]), remedy="choose another folder")
    for file in ours:
        file.unlink()


def _write_files(
    folder: Path, selected: Selected, splits: dict[str, npt.NDArray[np.int64]], secret: bytes
) -> tuple[dict[str, str], bytes]:
    """Write the images and seal the labels; return the SHA-256 of each file of images, and the sealed labels."""
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
    write_whole(folder / "sealed" / "labels.json", labels, mode=0o400)
    return files, labels


def _openness(settings: BlindSettings, selected: Selected, truth: str) -> list[str]:
    """Return why a set can't be called blind, in words; nothing if it can.

    Raises
    ------
    UsageError
        If it can't, and was not called open.
    """
    reason = why_seed_is_public(truth, selected.experiments)
    if reason is not None and not settings.open:
        raise UsageError(
            f"{reason}, so the set is not blind",
            where=truth,
            remedy="simulate with a secret seed, or call the set open: --open, or 'open: true' in a job",
        )
    reasons = [] if reason is None else [reason]
    if settings.seed is not None:
        reasons.append("whoever knows the seed of the set can draw it again")
    return reasons or (["its maker calls it open"] if settings.open else [])


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
    entries = Ledger(folder / "ledger.jsonl").entries()
    if not entries or entries[0]["act"] != "made":
        raise VerificationError("the ledger does not begin with the making of the set", where=str(folder))
    first = entries[0]
    for name, place in (("manifest", folder / "set" / "manifest.json"), ("origin", folder / "origin.json")):
        if first[name] != sha256(place):
            raise VerificationError(f"the {name} is not the one in the ledger", where=str(place))
    if first["commitment"] != manifest["commitment"]:
        raise VerificationError("the commitment is not the one in the ledger", where=str(folder / "set/manifest.json"))
    return BlindSet(folder, manifest)


def read_manifest(files: Path) -> dict[str, Any]:
    """Read the manifest of a set that was handed out (the folder `set` alone) and verify its files.

    Raises
    ------
    NotFoundError, FormatError, VerificationError
    """
    manifest = read_json(files / "manifest.json")
    if not isinstance(manifest, dict) or manifest.get("schema") != _SCHEMA:
        raise FormatError("not the manifest of a blind set", where=str(files / "manifest.json"))
    for name in SPLITS:
        if sha256(files / f"{name}.parquet") != manifest["files"][name]:
            raise VerificationError("differs from what the manifest says", where=str(files / f"{name}.parquet"))
    return manifest


def _made_already(folder: Path, made_from: str) -> BlindSet:
    blind = open_set(folder)
    if read_json(folder / "origin.json").get("made_from") != made_from:
        raise UsageError(
            "the folder holds a blind set made from other inputs or with other settings",
            where=str(folder),
            remedy="choose another folder",
        )
    head = blind.ledger.head()
    if head is not None and head.n == 1 and not blind.open and KeptHeads().of(blind.commitment) is None:
        KeptHeads().keep(blind.commitment, head, folder)  # a kill came between ledger and head
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
    parts: dict[str, list[npt.NDArray[np.int64]]] = {name: [] for name in SPLITS}
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
        for split, members in zip(("test", "validation", "train"), np.split(showers, borders), strict=True):
            rows = np.flatnonzero(np.isin(selected.shower, members) & (selected.gamma == gamma))
            if split == "test":
                pools[gamma] = rows
            else:
                parts[split].append(rows)
    parts["test"] = _draw_test(pools[True], pools[False], settings, secret)
    order = _random(secret, "order")
    return {name: order.permutation(np.concatenate(parts[name])) for name in SPLITS}


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
