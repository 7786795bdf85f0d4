"""Where a redirected request of WebHDFS goes, and what the refusals of a NameNode mean."""

from __future__ import annotations

from pathlib import Path

import pytest

from apbatch.errors import ApbatchError, NotFoundError, ServerError, UsageError
from apbatch.storage.hadoop.errors import hadoop_error, start_remedy
from apbatch.storage.hadoop.webhdfs_client import exact_location
from apbatch.storage.store import RefusedError, StoreRefusedError

ASKED = "http://namenode:9870/webhdfs/v1"
GIVEN = "http://datanode:9864/webhdfs/v1"


@pytest.mark.parametrize(
    ("asked", "offered"),
    [("/m/a%CC%81", "/m/%C3%A1"), ("/m/%E2%84%AB", "/m/%C3%85"), ("/m/a%2541%20b", "/m/a%2541%20b"), ("/m/x", "/m/x")],
)
def test_a_redirect_keeps_host_and_parameters_and_gets_the_path_asked_for(asked: str, offered: str) -> None:
    location = exact_location(f"{GIVEN}{offered}?op=OPEN&offset=5&user.name=a%20b", f"{ASKED}{asked}?op=OPEN")
    assert location == f"{GIVEN}{asked}?op=OPEN&offset=5&user.name=a%20b"


@pytest.mark.parametrize("offered", [f"{GIVEN}/m/other?op=OPEN", "/webhdfs/v1/m/x", "", f"{GIVEN}/m?op=OPEN"])
def test_a_redirect_to_another_file_is_refused(offered: str) -> None:
    with pytest.raises(ServerError, match="redirects to another file"):
        exact_location(offered, f"{ASKED}/m/x?op=OPEN")


DENIED = 'Permission denied: user=x, access=WRITE, inode="{}":root:supergroup:drwxr-xr-x'
SPACE = "The DiskSpace quota of {} is exceeded: quota = 1000 B but diskspace consumed = 134217728 B"
NAMES = "The NameSpace quota (directories and files) of directory {} is exceeded: quota=1 file count=4"


@pytest.mark.parametrize(
    ("kind", "message", "of_the_store", "remedy"),
    [
        ("SafeModeException", "Cannot create /a/b/f. Name node is in safe mode.", True, "-safemode leave"),
        ("RetriableException", "Cannot create /a/b/f. Name node is in safe mode.", True, "-safemode leave"),
        ("AccessControlException", DENIED.format("/"), True, "hdfs dfs -chown"),
        ("AccessControlException", DENIED.format("/a/b"), True, "have /a/b given"),
        ("AccessControlException", DENIED.format("/a/b/c"), False, "have /a/b/c given"),
        ("AccessControlException", DENIED.format("/a/bc"), False, "have /a/bc given"),
        ("DSQuotaExceededException", SPACE.format("/a"), True, "-setSpaceQuota N /a"),
        ("DSQuotaExceededException", SPACE.format("/a/b/taiga"), False, "-setSpaceQuota N /a/b/taiga"),
        ("NSQuotaExceededException", NAMES.format("/a/b"), True, "-setQuota N /a/b"),
    ],
)
def test_a_refusal_of_the_root_is_told_from_that_of_one_folder(
    kind: str, message: str, of_the_store: bool, remedy: str
) -> None:
    error = hadoop_error(kind, message, "hdfs://h:1/a/b/f", "/a/b")
    assert type(error) is (StoreRefusedError if of_the_store else RefusedError)
    assert remedy in str(error.remedy)


@pytest.mark.parametrize(
    ("kind", "message", "wanted"),
    [
        ("FileNotFoundException", "File does not exist: /a", NotFoundError),
        ("FileNotFoundException", "Path is not a file: /a", UsageError),
        ("ParentNotDirectoryException", "/a (is not a directory)", UsageError),
        ("RetriableException", "Server too busy", ServerError),
        ("StandbyException", "Operation category READ is not supported in state standby", ServerError),
    ],
)
def test_what_is_no_refusal_keeps_its_kind(kind: str, message: str, wanted: type[ApbatchError]) -> None:
    assert type(hadoop_error(kind, message, "hdfs://h:1/a", "")) is wanted


def test_only_the_development_server_is_said_to_be_started_from_here(
    home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("APBATCH_PORT_BASE", "21000")
    assert start_remedy("127.0.0.1:21020") == start_remedy("127.0.0.1:21070") == "apbatch cluster up hdfs"
    assert "apbatch" not in start_remedy("namenode.example.org:8020")
