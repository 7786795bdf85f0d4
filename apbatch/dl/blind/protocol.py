"""The acts of a blind analysis: freeze scores, open the labels, read both for judgement.

A blind set asks at every act for an anchor outside its folder: the head that the last act printed, the head that this
account kept, or a custodian's signature. An open set, whose labels may be known, asks for none. What is detected, and
by whom, is in docs/blind_protocol.md.
"""

from __future__ import annotations

import hashlib
import json
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from apbatch.dl.blind.anchors import Custodian, KeptHeads, check_signature
from apbatch.dl.blind.blind_set import BlindSet, open_set
from apbatch.dl.blind.image_selection import TRUTH
from apbatch.dl.blind.ledger import Entry, Head, head_of, last_of
from apbatch.dl.files import read_parquet, sha256
from apbatch.errors import FormatError, UsageError, VerificationError
from apbatch.localfiles import write_whole

_SCORE_COLUMNS = ("method", "treatment", "split", "id", "score")
#: What names in scores may be, and how to mend those that are not.
_NAMES = (
    (
        "method",
        re.compile(r"[^\x00-\x1f#+]+(#[1-9][0-9]{0,5})?"),
        "'net', or 'net#2' for the second of several trainings",
    ),
    ("treatment", re.compile(r"[^\x00-\x1f]+"), "such as 'none', 'soft' or a word of your own"),
)


@dataclass(frozen=True)
class Opened:
    """What is judged: verified labels and frozen scores.

    Attributes
    ----------
    labels : pa.Table
        Columns id, gamma, shower, energy (TeV), source_x, source_y, zenith (deg, where known) of every test event.
    scores : pa.Table
        Columns method, treatment, split, id, score.
    record : dict
        For a report: commitment, head, ledger, anchors, and whether the result is blind.
    """

    labels: pa.Table
    scores: pa.Table
    record: dict[str, Any]


def submit(
    folder: Path, scores: Path, *, head: str | None = None, again: bool = False, rule: dict[str, Any] | None = None
) -> Entry:
    """Freeze scores: from now on they can't be exchanged, and the labels may be opened.

    Parameters
    ----------
    folder : pathlib.Path
        The blind analysis.
    scores : pathlib.Path
        Parquet with the columns method, treatment, split (`validation` or `test`), id, score; the higher, the more
        like a gamma. Scores of the validation set are needed since cuts are chosen there.
    head : str, optional
        The head that the last act printed; without it, the one that this account kept.
    again : bool
        Allow other scores of an open set after the labels were opened. The ledger and the report say so; the earlier
        scores stay in ``frozen``.
    rule : dict, optional
        How the scores will be judged, plain JSON: frozen with them, so that a later change is reported.

    Returns
    -------
    dict
        Entry of the ledger; its ``digest`` is the new head. The same scores again change nothing.

    Raises
    ------
    FormatError
        If an event has no score, two, or one that is no number in 0…1, or a name can't be judged.
    UsageError
        If other scores were frozen already, the labels are open, or no head is known.
    VerificationError
        If the set or the ledger was changed, or the ledger does not go on from the head.
    """
    blind = open_set(folder)
    content = scores.read_bytes() if scores.is_file() else b""
    methods = _check_scores(blind, scores)
    received = hashlib.sha256(content).hexdigest()
    with KeptHeads().locked(), blind.ledger.locked() as writer:
        entries = _verified(blind, frozen_files=False)
        check_takes(blind, scores, again=again)
        earlier = last_of(entries, "frozen")
        repeated = earlier is not None and earlier["scores"] == received
        _check_anchors(blind, entries, head, exact=not repeated)
        write_whole(frozen_file(folder, {"scores": received}), content, mode=0o444)
        if earlier is not None and repeated:
            _keep(blind, entries[-1])
            return earlier
        opened = last_of(entries, "unsealed") is not None
        entry = writer.append("frozen", scores=received, methods=methods, labels_were_open=opened, rule=rule)
        _keep(blind, entry)
        return entry


def check_takes(blind: BlindSet, scores: Path, *, again: bool = False) -> None:
    """Raise a UsageError if other scores were frozen than those of a file, which need not be there yet.

    For whoever is about to spend hours on scores; `again` as in `submit`.

    Parameters
    ----------
    blind : BlindSet
    scores : pathlib.Path
        File of scores, which need not be there yet.
    again : bool
        Whether scores may be frozen again, as in `submit`.
    """
    entries = blind.ledger.entries()
    earlier = last_of(entries, "frozen")
    if earlier is None or (scores.is_file() and sha256(scores) == earlier["scores"]):
        return
    practice = last_of(entries, "unsealed") is not None and blind.open
    if not (again and practice):
        raise UsageError(
            f"other scores were frozen at {earlier['time']} and can't be replaced",
            where=str(blind.folder),
            remedy="a new analysis needs a new blind set" + ("; for practice on this one: --again" if practice else ""),
        )


