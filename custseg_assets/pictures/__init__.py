"""Pictures of what the pipeline found, as PNG bytes: frames and values in, bytes out; no files, clock or Dagster."""
