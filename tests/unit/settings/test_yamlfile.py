"""Settings files: every fault with file, line and the nearest right word."""

from pathlib import Path

import pytest

from apbatch.config import Settings, load_settings
from apbatch.errors import NotFoundError, ServerError, UsageError
from apbatch.yamlfile import load_model


def write(tmp_path: Path, text: str) -> Path:
    file = tmp_path / "settings.yaml"
    file.write_text(text)
    return file


def test_unknown_key_names_line_and_nearest(tmp_path: Path) -> None:
    file = write(tmp_path, "store: file:///x\ncatalog: sqlite:///y\n")
    with pytest.raises(UsageError, match=r"settings.yaml:2: unknown key 'catalog'; did you mean 'catalogue'"):
        load_model(file, Settings)


def test_unknown_nested_key_is_compared_with_its_own_section(tmp_path: Path) -> None:
    file = write(tmp_path, "spark:\n  mastr: local[1]\n")
    with pytest.raises(UsageError, match=r":2: unknown key 'spark.mastr'; did you mean 'master'"):
        load_model(file, Settings)


def test_all_faults_are_told_at_once(tmp_path: Path) -> None:
    file = write(tmp_path, "nonsense: 1\ntraining: {ranks: 0}\n")
    with pytest.raises(UsageError) as caught:
        load_model(file, Settings)
    assert ":1:" in str(caught.value) and ":2:" in str(caught.value)


def test_repeated_key_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="given twice"):
        load_model(write(tmp_path, "store: a\nstore: b\n"), Settings)


def test_broken_yaml_names_the_line(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"settings.yaml:2"):
        load_model(write(tmp_path, "store: a\nspark: ]\n"), Settings)


def test_binary_junk_is_a_clear_error(tmp_path: Path) -> None:
    file = tmp_path / "settings.yaml"
    file.write_bytes(b"\xff\xfe\x00\x01")
    with pytest.raises(UsageError):
        load_model(file, Settings)


def test_missing_file_is_not_found(tmp_path: Path) -> None:
    with pytest.raises(NotFoundError):
        load_settings(tmp_path / "none.yaml")


def test_server_that_is_not_up_names_the_command(home: Path, tmp_path: Path) -> None:
    with pytest.raises(ServerError, match="apbatch cluster up hdfs"):
        load_settings(write(tmp_path, 'store: "{hdfs}/x"\n'))


def test_home_is_filled_in(home: Path) -> None:
    assert load_settings().catalogue == f"sqlite:///{home}/catalogue.sqlite"