def frozen_file(folder: Path, entry: Entry) -> Path:
    """Return where the scores of an entry of the ledger are kept."""
    return folder / "frozen" / f"scores-{entry['scores'][:16]}.parquet"


def unseal(folder: Path, *, head: str | None = None) -> Entry:
    """Open the labels, once scores were frozen.

    Parameters
    ----------
    folder : pathlib.Path
        The blind analysis, with its ``sealed`` folder in place.
    head : str, optional
        As in `submit`.

    Returns
    -------
    dict
        Entry of the ledger. From now on `open_labels` returns the labels.

    Raises
    ------
    UsageError
        If no scores were frozen.
    VerificationError
        If the set, the ledger, the scores or the labels are not what was published.
    """
    blind = open_set(folder)
    with KeptHeads().locked(), blind.ledger.locked() as writer:
        entries = _verified(blind)
        frozen, earlier = last_of(entries, "frozen"), last_of(entries, "unsealed")
        if frozen is None:
            raise UsageError("no scores were frozen yet", where=str(folder), remedy="apbatch blind submit")
        _check_anchors(blind, entries, head, exact=earlier is None)
        read_labels(blind)
        if earlier is not None:
            _keep(blind, entries[-1])
            return earlier
        entry = writer.append("unsealed", scores=frozen["scores"], commitment=blind.commitment)
        _keep(blind, entry)
        return entry


def open_labels(blind: BlindSet, *, head: str | None = None) -> Opened:
    """Read the labels from where they were sealed, and the scores from where they were frozen; verify all of it.

    Raises
    ------
    UsageError
        If the labels are still sealed.
    VerificationError
        If anything is not what the ledger says, or the ledger not what its anchors say.
    """
    entries = _verified(blind)
    frozen, unsealed = last_of(entries, "frozen"), last_of(entries, "unsealed")
    if frozen is None or unsealed is None:
        raise UsageError("the labels are still sealed", where=str(blind.folder), remedy="apbatch blind unseal")
    anchors = _check_anchors(blind, entries, head, exact=False, needed=False)
    record = {
        "folder": str(blind.folder),
        "commitment": blind.commitment,
        "open": blind.manifest["open"],
        "labels_were_open": frozen["labels_were_open"],
        "blind": not blind.open and not frozen["labels_were_open"],
        "rule": frozen["rule"],
        "head": entries[-1]["digest"],
        "anchors": anchors,
        "ledger": entries,
    }
    return Opened(read_labels(blind), read_parquet(frozen_file(blind.folder, frozen)), record)


def status(folder: Path, *, head: str | None = None) -> list[Entry]:
    """Return the entries of the ledger after verifying the set, the frozen scores, and what anchors there are.

    Raises
    ------
    VerificationError
        If anything was changed, cut off or removed.
    """
    blind = open_set(folder)
    entries = _verified(blind)
    if last_of(entries, "unsealed") is not None:
        read_labels(blind)
    _check_anchors(blind, entries, head, exact=False, needed=False, signed=False)
    return entries


def sign(folder: Path, key: Path) -> Head:
    """Sign the present head of an analysis, as its custodian.

    Parameters
    ----------
    folder : pathlib.Path
    key : pathlib.Path
        See `apbatch.dl.blind.anchors.make_key`.

    Raises
    ------
    UsageError
        If the set names another custodian.
    VerificationError
        If the ledger does not go on from what this custodian signed before.
    """
    blind, custodian = open_set(folder), Custodian(key)
    if blind.manifest["custodian"] != custodian.public:
        raise UsageError("the set was not made for this custodian", where=str(folder))
    with blind.ledger.locked():
        return custodian.sign(blind.commitment, _verified(blind), folder)


def _verified(blind: BlindSet, *, frozen_files: bool = True) -> list[Entry]:
    """Return the ledger of a set after checking that its acts follow each other and that their files are there."""
    entries = blind.ledger.entries()
    frozen: Entry | None = None
    opened = False
    for entry in entries[1:]:
        where = f"{blind.ledger.path}:{entry['n']}"
        if entry["act"] == "frozen":
            if opened != entry["labels_were_open"] or (frozen is not None and not (blind.open and opened)):
                raise VerificationError("scores were frozen again", where=where)
            frozen = entry
            if frozen_files:
                _check_frozen(blind, entry)
        elif entry["act"] == "unsealed":
            if frozen is None or entry["scores"] != frozen["scores"] or entry["commitment"] != blind.commitment:
                raise VerificationError("labels were opened for scores or labels that are not these", where=where)
            opened = True
        else:
            raise VerificationError(f"an act that there is not: '{entry['act']}'", where=where)
    return entries


def _check_frozen(blind: BlindSet, entry: Entry) -> None:
    place = frozen_file(blind.folder, entry)
    if not place.exists():
        raise VerificationError("the frozen scores were removed", where=str(place))
    if sha256(place) != entry["scores"]:
        raise VerificationError("differs from what was frozen", where=str(place))


