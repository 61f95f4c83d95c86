"""Data from the hub, from local files and from the package, as labelled train/validation/test."""
