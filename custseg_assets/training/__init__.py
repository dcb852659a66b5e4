"""Training a challenger: what a trainer is given and leaves, the steps it takes, and how it is started on this machine.

Starting it on Google Cloud belongs in ``gcp``.
"""
