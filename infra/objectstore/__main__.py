"""A local S3 server: `python -m infra.objectstore --bucket rooms`, stopped with Ctrl-C."""

from __future__ import annotations

import argparse
import signal
from pathlib import Path

from infra.objectstore.install import ObjectStoreError
from infra.objectstore.server import running


def main() -> None:
    """Serve until interrupted, after printing what a shell and a job file need to use it."""
    parser = argparse.ArgumentParser(prog="python -m infra.objectstore", description=__doc__)
    parser.add_argument("--bucket", action="append", default=[], help="make this bucket; may be repeated")
    parser.add_argument("--data", type=Path, help="keep the objects in this folder (default: until the end)")
    arguments = parser.parse_args()
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        with running(arguments.data) as store:
            print(f"export POMA_ACCESS_KEY='{store.access_key}'")
            print(f"export POMA_SECRET_KEY='{store.secret_key}'")
            print("# and in the job file or on the command line:")
            print(f"#   storage.endpoint_url={store.endpoint_url} storage.region={store.region}")
            print("#   storage.access_key_env=POMA_ACCESS_KEY storage.secret_key_env=POMA_SECRET_KEY")
            for bucket in arguments.bucket:
                print(f"# bucket: {store.create_bucket(bucket)}")
            print("# Ctrl-C stops it.", flush=True)
            signal.pause()
    except KeyboardInterrupt:
        pass
    except ObjectStoreError as error:
        raise SystemExit(str(error)) from error


if __name__ == "__main__":
    main()
