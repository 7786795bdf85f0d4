"""Whole productions: the same bytes however they were made, nothing that gives the class away, truth apart."""

from __future__ import annotations

import hashlib
import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import psutil
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from apbatch.errors import ApbatchError, UsageError
from apbatch.formats.images import TRUTH_SCHEMA, camera_of, from_binary, image_schema
from apbatch.sim import seeds
from apbatch.sim.production import simulate
from apbatch.sim.settings import BankModel, Production, Spectrum, load_production
from tests.waits import until, until_ended

LOW = Spectrum(energy_min=2.0, energy_max=4.0, index=-2.6)
# The smallest bank that covers the energies: seconds to make.
TINY_BANK = BankModel(low_nodes=2, low_events=4, high_nodes=3, high_events=6, high_max=5000.0)


def small(gammas: int = 24, protons: int = 0, seed: int = 3) -> Production:
    return Production(
        gammas=gammas, protons=protons, seed=seed, telescopes=8, gamma=LOW, proton=LOW, cone=2.0, core_max=150.0,
        banks=TINY_BANK, showers_per_chunk=4, images_per_part=30,
    )  # fmt: skip


@pytest.fixture(scope="module")
def both(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A production of both classes, made by two processes with a bank of its own."""
    folder = tmp_path_factory.mktemp("sim")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("APBATCH_CACHE", str(folder / "cache"))
        simulate(small(12, 24), folder / "both", processes=2)
        simulate(small(12, 24), folder / "both-by-one", processes=1)
    return folder


def fingerprint(folder: Path) -> dict[str, str]:
    return {
        str(file.relative_to(folder)): hashlib.sha256(file.read_bytes()).hexdigest()
        for file in sorted(folder.rglob("*.parquet"))
    }


def table(folder: Path) -> pa.Table:
    return pa.concat_tables([pq.read_table(file) for file in sorted(folder.glob("part-*.parquet"))])


def test_one_and_two_processes_make_the_same_bytes(both: Path) -> None:
    assert fingerprint(both / "both") == fingerprint(both / "both-by-one")
    assert fingerprint(both / "both")


def test_another_seed_makes_other_images(tmp_path: Path) -> None:
    simulate(small(4, seed=1), tmp_path / "1", processes=1)
    simulate(small(4, seed=2), tmp_path / "2", processes=1)
    assert not set(fingerprint(tmp_path / "1").values()) & set(fingerprint(tmp_path / "2").values())


def test_a_second_run_touches_nothing(both: Path) -> None:
    before = {file: file.stat().st_mtime_ns for file in (both / "both").rglob("*")}
    summary = simulate(small(12, 24), both / "both")
    assert summary.made == 0
    assert {file: file.stat().st_mtime_ns for file in (both / "both").rglob("*")} == before


def test_image_files_hold_no_truth(both: Path) -> None:
    for file in (both / "both" / "images").glob("part-*.parquet"):
        schema = pq.read_schema(file)
        assert schema.equals(image_schema("TAIGA-IACT01", peak_time=True), check_metadata=False)
        assert camera_of(schema) == "TAIGA-IACT01"
        assert b"gamma" not in file.read_bytes()
        assert b"proton" not in file.read_bytes()


def test_truth_has_one_row_for_each_image_with_its_keys(both: Path) -> None:
    images, truth = table(both / "both" / "images"), table(both / "both" / "truth")
    assert truth.schema.equals(TRUTH_SCHEMA, check_metadata=False)
    for key in ("experiment", "run", "event", "telescope"):
        assert images[key].to_pylist() == truth[key].to_pylist()
    assert images["event"].to_pylist() == list(range(1, images.num_rows + 1))


def test_events_are_a_random_permutation_of_showers(both: Path) -> None:
    """Images that lie in the order in which showers were made give the truth away by their place."""
    truth = table(both / "both" / "truth")
    shower, event = (np.array(truth[name].to_pylist()) for name in ("shower", "event"))
    n = len(shower)
    assert n > 40
    assert (np.diff(event) >= 0).all()
    # Of two neighbours in the files few are of one shower: a random order has n times the chance that two images share
    # a shower. (In the order of making, nearly all are.)
    counts = np.bincount(shower)
    expected = (counts * (counts - 1)).sum() / n
    together = int((shower[1:] == shower[:-1]).sum())
    assert together < expected + 5.0 * np.sqrt(expected) + 1
    # Nor does the place say anything of the shower's number: the correlation of ranks of a random order.
    correlation = np.corrcoef(np.argsort(np.argsort(shower, kind="stable")), np.arange(n))[0, 1]
    assert abs(correlation) < 5.0 / np.sqrt(n - 1)


def test_sources_lie_beside_the_images_and_say_nothing_of_the_class(both: Path) -> None:
    sources, truth = table(both / "both" / "sources"), table(both / "both" / "truth")
    for key in ("experiment", "run", "event", "telescope"):
        assert sources[key].to_pylist() == truth[key].to_pylist()
    assert sources.column_names == ["experiment", "run", "event", "telescope", "source_x", "source_y"]
    distance = np.hypot(sources["source_x"].to_numpy(), sources["source_y"].to_numpy())
    assert distance == pytest.approx(np.degrees(np.tan(np.radians(1.22))))


def test_point_gammas_are_gammas_in_the_truth_and_come_from_their_source(tmp_path: Path) -> None:
    settings = small(4).model_copy(update={"point_gammas": 6})
    summary = simulate(settings, tmp_path / "out", processes=1)
    assert (summary.showers["gamma"], summary.showers["point gamma"]) == (4, 6)
    sources, truth = table(tmp_path / "out" / "sources"), table(tmp_path / "out" / "truth")
    assert set(truth["primary"].to_pylist()) == {"gamma"}
    same = np.array(truth["true_source_x"]) == np.array(sources["source_x"])
    assert same.sum() == summary.images["point gamma"] > 0
    assert (~same).sum() == summary.images["gamma"] > 0


def test_the_seed_of_a_secret_production_is_nowhere_in_it_and_can_be_revealed_and_verified(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "secret" / "seed.json"
    monkeypatch.setenv(seeds.VARIABLE, str(file))
    (tmp_path / "s.yaml").write_text(
        "gammas: 4\nprotons: 0\nseed: secret\ntelescopes: 8\ncone: 2 deg\ncore_max: 150 m\n"
        "gamma: {energy_min: 2 TeV, energy_max: 4 TeV}\n"
    )
    settings = load_production(tmp_path / "s.yaml", {})
    secret = seeds.load_seed(file)
    assert (settings.seed, settings.seed_commitment) == (secret.seed, secret.commitment)
    assert file.stat().st_mode & 0o077 == 0
    out = tmp_path / "out"
    simulate(settings, out, processes=1)
    for path in (path for path in out.rglob("*") if path.is_file()):
        content = path.read_bytes()
        for digits in (str(secret.seed), f"{secret.seed:x}", f"{secret.seed:064x}", secret.salt):
            assert digits.encode() not in content, path
        assert str(tmp_path).encode() not in content, path
    manifest = json.loads((out / "production.json").read_text())
    assert manifest["seed_commitment"] == secret.commitment
    assert manifest["parameters"].get("seed") is None
    assert simulate(settings, out, processes=1).made == 0
    assert fingerprint(out) != fingerprint_of(tmp_path / "public", settings.model_copy(update={"seed": 1}))
    # Opened later: anybody can check the seed and make the production again.
    assert seeds.verify_seed(seeds.commitment_of(out), secret.seed, secret.salt)
    assert not seeds.verify_seed(seeds.commitment_of(out), secret.seed + 1, secret.salt)
    revealed = seeds.load_seed(seeds.reveal_seed(out, secret))
    again = load_production(tmp_path / "s.yaml", {"seed": revealed.seed})
    assert fingerprint(out) == fingerprint_of(tmp_path / "again", again)
    with pytest.raises(UsageError, match="not that of this production"):
        seeds.reveal_seed(out, seeds.SecretSeed(5, "00" * 32))
    with pytest.raises(UsageError, match="already"):
        seeds.new_seed(file)


def fingerprint_of(folder: Path, settings: Production) -> dict[str, str]:
    simulate(settings, folder, processes=1)
    return fingerprint(folder)


def test_nothing_but_pixels_tells_the_class(both: Path) -> None:
    images, truth = table(both / "both" / "images"), table(both / "both" / "truth")
    gamma = np.array(truth["primary"].to_pylist()) == "gamma"
    assert 20 < gamma.sum() < len(gamma) - 20
    for key in ("experiment", "run", "telescope", "time"):
        assert len(set(images[key].to_pylist())) == 1
    # Order: the mean rank of one class among all is that of a random order within 4 standard deviations.
    rank, n, m = np.flatnonzero(gamma).mean(), len(gamma), gamma.sum()
    assert abs(rank - (n - 1) / 2) < 4.0 * np.sqrt((n + 1) * (n - m) / (12.0 * m))
    shower = np.array(truth["shower"].to_pylist())
    assert set(shower[gamma]).isdisjoint(shower[~gamma])
    assert min(shower[gamma]) < max(shower[~gamma])
    assert min(shower[~gamma]) < max(shower[gamma])


def test_parts_have_equal_rows_and_images_equal_sizes(both: Path) -> None:
    rows = [pq.read_metadata(file).num_rows for file in sorted((both / "both" / "images").glob("part-*.parquet"))]
    assert set(rows[:-1]) <= {30}
    assert rows[-1] <= 30
    assert from_binary(table(both / "both" / "images")["image"]).shape == (sum(rows), 560)


def test_every_image_has_passed_the_trigger(both: Path) -> None:
    pixels = from_binary(table(both / "both" / "images")["image"])
    assert np.isfinite(pixels).all()
    # Two pixels fired on more than 10 p.e.; from the integrated charge the sky's mean is taken off, and noise added.
    assert (np.sort(pixels, axis=1)[:, -2] > 10.0 - 3.5 - 4.0 * 1.2).all()


def test_a_shower_is_the_same_whatever_else_the_production_makes(tmp_path: Path) -> None:
    simulate(small(4), tmp_path / "4", processes=1)
    simulate(small(8), tmp_path / "8", processes=1)

    def first_four(folder: Path) -> set[bytes]:
        shower = np.array(table(folder / "truth")["shower"].to_pylist())
        images = table(folder / "images")["image"].to_pylist()
        return {image for image, number in zip(images, shower, strict=True) if number < 4}

    assert first_four(tmp_path / "4") == first_four(tmp_path / "8")
    assert first_four(tmp_path / "4")


def run_in_background(output: Path, settings: Path) -> subprocess.Popen[bytes]:
    return subprocess.Popen(
        [
            sys.executable, "-c", "from apbatch.cli.main import main; main()", "sim", "--settings", str(settings),
            "--gammas", "24", "--protons", "0", "--seed", "3", "--telescopes", "8", "--output", str(output),
        ],
        stderr=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        start_new_session=True,
    )  # fmt: skip


def test_killed_it_goes_on_and_gives_what_an_unbroken_run_gives(tmp_path: Path) -> None:
    production = small()
    settings = tmp_path / "sim.yaml"
    settings.write_text(json.dumps(production.model_dump(mode="json", include={
        "gamma", "proton", "cone", "core_max", "banks", "showers_per_chunk", "images_per_part"})))  # fmt: skip
    output = tmp_path / "killed"
    running = run_in_background(output, settings)
    chunks = output / ".work" / "chunks"
    until(lambda: list(chunks.glob("*.arrow")) or running.poll() is not None)
    family = psutil.Process(running.pid).children(recursive=True)
    os.kill(running.pid, signal.SIGKILL)
    running.wait()
    until_ended(family)  # its workers see that it is gone
    there = {file.name: file.stat().st_mtime_ns for file in chunks.glob("*.arrow")}
    assert there
    assert not (output / "production.json").exists()
    summary = simulate(production, output, processes=1)
    assert 0 < summary.made < 24
    simulate(production, tmp_path / "whole", processes=1)
    assert fingerprint(output) == fingerprint(tmp_path / "whole")
    assert not (output / ".work").exists()


def test_killed_between_moving_images_and_truth_it_still_ends_whole(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = Path.rename

    def dies(self: Path, target: Path) -> Path:
        if self.name == "truth":
            raise KeyboardInterrupt
        return real(self, target)

    with monkeypatch.context() as patch:
        patch.setattr(Path, "rename", dies)
        with pytest.raises(KeyboardInterrupt):
            simulate(small(4), tmp_path / "out", processes=1)
    simulate(small(4), tmp_path / "out", processes=1)
    simulate(small(4), tmp_path / "whole", processes=1)
    assert fingerprint(tmp_path / "out") == fingerprint(tmp_path / "whole")


def test_a_folder_with_another_production_is_left_alone(both: Path) -> None:
    before = fingerprint(both / "both")
    with pytest.raises(UsageError, match="other settings"):
        simulate(small(12, 25), both / "both")
    assert fingerprint(both / "both") == before


def test_a_script_without_a_main_guard_can_simulate_in_processes(tmp_path: Path) -> None:
    script = tmp_path / "job.py"
    production = small(8).model_dump_json()
    script.write_text(
        "import sys; from pathlib import Path\nfrom apbatch.sim.production import simulate\n"
        "from apbatch.sim.settings import Production\nprint('started')\n"
        f"simulate(Production.model_validate_json({production!r}), Path(sys.argv[1]), processes=2)\n"
    )
    done = subprocess.run([sys.executable, str(script), str(tmp_path / "out")], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("started") == 1
    assert (tmp_path / "out" / "production.json").is_file()


def test_a_failure_in_a_process_is_told_and_the_rest_can_go_on(tmp_path: Path) -> None:
    from apbatch.sim.chunk_processes import make_chunks
    from apbatch.sim.chunks import ProductionPlan

    plan = ProductionPlan(small(8), tmp_path)
    (tmp_path / "chunks").write_text("a file where the folder should be")
    with pytest.raises(ApbatchError, match="chunks"):
        list(make_chunks(plan, [0, 1], 2))
    (tmp_path / "chunks").unlink()
    assert sum(make_chunks(plan, [0, 1], 2)) == 8


def test_a_damaged_chunk_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from apbatch.sim import production

    with monkeypatch.context() as patch:
        patch.setattr(production, "_publish", lambda *_: None)
        simulate(small(8), tmp_path / "out", processes=1)
    chunk = tmp_path / "out" / ".work" / "chunks" / "000001.arrow"
    chunk.write_bytes(chunk.read_bytes()[:-500])
    with pytest.raises(ApbatchError, match=r"000001\.arrow.*damaged.*start again"):
        simulate(small(8), tmp_path / "out", processes=1)
    chunk.unlink()
    assert simulate(small(8), tmp_path / "out", processes=1).made == 4


def test_the_command_prints_counts_as_json_and_wrong_values_with_status_2(both: Path, tmp_path: Path) -> None:
    command = [sys.executable, "-c", "from apbatch.cli.main import main; main()", "sim", "--format", "json"]
    counted = subprocess.run(
        [*command, "--gammas", "0", "--protons", "0", "--output", str(tmp_path / "no")], capture_output=True, text=True
    )
    assert counted.returncode == 2
    assert "nothing to simulate" in counted.stderr
    assert not (tmp_path / "no").exists()
    # What the file says holds, unless the command line names it.
    (tmp_path / "s.yaml").write_text("showers_per_chunk: 1\ngammas: 1\nprotons: 5\ntelescopes: 3\n")
    made = subprocess.run(
        [*command, "--settings", str(tmp_path / "s.yaml"), "--protons", "0", "--output", str(tmp_path / "one")],
        capture_output=True,
        text=True,
    )
    assert made.returncode == 0, made.stderr
    assert [(row["primary"], row["showers"]) for row in json.loads(made.stdout)] == [("gamma", 1), ("proton", 0)]
    assert json.loads((tmp_path / "one" / "production.json").read_text())["parameters"]["telescopes"] == 3


def test_a_folder_with_other_files_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "precious.txt").write_text("mine")
    with pytest.raises(UsageError, match="not empty"):
        simulate(small(4), tmp_path)
    assert [file.name for file in tmp_path.iterdir()] == ["precious.txt"]


def test_a_lost_part_of_a_finished_production_is_reported(tmp_path: Path) -> None:
    simulate(small(4), tmp_path / "out", processes=1)
    next((tmp_path / "out" / "truth").glob("part-*.parquet")).unlink()
    with pytest.raises(ApbatchError, match=r"truth.*part files are there"):
        simulate(small(4), tmp_path / "out", processes=1)
