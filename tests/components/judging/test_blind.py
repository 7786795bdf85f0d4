"""Blind sets: nothing in them tells the labels, and nothing can be exchanged unseen."""

from __future__ import annotations

import hashlib
import json
import shutil
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest

from apbatch.dl.blind import blind_set as blind
from apbatch.dl.blind import protocol
from apbatch.dl.blind.blind_set import BlindSet
from apbatch.dl.blind.image_selection import TRUTH
from apbatch.dl.blind.ledger import Ledger
from apbatch.dl.blind.settings import BlindSettings
from apbatch.errors import FormatError, UsageError, VerificationError
from tests.synthetic import showers, write_dataset


@pytest.fixture(scope="session")
def inputs(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    return showers(tmp_path_factory.mktemp("showers"), contrast=0.0)


@pytest.fixture(scope="session")
def made(inputs: dict[str, str], tmp_path_factory: pytest.TempPathFactory) -> BlindSet:
    return blind.make(**inputs, folder=tmp_path_factory.mktemp("blind"), settings=BlindSettings(open=True, seed=3))


@pytest.fixture
def analysis(made: BlindSet, tmp_path: Path) -> BlindSet:
    """A copy that a test may spoil."""
    shutil.copytree(made.folder, tmp_path / "blind")
    return blind.open_set(tmp_path / "blind")


def sealed(analysis: BlindSet) -> dict:
    return json.loads((analysis.folder / "sealed" / "labels.json").read_bytes())


def scores_for(analysis: BlindSet, path: Path, value: float = 0.5) -> Path:
    tables = []
    for split in ("validation", "test"):
        ids = pq.read_table(analysis.files / f"{split}.parquet", columns=["id"])["id"]
        n = len(ids)
        columns = {"method": ["m"] * n, "treatment": ["none"] * n, "split": [split] * n, "score": [value] * n}
        tables.append(pa.table({**columns, "id": ids}))
    pq.write_table(pa.concat_tables(tables), path)
    return path


def showers_of(analysis: BlindSet) -> dict[str, set[int]]:
    known = {
        split: set(pq.read_table(analysis.files / f"{split}.parquet", columns=["shower"])["shower"].to_pylist())
        for split in ("train", "validation")
    }
    return {**known, "test": set(sealed(analysis)["shower"])}


def test_no_shower_is_in_two_splits(made: BlindSet) -> None:
    train, validation, test = showers_of(made).values()
    assert train and validation and test
    assert not train & validation and not train & test and not validation & test


def test_the_commitment_is_what_sha256sum_prints_for_the_sealed_file(made: BlindSet) -> None:
    content = (made.folder / "sealed" / "labels.json").read_bytes()
    assert hashlib.sha256(content).hexdigest() == made.manifest["commitment"]


def test_the_test_file_holds_an_id_grids_and_image_parameters_and_nothing_else(made: BlindSet) -> None:
    names = set(pq.read_schema(made.files / "test.parquet").names)
    features = {f"{name}_{treatment}" for name in made.manifest["features"] for treatment in ("none", "cleaned")}
    assert names == {"id", "image"} | features
    assert not pq.read_schema(made.files / "test.parquet").metadata


def test_train_and_test_files_have_the_same_features(made: BlindSet) -> None:
    train = set(pq.read_schema(made.files / "train.parquet").names) - {"gamma", "shower", *TRUTH}
    assert train == set(pq.read_schema(made.files / "test.parquet").names)


def test_nothing_handed_out_names_a_class_or_a_count_of_the_test_set(made: BlindSet) -> None:
    assert set(made.manifest["events"]["test"]) == {"events"}
    assert str(sealed(made)["gamma_fraction"]) not in (made.files / "manifest.json").read_text()
    assert {entry.name for entry in made.files.iterdir()} == {
        "manifest.json", "train.parquet", "validation.parquet", "test.parquet"
    }  # fmt: skip


def test_order_and_ids_of_the_test_set_are_independent_of_the_labels(inputs: dict[str, str], tmp_path: Path) -> None:
    """Rank correlation of label with row and with id over several sets: a mean of zero within 4 standard errors."""
    by_row, by_id, n = [], [], 0
    for seed in range(12):
        one = blind.make(**inputs, folder=tmp_path / str(seed), settings=BlindSettings(open=True, seed=seed))
        labels = np.array(sealed(one)["gamma"], float)
        labels = (labels - labels.mean()) / labels.std()
        n += len(labels)
        order = np.arange(len(labels))
        ids = np.argsort(np.argsort(sealed(one)["id"]))
        for found, values in ((by_row, order), (by_id, ids)):
            found.append(float((labels * (values - values.mean()) / values.std()).sum()))
    for found in (by_row, by_id):
        assert abs(sum(found)) / np.sqrt(n) < 4


def test_classes_that_look_alike_can_not_be_told_apart_by_any_column_or_byte_count(made: BlindSet) -> None:
    """Made without contrast, so whatever told the label would be a leak: every AUC must be near a half."""
    table = pq.read_table(made.files / "test.parquet")
    gamma = np.array(sealed(made)["gamma"])
    width = 4.5 * np.sqrt(1 / 12 * (1 / gamma.sum() + 1 / (~gamma).sum()))  # 4.5 standard deviations of an AUC
    for name in table.column_names:
        column = table[name]
        if name == "image":
            values = np.array([len(cell) + np.frombuffer(cell, "<f4")[0] for cell in column.to_pylist()])
        elif name == "id":
            values = np.array([int(cell, 16) / 16**20 for cell in column.to_pylist()])
        else:
            values = column.to_numpy()
        ranks = np.argsort(np.argsort(values + 1e-9 * np.random.default_rng(0).random(len(values))))
        auc = (ranks[gamma].mean() - (gamma.sum() - 1) / 2) / (~gamma).sum()
        assert abs(auc - 0.5) < width, name


def test_float_noise_does_not_tell_the_class(made: BlindSet) -> None:
    """The last bits of pixels and of parameters are as random in gammas as in hadrons."""
    table = pq.read_table(made.files / "test.parquet")
    gamma = np.array(sealed(made)["gamma"])
    for name in ("size_none", "width_cleaned"):
        bits = table[name].to_numpy().view(np.uint32) & 7
        shares = [bits[chosen].mean() / 7 for chosen in (gamma, ~gamma)]
        assert abs(shares[0] - shares[1]) < 4 * 0.33 * np.sqrt(1 / gamma.sum() + 1 / (~gamma).sum())


def test_the_size_of_the_set_does_not_depend_on_the_proportion(inputs: dict[str, str], tmp_path: Path) -> None:
    """For fixed pools of events any proportion in the allowed range gives the same number of events."""
    settings = BlindSettings(open=True, seed=0)
    pools = np.arange(70), np.arange(70, 200)
    drawn = [blind._draw_test(*pools, settings, bytes([seed])) for seed in range(40)]
    assert len({len(gammas) + len(hadrons) for gammas, hadrons in drawn}) == 1
    assert len({len(gammas) for gammas, _ in drawn}) > 10


def test_the_same_seed_gives_the_same_bytes_and_another_seed_another_set(
    made: BlindSet, inputs: dict[str, str], tmp_path: Path
) -> None:
    again = blind.make(**inputs, folder=tmp_path / "again", settings=BlindSettings(open=True, seed=3))
    other = blind.make(**inputs, folder=tmp_path / "other", settings=BlindSettings(open=True, seed=4))
    assert again.manifest["files"] == made.manifest["files"]
    assert again.manifest["commitment"] == made.manifest["commitment"]
    assert other.manifest["commitment"] != made.manifest["commitment"]


def test_without_a_seed_no_two_sets_are_alike(inputs: dict[str, str], tmp_path: Path) -> None:
    sets = [blind.make(**inputs, folder=tmp_path / name) for name in ("one", "two")]
    assert sets[0].manifest["commitment"] != sets[1].manifest["commitment"]


def test_a_set_does_not_depend_on_the_partitioning_of_its_inputs(
    made: BlindSet, inputs: dict[str, str], tmp_path: Path
) -> None:
    folder = Path(inputs["images"].removeprefix("file://"))
    table = pq.read_table(folder)
    shuffled = table.take(pa.array(np.random.default_rng(1).permutation(table.num_rows)))
    info = json.loads((folder / "_apbatch.json").read_text())
    grids = write_dataset(tmp_path / "grids", shuffled, info, parts=7)
    again = blind.make(
        **{**inputs, "images": grids}, folder=tmp_path / "blind", settings=BlindSettings(open=True, seed=3)
    )
    assert again.manifest["files"] == made.manifest["files"]


def test_make_again_changes_nothing(analysis: BlindSet, inputs: dict[str, str]) -> None:
    before = {path: path.read_bytes() for path in analysis.folder.rglob("*") if path.is_file()}
    blind.make(**inputs, folder=analysis.folder, settings=BlindSettings(open=True, seed=3))
    assert {path: path.read_bytes() for path in analysis.folder.rglob("*") if path.is_file()} == before


def test_make_refuses_a_folder_with_another_analysis(analysis: BlindSet, inputs: dict[str, str]) -> None:
    with pytest.raises(UsageError, match="other inputs or with other settings"):
        blind.make(**inputs, folder=analysis.folder, settings=BlindSettings(open=True, seed=3, size_min=100))


def test_unseal_needs_frozen_scores(analysis: BlindSet) -> None:
    with pytest.raises(UsageError, match="no scores were frozen"):
        protocol.unseal(analysis.folder)
    assert analysis.ledger.last("unsealed") is None


def test_unseal_returns_the_sealed_labels(analysis: BlindSet, tmp_path: Path) -> None:
    protocol.submit(analysis.folder, scores_for(analysis, tmp_path / "scores.parquet"))
    protocol.unseal(analysis.folder)
    labels = protocol.open_labels(analysis).labels
    assert labels["gamma"].to_pylist() == sealed(analysis)["gamma"]
    assert [entry["act"] for entry in protocol.status(analysis.folder)] == ["made", "frozen", "unsealed"]


def test_the_same_scores_again_are_accepted_and_others_refused(analysis: BlindSet, tmp_path: Path) -> None:
    first = protocol.submit(analysis.folder, scores_for(analysis, tmp_path / "scores.parquet"))
    assert protocol.submit(analysis.folder, tmp_path / "scores.parquet") == first
    with pytest.raises(UsageError, match="can't be replaced"):
        protocol.submit(analysis.folder, scores_for(analysis, tmp_path / "better.parquet", value=0.9))


def test_removing_the_frozen_scores_does_not_make_room_for_others(analysis: BlindSet, tmp_path: Path) -> None:
    protocol.submit(analysis.folder, scores_for(analysis, tmp_path / "scores.parquet"))
    shutil.rmtree(analysis.folder / "frozen")
    with pytest.raises(UsageError, match="can't be replaced"):
        protocol.submit(analysis.folder, scores_for(analysis, tmp_path / "better.parquet", value=0.9))


@pytest.mark.parametrize("name", ["set/test.parquet", "set/manifest.json", "sealed/labels.json", "frozen"])
def test_a_flipped_bit_is_refused_at_unsealing(analysis: BlindSet, tmp_path: Path, name: str) -> None:
    protocol.submit(analysis.folder, scores_for(analysis, tmp_path / "scores.parquet"))
    place = analysis.folder / name
    place = next(place.iterdir()) if place.is_dir() else place
    content = bytearray(place.read_bytes())
    content[len(content) // 2] ^= 1
    place.chmod(0o600)
    place.write_bytes(content)
    with pytest.raises((VerificationError, FormatError)):
        protocol.unseal(analysis.folder)
    assert analysis.ledger.last("unsealed") is None


def test_half_a_line_of_a_killed_writer_does_not_count(tmp_path: Path) -> None:
    ledger = Ledger(tmp_path / "ledger.jsonl")
    ledger.append("made", commitment="a")
    with ledger.path.open("ab") as file:
        file.write(b'{"act": "fro')
    ledger.append("frozen", scores="b")
    assert [entry["act"] for entry in ledger.entries()] == ["made", "frozen"]


_SPOILT = {
    "nan": ("score", float("nan")), "above": ("score", 1.5), "below": ("score", -0.1), "text": ("score", "0.5"),
    "training": ("method", "my#net"), "mean": ("method", "net+"), "separator": ("method", "a\x1fb"),
    "nameless": ("method", ""), "treatment": ("treatment", "a\x1fb"), "no treatment": ("treatment", None),
    "number": ("method", 7), "foreign": ("id", "nobody"),
}  # fmt: skip


@pytest.mark.parametrize("spoil", ["missing", "twice", *_SPOILT])
def test_a_submission_must_score_every_event_once_so_that_it_can_be_judged(
    analysis: BlindSet, tmp_path: Path, spoil: str
) -> None:
    rows = pq.read_table(scores_for(analysis, tmp_path / "scores.parquet")).to_pylist()
    if spoil == "missing":
        rows.pop()
    elif spoil == "twice":
        rows.append(rows[-1])
    else:
        column, value = _SPOILT[spoil]
        spoilt = rows[-1:] if (column in ("score", "id") and not isinstance(value, str)) or spoil == "foreign" else rows
        for row in spoilt:
            row[column] = value
    pq.write_table(pa.Table.from_pylist(rows), tmp_path / "spoiled.parquet")
    with pytest.raises(FormatError):
        protocol.submit(analysis.folder, tmp_path / "spoiled.parquet")
    assert analysis.ledger.last("frozen") is None


def test_the_cut_flow_ends_with_the_hand_counted_numbers(made: BlindSet, inputs: dict[str, str]) -> None:
    parameters = pq.read_table(inputs["parameters"].removeprefix("file://")).to_pylist()
    truth = pq.read_table(inputs["truth"].removeprefix("file://")).to_pylist()
    gammas = {row["event"] for row in truth if row["primary"] == "gamma"}
    kept = [
        row["event"] for row in parameters if row["cleaning"] != "none" and row["size"] > 60 and row["n_pixels"] >= 4
    ]
    last = made.manifest["cut_flow"][-1]
    assert last["gamma"] == sum(event in gammas for event in kept)
    assert last["hadron"] == sum(event not in gammas for event in kept)
    assert not any("edge pixels" in step["cut"] for step in made.manifest["cut_flow"]), "nothing was to be cut there"


def test_too_few_of_a_class_make_no_test_set(tmp_path: Path) -> None:
    """Whatever the proportion drawn, one event of a class leaves none of it or of the other."""
    for place in range(20):
        with pytest.raises(UsageError, match="too few for a test set"):
            blind._draw_test(np.arange(50), np.arange(1), BlindSettings(), bytes([place]))


def test_shares_that_leave_nothing_to_train_on_are_refused() -> None:
    with pytest.raises(UsageError, match="leave nothing to train on"):
        BlindSettings(test_fraction=0.6, validation_fraction=0.4).check()


def test_a_missing_class_is_an_error_before_anything_is_written(inputs: dict[str, str], tmp_path: Path) -> None:
    truth = pq.read_table(inputs["truth"].removeprefix("file://"))
    only = truth.set_column(truth.schema.get_field_index("primary"), "primary", pa.array(["gamma"] * truth.num_rows))
    url = write_dataset(tmp_path / "truth", only, {})
    with pytest.raises(UsageError, match="0 hadron showers"):
        blind.make(**{**inputs, "truth": url}, folder=tmp_path / "blind")
    assert not (tmp_path / "blind").exists()


def test_an_image_that_occurs_twice_is_an_error(inputs: dict[str, str], tmp_path: Path) -> None:
    truth = pq.read_table(inputs["truth"].removeprefix("file://"))
    url = write_dataset(tmp_path / "truth", pa.concat_tables([truth, truth.slice(0, 1)]), {})
    with pytest.raises(FormatError, match="1 images occur twice"):
        blind.make(**{**inputs, "truth": url}, folder=tmp_path / "blind")


def test_what_is_no_dataset_of_images_is_an_error(inputs: dict[str, str], tmp_path: Path) -> None:
    with pytest.raises(FormatError, match="not a dataset of images"):
        blind.make(**{**inputs, "images": inputs["parameters"]}, folder=tmp_path / "blind")


def test_a_misspelt_cleaning_names_the_nearest(inputs: dict[str, str], tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="did you mean 'tailcuts-14-7'"):
        blind.make(**inputs, folder=tmp_path / "blind", settings=BlindSettings(cleaning="tailcut-14-7"))


def test_all_test_events_come_from_the_inputs(made: BlindSet, inputs: dict[str, str]) -> None:
    known = set(pq.read_table(inputs["images"].removeprefix("file://"))["image"].to_pylist())
    test = pq.read_table(made.files / "test.parquet")
    assert pc.unique(test["id"]).to_pylist() == test["id"].to_pylist()
    assert set(test["image"].to_pylist()) <= known


@pytest.fixture
def of_a_source(inputs: dict[str, str], tmp_path: Path) -> dict[str, str]:
    """The same showers, and a place of the observed source for each: every third gamma comes from there."""
    truth = pq.read_table(inputs["truth"].removeprefix("file://"))
    gamma = np.array(truth["primary"].to_pylist()) == "gamma"
    away = np.where(gamma & (truth["shower"].to_numpy() % 3 == 0), 0.0, 0.8)
    place = {"source_x": truth["true_source_x"].to_numpy() + away, "source_y": truth["true_source_y"].to_numpy()}
    table = truth.select(["experiment", "run", "event", "telescope"])
    for name, values in place.items():
        table = table.append_column(name, pa.array(values))
    return {**inputs, "sources": write_dataset(tmp_path / "sources", table, {"kind": "sources"})}


def test_worlds_share_their_hadrons_and_no_gamma(of_a_source: dict[str, str], home: Path, tmp_path: Path) -> None:
    flows = {}
    for world in ("all", "point", "diffuse"):
        settings = BlindSettings(world=world)  # type: ignore[arg-type]
        one = blind.make(**of_a_source, folder=tmp_path / world, settings=settings)
        flows[world] = one.manifest["cut_flow"][-1]
        assert ("observed_x" in pq.read_schema(one.files / "test.parquet").names) == (world == "point")
    assert flows["point"]["gamma"] + flows["diffuse"]["gamma"] == flows["all"]["gamma"] > flows["point"]["gamma"] > 0
    assert {flow["hadron"] for flow in flows.values()} == {flows["all"]["hadron"]}


def test_gammas_of_the_world_point_come_from_where_the_set_says_the_source_is(
    of_a_source: dict[str, str], home: Path, tmp_path: Path
) -> None:
    one = blind.make(**of_a_source, folder=tmp_path / "point", settings=BlindSettings(world="point"))
    table = pq.read_table(one.files / "train.parquet")
    away = np.hypot(*(table[f"observed_{axis}"].to_numpy() - table[f"source_{axis}"].to_numpy() for axis in "xy"))
    gamma = table["gamma"].to_numpy(zero_copy_only=False).astype(bool)
    assert away[gamma].max() < 0.01 and away[~gamma].min() > 0.5


def test_a_world_without_the_place_of_the_source_is_an_error(inputs: dict[str, str], tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="needs the place of the observed source"):
        blind.make(**inputs, folder=tmp_path / "blind", settings=BlindSettings(world="point"))


def test_labels_that_a_killed_making_left_are_not_handed_out(inputs: dict[str, str], tmp_path: Path) -> None:
    settings = BlindSettings(open=True, seed=3)
    first = blind.make(**inputs, folder=tmp_path / "blind", settings=settings)
    names = {file.name for file in first.files.iterdir()}
    labelled = (first.files / "train.parquet").read_bytes()
    first.ledger.path.unlink()  # killed before the set was made
    for place in (first.files / ".train.parquet.x1_y.part", first.files / ".validation.parquet.zz.part"):
        place.write_bytes(labelled)
    (first.sealed.parent / ".labels.json.ab.part").write_bytes(first.sealed.read_bytes())
    again = blind.make(**inputs, folder=tmp_path / "blind", settings=settings)
    assert {file.name for file in again.files.iterdir()} == names
    assert [file.name for file in again.sealed.parent.iterdir()] == ["labels.json"]


def test_files_of_something_else_are_neither_removed_nor_handed_out(inputs: dict[str, str], tmp_path: Path) -> None:
    mine = tmp_path / "set" / "thesis.tex"
    mine.parent.mkdir()
    mine.write_text("years of work")
    with pytest.raises(UsageError, match=r"thesis\.tex: there is a file of something else"):
        blind.make(**inputs, folder=tmp_path, settings=BlindSettings(open=True, seed=3))
    assert mine.read_text() == "years of work"


def test_two_who_make_a_set_at_once_make_one(inputs: dict[str, str], tmp_path: Path) -> None:
    with ThreadPoolExecutor(2) as pool:
        one, other = pool.map(lambda _: blind.make(**inputs, folder=tmp_path / "blind"), range(2))
    assert one.commitment == other.commitment == blind.open_set(tmp_path / "blind").commitment
    assert len(one.ledger.entries()) == 1
