"""The output of a frozen prefix, computed once for each sample and kept on disk."""
