"""What the subcommands of ``custseg`` do, one module each.

Their arguments are parsed in ``cli``.
"""
