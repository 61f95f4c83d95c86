"""What libraries say that means nothing to whoever runs a command of ours, each with its reason.

To import this module silences it, in this process and in those forked from it.
"""

import logging

# It misses an optional kernel that is not used here, and says so whenever PEFT imports it.
logging.getLogger("bitsandbytes.backends.cpu.ops").setLevel(logging.ERROR)
