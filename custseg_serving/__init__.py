"""The HTTP service for segment lookups and scores. It reads releases and imports nothing of the pipeline but those."""
