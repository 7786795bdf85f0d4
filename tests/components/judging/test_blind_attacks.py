"""Attacks on a blind analysis, each as a cheater would try it; what can't be detected is in docs/blind_protocol.md.

The cheater may write everything in the folder of the analysis. He has no private key of the custodian, and the heads
are kept where he can't write, unless a test says otherwise.
"""

from __future__ import annotations

import json
import multiprocessing
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from apbatch.dl.blind import anchors, protocol
from apbatch.dl.blind import blind_set as blind
from apbatch.dl.blind.anchors import KeptHeads
from apbatch.dl.blind.blind_set import BlindSet
from apbatch.dl.blind.ledger import Ledger, digest_of
from apbatch.dl.blind.settings import BlindSettings
from apbatch.dl.files import sha256
from apbatch.errors import FormatError, UsageError, VerificationError
from apbatch.sim.production import EXPERIMENT
from tests.synthetic import showers, write_dataset

REFUSED = (VerificationError, UsageError)


@pytest.fixture(scope="module")
def inputs(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    return showers(tmp_path_factory.mktemp("showers"), 30, 40, 2)


@pytest.fixture
def made(inputs: dict[str, str], home: Path, tmp_path: Path) -> BlindSet:
    """A blind set; the head of its making is kept by the account."""
    return blind.make(**inputs, folder=tmp_path / "blind")


@pytest.fixture
def honest(made: BlindSet, tmp_path: Path) -> BlindSet:
    """Honest scores were frozen, and the labels opened."""
    protocol.submit(made.folder, scores_for(made, tmp_path / "honest.parquet"))
    protocol.unseal(made.folder)
    return made


def scores_for(made: BlindSet, path: Path, of: Callable[[str], float] = lambda name: 0.5) -> Path:
    tables = []
    for split in ("validation", "test"):
        ids = pq.read_table(made.files / f"{split}.parquet", columns=["id"])["id"].to_pylist()
        n = len(ids)
        columns = {"method": ["box"] * n, "treatment": ["none"] * n, "split": [split] * n, "id": ids}
        tables.append(pa.table({**columns, "score": [of(name) for name in ids]}))
    pq.write_table(pa.concat_tables(tables), path)
    return path


def perfect(made: BlindSet, path: Path) -> Path:
    """Scores of somebody who has seen the labels."""
    sealed = json.loads(made.sealed.read_bytes())
    labels = dict(zip(sealed["id"], sealed["gamma"], strict=True))
    return scores_for(made, path, lambda name: float(labels.get(name, 0.5)))


def rewrite(place: Path, content: bytes | str) -> None:
    if place.exists():
        place.chmod(0o600)
    place.write_bytes(content.encode() if isinstance(content, str) else content)


def edit_sealed(made: BlindSet, change: Callable[[dict[str, Any]], None]) -> None:
    sealed = json.loads(made.sealed.read_bytes())
    change(sealed)
    rewrite(made.sealed, json.dumps(sealed, sort_keys=True, indent=1) + "\n")


def swap_labels(sealed: dict[str, Any]) -> None:
    sealed["gamma"] = [not label for label in sealed["gamma"]]


def write_ledger(made: BlindSet, entries: list[dict[str, Any]]) -> None:
    """Write a ledger whose chain is whole, as somebody who knows the program can."""
    before, lines = "0" * 64, []
    for number, entry in enumerate(entries, start=1):
        entry = {**entry, "n": number, "before": before}
        entry["digest"] = before = digest_of(entry)
        lines.append(json.dumps(entry, sort_keys=True, separators=(",", ":")) + "\n")
    made.ledger.path.write_text("".join(lines))


def to_the_start(made: BlindSet) -> None:
    """Cut the ledger to its first line and take away what came after."""
    lines = made.ledger.path.read_bytes().splitlines(keepends=True)
    made.ledger.path.write_bytes(lines[0])
    shutil.rmtree(made.folder / "frozen")


def test_cutting_the_ledger_to_its_first_line_does_not_make_the_labels_unread(honest: BlindSet, tmp_path: Path) -> None:
    scores = perfect(honest, tmp_path / "perfect.parquet")
    to_the_start(honest)
    with pytest.raises(VerificationError, match="lacks act 3"):
        protocol.submit(honest.folder, scores)
    with pytest.raises(VerificationError, match="lacks act 3"):
        protocol.status(honest.folder)


def test_from_an_account_that_kept_nothing_a_head_must_be_given(
    honest: BlindSet, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    scores = perfect(honest, tmp_path / "perfect.parquet")
    to_the_start(honest)
    monkeypatch.setenv("APBATCH_HOME", str(tmp_path / "fresh"))
    with pytest.raises(UsageError, match="keeps no head"):
        protocol.submit(honest.folder, scores)


def test_a_head_that_somebody_else_kept_shows_the_cut(
    honest: BlindSet, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    kept = honest.ledger.entries()[-1]["digest"]
    scores = perfect(honest, tmp_path / "perfect.parquet")
    to_the_start(honest)
    monkeypatch.setenv("APBATCH_HOME", str(tmp_path / "fresh"))
    for act in (
        lambda: protocol.submit(honest.folder, scores, head=kept),
        lambda: protocol.status(honest.folder, head=kept),
    ):
        with pytest.raises(VerificationError, match="does not hold the head"):
            act()


def test_cutting_only_the_last_line_is_noticed(honest: BlindSet) -> None:
    lines = honest.ledger.path.read_bytes().splitlines(keepends=True)
    honest.ledger.path.write_bytes(b"".join(lines[:-1]))
    for act in (protocol.status, protocol.unseal):
        with pytest.raises(VerificationError, match="lacks act 3"):
            act(honest.folder)


def test_an_edited_last_line_differs_from_its_digest(honest: BlindSet) -> None:
    lines = honest.ledger.path.read_text().splitlines(keepends=True)
    last = json.loads(lines[-1])
    last["time"] = "2001-01-01T00:00:00+00:00"
    honest.ledger.path.write_text("".join(lines[:-1]) + json.dumps(last, sort_keys=True, separators=(",", ":")) + "\n")
    with pytest.raises(VerificationError, match="differs from its digest"):
        protocol.status(honest.folder)


def test_an_edited_last_line_with_a_digest_of_its_own_is_another_head(honest: BlindSet) -> None:
    entries = honest.ledger.entries()
    write_ledger(honest, [*entries[:-1], {**entries[-1], "time": "2001-01-01T00:00:00+00:00"}])
    with pytest.raises(VerificationError, match="lacks act 3"):
        protocol.status(honest.folder)


@pytest.mark.parametrize("order", [(0, 2), (0, 2, 1), (0, 1, 1, 2), (1, 2)])
def test_lines_that_were_removed_moved_or_doubled_break_the_chain(honest: BlindSet, order: tuple[int, ...]) -> None:
    lines = honest.ledger.path.read_bytes().splitlines(keepends=True)
    honest.ledger.path.write_bytes(b"".join(lines[number] for number in order))
    with pytest.raises(VerificationError):
        protocol.status(honest.folder)


def test_a_line_with_a_key_twice_is_no_entry(honest: BlindSet) -> None:
    """Two readers of JSON may take the first or the last of equal keys; a line must have one meaning."""
    content = honest.ledger.path.read_text()
    honest.ledger.path.write_text(content.replace('{"act":"unsealed"', '{"act":"made","act":"unsealed"'))
    with pytest.raises(VerificationError, match="differs from its digest"):
        protocol.status(honest.folder)


def test_a_line_that_is_no_json_is_named(honest: BlindSet) -> None:
    honest.ledger.path.write_bytes(b"{not json}\n" + honest.ledger.path.read_bytes())
    with pytest.raises(FormatError, match="it must be JSON") as caught:
        protocol.status(honest.folder)
    assert caught.value.where == f"{honest.ledger.path}:1"


def test_an_act_of_another_name_is_refused(honest: BlindSet) -> None:
    write_ledger(honest, [*honest.ledger.entries(), {"act": "forgiven", "time": "2026-01-01T00:00:00+00:00"}])
    with pytest.raises(VerificationError, match="an act that there is not: 'forgiven'"):
        protocol.status(honest.folder)


def test_making_the_set_again_does_not_forget_the_head_that_shows_the_cut(
    honest: BlindSet, inputs: dict[str, str]
) -> None:
    to_the_start(honest)
    blind.make(**inputs, folder=honest.folder)
    with pytest.raises(VerificationError, match="lacks act 3"):
        protocol.status(honest.folder)


def test_a_removed_ledger_is_noticed(honest: BlindSet, tmp_path: Path) -> None:
    honest.ledger.path.unlink()
    with pytest.raises(VerificationError, match="does not begin with the making"):
        protocol.submit(honest.folder, perfect(honest, tmp_path / "perfect.parquet"))


def test_a_ledger_written_anew_for_the_same_set_is_noticed(honest: BlindSet, tmp_path: Path) -> None:
    scores = perfect(honest, tmp_path / "perfect.parquet")
    shutil.rmtree(honest.folder / "frozen")
    write_ledger(honest, [{**honest.ledger.entries()[0], "time": "2030-01-01T00:00:00+00:00"}])
    with pytest.raises(VerificationError, match="lacks act 3"):
        protocol.submit(honest.folder, scores)


def test_a_copy_can_not_be_opened_to_score_the_original(made: BlindSet, tmp_path: Path) -> None:
    shutil.copytree(made.folder, tmp_path / "copy")
    copy = blind.open_set(tmp_path / "copy")
    protocol.submit(copy.folder, scores_for(copy, tmp_path / "any.parquet"))
    protocol.unseal(copy.folder)
    with pytest.raises(VerificationError, match="a copy that went another way"):
        protocol.submit(made.folder, perfect(made, tmp_path / "perfect.parquet"))


def test_labels_edited_before_they_are_opened_are_refused(made: BlindSet, tmp_path: Path) -> None:
    protocol.submit(made.folder, scores_for(made, tmp_path / "scores.parquet"))
    edit_sealed(made, swap_labels)
    with pytest.raises(VerificationError, match="not those of the published commitment"):
        protocol.unseal(made.folder)
    assert made.ledger.last("unsealed") is None


def test_labels_edited_after_they_were_opened_are_refused_at_judgement(honest: BlindSet) -> None:
    edit_sealed(honest, swap_labels)
    for act in (lambda: protocol.open_labels(honest), lambda: protocol.status(honest.folder)):
        with pytest.raises(VerificationError, match="not those of the published commitment"):
            act()


def test_labels_exchanged_among_events_are_refused(honest: BlindSet) -> None:
    edit_sealed(honest, lambda sealed: sealed["id"].reverse())
    with pytest.raises(VerificationError, match="not those of the published commitment"):
        protocol.open_labels(honest)


def test_labels_with_a_commitment_of_their_own_are_refused(honest: BlindSet) -> None:
    """The manifest is changed with them, then the ledger too: each step meets the next guard."""
    edit_sealed(honest, swap_labels)
    place = honest.files / "manifest.json"
    manifest = json.loads(place.read_bytes())
    manifest["commitment"] = sha256(honest.sealed)
    rewrite(place, json.dumps(manifest, sort_keys=True, indent=1) + "\n")
    with pytest.raises(VerificationError, match="manifest is not the one in the ledger"):
        protocol.status(honest.folder)
    first, frozen, opened = honest.ledger.entries()
    commitment = {"commitment": manifest["commitment"]}
    write_ledger(honest, [{**first, **commitment, "manifest": sha256(place)}, frozen, {**opened, **commitment}])
    # It is another set now: nobody who kept a head of the old one has heard of it.
    with pytest.raises(VerificationError, match="does not hold the head"):
        protocol.status(honest.folder, head=first["digest"])
    assert protocol.open_labels(blind.open_set(honest.folder)).record["anchors"] == []


def test_an_opened_copy_of_labels_is_nothing_that_is_read(honest: BlindSet) -> None:
    true = protocol.open_labels(honest).labels
    folder = honest.folder / "unsealed"
    folder.mkdir()
    flipped = pa.array([not label for label in true["gamma"].to_pylist()])
    pq.write_table(true.set_column(true.column_names.index("gamma"), "gamma", flipped), folder / "labels.parquet")
    assert protocol.open_labels(honest).labels.equals(true)


def test_sealed_labels_that_are_gone_are_missed(honest: BlindSet) -> None:
    shutil.rmtree(honest.folder / "sealed")
    with pytest.raises(VerificationError, match="sealed labels are not here"):
        protocol.status(honest.folder)


def test_frozen_scores_that_were_exchanged_are_refused(honest: BlindSet, tmp_path: Path) -> None:
    place = protocol.frozen_file(honest.folder, honest.ledger.last("frozen") or {})
    rewrite(place, perfect(honest, tmp_path / "perfect.parquet").read_bytes())
    for act in (lambda: protocol.open_labels(honest), lambda: protocol.status(honest.folder)):
        with pytest.raises(VerificationError, match="differs from what was frozen"):
            act()


def test_frozen_scores_that_were_removed_are_missed_and_make_no_room(honest: BlindSet, tmp_path: Path) -> None:
    shutil.rmtree(honest.folder / "frozen")
    with pytest.raises(VerificationError, match="frozen scores were removed"):
        protocol.status(honest.folder)
    with pytest.raises(UsageError, match="can't be replaced"):
        protocol.submit(honest.folder, perfect(honest, tmp_path / "perfect.parquet"), again=True)


def test_scores_that_the_ledger_knows_but_nobody_froze_are_missed(made: BlindSet, tmp_path: Path) -> None:
    scores = perfect(made, tmp_path / "perfect.parquet")
    head = made.ledger.append(
        "frozen", scores=sha256(scores), methods=["box / none"], labels_were_open=False, rule=None
    )["digest"]
    with pytest.raises(VerificationError, match="frozen scores were removed"):
        protocol.unseal(made.folder, head=head)


def test_a_second_freezing_in_a_blind_ledger_is_refused(honest: BlindSet, tmp_path: Path) -> None:
    scores = perfect(honest, tmp_path / "perfect.parquet")
    shutil.copy(scores, protocol.frozen_file(honest.folder, {"scores": sha256(scores)}))
    honest.ledger.append("frozen", scores=sha256(scores), methods=["box / none"], labels_were_open=True, rule=None)
    with pytest.raises(VerificationError, match="frozen again"):
        protocol.open_labels(honest)


def test_a_blind_set_can_not_be_declared_open_afterwards(honest: BlindSet, tmp_path: Path) -> None:
    place = honest.files / "manifest.json"
    manifest = json.loads(place.read_bytes())
    rewrite(place, json.dumps({**manifest, "open": ["practice"]}, sort_keys=True, indent=1) + "\n")
    with pytest.raises(VerificationError, match="manifest is not the one in the ledger"):
        protocol.submit(honest.folder, perfect(honest, tmp_path / "perfect.parquet"), again=True)


def test_events_that_were_exchanged_in_the_set_are_refused(made: BlindSet, tmp_path: Path) -> None:
    place = made.files / "test.parquet"
    scores = scores_for(made, tmp_path / "scores.parquet")
    rewrite(place, (made.files / "validation.parquet").read_bytes())
    with pytest.raises(VerificationError, match="differs from what the manifest says"):
        protocol.submit(made.folder, scores)


def test_a_head_that_is_not_the_present_one_does_not_go_on(made: BlindSet, tmp_path: Path) -> None:
    first = made.ledger.entries()[0]["digest"]
    protocol.submit(made.folder, scores_for(made, tmp_path / "scores.parquet"), head=first)
    with pytest.raises(UsageError, match="went on by 1 acts"):
        protocol.unseal(made.folder, head=first)


# A custodian: the cheater may have the account, too.


@pytest.fixture
def key(tmp_path: Path) -> Path:
    anchors.make_key(tmp_path / "custodian" / "key.pem")
    return tmp_path / "custodian" / "key.pem"


@pytest.fixture
def watched(inputs: dict[str, str], home: Path, tmp_path: Path, key: Path) -> BlindSet:
    """A set with a custodian, scores frozen and labels opened, every head signed."""
    settings = BlindSettings(custodian=anchors.Custodian(key).public)
    made = blind.make(**inputs, folder=tmp_path / "watched", settings=settings)
    protocol.sign(made.folder, key)
    protocol.submit(made.folder, scores_for(made, tmp_path / "honest.parquet"))
    protocol.sign(made.folder, key)
    protocol.unseal(made.folder)
    protocol.sign(made.folder, key)
    return made


def test_an_act_waits_for_the_custodian(inputs: dict[str, str], home: Path, tmp_path: Path, key: Path) -> None:
    settings = BlindSettings(custodian=anchors.Custodian(key).public)
    made = blind.make(**inputs, folder=tmp_path / "set", settings=settings)
    scores = scores_for(made, tmp_path / "scores.parquet")
    with pytest.raises(VerificationError, match="is not signed"):
        protocol.submit(made.folder, scores)
    protocol.sign(made.folder, key)
    protocol.submit(made.folder, scores)
    with pytest.raises(VerificationError, match="is not signed"):
        protocol.unseal(made.folder)


def test_a_custodian_signs_no_history_that_forgets_what_he_signed(
    watched: BlindSet, key: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Cut from a fresh account, scored and opened again: it looks whole but its head is signed by nobody."""
    scores = perfect(watched, tmp_path / "perfect.parquet")
    to_the_start(watched)
    monkeypatch.setenv("APBATCH_HOME", str(tmp_path / "fresh"))
    protocol.submit(watched.folder, scores)
    with pytest.raises(VerificationError, match="is not signed"):
        protocol.unseal(watched.folder)
    with pytest.raises(VerificationError, match="lacks act 3"):
        protocol.sign(watched.folder, key)
    watched.ledger.append("unsealed", scores=sha256(scores), commitment=watched.commitment)
    with pytest.raises(VerificationError, match="is not signed"):
        protocol.open_labels(watched)


@pytest.mark.parametrize("how", ["another key", "another head", "nonsense", "removed"])
def test_a_signature_that_is_not_the_custodians_of_this_head_is_refused(
    watched: BlindSet, tmp_path: Path, how: str
) -> None:
    place = watched.folder / anchors.SIGNATURES
    signatures = json.loads(place.read_text())
    first, _, last = (entry["digest"] for entry in watched.ledger.entries())
    if how == "another key":
        other = tmp_path / "other.pem"
        anchors.make_key(other)
        anchors.Custodian(other).sign(watched.commitment, watched.ledger.entries(), watched.folder)
    elif how == "removed":
        place.unlink()
    else:
        forged = signatures[first] if how == "another head" else "no number"
        place.write_text(json.dumps({**signatures, last: forged}))
    with pytest.raises(VerificationError, match=r"is not signed|is not the custodian's"):
        protocol.open_labels(watched)


def test_a_custodian_of_another_set_is_refused(made: BlindSet, key: Path) -> None:
    with pytest.raises(UsageError, match="not made for this custodian"):
        protocol.sign(made.folder, key)


def test_a_key_is_the_owners_alone_and_never_replaced(key: Path) -> None:
    assert key.stat().st_mode & 0o077 == 0
    with pytest.raises(UsageError, match="never replaced"):
        anchors.make_key(key)


# Truth by its seed, and what is handed out.


def simulated(inputs: dict[str, str], folder: Path, production: Any) -> dict[str, str]:
    """The same images as of our simulation, with the manifest of a production beside the truth."""
    urls = {}
    for name, url in inputs.items():
        table = pq.read_table(url.removeprefix("file://"))
        place = table.column_names.index("experiment")
        table = table.set_column(place, "experiment", pa.array([EXPERIMENT] * table.num_rows))
        info = json.loads((Path(url.removeprefix("file://")) / "_apbatch.json").read_text())
        urls[name] = write_dataset(folder / name, table, info)
    if production is not None:
        (folder / "production.json").write_text(json.dumps(production))
    return urls


@pytest.mark.parametrize(
    ("production", "said"),
    [
        (None, "can't be read"),
        ({"parameters": {"seed": 2018}}, "no commitment to a secret seed"),
        ([], "no commitment to a secret seed"),
        ({"parameters": {"seed": 2018, "seed_commitment": "ab" * 32}}, "seed of the production was published"),
    ],
)
def test_a_set_whose_events_can_be_simulated_again_is_not_called_blind(
    inputs: dict[str, str], home: Path, tmp_path: Path, production: Any, said: str
) -> None:
    urls = simulated(inputs, tmp_path / "production", production)
    with pytest.raises(UsageError, match=said):
        blind.make(**urls, folder=tmp_path / "blind")
    assert not (tmp_path / "blind").exists()
    made = blind.make(**urls, folder=tmp_path / "open", settings=BlindSettings(open=True))
    assert made.open and said in made.manifest["open"][0]
    protocol.submit(made.folder, scores_for(made, tmp_path / "scores.parquet"))
    protocol.unseal(made.folder)
    assert not protocol.open_labels(made).record["blind"]


def test_a_set_of_a_production_with_a_secret_seed_is_blind(inputs: dict[str, str], home: Path, tmp_path: Path) -> None:
    urls = simulated(inputs, tmp_path / "production", {"parameters": {"seed_commitment": "ab" * 32}})
    assert not blind.make(**urls, folder=tmp_path / "blind").open
    (tmp_path / "production" / "seed.json").write_text("{}")  # revealed: what is drawn from now on is not blind
    with pytest.raises(UsageError, match="was published"):
        blind.make(**urls, folder=tmp_path / "late")


def test_a_seed_of_the_set_is_only_for_open_ones(inputs: dict[str, str], home: Path, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="so it is not blind"):
        blind.make(**inputs, folder=tmp_path / "blind", settings=BlindSettings(seed=3))


def test_what_is_handed_out_holds_no_address_and_no_seed(inputs: dict[str, str], home: Path, tmp_path: Path) -> None:
    settings = BlindSettings(open=True, seed=918273645)
    made = blind.make(**inputs, folder=tmp_path / "blind", settings=settings)
    secrets = [word for url in inputs.values() for word in (url, url.removeprefix("file://"), Path(url).parent.name)]
    for place in (*made.files.iterdir(), made.ledger.path):
        content = place.read_bytes()
        for secret in (*secrets, str(settings.seed), "file://", "truth"):
            assert secret.encode() not in content, (place.name, secret)


def test_the_origin_of_a_set_can_not_be_changed(made: BlindSet) -> None:
    origin = json.loads((made.folder / "origin.json").read_text())
    rewrite(made.folder / "origin.json", json.dumps({**origin, "inputs": {}}))
    with pytest.raises(VerificationError, match="origin is not the one in the ledger"):
        protocol.status(made.folder)


# At the same time, and killed in between.


def _submit(folder: Path, scores: Path, answers: Any) -> None:
    try:
        answers.put(protocol.submit(folder, scores)["scores"])
    except UsageError:
        answers.put("refused")


def test_of_scores_that_come_at_the_same_time_one_is_frozen(made: BlindSet, tmp_path: Path) -> None:
    context = multiprocessing.get_context("fork")
    answers = context.Queue()
    given = [scores_for(made, tmp_path / f"{n}.parquet", lambda name, n=n: n / 8) for n in range(4)]  # type: ignore[misc]
    writers = [context.Process(target=_submit, args=(made.folder, scores, answers)) for scores in given]
    for writer in writers:
        writer.start()
    results = [answers.get(timeout=120) for _ in writers]
    for writer in writers:
        writer.join(120)
    assert results.count("refused") == 3
    assert [entry["act"] for entry in protocol.status(made.folder)] == ["made", "frozen"]


def _append(path: Path, times: int) -> None:
    for number in range(times):
        Ledger(path).append("frozen", number=number)


def test_appends_at_the_same_time_lose_nothing_and_break_nothing(tmp_path: Path) -> None:
    context = multiprocessing.get_context("fork")
    writers = [context.Process(target=_append, args=(tmp_path / "ledger.jsonl", 15)) for _ in range(4)]
    for writer in writers:
        writer.start()
    for writer in writers:
        writer.join(120)
    assert [entry["n"] for entry in Ledger(tmp_path / "ledger.jsonl").entries()] == list(range(1, 61))


def test_an_act_that_was_killed_before_its_head_was_kept_can_be_done_again(made: BlindSet, tmp_path: Path) -> None:
    scores = scores_for(made, tmp_path / "scores.parquet")
    before = KeptHeads().of(made.commitment)
    entry = protocol.submit(made.folder, scores)
    assert before is not None
    KeptHeads().keep(made.commitment, before, made.folder)  # as a kill between ledger and head leaves it
    assert protocol.submit(made.folder, scores) == entry
    submitted = KeptHeads().of(made.commitment)
    assert submitted is not None and submitted.digest == entry["digest"]
    opened = protocol.unseal(made.folder)
    KeptHeads().keep(made.commitment, submitted, made.folder)
    assert protocol.unseal(made.folder) == opened
    last = KeptHeads().of(made.commitment)
    assert last is not None and last.digest == opened["digest"]


def test_sealed_labels_are_not_judged(made: BlindSet, tmp_path: Path) -> None:
    for _ in range(2):
        with pytest.raises(UsageError, match="still sealed"):
            protocol.open_labels(made)
        protocol.submit(made.folder, scores_for(made, tmp_path / "scores.parquet"))


def test_a_rule_that_was_changed_after_freezing_is_seen(made: BlindSet, tmp_path: Path) -> None:
    protocol.submit(made.folder, scores_for(made, tmp_path / "scores.parquet"), rule={"hadrons_min": 200})
    protocol.unseal(made.folder)
    assert protocol.open_labels(made).record["rule"] == {"hadrons_min": 200}
