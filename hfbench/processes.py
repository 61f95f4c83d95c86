"""Which processes of this machine live. Standard library only."""

import os
from pathlib import Path


def lives(process_id: int) -> bool:
    """Whether it exists and has not ended; a child that nobody asked for its end does not live."""
    try:
        os.kill(process_id, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    try:
        stat = Path(f"/proc/{process_id}/stat").read_text()
    except OSError:  # no Linux, or gone just now
        return not Path("/proc/self").exists()
    return stat.rpartition(")")[2].split()[0] not in "ZX"
