"""Files that appear whole or not at all."""

import errno
import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def atomic_path(path: str | os.PathLike[str]) -> Iterator[Path]:
    """Give a temporary path beside `path`, moved into place when the block succeeds.

    Parameters
    ----------
    path : path-like
        Where the finished file belongs; an existing file there is replaced.

    Yields
    ------
    Path
        A path in the same directory with the same suffix, not yet existing. It is deleted if
        the block raises, and `path` is left as it was.

    Raises
    ------
    OSError
        If the directory does not exist or cannot be written, or `path` is a directory.

    Examples
    --------
    >>> folder = getfixture("tmp_path")
    >>> with atomic_path(folder / "out.txt") as temporary:
    ...     _ = temporary.write_text("done")
    >>> [file.name for file in folder.iterdir()]
    ['out.txt']
    """
    target = Path(path)
    if target.is_dir():
        raise IsADirectoryError(errno.EISDIR, "a directory, not a file", str(target))
    if not target.parent.is_dir():
        raise FileNotFoundError(errno.ENOENT, "no such directory", str(target.parent))
    # a directory of its own: whoever writes the file gets the usual permissions, and may rename
    with tempfile.TemporaryDirectory(
        dir=target.parent, prefix=f".{target.name}.", ignore_cleanup_errors=True
    ) as folder:
        temporary = Path(folder) / target.name
        yield temporary
        os.replace(temporary, target)
