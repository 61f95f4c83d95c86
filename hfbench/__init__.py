"""How much of a pretrained model should be trained? Answers with measured numbers."""

import logging

# It misses an optional kernel that is not used here, and says so whenever PEFT imports it.
logging.getLogger("bitsandbytes.backends.cpu.ops").setLevel(logging.ERROR)

__version__ = "0.1.0"
