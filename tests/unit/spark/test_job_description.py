"""Job descriptions are checked whole before anything starts."""

from pathlib import Path

import pytest

from apbatch.camera.grid import METHODS
from apbatch.errors import UsageError
from apbatch.sim import seeds
from apbatch.workflow.image_steps import Clean, Grid
from apbatch.workflow.model import STEPS, load_job
from apbatch.workflow.records import Records
from apbatch.workflow.study_steps import Study

ROOT = Path(__file__).resolve().parents[3]


def job(tmp_path: Path, steps: str, head: str = "name: test\nselect: \"experiment = 'TAIGA'\"\n") -> Path:
    file = tmp_path / "job.yaml"
    file.write_text(f"{head}steps:\n{steps}")
    return file


@pytest.mark.parametrize("name", sorted(path.name for path in (ROOT / "jobs").glob("*.yaml")))
def test_every_shipped_job_is_valid(name: str) -> None:
    assert load_job(ROOT / "jobs" / name).steps


def test_thresholds_with_units_are_photo_electrons(tmp_path: Path) -> None:
    clean = load_job(job(tmp_path, "  - clean: {picture: 14 pe, boundary: 7}\n")).steps[0]
    assert (clean.parameters()["picture"], clean.parameters()["boundary"]) == (14.0, 7.0)


def test_unknown_key_names_line_and_nearest(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"job.yaml:5: unknown key 'pictur'; did you mean 'picture'"):
        load_job(job(tmp_path, "  - clean:\n      pictur: 14 pe\n"))


def test_unknown_step_names_line_and_nearest(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"job.yaml:4: unknown step 'claen'; did you mean 'clean'"):
        load_job(job(tmp_path, "  - claen: {}\n"))


def test_wrong_unit_names_line(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"job.yaml:4: picture: 'deg' can't be converted to 'pe'"):
        load_job(job(tmp_path, "  - clean: {picture: 14 deg}\n"))


def test_all_faults_of_a_job_are_told_at_once(tmp_path: Path) -> None:
    with pytest.raises(UsageError) as caught:
        load_job(job(tmp_path, "  - clean: {picture: 14 deg}\n  - grid: {metod: axial}\n"))
    assert "job.yaml:4" in str(caught.value) and "job.yaml:5" in str(caught.value)


def test_a_step_before_what_it_needs_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="step 'grid' needs images: put 'clean' or 'skim' before it"):
        load_job(job(tmp_path, "  - grid: {}\n"))


def test_boundary_above_picture_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="boundary"):
        load_job(job(tmp_path, "  - clean: {picture: 7 pe, boundary: 14 pe}\n"))


@pytest.mark.parametrize("content", ["", "[]", "name: x", "name: x\nsteps: []", "name: '../x'\nsteps: [clean]", "7"])
def test_no_job_at_all_is_a_clear_error(tmp_path: Path, content: str) -> None:
    file = tmp_path / "job.yaml"
    file.write_text(content)
    with pytest.raises(UsageError):
        load_job(file)


def test_every_step_and_every_key_up_to_images_is_documented() -> None:
    text = (ROOT / "docs" / "jobs.md").read_text()
    for kind, step in STEPS.items():
        assert f"`{kind}`" in text
        if step.__module__ != Study.__module__:
            for name in step.model_fields:
                assert f"`{name}`" in text, f"{kind}: {name}"


def test_the_grid_step_takes_every_method_that_there_is_and_names_the_nearest(tmp_path: Path) -> None:
    assert all(Grid(method=method).method == method for method in METHODS)
    with pytest.raises(UsageError, match=r"job.yaml:5: method: unknown method 'axal'; did you mean 'axial'"):
        load_job(job(tmp_path, "  - clean\n  - grid: {method: axal}\n"))


@pytest.mark.parametrize(
    ("parameters", "fault"),
    [
        ("zenith: 60 deg", r"site\.zenith: .* less than or equal to 45"), ("seed: -1", "seed: "),
        ("telescopes: 400", "telescopes: "), ("cone: 50 deg", "cone: "), ("core_max: -3 m", "core_max: "),
        ("gamma_energy_max: -1", r"gamma\.energy_max: "), ("gamma_energy_min: 0", r"gamma\.energy_min: "),
        ("gamma_energy_min: 30, gamma_energy_max: 3", "gamma: energy_max is below energy_min"),
        ("gamma_index: .nan", "gamma_index: .* finite"), ("night_sky: .inf", "night_sky: .* finite"),
    ],
)  # fmt: skip
def test_what_can_not_be_simulated_is_told_with_its_line_before_anything_starts(
    tmp_path: Path, parameters: str, fault: str
) -> None:
    file = job(tmp_path, f"  - simulate: {{gammas: 1, protons: 1, {parameters}}}\n")
    with pytest.raises(UsageError, match=rf"job\.yaml:4: {fault}"):
        load_job(file)


@pytest.mark.parametrize(
    ("step", "fault"),
    [
        ("blind: {test_fraction: 0.6, validation_fraction: 0.4}", "fraction"),
        ("study: {rivals: [trees, trees]}", "'trees' stands twice"),
        ("study: {goals: [{over: halo-tree}]}", r"halo-tree', which is not compared.*halo-trees"),
    ],
)
def test_a_study_that_can_not_be_made_is_told_before_anything_starts(tmp_path: Path, step: str, fault: str) -> None:
    steps = "  - simulate: {}\n  - clean: {}\n  - parameters: {}\n  - blind: {}\n  - " + step + "\n"
    with pytest.raises(UsageError, match=rf"job\.yaml:8: .*{fault}"):
        load_job(job(tmp_path, steps))


def test_a_size_that_is_not_finite_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"job\.yaml:5: size: .* finite"):
        load_job(job(tmp_path, "  - clean: {}\n  - compact: {size: .inf}\n"))


def test_nothing_to_simulate_is_told_and_a_secret_seed_is_not_drawn(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(seeds.VARIABLE, str(tmp_path / "secret"))
    with pytest.raises(UsageError, match=r"job\.yaml:4: .*nothing to simulate"):
        load_job(job(tmp_path, "  - simulate: {gammas: 0, protons: 0}\n"))
    assert load_job(job(tmp_path, "  - simulate: {seed: secret}\n")).steps
    assert not (tmp_path / "secret").exists()


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"{",
        b"\xff\xfe\x81{}",
        b"[" * 5000,
        b"[]",
        b'{"products": 7}',
        b'{"products": {}}',
        b'{"products": {"x": 1}}',
    ],
    ids=lambda content: repr(content[:20]),
)
def test_a_damaged_record_is_that_of_a_step_that_has_not_finished(tmp_path: Path, content: bytes) -> None:
    records, step = Records(tmp_path), Clean()
    records.finish(step.kind, "k", {}, {}, {"images": ["file:///x"]})
    assert records.products(step, "k") == {"images": ["file:///x"]}
    (file,) = tmp_path.iterdir()
    file.write_bytes(content)
    assert records.products(step, "k") is None
