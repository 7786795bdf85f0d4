"""Tables in HDF5 as PyTables lays them out, so that it reads them as its own."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from apbatch.errors import MissingSoftwareError


def open_new(path: Path) -> Any:
    """Create an HDF5 file without times in it, so that equal contents are equal bytes.

    Raises
    ------
    MissingSoftwareError
        Without h5py.
    """
    try:
        import h5py
    except ImportError as error:
        raise MissingSoftwareError(
            "h5py is needed to write an HDF5 file", where=str(path), remedy="pip install h5py"
        ) from error
    return h5py.File(path, "w", track_order=False)


def write_table(path: Path, name: str, columns: Mapping[str, npt.NDArray[Any]]) -> None:
    """Write one table.

    Parameters
    ----------
    path : Path
        Of the file, which is made.
    name : str
        Path of the table within the file.
    columns : Mapping
        Of as many rows each; a column of shape (n, k) has k numbers a row.
    """
    dtype = np.dtype([(column, values.dtype, values.shape[1:]) for column, values in columns.items()])
    rows = np.zeros(len(next(iter(columns.values()))), dtype)
    for column, values in columns.items():
        rows[column] = values
    with open_new(path) as file:
        file.attrs.update({key: np.bytes_(value) for key, value in _GROUP.items()})
        group = file
        for part in name.split("/")[:-1]:
            group = group.create_group(part)
            group.attrs.update({key: np.bytes_(value) for key, value in _GROUP.items()})
        table = file.create_dataset(name, data=rows, chunks=(max(len(rows), 1),), maxshape=(None,))
        table.attrs.update({"CLASS": np.bytes_("TABLE"), "VERSION": np.bytes_("2.7"), "TITLE": np.bytes_("")})
        for number, (column, values) in enumerate(columns.items()):
            table.attrs[f"FIELD_{number}_NAME"] = np.bytes_(column)
            table.attrs[f"FIELD_{number}_FILL"] = np.zeros((), values.dtype)[()]


_GROUP = {"CLASS": "GROUP", "VERSION": "1.0", "TITLE": "", "PYTABLES_FORMAT_VERSION": "2.1"}
