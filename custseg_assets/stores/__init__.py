"""Storage and outside systems: files, Delta tables, the landing zone, releases, the model registry.

The rules about what is stored do not belong here; they are in ``domain``.
"""
