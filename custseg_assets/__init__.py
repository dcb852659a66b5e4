"""custseg's pipeline: from a shop's transaction log to released customer segments."""
