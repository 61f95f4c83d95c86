"""python -m tests.loopback_hub --folder FOLDER [--port PORT]

Prints its URL, then the accounts with their tokens, and serves until Ctrl-C.
"""

import argparse
import signal
from pathlib import Path

from . import ACCOUNTS, LoopbackHub

ENDINGS = {signal.SIGINT, signal.SIGTERM}


def main() -> None:
    parser = argparse.ArgumentParser(prog="loopback_hub", description=__doc__)
    parser.add_argument("--folder", type=Path, required=True, help="keeps files and commits")
    parser.add_argument("--port", type=int, default=0, help="0: a free one")
    arguments = parser.parse_args()
    signal.pthread_sigmask(signal.SIG_BLOCK, ENDINGS)  # for sigwait, before threads start
    with LoopbackHub(arguments.folder, port=arguments.port) as hub:
        print(hub.url, flush=True)
        for account in ACCOUNTS:
            print(f"{account.user} ({account.role}): {account.token}", flush=True)
        signal.sigwait(ENDINGS)


if __name__ == "__main__":
    main()
