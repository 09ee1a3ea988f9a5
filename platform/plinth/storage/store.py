"""Local folders and object stores behind one interface: URIs, keys, whole reads, ranges, atomic writes.

Local files are written through a temporary file, fsync and rename; object stores put an object whole or not
at all. Transient failures are retried a bounded number of times; other failures become a `StorageError` of
one line that says what to do. Options carry the names of environment variables, and each process reads the
credentials from them when it opens its file system.
"""

from __future__ import annotations

import contextlib
import os
import threading
import uuid
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path, PurePosixPath
from typing import Any, TypeVar

from plinth.errors import StorageError
from plinth.storage import errors as storage_errors
from plinth.storage import local_files
from plinth.storage.errors import MissingKeyError
from plinth.storage.options import StorageOptions, s3_arguments, validate
from plinth.storage.retry import retry

T = TypeVar("T")

PROTOCOL_PACKAGES = {"s3": "s3fs", "gs": "gcsfs", "gcs": "gcsfs", "az": "adlfs", "abfs": "adlfs"}
CONTENT_TAGS = ("ETag", "etag", "md5Hash")
"""What stores call the tag that changes with an object's content."""


class Storage:
    """A folder, local or in an object store; keys are relative to it.

    Pickles as URI and options; each process opens its own file system on first use. Methods are thread-safe.
    """

    def __init__(self, protocol: str, root: str, options: StorageOptions) -> None:
        self.protocol = protocol
        self.root = root
        self.options = options
        self._connection = _Connection()

    @classmethod
    def from_uri(cls, uri: str | Path, options: StorageOptions | None = None) -> Storage:
        """The folder at `uri`: a path, `file://`, `s3://bucket/prefix`, `gs://` or `az://`.

        Raises:
            StorageError: unknown protocol, no bucket, or credentials inside the URI.
            ConfigError: options that contradict each other.
        """
        options = options or StorageOptions()
        validate(options)
        protocol, separator, path = str(uri).partition("://")
        if not separator:
            protocol, path = "file", str(uri)
        if protocol in ("file", "local"):
            return cls("file", str(Path(path).expanduser().absolute()), options)
        if protocol not in PROTOCOL_PACKAGES:
            raise StorageError(
                f"{protocol}:// is not a known kind of storage.",
                f"Use a path or one of {', '.join(p + '://' for p in ('file', *PROTOCOL_PACKAGES))}.",
            )
        if "@" in path.split("/")[0]:
            raise StorageError(
                f"A {protocol}:// URI carries credentials (not shown).",
                "Name environment variables in storage.access_key_env and storage.secret_key_env instead.",
            )
        if not path.strip("/"):
            raise StorageError(f"{uri} names no bucket.", f"Write {protocol}://bucket/prefix.")
        return cls(protocol, path.strip("/"), options)

    @property
    def uri(self) -> str:
        """Absolute path for local folders, else protocol://bucket/prefix."""
        return self.root if self.is_local else f"{self.protocol}://{self.root}"

    @property
    def is_local(self) -> bool:
        """Whether this is a folder of this machine's file system."""
        return self.protocol == "file"

    @property
    def bucket(self) -> str:
        """First part of the path; meaningless for local folders."""
        return self.root.split("/")[0]

    def child(self, prefix: str) -> Storage:
        """The folder `prefix` inside this one; shares its connections."""
        child = Storage(self.protocol, self._path(prefix), self.options)
        child._connection = self._connection
        return child

    def read(self, key: str) -> bytes:
        """The whole object.

        Raises:
            MissingKeyError: there is no such object.
            StorageError: any other failure that the user can fix.
        """
        path = self._path(key)

        def read() -> bytes:
            if self.is_local:
                return local_files.read(path)
            size = self._size(path)  # before the read: if the object is replaced in between, it is retried
            one_request = {"max_concurrency": 1} if self.protocol == "s3" else {}
            return storage_errors.of_length(self.filesystem.cat_file(path, **one_request), size)

        return self._retried(key, read)

    def read_range(self, key: str, start: int, stop: int) -> bytes:
        """Bytes [start, stop) of an object; shorter where the object ends before `stop`."""
        if start == stop:
            return b""  # s3fs would answer with the whole object
        path = self._path(key)

        def read() -> bytes:
            if self.is_local:
                with open(path, "rb") as file:
                    return os.pread(file.fileno(), stop - start, start)
            try:
                content = self.filesystem.cat_file(path, start=start, end=stop)
            except OSError as error:
                if storage_errors.is_beyond_the_end(error):
                    return b""
                raise
            if len(content) == stop - start:
                return content
            # The end of the object, or an answer that was cut short.
            return storage_errors.of_length(content, max(min(stop, self._size(path)) - start, 0))

        return self._retried(key, read)

    def write(self, key: str, data: bytes) -> None:
        """Put an object whole or not at all, in place of an earlier one."""
        path = self._path(key)
        if self.is_local:
            self._retried(key, lambda: local_files.write(path, data))
        else:
            self._retried(key, lambda: self.filesystem.pipe_file(path, data))

    def create(self, key: str, data: bytes) -> bool:
        """Put an object whole, only if there is none yet; returns whether the object is now `data`.

        Of several callers at the same time one gets True on local folders, S3, GCS and Azure. Stores that
        imitate S3 may return True to all callers within the same milliseconds (Swift does) and keep the last
        object: where that matters, read it again a moment later. `data` should differ between callers: an
        answer may be lost, and the client may retry by itself, so the object's content is compared.
        """
        path = self._path(key)

        def put() -> bool:
            try:
                if self.is_local:
                    local_files.create(path, data)
                else:
                    self.filesystem.pipe_file(path, data, mode="create")
            except Exception as error:
                if storage_errors.is_taken(error):
                    return self._holds(key, data)
                raise
            return True

        return self._retried(key, put)

    def upload(self, local_path: str | Path, key: str) -> None:
        """Copy a local file to `key`, whole or not at all."""
        path, source = self._path(key), str(local_path)
        if self.is_local:
            self._retried(key, lambda: local_files.copy(source, path))
        else:
            self._retried(key, lambda: self.filesystem.put_file(source, path))

    def download(self, key: str, local_path: str | Path) -> None:
        """Copy `key` to a local file, whole or not at all."""
        path = self._path(key)

        def fetch(temporary: str) -> None:
            if self.is_local:
                local_files.copy_synced(path, temporary)
                return
            self.filesystem.get_file(path, temporary)
            storage_errors.check_length(Path(temporary).stat().st_size, self._size(path))

        folder = str(Path(local_path).absolute().parent)
        self._retried(key, lambda: local_files.replace(str(local_path), fetch), folder=folder)

    def list(self, prefix: str = "") -> list[tuple[str, int]]:
        """(key, size_bytes) of every object in the folder `prefix` and below, sorted by key."""
        base = self._path(prefix)
        if self.is_local:
            return self._retried(prefix, lambda: local_files.list_files(Path(base), Path(self.root)))

        def find() -> list[tuple[str, int]]:
            self.filesystem.invalidate_cache()
            found = self.filesystem.find(base, detail=True)
            skip = len(self.root) + 1
            return sorted((path[skip:], int(info["size"])) for path, info in found.items() if path != base)

        return self._retried(prefix, find)

    def size(self, key: str) -> int:
        """Size of an object in bytes.

        Raises:
            MissingKeyError: there is no such object.
        """
        path = self._path(key)
        if self.is_local:
            return self._retried(key, lambda: local_files.state(path).st_size)
        return self._retried(key, lambda: self._size(path))

    def state(self, key: str) -> tuple[int, str]:
        """Size in bytes, and what changes with the content: a file's time of change, an object's ETag.

        Raises:
            MissingKeyError: there is no such object.
        """
        path = self._path(key)
        if self.is_local:
            found = self._retried(key, lambda: local_files.state(path))
            return found.st_size, str(found.st_mtime_ns)
        info = self._retried(key, lambda: self._info(path))
        return int(info["size"]), next((str(info[name]) for name in CONTENT_TAGS if info.get(name)), "")

    def exists(self, key: str) -> bool:
        """Whether there is an object at `key`."""
        try:
            self.size(key)
        except MissingKeyError:
            return False
        return not self.is_local or Path(self._path(key)).is_file()

    def delete(self, key: str) -> None:
        """Remove an object, if there is one."""
        path = self._path(key)
        with contextlib.suppress(MissingKeyError):
            if self.is_local:
                self._retried(key, lambda: Path(path).unlink())
            else:
                self._retried(key, lambda: self.filesystem.rm_file(path))

    def check(self, write: bool = False) -> None:
        """Check whether this folder can be used, at the cost of one request (three when writing).

        A local folder that was not there is not there afterwards: a job that is refused later leaves nothing.

        Raises:
            StorageError: one line for a wrong key or secret, a missing bucket, an unreachable endpoint, a
                missing local folder, or no permission to write.
        """
        made: list[Path] = []
        if self.is_local and not write:
            if not self._retried("", Path(self.root).is_dir):
                raise StorageError(f"{self.uri} is not a folder.", "Check the path.")
        elif self.is_local:
            made = self._retried("", lambda: local_files.make_folders(Path(self.root)))
        elif self.protocol == "s3":
            self._retried("", self._list_one, retries=1)
        elif not self._retried("", lambda: self.filesystem.exists(self.bucket), retries=1):
            raise StorageError(
                f"{self.protocol}://{self.bucket} does not exist.", "Create it or check the name."
            )
        if write:
            probe = f".plinth-write-check-{uuid.uuid4().hex}"
            self.write(probe, b"")
            self.delete(probe)
            local_files.remove_empty(made)

    @property
    def filesystem(self) -> Any:
        """This process's fsspec file system, opened on first use.

        Raises:
            StorageError: a package or an environment variable is missing.
        """
        connection = self._connection
        with connection.lock:
            if connection.filesystem is None or connection.opened_in != os.getpid():
                connection.filesystem = self._open()
                connection.opened_in = os.getpid()
            return connection.filesystem

    def _open(self) -> Any:
        import fsspec  # here: `poma --help` and `poma config` open no file system

        arguments = s3_arguments(self.options) if self.protocol == "s3" else {}
        try:
            filesystem = fsspec.filesystem(
                self.protocol, skip_instance_cache=True, use_listings_cache=False, **arguments
            )
        except ImportError as error:
            raise StorageError(
                f"{self.protocol}:// needs the package {PROTOCOL_PACKAGES[self.protocol]}.",
                f"pip install {PROTOCOL_PACKAGES[self.protocol]}",
            ) from error
        if self.protocol == "s3":
            filesystem.retries = 1  # `_retried` does the retries; nested ones multiply the wait
        return filesystem

    def _path(self, key: str) -> str:
        parts = PurePosixPath(key).parts
        if ".." in parts or (self.is_local and key.startswith("/")):
            raise ValueError(f"{key!r} is not a key relative to {self.uri}")
        if not self.is_local and ("//" in key or key.startswith("/")):
            return f"{self.root}/{key}"  # in a store a//b is another object than a/b
        return "/".join((self.root, *parts))

    def _retried(
        self, key: str, operation: Callable[[], T], retries: int | None = None, folder: str = ""
    ) -> T:
        """Run `operation` with retries; `folder` is where it writes on this machine."""
        return retry(
            operation,
            name=f"{self.uri}/{key}" if key else self.uri,
            options=self.options if retries is None else replace(self.options, retries=retries),
            folder=folder or (str(Path(self._path(key)).parent) if self.is_local else ""),
            ask_why=self._denial if self.protocol == "s3" else None,
        )

    def _size(self, path: str) -> int:
        return int(self._info(path)["size"])

    def _info(self, path: str) -> dict[str, Any]:
        self.filesystem.invalidate_cache()
        info: dict[str, Any] = self.filesystem.info(path)
        if info["type"] == "directory":
            raise FileNotFoundError(path)
        return info

    def _holds(self, key: str, data: bytes) -> bool:
        try:
            return self.read(key) == data
        except MissingKeyError:
            return False

    def _list_one(self) -> None:
        prefix = self.root[len(self.bucket) + 1 :]
        self.filesystem.call_s3("list_objects_v2", Bucket=self.bucket, Prefix=prefix, MaxKeys=1)

    def _denial(self) -> Exception | None:
        """Why a HEAD was denied: only an answer with a body tells a wrong secret from a missing right."""
        try:
            self._list_one()
        except Exception as error:
            return error
        return None

    def __reduce__(self) -> tuple[type[Storage], tuple[str, str, StorageOptions]]:
        return type(self), (self.protocol, self.root, self.options)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Storage) and self.__reduce__() == other.__reduce__()

    def __hash__(self) -> int:
        return hash((self.protocol, self.root))

    def __repr__(self) -> str:
        return f"Storage({self.uri!r})"


class _Connection:
    """A process's file system, shared by folders: opening one takes up to a second."""

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.filesystem: Any = None
        self.opened_in: int | None = None
