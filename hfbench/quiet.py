"""What libraries say that means nothing to whoever runs a command of ours, each with its reason.

To import this module silences exactly these lines, in this process and in those forked from it.
Everything else that a library says is heard.
"""

import logging
import re
import warnings


class _Without(logging.Filter):
    """Drops a logger's own lines that begin with ``pattern``."""

    def __init__(self, pattern: str) -> None:
        super().__init__()
        self.pattern = re.compile(pattern)

    def filter(self, record: logging.LogRecord) -> bool:
        return not self.pattern.match(record.getMessage())


_LINES = (
    # It misses an optional kernel that is not used here, and says so whenever PEFT imports it.
    ("bitsandbytes.backends.cpu.ops", r"Failed to load CPU gemm_4bit_forward"),
    # Public repositories need no account; where one is needed, the error says so.
    ("huggingface_hub.utils._http", r".*unauthenticated requests"),
    # The wait has a line of ours.
    ("matplotlib.font_manager", r"Matplotlib is building the font cache"),
    # The checkpoint has a head for other labels; what becomes of it has a line of ours.
    ("transformers.configuration_utils", r"You passed `num_labels="),
    # Short texts get the whole attention: the same task, sooner.
    ("transformers.models.big_bird.modeling_big_bird", r"Attention type 'block_sparse' is not"),
    # How the architecture reads a text; padding is masked.
    (
        "transformers.models.longformer.modeling_longformer",
        r"Initializing global attention on CLS token|Input ids are automatically padded",
    ),
    # A cache that cannot be kept costs a moment, and a line of ours names the folder.
    ("matplotlib", r"mkdir -p failed for path|Matplotlib created a temporary cache directory"),
    ("matplotlib", r".* is not a writable directory"),
)

_WARNINGS = (
    # Pixels are converted to the colours that the checkpoint takes; transparency is left out.
    (r"Palette images with Transparency expressed in bytes", UserWarning, r"PIL\.Image"),
    # Data about an image, not its pixels; unreadable ones are counted in the notes.
    (r"Corrupt EXIF data", UserWarning, r"PIL\.TiffImagePlugin"),
)


def silence_warnings() -> None:
    for message, category, module in _WARNINGS:
        warnings.filterwarnings("ignore", message, category, module)


for _logger, _pattern in _LINES:
    logging.getLogger(_logger).addFilter(_Without(_pattern))
silence_warnings()
