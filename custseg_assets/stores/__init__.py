"""Storage and outside systems, without rules: files, Delta tables, the landing zone, releases, the model registry."""
