"""Publishing: what is published, how it travels, and what may go wrong on the way."""
