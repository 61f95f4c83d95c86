"""Tables and images made from results."""
