"""Decisions about models: when to retrain, and whether a challenger takes over."""
