"""Seeds that nobody can guess, and their published hashes.

A production can be made again by whoever knows its settings and its seed, and with it the truth of every image. The
seed of a production whose truth must stay closed is therefore 256 random bits in a file of its own. Its hash, with 256
more bits so that nothing can be tried against it, is written into the production: a commitment, which binds whoever
made the production to this seed without showing it. When labels are opened, seed and salt are published, anybody can
check that they belong to the commitment, and can make the production again.
"""

from __future__ import annotations

import hashlib
import hmac
import json
import os
import secrets
from dataclasses import asdict, dataclass
from pathlib import Path

from apbatch.config import home
from apbatch.errors import FormatError, NotFoundError, UsageError

#: The word that takes the place of a seed's number in settings and jobs.
SECRET = "secret"
#: Names the file of the secret seed, in place of `seed_file`'s default.
VARIABLE = "APBATCH_SEED_FILE"
_BITS = 256
_LABEL = b"apbatch seed commitment 1\0"


@dataclass(frozen=True, repr=False)
class SecretSeed:
    """A seed and the salt of its commitment.

    Attributes
    ----------
    seed : int
        256 random bits.
    salt : str
        256 random bits, hexadecimal.
    """

    seed: int
    salt: str

    @property
    def commitment(self) -> str:
        """The hash that may be published."""
        return commit_seed(self.seed, self.salt)


def commit_seed(seed: int, salt: str) -> str:
    """Return the commitment to a seed: BLAKE2b of a label, the seed as 32 bytes and the salt, hexadecimal.

    Parameters
    ----------
    seed : int
        Less than 2^256.
    salt : str
        Hexadecimal digits of 32 bytes.
    """
    content = _LABEL + seed.to_bytes(_BITS // 8, "big") + bytes.fromhex(salt)
    return hashlib.blake2b(content, digest_size=32).hexdigest()


def verify_seed(commitment: str, seed: int, salt: str) -> bool:
    """Tell whether a seed and its salt are those of a commitment.

    Parameters
    ----------
    commitment : str
        Published hash.
    seed : int
    salt : str
        Hexadecimal.

    Examples
    --------
    >>> verify_seed(commit_seed(7, "ab" * 32), 7, "ab" * 32)
    True
    """
    return hmac.compare_digest(commitment, commit_seed(seed, salt))


def seed_file() -> Path:
    """Return where the secret seed is kept: what ``$APBATCH_SEED_FILE`` names, else a file in the state folder."""
    named = os.environ.get(VARIABLE)
    return Path(named) if named else home() / "secret-seed.json"


def load_seed(file: Path) -> SecretSeed:
    """Read a secret seed.

    Raises
    ------
    NotFoundError, FormatError
        If there is no such file, or it holds something else.
    """
    try:
        content = json.loads(file.read_text())
        secret = SecretSeed(int(content["seed"], 16), str(content["salt"]))
        if secret.seed.bit_length() > _BITS or len(bytes.fromhex(secret.salt)) != _BITS // 8:
            raise ValueError("wrong length")
    except FileNotFoundError:
        raise NotFoundError("no file of a secret seed", where=str(file), remedy="apbatch sim seed new") from None
    except (ValueError, KeyError, TypeError) as error:
        raise FormatError(f"not a secret seed: {error}", where=str(file)) from None
    return secret


def new_seed(file: Path) -> SecretSeed:
    """Draw a secret seed and write it to a file that only its owner can read.

    Raises
    ------
    UsageError
        If the file is there: a seed that is lost can't be drawn again.
    """
    secret = SecretSeed(secrets.randbits(_BITS), secrets.token_hex(_BITS // 8))
    file.parent.mkdir(parents=True, exist_ok=True)
    try:
        handle = os.open(file, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    except FileExistsError:
        raise UsageError("there is a secret seed already", where=str(file), remedy="use it, or name another") from None
    with os.fdopen(handle, "w") as stream:
        write_seed(secret, stream)
        stream.flush()
        os.fsync(stream.fileno())
    return secret


def secret_seed() -> SecretSeed:
    """Return the secret seed of `seed_file`; it is drawn if there is none yet."""
    file = seed_file()
    return load_seed(file) if file.is_file() else new_seed(file)


def reveal_seed(production: Path, secret: SecretSeed) -> Path:
    """Publish the seed of a finished production: write ``seed.json`` beside its summary.

    Raises
    ------
    UsageError
        If the seed is not the one that the production committed itself to.
    """
    if not verify_seed(commitment_of(production), secret.seed, secret.salt):
        raise UsageError("the seed is not that of this production's commitment", where=str(production))
    target = production / "seed.json"
    with target.open("w") as stream:
        write_seed(secret, stream)
    return target


def write_seed(secret: SecretSeed, stream: object) -> None:
    """Write a seed as JSON."""
    content = asdict(secret) | {"seed": f"{secret.seed:064x}", "commitment": secret.commitment}
    json.dump(content, stream, indent=1)  # type: ignore[arg-type]


def commitment_of(production: Path) -> str:
    """Return the commitment in a finished production's summary.

    Raises
    ------
    NotFoundError, FormatError, UsageError
        If there is no summary, it is damaged, or the seed was never secret.
    """
    summary = production / "production.json"
    try:
        commitment = str(json.loads(summary.read_text())["seed_commitment"] or "")
    except FileNotFoundError:
        raise NotFoundError("no finished production", where=str(production)) from None
    except (ValueError, KeyError, TypeError) as error:
        raise FormatError(f"not the summary of a production: {error}", where=str(summary)) from None
    if not commitment:
        raise UsageError("the seed of this production was never secret: it is in its summary", where=str(summary))
    return commitment
