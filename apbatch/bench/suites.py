"""The table of suites. Each is a module with a function that yields groups; it is imported only when it runs."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from apbatch.bench.runner import Group
from apbatch.bench.suite import Setting, Suite
from apbatch.errors import UsageError, nearest_word


def _storage(setting: Setting) -> Iterator[Group]:
    from apbatch.bench.cases.mirrors import mirror_groups
    from apbatch.bench.cases.peers import stores
    from apbatch.bench.cases.storage import storage_groups

    by_peer = stores(setting)
    yield from storage_groups(setting.size, by_peer, setting.scratch)
    yield from mirror_groups(setting, by_peer)


def _index(setting: Setting) -> Iterator[Group]:
    from apbatch.bench.cases.catalogue.events import event_groups
    from apbatch.bench.cases.catalogue.questions import index_groups
    from apbatch.bench.cases.catalogue.rescans import rescan_groups
    from apbatch.bench.cases.peers import bare_peers, catalogue_urls, catalogues

    by_peer = catalogues(setting, catalogue_urls(setting, "index"))
    yield from index_groups(setting.size, by_peer, bare_peers(setting))
    yield from rescan_groups(setting.size.records, by_peer, setting.scratch)
    yield from event_groups(setting.size, setting)


def _exports(setting: Setting) -> Iterator[Group]:
    from apbatch.bench.cases.exports import export_groups

    return export_groups(setting)


def _grids(setting: Setting) -> Iterator[Group]:
    from apbatch.bench.cases.grids import grid_groups

    return grid_groups(setting)


def _decode(setting: Setting) -> Iterator[Group]:
    from apbatch.bench.cases.decode import decode_groups

    return decode_groups(setting)


def _train(setting: Setting) -> Iterator[Group]:
    from apbatch.bench.cases.train import train_groups

    return train_groups(setting)


def _spark(setting: Setting) -> Iterator[Group]:
    from apbatch.bench.cases.spark import spark_groups

    return spark_groups(setting)


def _kernels(setting: Setting) -> Iterator[Group]:
    from apbatch.bench.cases.kernels import kernel_groups

    return kernel_groups(setting)


def _sim(setting: Setting) -> Iterator[Group]:
    from apbatch.bench.cases.simulation import simulation_groups

    return simulation_groups(setting)


def _access(setting: Setting) -> Iterator[Group]:
    from apbatch.bench.cases.access import access_groups

    return access_groups(setting)


def _api(setting: Setting) -> Iterator[Group]:
    from apbatch.bench.cases.api.groups import api_groups

    return api_groups(setting)


_ONE_MACHINE = (
    "Servers, client and data share one machine and one disk. HDFS, AFS and Cassandra exist to spread work over many; "
    "here each replica is only more work for the same disk. How they grow with machines is not measured.",
    "There is no network: everything went over the loopback interface.",
    "Client CPU is that of the measuring process alone; what the servers used is not in it.",
)
_ONE_CALL = "One client, one call after the other{}. How many clients can be served at the same time is not measured."

SUITES: dict[str, Suite] = {
    "storage": Suite(
        "Storage",
        _storage,
        operations=9,
        servers=("hdfs", "afs"),
        choices=(
            ("HDFS (hdfs-native)", "HDFS (WebHDFS)"),
            ("HDFS (hdfs-native)", "AFS"),
            ("local store", "HDFS (hdfs-native)"),
        ),
        limits=(
            *_ONE_MACHINE,
            _ONE_CALL.format(", but for the mirror and the bare writes beside it"),
            "Reads come from the page cache. They measure software, not the disk.",
            "HDFS and AFS do not force each file to the disk before they answer, the local store and the bare disk do "
            "(fsync). Their writes promise different things.",
            "The mirror reads each copy in HDFS of up to 4 MiB back before it counts, compares longer ones by a "
            "checksum that HDFS has, and forces names in a local folder to the disk; the bare writes do none of that.",
        ),
    ),
    "index": Suite(
        "Index",
        _index,
        operations=15,
        servers=("postgres", "cassandra"),
        choices=(("SQLite", "PostgreSQL"), ("SQLite", "Cassandra")),
        limits=(*_ONE_MACHINE, _ONE_CALL.format("")),
    ),
    "access": Suite(
        "Access",
        _access,
        operations=8,
        limits=(
            "Mounts, gateway, web server and readers share one machine; what a distance costs is not measured.",
            "The pass-through is as bare as the library allows: it verifies nothing, knows no catalogue and has no "
            "extended attributes, for which `ls` asks with every entry.",
        ),
    ),
    "api": Suite(
        "Service",
        _api,
        operations=16,
        servers=("postgres", "cassandra"),
        limits=(
            "The service, its clients and the browser share one machine and its cores: under load each slows the "
            "other. There is no network.",
            "The service is one process without authentication or policy, over a catalogue of files with no events.",
            "Answers under load and the 64 clients ask the service over SQLite, and so do the streams.",
        ),
    ),
    "exports": Suite(
        "Exports",
        _exports,
        operations=2,
        limits=("The catalogue is SQLite on the same disk. No content is read; serving it is not measured here.",),
    ),
    "kernels": Suite(
        "Kernels",
        _kernels,
        operations=5,
        limits=(
            "Kernels: one thread, images in memory, judged by CPU time. The time depends on how many pixels "
            "have light; these images have about 15 and 35 of them.",
            "The mask is written into memory that is there already.",
        ),
    ),
    "grids": Suite(
        "Grids",
        _grids,
        operations=14,
        limits=(
            "All write into memory that is there already. Where each batch is given new memory, handing it out can "
            "take longer than the map.",
        ),
    ),
    "sim": Suite(
        "Simulation",
        _sim,
        operations=4,
        limits=(
            "One core. Several processes and Spark's workers run the same code on chunks of their own and share "
            "nothing but the folder.",
            "First interactions of protons and the bank of later ones are made before; a production makes them once.",
        ),
    ),
    "decode": Suite(
        "Decoding",
        _decode,
        operations=5,
        limits=(
            "One thread, from memory: no disk and no network. Figures are by CPU time of this process.",
            "Batches are dropped when they have been added up. A program that keeps them pays for new memory as well: "
            "the kernel hands it out at about the speed at which it copies.",
        ),
    ),
    "train": Suite(
        "Training",
        _train,
        operations=5,
        limits=(
            "But for ranks: one process on all cores of this machine. The file lies in the page cache.",
            "Two ranks want two idle cores: each step waits for the slower one.",
        ),
    ),
    "spark": Suite(
        "Spark",
        _spark,
        operations=5,
        limits=(
            "Only the operation `start` holds the start of Spark.",
            "Images are made up (an ellipse of light over noise) and lie in the page cache.",
            "Spark runs on one machine (local[1], local[2]); there is no network between its parts.",
        ),
    ),
}


def require_suites(suites: Sequence[str]) -> None:
    """Raise unless every suite is known.

    Raises
    ------
    UsageError
        With the nearest known one.
    """
    for suite in suites:
        if suite not in SUITES:
            raise UsageError(
                f"unknown suite '{suite}'", nearest=nearest_word(suite, SUITES), remedy=f"known are {', '.join(SUITES)}"
            )
