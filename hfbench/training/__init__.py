"""The one training loop, its batches, its optimiser, its evaluation and its saved state."""