def _check_anchors(
    blind: BlindSet,
    entries: list[Entry],
    head: str | None,
    *,
    exact: bool,
    needed: bool = True,
    signed: bool = True,
) -> list[str]:
    """Return what holds a ledger from outside, in words.

    Parameters
    ----------
    exact : bool
        Whether a given head must be the present one, not only one of the ledger.
    needed : bool
        Whether a blind set must have an anchor at all.
    signed : bool
        Whether the present head must have the custodian's signature.
    """
    present = head_of(entries)
    assert present is not None  # an open set has its first entry
    anchors = []
    if not blind.open:
        own_head = KeptHeads().check(blind.commitment, entries)
        if own_head is not None:
            anchors.append(f"act {own_head.n} kept by the account of the judgement")
    if head is not None:
        place = next((entry["n"] for entry in entries if entry["digest"] == head), None)
        if place is None:
            raise VerificationError(
                f"the ledger does not hold the head {head}: it was cut or rewritten, or the head is of another set",
                where=str(blind.ledger.path),
            )
        if exact and place != present.n:
            raise UsageError(
                f"the ledger went on by {present.n - place} acts after the head that was given",
                where=str(blind.ledger.path),
                remedy="look at them by `apbatch blind status`; the head now is the digest of the last",
            )
        anchors.append(f"act {place} given by its head")
    custodian = blind.manifest["custodian"]
    if custodian is not None and signed:
        check_signature(blind.folder, custodian, blind.commitment, present)
        anchors.append(f"signed by the custodian {custodian}")
    if needed and not anchors and not blind.open:
        raise UsageError(
            "this account keeps no head of the set",
            where=str(blind.folder),
            remedy="give what the last act printed: --head HEAD",
        )
    return anchors


def _keep(blind: BlindSet, entry: Entry) -> None:
    if not blind.open:
        KeptHeads().keep(blind.commitment, Head(entry["n"], entry["digest"]), blind.folder)


def read_labels(blind: BlindSet) -> pa.Table:
    """Return the labels as they were sealed, whether or not they were opened: `open_labels` is for judgement.

    Raises
    ------
    VerificationError
        If they were taken elsewhere, are not those of the commitment, or of other events.
    """
    place = blind.sealed
    content = place.read_bytes() if place.is_file() else None
    if content is None:
        raise VerificationError(
            "the sealed labels are not here", where=str(place), remedy="bring them back from who keeps them"
        )
    if hashlib.sha256(content).hexdigest() != blind.commitment:
        raise VerificationError("the labels are not those of the published commitment", where=str(place))
    sealed = json.loads(content)
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
    return labels


def _check_scores(blind: BlindSet, path: Path) -> list[str]:
    """Return the methods of a submission after checking that it scores every event once."""
    table = read_parquet(path, list(_SCORE_COLUMNS))
    for name in _SCORE_COLUMNS:
        kind, number = table.schema.field(name).type, name == "score"
        if not (pa.types.is_floating(kind) or pa.types.is_integer(kind) if number else pa.types.is_string(kind)):
            remedy = "write it as numbers" if number else "write it as text"
            raise FormatError(f"column '{name}' is of type {kind}", where=str(path), remedy=remedy)
        if table[name].null_count:
            raise FormatError(f"column '{name}' lacks a value", where=str(path))
    # What can't be judged must not be frozen: it could not be replaced by what can.
    if not pc.all(pc.and_(pc.greater_equal(table["score"], 0), pc.less_equal(table["score"], 1))).as_py():
        raise FormatError("a score is no number in 0…1", where=str(path))
    for name, rule, remedy in _NAMES:
        wrong = [value for value in pc.unique(table[name]).to_pylist() if not rule.fullmatch(value)]
        if wrong:
            raise FormatError(f"{wrong[0]!r} can't be the name of a {name}", where=str(path), remedy=remedy)
    labels = pc.binary_join_element_wise(table["method"], table["treatment"], " / ")
    methods = sorted(pc.unique(labels).to_pylist())
    if not methods:
        raise FormatError("there are no scores", where=str(path))
    for split in ("validation", "test"):
        ids = sorted(read_parquet(blind.files / f"{split}.parquet", ["id"])["id"].to_pylist())
        for method in methods:
            rows = pc.and_(pc.equal(labels, method), pc.equal(table["split"], split))
            scored = sorted(table.filter(rows)["id"].to_pylist())
            if scored != ids:
                missing, foreign = len(set(ids) - set(scored)), len(set(scored) - set(ids))
                twice = len(scored) - len(set(scored))
                raise FormatError(
                    f"scores of '{method}' for the {split} set: {missing} events have none, {twice} have two, "
                    f"{foreign} are unknown",
                    where=str(path),
                )
    return methods
