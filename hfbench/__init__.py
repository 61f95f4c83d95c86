"""How much of a pretrained model should be trained? Answers with measured numbers."""

__version__ = "0.1.0"
